"""A cloud on fake time whose hosts have agents that answer at once, or do not answer at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from roost.cloud.configuration import PlatformPorts
from roost.cloud.controllers import controllers
from roost.model.cloud import Cloud
from roost.model.configuration import AspectStatus, HostConfiguration
from roost.model.fault import Alarm, LogEntry
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec, FirewallRule
from roost.model.health import CheckReport, CheckResult, ReportState
from roost.model.host import AgentState, Host, HostSpec, HostStatus, Inventory, Port, Reading, Thresholds
from roost.model.meta import Metadata
from roost.model.network import PlatformNetwork, PlatformNetworkSpec
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.stores import CLOUD, World, world

PORTS = PlatformPorts(links=(8443,), dialled=(9443,))
WELL = [Reading(monitor="processor", level="normal"), Reading(monitor="memory", level="normal")]


class Site(World):
    """The controllers of one cloud, its hosts and what their agents say."""

    def __init__(self, made: World) -> None:
        super().__init__(made.store, made.clock)
        self.obeys: set[str] = set()
        self.boots: dict[str, int] = {}
        self.ill: dict[str, CheckResult] = {}
        """By host, the check that fails; one that is `running` never ends."""
        self.staying: dict[str, str] = {}
        """By host, what its drain hook says while workloads stay."""
        self.looks: list[str] = []
        """Requests that were answered, in order."""
        self._agents: asyncio.Task[None] | None = None

    def work(self, holder: str = "one") -> None:
        """Start the controllers, and the agents if they do not run."""
        presence = lambda name: self.presence(name)  # noqa: E731 - the book changes with a restart
        self.start(controllers(CLOUD, "1", presence, PORTS, holder, {}).values())
        if self._agents is None:
            self._agents = asyncio.ensure_future(self._obey())

    async def end(self) -> None:
        """End agents and controllers."""
        if self._agents is not None:
            self._agents.cancel()
            await asyncio.gather(self._agents, return_exceptions=True)
        await self.stop()

    # -- what people do

    async def declare(self, name: str = "h", **spec: Any) -> Host:
        return await self.store.save(
            Host(metadata=Metadata(name=name, namespace=CLOUD), spec=HostSpec(**spec))
        )

    async def specify(self, name: str = "h", **spec: Any) -> None:
        def work(tx: Transaction) -> None:
            host = tx.load(Host, CLOUD, name)
            tx.save(msgspec.structs.replace(host, spec=msgspec.structs.replace(host.spec, **spec)))

        await self.store.transact(work)

    async def reconfigure(self, hysteresis: int, name: str = "h") -> None:
        """Change something that reaches the host's configuration."""
        await self.specify(name, thresholds=Thresholds(hysteresis=hysteresis))

    # -- what agents do

    async def join(self, name: str = "h", **status: Any) -> None:
        """The agent connects and tells what it sees."""
        self.boots.setdefault(name, 1)
        self.obeys.add(name)
        told = {
            "inventory": Inventory(ports=[Port(name="eth0", addresses=["192.0.2.7/24"])]),
            "readings": WELL,
            "agent": AgentState(boot_id=f"boot-{self.boots[name]}", version="1"),
        } | status
        await self.tell(name, **told)
        await put_in_force(self.store, name)
        self.up(name)
        await self.look(name)

    async def look(self, name: str = "h") -> None:
        """Answer what the host is asked to check, once for each request and start; and its drain."""

        def work(tx: Transaction) -> str:
            host, configuration = tx.load(Host, CLOUD, name), tx.seek(HostConfiguration, CLOUD, name)
            if configuration is None or host.status.health is None:
                return ""
            boot, said = host.status.agent.boot_id, host.status.health
            health, drain = configuration.spec.health, configuration.spec.drain
            asked = ""
            if health is not None and (said.request, said.boot_id) != (health.id, boot):
                bad = self.ill.get(name)
                check = bad or CheckResult(name="10-disk", state="passed")
                state = "passed" if bad is None else "running" if bad.state == "running" else "failed"
                said = CheckReport(request=health.id, boot_id=boot, state=state, checks=[check])  # type: ignore[arg-type]
                asked = health.id
            left = None
            if drain is not None:
                stays = self.staying.get(name)
                hook = CheckResult(name="50-move", state="failed" if stays else "passed", message=stays or "")
                stand: ReportState = "running" if stays else "passed"
                left = CheckReport(request=drain.id, boot_id=boot, state=stand, checks=[hook])
            status = msgspec.structs.replace(host.status, health=said, drain=left or CheckReport())
            if status != host.status:
                tx.report(msgspec.structs.replace(host, status=status))
            return asked

        asked = await self.store.transact(work)
        if asked:
            self.looks.append(asked)

    async def tell(self, name: str = "h", **status: Any) -> None:
        def work(tx: Transaction) -> None:
            host = tx.load(Host, CLOUD, name)
            tx.report(msgspec.structs.replace(host, status=msgspec.structs.replace(host.status, **status)))

        await self.store.transact(work)

    async def _obey(self) -> None:
        """Put in force what is compiled for hosts that obey; restart when told so."""
        async for batch in self.store.watch(0):
            for change in batch.changes:
                if (
                    change.kind == "HostConfiguration"
                    and change.type != "DELETED"
                    and change.name in self.obeys
                ):
                    await put_in_force(self.store, change.name)
                    await self.look(change.name)
                    await self._restart_if_told(change.name)

    async def _restart_if_told(self, name: str) -> None:
        configuration = await self.store.load(HostConfiguration, CLOUD, name)
        if configuration.spec.reboot_from == f"boot-{self.boots[name]}":
            self.down(name)
            self.boots[name] += 1
            await asyncio.sleep(5)
            knows = (await self.host(name)).health is not None
            await self.join(name, **({"health": CheckReport()} if knows else {}))

    # -- what is seen

    async def host(self, name: str = "h") -> HostStatus:
        return (await self.store.load(Host, CLOUD, name)).status

    async def state(self, name: str = "h") -> tuple[str, str, str]:
        status = await self.host(name)
        return (status.administrative, status.operational, status.availability)

    async def alarms(self) -> dict[str, str]:
        return {a.status.alarm_id: a.status.severity for a in await self.store.every(Alarm, CLOUD)}

    async def events(self) -> list[tuple[str, str, str]]:
        """Event, alarm and text of the log."""
        return [
            (e.status.event, e.status.alarm_id, e.status.text)
            for e in await self.store.every(LogEntry, CLOUD)
        ]

    async def unlocked(self, name: str = "h", **status: Any) -> None:
        """Declare, join and unlock a host."""
        await self.declare(name)
        await self.join(name, **status)
        await asyncio.sleep(1)
        await self.specify(name, administrative_state="unlocked")
        await asyncio.sleep(10)
        assert await self.state(name) == ("unlocked", "enabled", "available")
        assert await self.alarms() == {}


