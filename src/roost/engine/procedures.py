"""Operations carried out step by step, from rows in the store.

A procedure names its steps. Each step has a deadline and an attempt: a function that looks, perhaps
acts, and answers Done, Wait (with what for) or Failed (with why). Attempts are idempotent, for a
process may die between an attempt and its record; another process then carries on from the row once
the lease, which lasts for the attempt alone, has run out. Pause and abort are fields of the Operation,
obeyed between attempts; in bulk they are single statements (`abort_steps`). The deadline of a paused
step starts anew.

Times in rows are of the wall clock. A time further ahead than any that is written can be was written
before the clock was set back, and counts as reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import delete, insert, select, update

from roost.engine.controller import Key
from roost.model import time
from roost.model.operation import (
    LONGEST_MESSAGE,
    OPERATION,
    Operation,
    OperationStatus,
    StepState,
    StepStatus,
)
from roost.store.schema import resources, steps
from roost.store.store import Store
from roost.store.transaction import HERE, Change, Transaction

LEASE_SECONDS = 60.0
ATTEMPT_SECONDS = 30.0
"""An attempt ends, or is ended, well within its lease."""
LOOK_AGAIN = 1.0
KEPT = 200
"""Finished operations kept per cloud."""


class Done(msgspec.Struct, frozen=True):
    """The step is over."""

    message: str = ""


class Wait(msgspec.Struct, frozen=True):
    """The step is not over; look again after so many seconds. `within`, if set, is the time from its first
    attempt after which it is given up, where that is sooner than the step's own timeout."""

    message: str
    seconds: float = LOOK_AGAIN
    within: float = 0.0


class Failed(msgspec.Struct, frozen=True):
    """The step can't be done; the operation ends."""

    message: str


Outcome = Done | Wait | Failed
Attempt = Callable[[Store, Operation], Awaitable[Outcome]]


class Step(msgspec.Struct, frozen=True):
    """A step of a procedure; `timeout` is in seconds from its first attempt."""

    name: str
    timeout: float
    attempt: Attempt


class Row(msgspec.Struct, frozen=True):
    """A step as its row stands; times are seconds since the epoch, 0 when not set."""

    operation: str
    number: int
    name: str
    state: StepState
    attempt: int
    holder: str
    lease_until: float
    not_before: float
    timeout: float
    deadline: float
    started_at: str
    finished_at: str
    message: str


OVER = ("succeeded", "failed", "skipped", "aborted")


