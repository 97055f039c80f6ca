"""The agent on a fake clock: what it tells, what it puts in force, when it restarts its machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import pytest

from roost.engine.clock import LoopClock
from roost.host.agent import Agent, AgentIdentity
from roost.host.aspect import Aspect as AnyAspect
from roost.host.aspect import AspectFacts, AspectOutcome
from roost.host.machine import RestartFailed
from roost.host.sampling import PortState, Sample
from roost.model.codec import encode
from roost.model.configuration import (
    AspectStatus,
    HostConfiguration,
    HostConfigurationSpec,
    HostConfigurationStatus,
)
from roost.model.fault import LogEntry
from roost.model.host import Host, HostStatus, Inventory, Memory, Processors, Reading
from roost.model.meta import Metadata
from roost.store.errors import Unavailable
from roost.store.store import Store
from roost.store.transaction import UP, Transaction
from tests.support.clock import START, on_fake_time
from tests.support.stores import new_database, opened

CLOUD, HOST = "harbor", "worker-0"


class Aspect:
    """An aspect that answers what it is told to."""

    name = "firewall"

    def __init__(self) -> None:
        self.seen: list[tuple[int, AspectFacts]] = []
        self.held = 0
        self.answer: Callable[[int, AspectFacts], AspectOutcome] = lambda generation, _: AspectOutcome(
            AspectStatus(aspect="firewall", state="applied", generation=generation), 60.0
        )

    async def reconcile(
        self, spec: HostConfigurationSpec, generation: int, facts: AspectFacts
    ) -> AspectOutcome:
        self.seen.append((generation, facts))
        return self.answer(generation, facts)

    async def hold(self, facts: AspectFacts) -> AspectOutcome:
        self.held += 1
        return self.answer(0, facts)


class Machine:
    """A machine in memory."""

    def __init__(self) -> None:
        self.boot_id = "boot-1"
        self.aspect = Aspect()
        self.aspects: Sequence[AnyAspect] = (self.aspect,)
        self.has = Inventory(processors=Processors(threads=4), memory=Memory(total=8192))
        self.memory = 10.0
        self.restarts = 0
        self.refuses = ""
        self.changed = asyncio.Event()

    async def inventory(self) -> Inventory:
        return self.has

    async def sample(self) -> Sample:
        ports = {"oam0": PortState(up=True, carrier=True, virtual=True)}
        return Sample(processor=5.0, memory=self.memory, filesystems={"/": 20.0}, ports=ports)

    async def changes(self) -> AsyncIterator[None]:
        while True:
            await self.changed.wait()
            self.changed.clear()
            yield

    async def restart(self) -> None:
        if self.refuses:
            raise RestartFailed(self.refuses)
        self.restarts += 1


class Bench:
    """An agent at work on its store."""

    def __init__(self, store: Store) -> None:
        self.store, self.machine = store, Machine()
        self.link_up, self.probes = True, 0
        self.certificate_end = "2027-01-01T00:00:00Z"
        self.running: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.agent = Agent(
            store,
            AgentIdentity(cloud=CLOUD, host=HOST, version="1", incarnation="i"),
            self.machine,
            clock=LoopClock(START),
            link_up=lambda: self.link_up,
            probe=self._probe,
            certificate_expires_at=lambda: self.certificate_end,
        )

    async def stop(self) -> None:
        """End the agent."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def _probe(self) -> None:
        self.probes += 1
        if not self.link_up:
            raise ConnectionError("no way through")

    async def declare(self, **status: object) -> None:
        """The cloud's word for the host arrives."""
        host = Host(metadata=Metadata(name=HOST, namespace=CLOUD, uid="u"), status=HostStatus(**status))  # type: ignore[arg-type]
        await self.store.transact(lambda tx: tx.copy(encode(host), UP))

    async def configure(self, generation: int, spec: HostConfigurationSpec | None = None) -> None:
        """A configuration arrives."""

        def work(tx: Transaction) -> None:
            current = tx.seek(HostConfiguration, CLOUD, HOST)
            made = HostConfiguration(
                metadata=Metadata(name=HOST, namespace=CLOUD, uid="c", generation=generation),
                spec=spec or HostConfigurationSpec(),
                status=current.status if current else HostConfigurationStatus(),
            )
            tx.copy(encode(made), UP)

        await self.store.transact(work)

    async def host(self) -> HostStatus:
        return (await self.store.load(Host, CLOUD, HOST)).status

    async def configuration(self) -> HostConfigurationStatus:
        return (await self.store.load(HostConfiguration, CLOUD, HOST)).status

    async def log(self) -> list[str]:
        return [e.status.event for e in await self.store.every(LogEntry, CLOUD)]