async def put_in_force(store: Store, name: str, **aspect: Any) -> None:
    """The host reports on its configuration: applied, or as `aspect` says."""

    def work(tx: Transaction) -> None:
        configuration = tx.seek(HostConfiguration, CLOUD, name)
        if configuration is None:
            return
        generation = configuration.metadata.generation
        if aspect:
            aspects = [AspectStatus(generation=generation, **aspect)]
            status = msgspec.structs.replace(configuration.status, aspects=aspects)
        else:
            status = msgspec.structs.replace(configuration.status, applied_generation=generation, aspects=[])
        tx.report(msgspec.structs.replace(configuration, status=status))

    await store.transact(work)


@contextlib.asynccontextmanager
async def site(mode: str = "standard") -> AsyncIterator[Site]:
    """A cloud with its Cloud resource and nothing else; `work` starts it."""
    async with world() as made:
        place = Site(made)
        await made.store.save(Cloud(metadata=Metadata(name=CLOUD)))
        try:
            yield place
        finally:
            await place.end()


def network(name: str, type: str, *subnets: str) -> PlatformNetwork:
    """A platform network."""
    spec = PlatformNetworkSpec(type=type, subnets=list(subnets))  # type: ignore[arg-type]
    return PlatformNetwork(metadata=Metadata(name=name, namespace=CLOUD), spec=spec)


def policy(
    name: str, *rules: FirewallRule, networks: tuple[str, ...] = ("oam",), **spec: Any
) -> FirewallPolicy:
    """A firewall policy."""
    made = FirewallPolicySpec(networks=list(networks), rules=list(rules), **spec)  # type: ignore[arg-type]
    return FirewallPolicy(metadata=Metadata(name=name, namespace=CLOUD, generation=1), spec=made)
