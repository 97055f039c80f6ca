"""The agent: observes its machine, puts its intent in force, tells both through its own store.

The store holds what the cloud wants of this host (copied down by the link) and what the host is
(carried up by the link). Three loops meet in it:
- observing: the inventory at start, when ports change, and now and then;
- monitoring: samples turned into readings;
- configuring: each aspect of the HostConfiguration, again when intent or link change or a deadline comes.
Beside them the checks that the cloud asks for are run (health.py).

All is level-triggered: `_publish` writes what is known whenever it or the Host differs, so it does not
matter what came first, nor what was cut off in between. Without a link the agent goes on with the last
intent it has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec
import structlog

from roost.engine.faults import write_log
from roost.host.aspect import AspectFacts, AspectOutcome, boottime
from roost.host.health import CheckLoop, Known, remembered
from roost.host.hooks import HookKind, Hooks, NoHooks
from roost.host.machine import Machine, RestartFailed
from roost.host.monitors import History, decide_readings, remember
from roost.host.trial import LinkProof
from roost.model import time
from roost.model.configuration import (
    HOST_CONFIGURATION,
    AspectStatus,
    HostConfiguration,
    HostConfigurationSpec,
    HostConfigurationStatus,
)
from roost.model.host import HOST, AgentState, Host, Inventory, Reading
from roost.store.errors import Compacted, FutureRevision, Overloaded, Unavailable
from roost.store.store import Store
from roost.store.transaction import Transaction

INVENTORY_SECONDS = 300.0
SAMPLE_SECONDS = 5.0
LONGEST_WAIT = 60.0
PROBE_PAUSE = 1.0
RESTART_AGAIN = 600.0

Probe = Callable[[], Awaitable[None]]
"""Dials the agent's link anew and makes a round trip on it; raises when that fails."""


class AgentIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Which host this agent is."""

    cloud: str
    host: str
    version: str
    incarnation: str


class Agent:
    """One host's agent. `notice` tells it that its link came or went."""

    def __init__(
        self,
        store: Store,
        identity: AgentIdentity,
        machine: Machine,
        *,
        clock: Callable[[], datetime],
        link_up: Callable[[], bool],
        probe: Probe,
        certificate_expires_at: Callable[[], str] = lambda: "",
        sample_seconds: float = SAMPLE_SECONDS,
        hooks: Hooks | None = None,
    ) -> None:
        self._store, self._identity, self._machine = store, identity, machine
        self._clock, self._link_up, self._probe = clock, link_up, probe
        self._certificate_expires_at = certificate_expires_at
        self._sample_seconds = sample_seconds
        self._log = structlog.get_logger().bind(host=identity.host)
        self._started_at = time.stamp(clock())
        self._inventory: Inventory | None = None
        self._readings: list[Reading] = []
        self._history = History()
        self._specification = HostConfigurationSpec()
        self._proof: LinkProof | None = None
        self._probing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._observed = asyncio.Event()
        self._restart_not_before = 0.0
        self._unpublished = False
        self._told_end = ""
        self._configuration: HostConfiguration | None = None
        self._hooks = hooks or NoHooks()
        self._health, self._drain = self._check_loop("health"), self._check_loop("drain")

    def _check_loop(self, kind: HookKind) -> CheckLoop:
        return CheckLoop(
            kind,
            self._hooks,
            boot_id=lambda: self._machine.boot_id,
            incarnation=self._identity.incarnation,
            environment={"ROOST_CLOUD": self._identity.cloud, "ROOST_HOST": self._identity.host},
            clock=self._clock,
            known=self._known,
            publish=self._publish,
        )

    def _known(self) -> Known:
        return Known(
            configuration=self._configuration,
            inventory=self._inventory,
            readings=self._readings,
            certificate_expires_at=self._certificate_expires_at(),
        )

    async def run(self) -> None:
        """Run until cancelled."""
        self._wake, self._observed = asyncio.Event(), asyncio.Event()
        await self._attempt(self._store.transact(self._told_start))
        await self._attempt(self._remember())
        loops = (self._observe, self._monitor, self._configure, self._follow, self._notice_ports)
        async with asyncio.TaskGroup() as group:
            for loop in (*loops, self._health.run, self._drain.run):
                group.create_task(loop())

    def notice(self) -> None:
        """The link came or went."""
        self._wake.set()

    async def _remember(self) -> None:
        """Go on from what the agent before this one told, so that its end clears no alarm."""
        key = (self._identity.cloud, self._identity.host)
        host = await self._store.read(lambda tx: tx.seek(Host, *key))
        if host is not None:
            self._readings = list(host.status.readings)
            self._health.report = remembered(host.status.health)
            self._drain.report = remembered(host.status.drain)

    # -- observing

    async def _observe(self) -> None:
        while True:
            inventory = await self._machine.inventory()
            if inventory != self._inventory:
                self._inventory = inventory
                await self._publish()
            self._observed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INVENTORY_SECONDS):
                    await self._observed.wait()

    async def _notice_ports(self) -> None:
        while True:
            try:
                async for _ in self._machine.changes():
                    self._observed.set()
            except OSError as error:
                self._log.warning("changes of ports can't be followed", reason=str(error))
            await asyncio.sleep(INVENTORY_SECONDS)

    async def _monitor(self) -> None:
        while True:
            sample = await self._machine.sample()
            self._history = remember(self._history, self._readings, sample)
            readings = decide_readings(
                self._readings,
                sample,
                self._specification.thresholds,
                time.stamp(self._clock()),
                history=self._history,
                carrying=self._specification.platform_ports,
            )
            end = self._certificate_expires_at()
            if readings != self._readings or self._unpublished or end != self._told_end:
                # Nothing else tells of a certificate that was renewed while the link stood.
                self._readings, self._told_end = readings, end
                await self._publish()
            await asyncio.sleep(self._sample_seconds)

    async def _publish(self) -> None:
        self._unpublished = await self._attempt(self._store.transact(self._report)) is None

    def _report(self, tx: Transaction) -> None:
        """Write what is known of the machine into the Host, once the cloud has sent one."""
        host = tx.seek(Host, self._identity.cloud, self._identity.host)
        if host is None:
            return
        status = host.status
        if self._inventory is not None and self._inventory != status.inventory:
            status = msgspec.structs.replace(
                status, inventory=self._inventory, inventory_observed_at=time.stamp(tx.now)
            )
        if self._readings:
            status = msgspec.structs.replace(status, readings=self._readings)
        status = msgspec.structs.replace(
            status, agent=self._agent_state(), health=self._health.report, drain=self._drain.report
        )
        if status != host.status:
            tx.report(msgspec.structs.replace(host, status=status))

    def _agent_state(self) -> AgentState:
        return AgentState(
            version=self._identity.version,
            boot_id=self._machine.boot_id,
            incarnation=self._identity.incarnation,
            started_at=self._started_at,
            certificate_expires_at=self._certificate_expires_at(),
        )

    # -- configuring

    async def _configure(self) -> None:
        while True:
            self._wake.clear()
            wait = await self._attempt(self._bring_about())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LONGEST_WAIT, PROBE_PAUSE if wait is None else wait)):
                    await self._wake.wait()

    async def _bring_about(self) -> float:
        """Take every aspect a step nearer; seconds until the next look."""
        key = (self._identity.cloud, self._identity.host)
        configuration = await self._store.read(lambda tx: tx.seek(HostConfiguration, *key))
        facts = AspectFacts.gather(now=self._clock(), link_up=self._link_up(), link_proof=self._proof)
        outcomes: list[AspectOutcome] = []
        for aspect in self._machine.aspects:
            if configuration is None:
                outcomes.append(await aspect.hold(facts))
            else:
                generation = configuration.metadata.generation
                outcomes.append(await aspect.reconcile(configuration.spec, generation, facts))
        if any(o.link_proof_wanted for o in outcomes):
            self._start_probing()
        if configuration is not None:
            self._specification = configuration.spec
            statuses = [o.status for o in outcomes]
            now = progress(configuration, statuses)
            self._configuration = msgspec.structs.replace(configuration, status=now)
            self._health.wake()
            self._drain.wake()
            if now != configuration.status:
                await self._store.transact(lambda tx: self._tell(tx, statuses, configuration))
            await self._restart_if_told(configuration)
        waits = [o.again_seconds for o in outcomes if o.again_seconds is not None]
        return min(waits, default=LONGEST_WAIT)

    def _tell(self, tx: Transaction, statuses: list[AspectStatus], seen: HostConfiguration) -> None:
        """Write how far the configuration is, and a log entry when an aspect has come somewhere new."""
        current = tx.seek(HostConfiguration, self._identity.cloud, self._identity.host)
        if current is None:
            return
        told = msgspec.structs.replace(seen, status=current.status)
        status = progress(told, statuses)
        if status == current.status:
            return
        before = {a.aspect: a.state for a in current.status.aspects}
        for aspect in statuses:
            if aspect.state != before.get(aspect.aspect) and aspect.state not in ("pending", "trial"):
                self._log_aspect(tx, aspect)
        tx.report(msgspec.structs.replace(current, status=status))

    def _log_aspect(self, tx: Transaction, aspect: AspectStatus) -> None:
        well = aspect.state == "applied"
        write_log(
            tx,
            self._identity.cloud,
            host=self._identity.host,
            event=f"{aspect.aspect}-{aspect.state}",
            entity=f"host={self._identity.host}",
            severity="info" if well else "major",
            text=f"{aspect.aspect} of generation {aspect.generation} is {aspect.state}. {aspect.message}",
        )

    def _start_probing(self) -> None:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().create_task(self._prove())

    async def _prove(self) -> None:
        """Dial the link anew; the proof goes into the next look at the aspects."""
        dialled_at = boottime()
        try:
            await self._probe()
        except Exception as error:
            self._log.info("the link could not be proven yet", reason=str(error))
            await asyncio.sleep(PROBE_PAUSE)
        else:
            self._proof = LinkProof(dialled_at=dialled_at, completed_at=boottime())
        self._wake.set()

    async def _restart_if_told(self, configuration: HostConfiguration) -> None:
        now = asyncio.get_running_loop().time()
        if configuration.spec.reboot_from != self._machine.boot_id or now < self._restart_not_before:
            return
        # One that was accepted and then did not happen is asked for again.
        self._restart_not_before = now + RESTART_AGAIN
        self._log.info("restarting the machine, as told")
        try:
            await self._machine.restart()
        except RestartFailed as error:
            # Tried again by a later look: waiting here would let the deadline of a trial pass.
            self._restart_not_before = asyncio.get_running_loop().time() + LONGEST_WAIT
            reason = str(error)
            self._log.error("restart failed", reason=reason)
            await self._store.transact(lambda tx: self._told_failure(tx, reason))

    def _told_failure(self, tx: Transaction, reason: str) -> None:
        write_log(
            tx,
            self._identity.cloud,
            host=self._identity.host,
            event="restart-failed",
            entity=f"host={self._identity.host}",
            severity="major",
            text=reason,
        )

    def _told_start(self, tx: Transaction) -> None:
        write_log(
            tx,
            self._identity.cloud,
            host=self._identity.host,
            event="agent-started",
            entity=f"host={self._identity.host}",
            text=f"The agent, version {self._identity.version}, has started.",
        )

    # -- following the store

    async def _follow(self) -> None:
        """Look again when the cloud's word for this host has changed."""
        while True:
            try:
                # From before the look: what comes while it is taken must be seen too.
                revision = self._store.revision
                self._wake.set()
                await self._publish()
                async for batch in self._store.watch(revision):
                    kinds = {c.kind for c in batch.changes if c.name == self._identity.host}
                    if HOST_CONFIGURATION.kind in kinds:
                        self._wake.set()
                    if HOST.kind in kinds:
                        await self._publish()
            except (Compacted, FutureRevision):
                self._log.info("the agent fell behind the history of its store; it looks again")
            except (Unavailable, Overloaded) as error:
                self._log.warning("the agent's store failed", reason=str(error))
            await asyncio.sleep(1)

    async def _attempt(self, work: Awaitable[float] | Awaitable[object]) -> float | None:
        """Do it; a failing store (disk full) is told and outlived, and what was to be written is kept."""
        try:
            result = await work
        except (Unavailable, Overloaded) as error:
            self._log.warning("the agent's store failed", reason=str(error))
            return None
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            # A machine may have what nobody thought of; its agent must go on keeping its rules in force.
            self._log.error("what was observed does not fit the model", reason=str(error))
            return None
        return result if isinstance(result, float) else 0.0


def progress(configuration: HostConfiguration, statuses: list[AspectStatus]) -> HostConfigurationStatus:
    """How far a configuration is when its aspects stand like this. Pure."""
    generation = configuration.metadata.generation
    in_force = all(s.state == "applied" and s.generation == generation for s in statuses)
    return HostConfigurationStatus(
        observed_generation=generation,
        applied_generation=generation if in_force else _former(configuration),
        aspects=statuses,
    )


def _former(configuration: HostConfiguration) -> int:
    """The generation that was in force before; 0 when its number has been, or may be, given to another.

    That is so once the cloud's store was restored: its generations go on from what it knew then.
    """
    former = configuration.status.applied_generation
    return former if former < configuration.metadata.generation else 0