class OperationController:
    """Carries out operations whose home is here. `procedures` maps an action to its steps."""

    name = "operations"

    def __init__(self, procedures: Mapping[str, tuple[Step, ...]], holder: str) -> None:
        self._procedures, self._holder = procedures, holder

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == OPERATION.kind and change.origin == HERE:
            yield (change.namespace, change.name)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [(s.namespace, s.name) for s in tx.select(OPERATION.kind, origin=HERE)]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        operation, row, again = await store.transact(lambda tx: self._claim(tx, key))
        if operation is None or row is None:
            return again
        outcome: Outcome
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                outcome = await self._attempt(operation, row)(store, operation)
        except TimeoutError:
            outcome = Wait(
                f"the last attempt took more than {ATTEMPT_SECONDS:.0f} seconds; it is repeated", 5.0
            )
        except Exception as error:
            outcome = Wait(f"the last attempt failed: {error!r}; it is repeated", 5.0)
        return await store.transact(lambda tx: self._record(tx, key, row, outcome))

    def _attempt(self, operation: Operation, row: Row) -> Attempt:
        for step in self._procedures.get(operation.spec.action, ()):
            if step.name == row.name:
                return step.attempt

        async def unknown(_store: Store, _operation: Operation) -> Outcome:
            return Failed(f"this version has no step {row.name!r} of {operation.spec.action}; start it again")

        return unknown

    def _claim(self, tx: Transaction, key: Key) -> tuple[Operation | None, Row | None, float | None]:
        """Choose the step to attempt and take its lease; or say when to look again."""
        operation = tx.seek(Operation, *key)
        if operation is None:
            _forget_orphans(tx)
            return None, None, None
        if operation.status.state in ("succeeded", "failed", "aborted"):
            return None, None, None
        rows = read_steps(tx, operation.metadata.uid)
        if not rows:
            rows = self._plan(tx, operation)
        if operation.spec.aborted:
            abort_steps(tx, operation.metadata.uid)
            self._summarise(tx, operation, message="aborted by the operator")
            return None, None, None
        row = next((r for r in rows if r.state not in OVER), None)
        if operation.spec.paused:
            if row is not None and row.deadline:
                write_step(tx, msgspec.structs.replace(row, deadline=0.0))
            self._summarise(tx, operation, message="paused; set spec.paused to false to go on")
            return None, None, None
        if row is None:
            message = "" if rows else f"this version can't do {operation.spec.action}"
            self._summarise(tx, operation, message=message)
            return None, None, None
        now = tx.now.timestamp()
        leased = row.lease_until if row.holder not in ("", self._holder) else 0.0
        wait = max(until - now if until - now <= LEASE_SECONDS else 0.0 for until in (leased, row.not_before))
        if wait > 0:
            return None, None, wait
        claimed = msgspec.structs.replace(
            row,
            state="running",
            attempt=row.attempt + 1,
            holder=self._holder,
            lease_until=now + LEASE_SECONDS,
            deadline=min(row.deadline or now + row.timeout, now + row.timeout),
            started_at=row.started_at or time.stamp(tx.now),
        )
        write_step(tx, claimed)
        return self._summarise(tx, operation), claimed, None

    def _plan(self, tx: Transaction, operation: Operation) -> list[Row]:
        uid = operation.metadata.uid
        procedure = self._procedures.get(operation.spec.action, ())
        rows = [
            Row(uid, n, s.name, "pending", 0, "", 0.0, 0.0, s.timeout, 0.0, "", "", "")
            for n, s in enumerate(procedure)
        ]
        tx.wrote = True
        if rows:
            tx.connection.execute(insert(steps), [msgspec.structs.asdict(r) for r in rows])
        return rows

    def _record(self, tx: Transaction, key: Key, row: Row, outcome: Outcome) -> float | None:
        """Write what an attempt gave, unless the step was taken over or aborted meanwhile."""
        operation = tx.seek(Operation, *key)
        current = next((r for r in read_steps(tx, row.operation) if r.number == row.number), None)
        if (
            operation is None
            or current is None
            or (current.state, current.holder, current.attempt) != ("running", self._holder, row.attempt)
        ):
            return 0.0 if operation else None
        now = tx.now.timestamp()
        if isinstance(outcome, Wait) and 0 < outcome.within < row.timeout:
            sooner = row.deadline - row.timeout + outcome.within
            row = msgspec.structs.replace(row, timeout=outcome.within, deadline=sooner)
        if isinstance(outcome, Wait) and now >= row.deadline:
            waited = f"gave up after {row.timeout:.0f} seconds: {outcome.message}"
            outcome = Failed(waited)
        # A message that its field can't hold would undo this record, and every one after it.
        outcome = msgspec.structs.replace(outcome, message=outcome.message[:LONGEST_MESSAGE])
        ended = "" if isinstance(outcome, Wait) else time.stamp(tx.now)
        state: StepState = {Done: "succeeded", Failed: "failed", Wait: "running"}[type(outcome)]  # type: ignore[assignment]
        pause = 0.0
        if isinstance(outcome, Wait):
            pause = min(outcome.seconds, LEASE_SECONDS, max(0.05, row.deadline - now))
        # The attempt is over and its lease with it: after a restart nobody waits for one that is no more.
        new = msgspec.structs.replace(
            row,
            state=state,
            holder="",
            lease_until=0.0,
            not_before=now + pause,
            finished_at=ended,
            message=outcome.message,
        )
        write_step(tx, new)
        if isinstance(outcome, Failed):
            _end_pending(tx, row.operation, "skipped")
        self._summarise(tx, operation, message=outcome.message)
        if isinstance(outcome, Wait):
            return pause
        return 0.0

    def _summarise(self, tx: Transaction, operation: Operation, *, message: str = "") -> Operation:
        rows = read_steps(tx, operation.metadata.uid)
        summary = summarise(operation, rows, tx.now, message)
        saved = tx.report(msgspec.structs.replace(operation, status=summary))
        if summary.finished_at and not operation.status.finished_at:
            _forget_old(tx, operation.metadata.namespace)
        return saved