@contextlib.asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    with new_database() as url:
        async with opened(url, clock=LoopClock(START), inline=True) as store:
            made = Bench(store)
            made.running = asyncio.ensure_future(made.agent.run())
            try:
                yield made
            finally:
                await made.stop()


@on_fake_time
async def test_what_is_known_is_told_once_the_cloud_has_declared_the_host() -> None:
    async with bench() as it:
        await asyncio.sleep(20)
        await it.declare()
        await asyncio.sleep(20)
        status = await it.host()
    assert status.inventory == it.machine.has
    assert status.agent.boot_id == "boot-1"
    assert status.agent.certificate_expires_at == "2027-01-01T00:00:00Z"
    assert {(r.monitor, r.level) for r in status.readings} >= {("memory", "normal"), ("filesystem", "normal")}


@on_fake_time
async def test_a_host_that_is_declared_while_the_agent_looks_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench() as it:
        transact, looks = it.store.transact, 0

        async def together(work: Callable[[Transaction], object]) -> object:
            """Commit the cloud's word with the last of the first looks, as one batch does."""
            nonlocal looks
            looks += work == it.agent._report
            if looks != 3:
                return await transact(work)
            host = Host(metadata=Metadata(name=HOST, namespace=CLOUD, uid="u"))
            return await transact(lambda tx: (work(tx), tx.copy(encode(host), UP)))

        monkeypatch.setattr(it.store, "transact", together)
        await asyncio.sleep(1)
        assert looks > 3
        assert (await it.host()).inventory == it.machine.has


@on_fake_time
async def test_a_renewed_certificate_is_told_though_nothing_else_has_changed() -> None:
    async with bench() as b:
        await b.declare()
        await asyncio.sleep(20)
        b.certificate_end = "2027-04-01T00:00:00Z"
        await asyncio.sleep(10)
        host = await b.store.load(Host, CLOUD, HOST)
        assert host.status.agent.certificate_expires_at == "2027-04-01T00:00:00Z"


@on_fake_time
async def test_an_unchanged_machine_writes_nothing() -> None:
    async with bench() as it:
        await it.declare()
        await asyncio.sleep(60)
        before = it.store.revision
        await asyncio.sleep(3600)
        assert it.store.revision == before


@on_fake_time
async def test_a_changed_port_is_seen_at_once_and_a_changed_part_in_time() -> None:
    async with bench() as it:
        await it.declare()
        await asyncio.sleep(10)
        it.machine.has = msgspec.structs.replace(it.machine.has, memory=Memory(total=4096))
        it.machine.changed.set()
        await asyncio.sleep(1)
        first = await it.host()
        it.machine.has = msgspec.structs.replace(it.machine.has, memory=Memory(total=2048))
        await asyncio.sleep(301)
        second = await it.host()
    assert first.inventory and first.inventory.memory.total == 4096
    assert second.inventory and second.inventory.memory.total == 2048


@on_fake_time
async def test_readings_follow_use_and_outlive_the_agent() -> None:
    async with bench() as it:
        await it.declare()
        it.machine.memory = 99.0
        await asyncio.sleep(20)
        readings = (await it.host()).readings
    assert [r.level for r in readings if r.monitor == "memory"] == ["critical"]
    async with bench() as it:
        kept = Reading(monitor="memory", level="critical", value=89.0, since="2026-01-01T00:00:00Z")
        await it.declare(readings=[kept])
        # Two agents of one host would answer each other's every word.
        await it.stop()
        again = Agent(
            it.store,
            AgentIdentity(cloud=CLOUD, host=HOST, version="1", incarnation="j"),
            it.machine,
            clock=LoopClock(START),
            link_up=lambda: True,
            probe=it._probe,
        )
        it.machine.memory = 88.5
        it.running = asyncio.ensure_future(again.run())
        await asyncio.sleep(20)
        memory = [r for r in (await it.host()).readings if r.monitor == "memory"]
    # Within the hysteresis of the level it was at: an agent without that memory would say major.
    assert [r.level for r in memory] == ["critical"]


