"""Which subclouds an operation is for, and in which order: rows, written in parts before the first starts.

While the phase is `planned` the rows are not whole. Whoever finds it so begins anew: rows of a former
beginning are removed first. The phase is written once all rows are there, so steps start from whole rows
only, even when a process that believes itself active still plans beside another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from roost.model import time
from roost.model.cloud import SUBCLOUD, Subcloud
from roost.model.fleet import selects
from roost.model.subcloud_operation import (
    MOST_STAGES,
    SubcloudOperation,
    SubcloudOperationSpec,
    SubcloudOperationStatus,
    SubcloudStage,
    SubcloudStepCounts,
)
from roost.store import subcloud_steps
from roost.store.store import Store
from roost.store.subcloud_steps import SubcloudStep
from roost.store.transaction import Transaction

TOGETHER = 1000
"""Subclouds read, and rows written, in one transaction."""

Member = tuple[str, str]
"""Group and name of a subcloud."""


class Disturbed(Exception):
    """Another process has planned the same operation at the same time."""


class Plan(msgspec.Struct, frozen=True):
    """Stages in order, and what is in each: the number of its stage and its name, in order."""

    stages: list[SubcloudStage]
    steps: list[tuple[int, str]]


def planned(spec: SubcloudOperationSpec, members: Sequence[Member]) -> Plan:
    """The plan for these subclouds. Pure.

    Groups past the number of stages there can be share the last one, which goes as a group by default.
    """
    own_window = bool(spec.max_parallel or spec.apply_type)
    groups = {group for group, _ in members}
    named = [group for group in spec.order if group in groups]
    rest = sorted(groups - set(named), key=lambda group: (not group, group))
    if own_window and rest:
        rest = [""]
    elif len(named) + len(rest) > MOST_STAGES:
        rest = [*rest[: MOST_STAGES - 1 - len(named)], ""]
    place = {group: stage for stage, group in enumerate([*named, *rest])}
    last = len(place) - 1
    steps = sorted((place.get(group, last), name) for group, name in members)
    totals = [0] * len(place)
    for stage, _ in steps:
        totals[stage] += 1
    stages = [SubcloudStage(group=group, total=totals[stage]) for group, stage in place.items()]
    return Plan(stages, steps)


async def plan(store: Store, operation: SubcloudOperation) -> None:
    """Write the rows of an operation, and then that it is planned. Raises Disturbed."""
    members, after = list[Member](), ""
    while True:
        found = await store.read(lambda tx, a=after: _members(tx, operation.spec, a))  # type: ignore[misc]
        members += found[0]
        after = found[1]
        if not after:
            break
    made = planned(operation.spec, members)
    if not await store.transact(lambda tx: _clear(tx, operation)):
        return
    for part in _parts(operation.metadata.uid, made):
        await store.transact(lambda tx, p=part: subcloud_steps.add(tx, p))  # type: ignore[misc]
    await store.transact(lambda tx: _begin(tx, operation, made))


def _members(tx: Transaction, spec: SubcloudOperationSpec, after: str) -> tuple[list[Member], str]:
    """The next of those selected, and after which name to go on; empty: these were the last."""
    found = tx.select(SUBCLOUD.kind, "", after=("", after) if after else None, limit=TOGETHER)
    subclouds = [stored.typed(Subcloud) for stored in found]
    chosen = [(s.spec.group, s.metadata.name) for s in subclouds if selects(spec.subclouds, s)]
    return chosen, found[-1].name if len(found) == TOGETHER else ""


def _parts(uid: str, made: Plan) -> Iterator[list[SubcloudStep]]:
    for first in range(0, len(made.steps), TOGETHER):
        part = made.steps[first : first + TOGETHER]
        yield [SubcloudStep(uid, first + n, stage, name) for n, (stage, name) in enumerate(part)]


def _unplanned(tx: Transaction, operation: SubcloudOperation) -> SubcloudOperation | None:
    """The operation as it is now; None when it is gone, or was planned meanwhile."""
    current = tx.seek(SubcloudOperation, "", operation.metadata.name)
    if current is None or current.metadata.uid != operation.metadata.uid:
        return None
    return current if current.status.phase == "planned" else None


def _clear(tx: Transaction, operation: SubcloudOperation) -> bool:
    """Remove rows of a former beginning; whether the operation is still to be planned."""
    if _unplanned(tx, operation) is None:
        return False
    subcloud_steps.forget(tx, operation.metadata.uid)
    return True


def _begin(tx: Transaction, operation: SubcloudOperation, made: Plan) -> None:
    current = _unplanned(tx, operation)
    if current is None:
        return
    total = len(made.steps)
    if sum(subcloud_steps.counts(tx, operation.metadata.uid).values()) != total:
        raise Disturbed(f"the rows of {operation.metadata.name} are not whole; it is planned anew")
    first = made.stages[0].total if made.stages else 0
    stamp = time.stamp(tx.now)
    status = SubcloudOperationStatus(
        phase="running",
        steps=SubcloudStepCounts(total=total, waiting=total),
        stages=made.stages,
        stage_steps=SubcloudStepCounts(total=first, waiting=first),
        started_at=stamp,
        running_since=stamp,
        retried=current.spec.retry,
    )
    tx.report(msgspec.structs.replace(current, status=status))
