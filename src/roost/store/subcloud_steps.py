"""Steps of operations over many subclouds: rows, moved one by one, in batches, or all by one statement.

An operation is named by its uid. Times are seconds since the epoch, 0 where not set. Everything that is
looked for is found by an index and limited; only `counts` and `causes` go over all rows of an operation, and
are asked for when many of them moved at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, bindparam, delete, func, insert, select, update

from roost.model.subcloud_operation import LONGEST_MESSAGE, SubcloudStepState
from roost.store.schema import resources
from roost.store.schema import subcloud_steps as table
from roost.store.transaction import Transaction


class SubcloudStep(msgspec.Struct, frozen=True):
    """A step as its row stands."""

    operation: str
    number: int
    stage: int
    subcloud: str
    state: SubcloudStepState = "waiting"
    attempt: int = 0
    deadline: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    reason: str = ""
    message: str = ""


class Cause(msgspec.Struct, frozen=True):
    """Steps that failed for one reason, and the first of them."""

    reason: str
    count: int
    first: SubcloudStep


_COLUMNS = tuple(table.c[name] for name in SubcloudStep.__struct_fields__)
_ALL = select(*_COLUMNS)
_OF = table.c.operation == bindparam("of")
_WAITING = (
    _ALL.where(_OF, table.c.state == "waiting", table.c.stage == bindparam("at"))
    .order_by(table.c.number)
    .limit(bindparam("most"))
)
_CHANGE = (
    update(table)
    .where(_OF, table.c.number == bindparam("at"))
    .values(
        {
            name: bindparam(f"to_{name}")
            for name in ("state", "attempt", "deadline", "started_at", "ended_at", "reason", "message")
        }
    )
)


def add(tx: Transaction, steps: Sequence[SubcloudStep]) -> None:
    """Write new steps."""
    if steps:
        tx.connection.execute(insert(table), [msgspec.structs.asdict(s) for s in steps])
        tx.wrote = True


def change(tx: Transaction, steps: Iterable[SubcloudStep]) -> None:
    """Write steps as they stand now, by operation and number."""
    values = [
        {
            "of": step.operation,
            "at": step.number,
            "to_state": step.state,
            "to_attempt": step.attempt,
            "to_deadline": step.deadline,
            "to_started_at": step.started_at,
            "to_ended_at": step.ended_at,
            "to_reason": step.reason,
            "to_message": step.message[:LONGEST_MESSAGE],
        }
        for step in steps
    ]
    if values:
        tx.connection.execute(_CHANGE, values)
        tx.wrote = True


def move(
    tx: Transaction, operation: str, before: Collection[SubcloudStepState], after: SubcloudStepState
) -> int:
    """Move all steps in some states to another, in one statement, however many; how many there were.

    Back to waiting they are as never tried; what is aborted has ended now.
    """
    values: dict[str, Any] = {"state": after, "ended_at": tx.now.timestamp()}
    if after == "waiting":
        values |= dict.fromkeys(("deadline", "started_at", "ended_at"), 0.0)
        values |= {"attempt": 0, "reason": "", "message": ""}
    moved = update(table).where(table.c.operation == operation, table.c.state.in_(before)).values(values)
    tx.wrote = True
    return tx.connection.execute(moved).rowcount


def forget(tx: Transaction, operation: str) -> None:
    """Remove the steps of an operation."""
    tx.connection.execute(delete(table).where(table.c.operation == operation))
    tx.wrote = True


def forget_orphans(tx: Transaction, kind: str) -> None:
    """Remove the steps of operations that are resources of this kind no more."""
    there = select(resources.c.uid).where(resources.c.kind == kind)
    tx.connection.execute(delete(table).where(table.c.operation.not_in(there)))
    tx.wrote = True


def waiting(tx: Transaction, operation: str, stage: int, limit: int) -> list[SubcloudStep]:
    """The next steps of a stage that have not begun, in their order."""
    found = tx.connection.execute(_WAITING, {"of": operation, "at": stage, "most": limit})
    return [SubcloudStep(*row) for row in found]


def open_at(tx: Transaction, operation: str, subclouds: Sequence[str]) -> list[SubcloudStep]:
    """The steps at these subclouds that have begun, or whose link is waited for."""
    query = _ALL.where(
        table.c.operation == operation,
        table.c.subcloud.in_(subclouds),
        table.c.state.in_(("running", "offline")),
    ).order_by(table.c.number)
    return _rows(tx, query)


def overdue(tx: Transaction, operation: str, limit: int) -> list[SubcloudStep]:
    """Steps that have reached their deadline, the earliest first."""
    found: list[SubcloudStep] = []
    for state in ("running", "offline"):
        query = _ALL.where(
            table.c.operation == operation, table.c.state == state, table.c.deadline <= tx.now.timestamp()
        )
        found += _rows(tx, query.order_by(table.c.deadline).limit(limit - len(found)))
    return found


def next_deadline(tx: Transaction, operation: str) -> float | None:
    """The earliest deadline of all that have one; None when none has."""
    found = []
    for state in ("running", "offline"):
        query = (
            select(table.c.deadline)
            .where(table.c.operation == operation, table.c.state == state)
            .order_by(table.c.deadline)
            .limit(1)
        )
        found += [float(value) for value in tx.connection.execute(query).scalars()]
    return min(found, default=None)


def counts(tx: Transaction, operation: str) -> dict[tuple[int, SubcloudStepState], int]:
    """How many steps there are by stage and state."""
    query = (
        select(table.c.stage, table.c.state, func.count())
        .where(table.c.operation == operation)
        .group_by(table.c.stage, table.c.state)
    )
    return {(stage, state): number for stage, state, number in tx.connection.execute(query)}


def causes(tx: Transaction, operation: str, limit: int) -> list[Cause]:
    """Why steps failed: the most frequent reasons, each with its first step."""
    grouped = (
        select(table.c.reason, func.count(), func.min(table.c.number))
        .where(table.c.operation == operation, table.c.state == "failed")
        .group_by(table.c.reason)
    )
    found = sorted(tx.connection.execute(grouped), key=lambda row: (-row[1], row[0]))[:limit]
    firsts = {
        step.number: step
        for step in _rows(
            tx, _ALL.where(table.c.operation == operation, table.c.number.in_([row[2] for row in found]))
        )
    }
    return [Cause(reason, count, firsts[number]) for reason, count, number in found]


def page(
    tx: Transaction, operation: str, *, after: int = -1, limit: int, where: dict[str, str] | None = None
) -> list[SubcloudStep]:
    """Steps after a number in their order, of those whose columns are equal to these."""
    query = _ALL.where(table.c.operation == operation, table.c.number > after)
    for column, value in (where or {}).items():
        query = query.where(table.c[column] == value)
    return _rows(tx, query.order_by(table.c.number).limit(limit))


def begun(tx: Transaction, operation: str, *, after: int, limit: int) -> list[SubcloudStep]:
    """Steps after a number that have begun and are not over, or whose link is waited for."""
    query = _ALL.where(
        table.c.operation == operation, table.c.number > after, table.c.state.in_(("running", "offline"))
    )
    return _rows(tx, query.order_by(table.c.number).limit(limit))


def _rows(tx: Transaction, query: Select[Any]) -> list[SubcloudStep]:
    return [SubcloudStep(*row) for row in tx.connection.execute(query)]