@on_fake_time
async def test_a_configuration_in_force_is_told_with_its_generation() -> None:
    async with bench() as it:
        await it.configure(3)
        await asyncio.sleep(1)
        status = await it.configuration()
        events = await it.log()
    assert (status.observed_generation, status.applied_generation) == (3, 3)
    assert events.count("firewall-applied") == 1


@on_fake_time
async def test_a_failed_configuration_keeps_the_generation_that_is_in_force() -> None:
    async with bench() as it:
        await it.configure(1)
        await asyncio.sleep(1)
        it.machine.aspect.answer = lambda generation, _: AspectOutcome(
            AspectStatus(aspect="firewall", state="failed", generation=generation, message="no nft"), 30.0
        )
        await it.configure(2)
        await asyncio.sleep(1)
        status = await it.configuration()
        events = await it.log()
    assert (status.observed_generation, status.applied_generation) == (2, 1)
    assert status.aspects[0].message == "no nft"
    assert "firewall-failed" in events


@on_fake_time
async def test_without_a_configuration_what_was_in_force_is_held() -> None:
    async with bench() as it:
        await asyncio.sleep(1)
        assert it.machine.aspect.held > 0
        assert it.machine.aspect.seen == []


@on_fake_time
async def test_proof_of_the_link_is_sought_while_wanted_and_handed_to_the_aspect() -> None:
    async with bench() as it:

        def answer(generation: int, facts: AspectFacts) -> AspectOutcome:
            proven = facts.link_proof is not None
            state = "applied" if proven else "trial"
            status = AspectStatus(aspect="firewall", state=state, generation=generation)  # type: ignore[arg-type]
            return AspectOutcome(status, 1.0, link_proof_wanted=not proven)

        it.machine.aspect.answer = answer
        it.link_up = False
        await it.configure(1)
        await asyncio.sleep(5)
        tried = it.probes
        still = await it.configuration()
        it.link_up = True
        await asyncio.sleep(5)
        done = await it.configuration()
    assert tried >= 2
    assert still.applied_generation == 0
    assert done.applied_generation == 1


@on_fake_time
async def test_the_machine_is_restarted_when_told_and_only_from_that_boot() -> None:
    async with bench() as it:
        await it.configure(1, HostConfigurationSpec(reboot_from="another-boot"))
        await asyncio.sleep(5)
        assert it.machine.restarts == 0
        await it.configure(2, HostConfigurationSpec(reboot_from="boot-1"))
        await asyncio.sleep(300)
        assert it.machine.restarts == 1


@on_fake_time
async def test_a_restart_that_fails_is_told_and_tried_again() -> None:
    async with bench() as it:
        it.machine.refuses = "systemctl is not there"
        await it.configure(1, HostConfigurationSpec(reboot_from="boot-1"))
        await asyncio.sleep(70)
        events = await it.log()
        it.machine.refuses = ""
        await asyncio.sleep(200)
    assert "restart-failed" in events
    assert it.machine.restarts == 1


@on_fake_time
async def test_a_restart_that_fails_does_not_hold_up_the_configuration() -> None:
    async with bench() as it:
        it.machine.refuses = "systemctl is not there"
        it.machine.aspect.answer = lambda generation, _: AspectOutcome(
            AspectStatus(aspect="firewall", state="trial", generation=generation), 1.0
        )
        await it.configure(1, HostConfigurationSpec(reboot_from="boot-1"))
        await asyncio.sleep(30)
        events = await it.log()
    assert len(it.machine.aspect.seen) > 25
    assert events.count("restart-failed") == 1


@on_fake_time
async def test_a_store_that_fails_is_outlived_and_what_was_known_is_told_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench() as it:
        await it.declare()
        await asyncio.sleep(20)
        transact = it.store.transact

        async def failing(work: object) -> None:
            raise Unavailable("disk full")

        monkeypatch.setattr(it.store, "transact", failing)
        it.machine.memory = 99.0
        await asyncio.sleep(30)
        monkeypatch.setattr(it.store, "transact", transact)
        await asyncio.sleep(30)
        memory = [r.level for r in (await it.host()).readings if r.monitor == "memory"]
    assert memory == ["critical"]
