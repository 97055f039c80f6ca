"""A simulated fleet in one process: a central cloud and its sites, each a subcloud with hosts.

Everything but the machines is real: stores on SQLite, controllers, the protocol and, unless the plan
says `memory`, mutual TLS on loopback sockets with certificates of the centre's authority.

    async with SimulatedFleet(directory, 200) as fleet:
        await fleet.until(fleet.all_online, 60, "every subcloud is online")
        fleet.sites[7].cut()

What is waited for is a condition with a deadline: `until` asks again until it holds, or fails with what
was missing. `checking.differences` tells whether all stores agree.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from roost.link.exchange import Unreachable
from roost.link.lower import Backoff, LowerLink
from roost.link.pki import Authority
from roost.link.session import Timing
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec, FirewallRule
from roost.model.fleet import SubcloudSelector
from roost.model.meta import Metadata
from roost.sim.cloud import SimulatedCloud, World
from roost.sim.subcloud import Above, SimulatedSubcloud, SitePlan, open_all
from roost.store.transaction import Transaction

CENTRE = "central"
TIMING = Timing(heartbeat=5.0, lost_after=60.0, hello_within=60.0)
"""Patient, for hundreds of clouds share one process and its processor."""
BACKOFF = Backoff(first=0.2, cap=2.0)
LOOK_SECONDS = 0.25
SHOWN = 10

Condition = Callable[[], Awaitable[str]]
"""What is still missing, in words; empty when it holds."""


class NotSettled(AssertionError):
    """A condition did not come true in time."""

    def __init__(self, what: str, seconds: float, missing: str) -> None:
        super().__init__(f"not within {seconds:g} s: {what}; {missing}")
        self.what, self.missing = what, missing


class SimulatedFleet:
    """A centre with `subclouds` sites, managed and dialling once entered; everything ended on leaving."""

    def __init__(
        self,
        directory: Path,
        subclouds: int,
        *,
        plan: SitePlan | None = None,
        timing: Timing = TIMING,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        inline: bool = False,
    ) -> None:
        """`inline` runs the centre's store, too, in the event loop's thread: for a fake clock."""
        self._directory, self._count, self._plan = directory, subclouds, plan or SitePlan()
        self._timing, self._clock, self._inline = timing, clock, inline
        self._collecting = gc.get_threshold()
        self.sites: list[SimulatedSubcloud] = []
        self.centre: SimulatedCloud

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    # -- acting

    async def share_policy(self, name: str, ports: list[str]) -> None:
        """Declare, or change, a firewall policy at the centre for every site."""
        rule = FirewallRule(action="allow", protocol="tcp", ports=ports)
        spec = FirewallPolicySpec(networks=["oam"], rules=[rule], subclouds=SubcloudSelector())
        await self.centre.store.transact(lambda tx: tx.save(_policy(tx, name, CENTRE, spec)))

    # -- conditions

    async def until(self, condition: Condition, seconds: float, what: str) -> None:
        """Wait until a condition holds; raises NotSettled with what is missing."""
        missing = "it was never looked at"
        try:
            async with asyncio.timeout(seconds):
                while missing := await condition():  # noqa: ASYNC110 - any fact can be asked for
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise NotSettled(what, seconds, missing) from None

    async def all_online(self) -> str:
        """Whether the centre holds every site that is not cut to be online, and every other offline."""
        wanted = {s.name: "offline" if s.way.is_cut else "online" for s in self.sites}
        subclouds = await self.centre.store.every(Subcloud)
        found = {s.metadata.name: s.status.availability for s in subclouds}
        return _missing(name for name, state in wanted.items() if found.get(name) != state)

    async def all_in_sync(self) -> str:
        """Whether shared intent is in force in every site that is not cut, as the centre sees it."""
        cut = {s.name for s in self.sites if s.way.is_cut}
        subclouds = [s for s in await self.centre.store.every(Subcloud) if s.metadata.name not in cut]
        late = [s.metadata.name for s in subclouds if s.status.sync != "in-sync"]
        shared = [
            s for s in await self.centre.store.every(FirewallPolicy, CENTRE) if s.spec.subclouds is not None
        ]
        for policy in shared:
            status = policy.status
            told = status.observed_generation == policy.metadata.generation
            if not told or status.subclouds != len(self.sites) or status.in_sync < len(subclouds):
                late.append(f"policy {policy.metadata.name}: {status.in_sync} of {status.subclouds}")
        return _missing(late)

    async def all_in_step(self) -> str:
        """Whether both ends of every link that is not cut have acknowledged all there is."""
        late = []
        for site in self.sites:
            if not site.way.is_cut and not _in_step(self.centre, site.cloud.uplink):
                late.append(site.name)
            late += [str(h.node) for h in site.hosts if not _in_step(site.cloud, h.link)]
        return _missing(late)

    # -- inside

    async def _open(self) -> None:
        seldom_collect()
        authority = await asyncio.to_thread(Authority.open, self._directory / "pki", CENTRE, self._clock())
        world = World(
            directory=self._directory,
            authority=authority,
            clock=self._clock,
            timing=self._timing,
            backoff=BACKOFF,
        )
        addresses = () if self._plan.memory else (("127.0.0.1", 0),)
        self.centre = SimulatedCloud(world, CENTRE, addresses=addresses, inline=self._inline)
        await self.centre.open()
        self.centre.start()
        link = self.centre.upper
        above = Above(name=CENTRE, link=link)
        if not self._plan.memory:
            above = Above(name=CENTRE, endpoint=f"127.0.0.1:{link.ports[0]}")
        self.sites = [SimulatedSubcloud(n, world, above, self._plan) for n in range(self._count)]
        await self.centre.store.transact(self._declare)
        await open_all(self.sites)

    async def _close(self) -> None:
        gc.set_threshold(*self._collecting)
        if hasattr(self, "centre"):
            await self.centre.close()
        await asyncio.gather(*(site.close() for site in self.sites))

    def _declare(self, tx: Transaction) -> None:
        for site in self.sites:
            spec = SubcloudSpec(management_state="managed")
            tx.save(Subcloud(metadata=Metadata(name=site.name), spec=spec))


def seldom_collect() -> None:
    """Hundreds of clouds are millions of objects that live on; looking at all of them again and again would
    take a quarter of the time."""
    gc.set_threshold(50_000, 20, 100)


def _in_step(upper: SimulatedCloud, link: LowerLink | None) -> bool:
    """Whether each end of a link has acknowledged all that the other has for it."""
    if link is None or not link.in_step:
        return False
    try:
        return upper.upper.progress(link.node).in_step
    except Unreachable:
        return False


def _policy(tx: Transaction, name: str, namespace: str, spec: FirewallPolicySpec) -> FirewallPolicy:
    current = tx.seek(FirewallPolicy, namespace, name)
    policy = current or FirewallPolicy(metadata=Metadata(name=name, namespace=namespace), spec=spec)
    return msgspec.structs.replace(policy, spec=spec)


def _missing(names: Iterable[str]) -> str:
    """The first few of what is missing; empty when nothing is."""
    late = sorted(names)
    more = f" and {len(late) - SHOWN} more" if len(late) > SHOWN else ""
    return ", ".join(late[:SHOWN]) + more
