"""Starts and ends the workers of outlets: one for each that is not suspended, anew when its spec or its
Secret changes. Each is a task of its own: a receiver that is slow or away holds up no other, no controller.

A worker that fails for a reason nobody foresaw is logged and begun again after a pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec
import structlog

from roost.cloud.outlets import credentials, memory
from roost.cloud.outlets.pausing import Failed
from roost.cloud.outlets.sink import Settings, Sink, SnmpEngine, make
from roost.cloud.outlets.worker import MakeSink, Worker
from roost.engine.controller import Key, Runner
from roost.engine.vault import Vault
from roost.model import time
from roost.model.meta import Condition, set_condition
from roost.model.outlet import ALARM_OUTLET, AlarmOutlet
from roost.model.secret import SECRET, Secret
from roost.store.store import Store
from roost.store.transaction import HERE, Change, Transaction

AGAIN = 30.0
"""Seconds after which a worker that failed is begun again."""
ENDS_WITHIN = 5.0

_Identity = tuple[str, int, str, str]


class _Running(msgspec.Struct, frozen=True):
    """A worker, what it was started with, and the Secret it uses."""

    identity: _Identity
    task: asyncio.Task[None]
    secret: str


class Prepared(msgspec.Struct, frozen=True):
    """What an outlet is started with: its settings, or why they can't be had."""

    settings: Settings
    failure: Failed | None = None

    def sink(self, clock: Callable[[], datetime]) -> MakeSink:
        """What makes the sink, or says why there is none."""

        def made() -> Sink:
            if self.failure is not None:
                raise self.failure
            try:
                return make(self.settings, clock)
            except (OSError, ValueError, TypeError) as error:
                # Its words may hold a credential. What it was made from is as bad at the next attempt.
                raise Failed(
                    f"nothing can be sent with these settings and this Secret ({type(error).__name__})",
                    "check the values of its Secret",
                    halted=True,
                    code="BadSettings",
                ) from error

        return made


class Outlets:
    """All outlets of this cloud. `run` until cancelled; its `wake` is the runner's."""

    name = "outlets"

    def __init__(self, cloud: str, vault: Vault, clock: Callable[[], datetime]) -> None:
        self._cloud, self._vault, self._clock = cloud, vault, clock
        self._running: dict[Key, _Running] = {}
        self._log = structlog.get_logger("roost.outlets")

    async def run(self, store: Store) -> None:
        """Keep the workers that should be, until cancelled; then end them."""
        try:
            await Runner(store, self, workers=1).run()
        finally:
            await self._end(*self._running)

    # -- as a controller

    def concerned(self, change: Change) -> Iterable[Key]:
        """Outlets whose declaration or Secret has changed."""
        if change.namespace != self._cloud:
            return
        if change.kind == ALARM_OUTLET.kind:
            yield (change.namespace, change.name)
        elif change.kind == SECRET.kind:
            yield from [key for key, running in self._running.items() if running.secret == change.name]

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        """Every outlet."""
        return [
            *((s.namespace, s.name) for s in tx.select(ALARM_OUTLET.kind, self._cloud, origin=HERE)),
            *self._running,
        ]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        """Start, end or begin anew the worker of one outlet."""
        outlet, secret, failure = await store.read(lambda tx: _look(tx, key))
        running = self._running.get(key)
        if outlet is None or outlet.metadata.deletion_timestamp or outlet.spec.suspended:
            await self._end(key)
            if outlet is None:
                await store.transact(lambda tx: memory.forget_others(tx, _uids(tx, self._cloud)))
            elif outlet.status.state != "suspended":
                await store.transact(lambda tx: _suspend(tx, key))
            return None
        identity = _identity(outlet, secret, failure)
        if running is not None and running.identity == identity and not running.task.done():
            return None
        await self._end(key)
        prepared = await prepare(store, outlet, secret, failure, self._vault)
        worker = Worker(store, prepared.settings, prepared.sink(self._clock), self._clock)
        task = asyncio.create_task(self._keep(worker, prepared.settings), name=f"outlet {key[1]}")
        self._running[key] = _Running(identity, task, outlet.spec.secret)
        return None

    async def _keep(self, worker: Worker, settings: Settings) -> None:
        while True:
            try:
                await worker.run()
            except Exception as error:
                # The error's own words may hold what was sent or a credential: the log has its place alone.
                self._log.error(
                    "an outlet failed and is begun again",
                    outlet=settings.name,
                    error=type(error).__name__,
                    at=_place(error),
                )
            await asyncio.sleep(AGAIN)

    async def _end(self, *keys: Key) -> None:
        for key in list(keys):
            running = self._running.get(key)
            if running is None:
                continue
            running.task.cancel()
            # Our own cancellation must get through: swallowed here, whoever stops us would wait for ever.
            await asyncio.wait({running.task}, timeout=ENDS_WITHIN)
            self._running.pop(key, None)


async def prepare(
    store: Store, outlet: AlarmOutlet, secret: Secret | None, failure: Failed | None, vault: Vault
) -> Prepared:
    """The settings of an outlet, its Secret opened; why not, when it does not open."""
    values: dict[str, bytes] = {}
    if failure is None:
        try:
            values = credentials.opened(secret, outlet, vault)
        except Failed as error:
            failure = error
    engine = SnmpEngine(b"", 0)
    if outlet.spec.type == "snmp":
        engine = await store.transact(memory.snmp_engine)
    meta = outlet.metadata
    settings = Settings(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        generation=meta.generation,
        spec=outlet.spec,
        credentials=values,
        engine=engine,
    )
    return Prepared(settings, failure)


def _look(tx: Transaction, key: Key) -> tuple[AlarmOutlet | None, Secret | None, Failed | None]:
    outlet = tx.seek(AlarmOutlet, *key)
    if outlet is None:
        return None, None, None
    try:
        return outlet, credentials.sealed_of(tx, outlet), None
    except Failed as failure:
        return outlet, None, failure


def _identity(outlet: AlarmOutlet, secret: Secret | None, failure: Failed | None) -> _Identity:
    """What a worker is begun anew for."""
    revision = secret.metadata.resource_version if secret else ""
    return (outlet.metadata.uid, outlet.metadata.generation, revision, failure.code if failure else "")


def _uids(tx: Transaction, cloud: str) -> set[str]:
    return {s.uid for s in tx.select(ALARM_OUTLET.kind, cloud, origin=HERE)}


def _suspend(tx: Transaction, key: Key) -> None:
    """Say in the status that nothing is sent."""
    outlet = tx.seek(AlarmOutlet, *key)
    if outlet is None:
        return
    condition = Condition(
        type="Delivering",
        status="False",
        reason="Suspended",
        message="Nothing is sent: spec.suspended is true. It goes on from its position when it is not.",
        observed_generation=outlet.metadata.generation,
    )
    status = msgspec.structs.replace(
        outlet.status,
        state="suspended",
        observed_generation=outlet.metadata.generation,
        next_attempt_at="",
        conditions=set_condition(outlet.status.conditions, condition, time.stamp(tx.now)),
    )
    tx.report(msgspec.structs.replace(outlet, status=status))


def _place(error: BaseException) -> str:
    """Where an error was raised: file and line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
