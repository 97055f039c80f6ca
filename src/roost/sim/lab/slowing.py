"""Make the links of a running laboratory's sites bad, and good again. What that means is said in `uplink`."""

from __future__ import annotations

from collections.abc import Callable

from roost.sim.lab.delaying import Delay, open_tunnel
from roost.sim.lab.namespaces import Namespaces, within
from roost.sim.lab.network import change_rules, has_ipv6, run_lines
from roost.sim.lab.topology import BACKBONE, SitePlan
from roost.sim.lab.uplink import (
    DOWN,
    UP,
    Impairment,
    checked,
    no_rules,
    no_ways,
    rules,
    shaping,
    ways,
    whole_packets,
)

_NONE = Impairment()


class Slowing:
    """The impairments of all sites' links. To be used by one task at a time; `close` it in the end."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._delays: dict[str, list[Delay]] = {}
        self._now: dict[str, Impairment] = {}

    def of(self, site: str) -> Impairment | None:
        """What a site's link suffers now."""
        return self._now.get(site)

    async def apply(self, site: SitePlan, impairment: Impairment) -> None:
        """Let a link suffer this, in place of anything it suffered before; raises LabError."""
        checked(impairment)
        await self.remove(site)
        self._now[site.name] = impairment
        try:
            await self._shape(site, impairment)
            if impairment.delay:
                await self._delay(site, impairment.delay / 1000)
            await change_rules(self._namespaces, site.router, rules(impairment))
        except BaseException:
            await self.remove(site)
            raise

    async def remove(self, site: SitePlan) -> None:
        """Let a link suffer nothing."""
        if self._now.pop(site.name, None) is None:
            return
        if delays := self._delays.pop(site.name, []):
            await self._ip(site, no_ways())
            for delay in delays:
                delay.close()
        await change_rules(self._namespaces, site.router, no_rules())
        await self._shape(site, _NONE)

    async def _shape(self, site: SitePlan, impairment: Impairment) -> None:
        for namespace, port in ((site.router, "wan"), (BACKBONE, site.name)):
            await run_lines(self._namespaces, namespace, ["tc", "-batch", "-"], [shaping(impairment, port)])
            await run_lines(self._namespaces, namespace, ["ip", "-batch", "-"], [whole_packets(port)])

    async def _delay(self, site: SitePlan, seconds: float) -> None:
        namespace = self._namespaces[site.router]
        delays = self._delays[site.name] = []
        for name in (UP, DOWN):
            delays.append(Delay(await within(namespace, _opening(name)), seconds))
        up = [f"link set {name} up" for name in (UP, DOWN)]
        await run_lines(self._namespaces, site.router, ["ip", "-batch", "-"], up)
        await self._ip(site, ways())

    async def _ip(self, site: SitePlan, lines: list[str]) -> None:
        for family in ("-4", "-6") if has_ipv6() else ("-4",):
            await run_lines(self._namespaces, site.router, ["ip", family, "-batch", "-"], lines)

    def close(self) -> None:
        """Let go of every device; the rest goes with the namespaces."""
        for delays in self._delays.values():
            for delay in delays:
                delay.close()
        self._delays.clear()


def _opening(name: str) -> Callable[[], int]:
    return lambda: open_tunnel(name)