def summarise(operation: Operation, rows: list[Row], now: datetime, message: str) -> OperationStatus:
    """The status of an operation from its rows; without any, nobody knows how to do it: failed."""
    states = [r.state for r in rows]
    over = all(s in OVER for s in states)
    if "failed" in states or not rows:
        state = "failed"
    elif "aborted" in states and over:
        state = "aborted"
    elif over:
        state = "succeeded"
    elif operation.spec.paused:
        state = "paused"
    else:
        state = "running"
    ended = over or state == "failed"
    stamp = time.stamp(now)
    return OperationStatus(
        state=state,  # type: ignore[arg-type]
        message=message or operation.status.message,
        steps_done=sum(s in OVER for s in states),
        steps_total=len(rows),
        started_at=operation.status.started_at or stamp,
        finished_at=operation.status.finished_at or (stamp if ended else ""),
        steps=[_step_status(r) for r in rows[:50]],
    )


def read_steps(tx: Transaction, operation: str) -> list[Row]:
    """The rows of an operation, by its uid."""
    query = select(steps).where(steps.c.operation == operation).order_by(steps.c.number)
    return [Row(*row) for row in tx.connection.execute(query)]


def write_step(tx: Transaction, row: Row) -> None:
    """Write one row."""
    tx.wrote = True
    key = (steps.c.operation == row.operation) & (steps.c.number == row.number)
    tx.connection.execute(update(steps).where(key).values(msgspec.structs.asdict(row)))


def abort_steps(tx: Transaction, operation: str) -> int:
    """End every step of an operation that is not over, in one statement; how many there were."""
    return _end_pending(tx, operation, "aborted")


def _end_pending(tx: Transaction, operation: str, state: StepState) -> int:
    tx.wrote = True
    open_steps = (steps.c.operation == operation) & steps.c.state.not_in(OVER)
    ended = update(steps).where(open_steps).values(state=state, finished_at=time.stamp(tx.now))
    return tx.connection.execute(ended).rowcount


def _forget_old(tx: Transaction, namespace: str) -> None:
    """Remove the oldest finished operations past KEPT, with their rows."""
    finished = [o for o in tx.every(Operation, namespace) if o.status.finished_at]
    finished.sort(key=lambda o: o.status.finished_at)
    for old in finished[:-KEPT]:
        tx.wrote = True
        tx.connection.execute(delete(steps).where(steps.c.operation == old.metadata.uid))
        tx.remove(OPERATION.kind, namespace, old.metadata.name)


def _forget_orphans(tx: Transaction) -> None:
    """Remove the rows of operations that somebody has deleted."""
    tx.wrote = True
    there = select(resources.c.uid).where(resources.c.kind == OPERATION.kind)
    tx.connection.execute(delete(steps).where(steps.c.operation.not_in(there)))


def _step_status(row: Row) -> StepStatus:
    deadline = ""
    if row.deadline:
        deadline = time.stamp(datetime.fromtimestamp(0, UTC) + timedelta(seconds=row.deadline))
    return StepStatus(
        name=row.name,
        state=row.state,
        attempt=row.attempt,
        started_at=row.started_at,
        finished_at=row.finished_at,
        deadline=deadline,
        message=row.message,
    )
