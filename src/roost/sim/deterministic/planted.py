"""Bugs that are planted on purpose: each a mistake that somebody could make, in the real code for a while.

Whoever hunts must find them. A bug here is patched into the classes and modules of the product by a context
manager and taken out again; what it must remember belongs to a process of the simulation, and dies with it.
`tests/sim/test_planted.py` has a seed that finds each, `roost sim run --planted NAME --seeds N` hunts one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from roost.cloud import hosts
from roost.cloud.configuration import write_configuration
from roost.cloud.hosts import HostController
from roost.engine.controller import Key, Runner
from roost.engine.procedures import OperationController
from roost.engine.queue import WorkQueue
from roost.fleet.sharing import SharingController
from roost.host.agent import Agent
from roost.link import entries, flow, intake
from roost.link.feed import Feed
from roost.link.intake import Intake
from roost.link.messages import Acknowledge
from roost.link.session import Session
from roost.link.upper import UpperLink
from roost.model.alarms import Fault
from roost.model.configuration import HostConfiguration
from roost.model.fault import ALARM, Alarm
from roost.model.host import Host
from roost.store.remembered import Remembered
from roost.store.store import Store
from roost.store.transaction import HERE, Transaction

Plant = Callable[[], AbstractContextManager[None]]


class Bug(msgspec.Struct, frozen=True):
    """A mistake in words, and how it is made."""

    mistake: str
    plant: Plant


BUGS: dict[str, Bug] = {}


def _bug(name: str, mistake: str) -> Callable[[Callable[[], Iterator[None]]], Plant]:
    def made(plant: Callable[[], Iterator[None]]) -> Plant:
        manager = contextmanager(plant)
        BUGS[name] = Bug(mistake, manager)
        return manager

    return made


@contextmanager
def _patched(owner: Any, **replaced: Any) -> Iterator[None]:
    """Other attributes of a class or a module."""
    former = {name: owner.__dict__[name] for name in replaced}
    for name, value in replaced.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in former.items():
            setattr(owner, name, value)


# -- the link


@_bug(
    "acknowledgement-dropped",
    "a batch that brought nothing, as the end of a snapshot does, is not acknowledged",
)
def _acknowledgement_dropped() -> Iterator[None]:
    real_take, real_send = Intake.take, Session._send
    empty: WeakKeyDictionary[Intake, int] = WeakKeyDictionary()

    async def take(self: Intake, batch: Any, store_id: str) -> Any:
        if not batch.entries:
            empty[self] = batch.number
        return await real_take(self, batch, store_id)

    async def send(self: Session, message: Any) -> None:
        if not isinstance(message, Acknowledge) or empty.get(self.intake) != message.number:
            await real_send(self, message)

    with _patched(Intake, take=take), _patched(Session, _send=send):
        yield


@_bug("cursor-in-memory", "how far a peer's stream was taken in is kept in memory, and lost in a restart")
def _cursor_in_memory() -> Iterator[None]:
    kept: WeakKeyDictionary[Any, dict[str, tuple[str, int]]] = WeakKeyDictionary()

    def cursor(self: Any, peer: str) -> tuple[str, int]:
        return kept.get(self._session.alchemy.engine, {}).get(peer, ("", 0))

    def set_cursor(self: Any, peer: str, store_id: str, revision: int) -> None:
        kept.setdefault(self._session.alchemy.engine, {})[peer] = (store_id, revision)
        self.wrote = True

    with _patched(Remembered, cursor=cursor, set_cursor=set_cursor):
        yield


@_bug("snapshot-forgets-deletions", "a snapshot of the link adds and changes, and takes nothing away")
def _snapshot_forgets_deletions() -> Iterator[None]:
    with _patched(intake, copies=lambda tx, origin: set()):
        yield


@_bug(
    "status-over-spec", "a status that comes up brings the spec it was observed with, and that is taken, too"
)
def _status_over_spec() -> Iterator[None]:
    observed, merged = entries.observed, flow.Upward._merged

    def with_spec(raw: Any) -> Any:
        return {**observed(raw), **({"spec": raw["spec"]} if "spec" in raw else {})}

    def take(self: Any, existing: Any, entry: Any) -> Any:
        decision = merged(self, existing, entry)
        brought = msgspec.json.decode(entry.data)
        if isinstance(decision, flow.Replace) and "spec" in brought and existing.kind != "Host":
            return flow.Replace(raw={**decision.raw, "spec": brought["spec"]})
        return decision

    with _patched(flow, observed=with_spec), _patched(flow.Upward, _merged=take):
        yield


@_bug("fencing-ignored", "an old session goes on beside the new one, and both take the same stream in")
def _fencing_ignored() -> Iterator[None]:
    real = Intake._apply

    async def leave(self: Any, slot: Any, reason: str) -> None:
        for node, one in list(self._slots.items()):
            if one is slot:
                del self._slots[node]

    def apply(self: Any, tx: Transaction, *taken: Any) -> Any:
        self._at = tx.cursor(self._peer)
        return real(self, tx, *taken)

    with _patched(UpperLink, _replace=leave), _patched(Intake, _apply=apply):
        yield


@_bug("sessions-pile-up", "a feed goes on queueing changes for sessions that have ended")
def _sessions_pile_up() -> Iterator[None]:
    with _patched(Feed, unsubscribe=lambda self, subscription: None):
        yield


# -- the store


@_bug("answer-before-commit", "a write is answered when it was done, not when it is on disk")
def _answer_before_commit() -> Iterator[None]:
    real = Store.transact

    async def transact(self: Store, work: Any, *, size: int = 0) -> Any:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def told(tx: Transaction) -> Any:
            return work(tx)

        answer = await self.read(lambda tx: _tried(tx, work))
        if answer is _FAILED:
            return await real(self, work, size=size)
        task = asyncio.ensure_future(real(self, told, size=size))
        task.add_done_callback(lambda t: None if t.cancelled() else t.exception())
        done.set_result(answer)
        return await done

    with _patched(Store, transact=transact):
        yield


_FAILED = object()


def _tried(tx: Transaction, work: Any) -> Any:
    """What a piece of work would answer; what it would write is thrown away."""
    try:
        answer = work(tx)
    except Exception:
        answer = _FAILED
    tx._pending.clear()
    tx.wrote = False
    tx.changes.clear()
    return answer


@_bug("log-number-twice", "numbers of log entries are counted in memory and written down now and then")
def _log_number_twice() -> Iterator[None]:
    real = Remembered.next_number
    counted: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()

    def next_number(self: Any, counter: str) -> int:
        if not counter.startswith("log:"):
            return real(self, counter)
        mine = counted.setdefault(self._session.alchemy.engine, {})
        if counter not in mine or mine[counter] % 3 == 0:
            mine[counter] = real(self, counter)
        else:
            mine[counter] += 1
        return mine[counter]

    with _patched(Remembered, next_number=next_number):
        yield


# -- the engine


@_bug("lost-wake-up", "what changes while another key is worked on is not looked at")
def _lost_wake_up() -> Iterator[None]:
    real = WorkQueue.add

    def add(self: Any, key: Any) -> None:
        if not self._working:
            real(self, key)

    with _patched(WorkQueue, add=add):
        yield


@_bug("delays-pile-up", "a key that is looked at again later is queued each time, and never let go of")
def _delays_pile_up() -> Iterator[None]:
    real = WorkQueue.add_after

    def add_after(self: Any, key: Any, seconds: float) -> None:
        real(self, key, seconds)
        self._later.extend((10**9 + n, -n, key) for n in range(50))

    with _patched(WorkQueue, add_after=add_after, _sweep=lambda self: None):
        yield


@_bug("step-not-repeated", "operations that were under way when the process died are not looked at again")
def _step_not_repeated() -> Iterator[None]:
    with _patched(OperationController, all_keys=lambda self, tx: []):
        yield


@_bug("feed-from-now", "a controller that begins looks at what changes from now on, and not at what is")
def _feed_from_now() -> Iterator[None]:
    real = Runner._follow

    async def follow(self: Any) -> None:
        keys, self._controller.all_keys = self._controller.all_keys, lambda tx: []
        try:
            await real(self)
        finally:
            self._controller.all_keys = keys

    with _patched(Runner, _follow=follow):
        yield


# -- clouds


@_bug("alarm-on-edge", "an alarm is cleared when its cause is seen to end, instead of when there is none")
def _alarm_on_edge() -> Iterator[None]:
    real_settle, real_decide = vars(hosts)["settle"], HostController.decide
    raised: WeakKeyDictionary[HostController, dict[str, set[str]]] = WeakKeyDictionary()
    at_work: list[HostController] = []

    def decide(self: HostController, tx: Transaction, key: Key) -> float | None:
        at_work.append(self)
        try:
            return real_decide(self, tx, key)
        finally:
            at_work.pop()

    def settle(tx: Transaction, namespace: str, scope: str, wanted: Any, *rest: Any) -> Any:
        wanted = list(wanted)
        known = raised.setdefault(at_work[-1], {})
        now = {f"{f.alarm_id} {f.entity}" for f in wanted}
        ended = known.get(scope, set()) - now
        for stored in tx.select(ALARM.kind, namespace, origin=HERE, prefix=f"{scope}."):
            status = stored.typed(Alarm).status
            name = f"{status.alarm_id} {status.entity}"
            if name not in now and name not in ended:
                instance = status.entity.rpartition("=")[2] if "." in status.entity else ""
                wanted.append(
                    Fault(
                        alarm_id=status.alarm_id,
                        severity=status.severity,
                        entity=status.entity,
                        reason=status.reason,
                        instance=instance,
                    )
                )
        known[scope] = now
        return real_settle(tx, namespace, scope, wanted, *rest)

    with _patched(hosts, settle=settle), _patched(HostController, decide=decide):
        yield


@_bug("unknown-is-well", "what can't be looked at is taken for well, and its alarms are cleared")
def _unknown_is_well() -> Iterator[None]:
    real = vars(hosts)["settle"]

    def settle(tx: Transaction, namespace: str, scope: str, wanted: Any, *_: Any, **__: Any) -> Any:
        return real(tx, namespace, scope, wanted)

    with _patched(hosts, settle=settle):
        yield


@_bug("restart-on-reconnect", "a host whose link comes back is told to restart, to be on the safe side")
def _restart_on_reconnect() -> Iterator[None]:
    real = HostController.decide

    def decide(self: Any, tx: Transaction, key: Key) -> float | None:
        before = tx.seek(Host, *key)
        again = real(self, tx, key)
        after = tx.seek(Host, *key)
        if before is None or after is None or before.status.connected or not after.status.connected:
            return again
        configuration = tx.seek(HostConfiguration, *key)
        boot = after.status.agent.boot_id
        if configuration is not None and boot:
            spec = msgspec.structs.replace(configuration.spec, reboot_from=boot)
            write_configuration(tx, key[0], key[1], spec)
        return again

    with _patched(HostController, decide=decide):
        yield


@_bug("readings-forgotten", "an agent that starts anew tells that nothing is wrong before it has looked")
def _readings_forgotten() -> Iterator[None]:
    real, monitor = Agent._report, Agent._monitor

    async def nothing(self: Agent) -> None:
        return None

    async def later(self: Any) -> None:
        await asyncio.sleep(self._sample_seconds)
        await monitor(self)

    def report(self: Any, tx: Transaction) -> None:
        real(self, tx)
        host = tx.seek(Host, self._identity.cloud, self._identity.host)
        if host is not None and not self._readings and host.status.readings:
            tx.report(msgspec.structs.replace(host, status=msgspec.structs.replace(host.status, readings=[])))

    with _patched(Agent, _remember=nothing, _monitor=later, _report=report):
        yield


@_bug("copies-stay", "a policy that is no longer shared stays where it was")
def _copies_stay() -> Iterator[None]:
    with _patched(SharingController, _take_away=lambda self, tx, policy, subcloud: None):
        yield
