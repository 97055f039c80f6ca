"""One look at an operation, in one transaction: obey, find ends, give up, start, and say how far it is.

What is written of steps and what status counts change together, so the counts are exact and need not be
counted at each look; they are counted anew only when one statement has moved many. A look reads the steps
that something has changed for, those past their deadline and those that it starts: BATCH of each at most.

An offline subcloud takes no place in the window: its step is `offline` until the link is up, which makes it
wait for its turn again, or until its deadline. Pausing and halting put such steps back, as never tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from roost.engine.faults import write_log
from roost.fleet.operations import deciding
from roost.fleet.operations.actions import Impossible, Missing, Reached, Standing, action_of
from roost.model import time
from roost.model.cloud import Subcloud
from roost.model.fleet import SubcloudGroup, SubcloudGroupSpec
from roost.model.meta import Condition, set_condition
from roost.model.subcloud_operation import (
    LONGEST_MESSAGE,
    MOST_ERRORS,
    OPEN,
    OVER_PHASES,
    SUBCLOUD_OPERATION,
    SubcloudError,
    SubcloudOperation,
    SubcloudOperationStatus,
    SubcloudStepCounts,
    SubcloudStepState,
)
from roost.store import subcloud_steps
from roost.store.subcloud_steps import SubcloudStep
from roost.store.transaction import Transaction

BATCH = 200
KEPT = 50
"""Operations kept that are over."""


class Next(msgspec.Struct, frozen=True):
    """Seconds until something is due of itself, None when nothing is; whether the operation is over."""

    again: float | None
    over: bool = False


def look(tx: Transaction, name: str, cloud: str, subclouds: Sequence[str]) -> Next:
    """Look at an operation, and of its steps at those of these subclouds. It must be planned."""
    operation = tx.seek(SubcloudOperation, "", name)
    if operation is None:
        subcloud_steps.forget_orphans(tx, SUBCLOUD_OPERATION.kind)
        return Next(None, over=True)
    work = _Look(tx, operation, cloud)
    work.obey()
    work.notice(subclouds)
    work.give_up()
    work.start()
    return work.report()


class _Tally:
    """Counts of all steps and of those of the stage at work."""

    def __init__(self, status: SubcloudOperationStatus) -> None:
        self.stage = status.stage
        self._all, self._here = (msgspec.structs.asdict(c) for c in (status.steps, status.stage_steps))

    @property
    def all(self) -> SubcloudStepCounts:
        return SubcloudStepCounts(**self._all)

    @property
    def here(self) -> SubcloudStepCounts:
        return SubcloudStepCounts(**self._here)

    def move(self, stage: int, before: SubcloudStepState, after: SubcloudStepState) -> None:
        for counts in (self._all, self._here) if stage == self.stage else (self._all,):
            counts[before] -= 1
            counts[after] += 1

    def count(self, found: dict[tuple[int, SubcloudStepState], int]) -> None:
        """Take counts from rows; the stage at work is the first that has an open step, else the last."""
        open_stages = [stage for (stage, state), n in found.items() if n and state in OPEN]
        self.stage = min(open_stages, default=max((stage for stage, _ in found), default=0))
        self._all = dict.fromkeys(SubcloudStepCounts.__struct_fields__, 0)
        self._here = dict(self._all)
        for (stage, state), number in found.items():
            for counts in (self._all, self._here) if stage == self.stage else (self._all,):
                counts[state] += number
                counts["total"] += number


class _Look:
    """The look at one operation. Steps that have changed are held back and written together."""

    def __init__(self, tx: Transaction, operation: SubcloudOperation, cloud: str) -> None:
        self._tx, self._operation, self._cloud = tx, operation, cloud
        self._spec, self._status = operation.spec, operation.status
        self._uid = operation.metadata.uid
        self._now = tx.now.timestamp()
        self._action = action_of(tx, operation.spec, cloud)
        self._tally = _Tally(operation.status)
        self._errors = {error.reason: error for error in operation.status.errors}
        self._changed: dict[int, SubcloudStep] = {}
        self._retried = operation.status.retried
        self._unfinished = False
        self._groups: dict[str, SubcloudGroupSpec] = {}

    # -- what the operator has said

    def obey(self) -> None:
        """Retry, abort, pause: each moves all that it concerns in one statement."""
        spec, before = self._spec, self._tally.all
        if spec.retry > self._retried and not spec.aborted:
            self._move(("failed",), "waiting")
            self._retried = spec.retry
        elif spec.aborted and before.waiting + before.offline:
            self._move(("waiting", "offline"), "aborted")
        elif before.offline and self._verdict().phase in ("paused", "halted"):
            self._move(("offline",), "waiting")

    def _move(self, before: tuple[SubcloudStepState, ...], after: SubcloudStepState) -> None:
        subcloud_steps.move(self._tx, self._uid, before, after)
        self._count()

    def _count(self) -> None:
        self._write()
        self._tally.count(subcloud_steps.counts(self._tx, self._uid))
        found = subcloud_steps.causes(self._tx, self._uid, MOST_ERRORS)
        self._errors = {
            c.reason: SubcloudError(
                reason=c.reason, count=c.count, subcloud=c.first.subcloud, message=c.first.message
            )
            for c in found
        }

    # -- ends

    def notice(self, subclouds: Sequence[str]) -> None:
        """Find what has come about at these subclouds."""
        if subclouds:
            for step in subcloud_steps.open_at(self._tx, self._uid, subclouds):
                self._see(step)

    def _see(self, step: SubcloudStep) -> None:
        subcloud = self._tx.seek(Subcloud, "", step.subcloud)
        if subcloud is None:
            self._end(step, "skipped", "Gone", "it is no subcloud any more")
            return
        standing = self._standing(subcloud)
        if isinstance(standing, Reached):
            self._end(step, "done" if step.state == "running" else "skipped")
        elif isinstance(standing, Impossible):
            self._end(step, "failed", standing.reason, standing.message)
        elif step.state == "offline" and _online(subcloud):
            self._put(step, state="waiting", reason="", message="")
        else:
            reason, message = _why(subcloud, standing)
            if reason != step.reason:
                self._put(step, reason=reason, message=message)

    def _standing(self, subcloud: Subcloud) -> Standing:
        try:
            return self._action.reached(self._action.facts(subcloud))
        except msgspec.ValidationError as error:
            # What one site has told must not hold up all others.
            return Missing("NotUnderstood", f"what it told is not understood here: {error}")

    def give_up(self) -> None:
        """Try again, or end, what has reached its deadline without having come about."""
        self._write()
        late = subcloud_steps.overdue(self._tx, self._uid, BATCH)
        for step in late:
            self._see(step)
            seen = self._changed.get(step.number, step)
            if seen.state != step.state:
                continue
            if seen.state == "running" and seen.attempt <= self._spec.retries and self._goes_on():
                self._begin(seen, self._tx.load(Subcloud, "", seen.subcloud))
                continue
            message = f"not within {self._spec.deadline_seconds} seconds: {seen.message}"
            self._end(seen, "failed", seen.reason or "Deadline", message)
        self._unfinished |= len(late) == BATCH

    def _goes_on(self) -> bool:
        return self._verdict().phase == "running"

    # -- beginnings

    def start(self) -> None:
        """Fill the window with the next steps, as far as a batch goes; after a stage go to the next."""
        self._write()
        verdict = self._verdict()
        if verdict.further:
            self._count()
            verdict = self._verdict()
        if not verdict.starts:
            return
        for step in subcloud_steps.waiting(
            self._tx, self._uid, self._tally.stage, min(verdict.starts, BATCH)
        ):
            # Steps that fail at once spend the budget, too.
            if not self._verdict().starts:
                break
            self._start(step)
        self._write()
        verdict = self._verdict()
        self._unfinished |= verdict.further or verdict.starts > 0

    def _start(self, step: SubcloudStep) -> None:
        subcloud = self._tx.seek(Subcloud, "", step.subcloud)
        if subcloud is None:
            self._end(step, "skipped", "Gone", "it is no subcloud any more")
            return
        standing = self._standing(subcloud)
        if isinstance(standing, Reached):
            self._end(step, "skipped", "NotNeeded", "it was as wanted already")
        elif isinstance(standing, Impossible):
            self._end(step, "failed", standing.reason, standing.message)
        elif not _online(subcloud):
            reason, message = _why(subcloud, standing)
            deadline = step.deadline or self._now + self._spec.deadline_seconds
            self._put(step, state="offline", deadline=deadline, reason=reason, message=message)
        else:
            self._begin(step, subcloud)

    def _begin(self, step: SubcloudStep, subcloud: Subcloud) -> None:
        self._action.wish(subcloud)
        self._put(
            step,
            state="running",
            attempt=step.attempt + 1,
            deadline=self._now + self._spec.deadline_seconds,
            started_at=step.started_at or self._now,
            reason="",
            message="",
        )

    # -- rows

    def _end(self, step: SubcloudStep, state: SubcloudStepState, reason: str = "", message: str = "") -> None:
        message = message[:LONGEST_MESSAGE]
        self._put(step, state=state, ended_at=self._now, reason=reason, message=message)
        if state == "failed":
            known = self._errors.get(reason) or SubcloudError(
                reason=reason, subcloud=step.subcloud, message=message
            )
            self._errors[reason] = msgspec.structs.replace(known, count=known.count + 1)

    def _put(self, step: SubcloudStep, **values: Any) -> None:
        new = msgspec.structs.replace(step, **values)
        if new.state != step.state:
            self._tally.move(step.stage, step.state, new.state)
        self._changed[step.number] = new

    def _write(self) -> None:
        subcloud_steps.change(self._tx, self._changed.values())
        self._changed.clear()

    # -- the whole

    def _limits(self) -> deciding.Limits:
        stages, at = self._status.stages, self._tally.stage
        name = stages[at].group if at < len(stages) else ""
        if name not in self._groups:
            group = self._tx.seek(SubcloudGroup, "", name) if name else None
            self._groups[name] = group.spec if group is not None else SubcloudGroupSpec()
        return deciding.limits(self._spec, self._groups[name], self._tally.all, self._tally.here)

    def _verdict(self) -> deciding.Verdict:
        return deciding.decide(self._spec, self._tally.all, self._tally.here, self._limits())

    def report(self) -> Next:
        """Write the status where it has changed; when to look again."""
        self._write()
        phase, limits, before = self._verdict().phase, self._limits(), self._status
        stamp, ended = time.stamp(self._tx.now), self._tally.all.ended
        status = msgspec.structs.replace(
            before,
            observed_generation=self._operation.metadata.generation,
            phase=phase,
            steps=self._tally.all,
            stage=self._tally.stage,
            stage_steps=self._tally.here,
            window=limits.window,
            budget=limits.budget,
            retried=self._retried,
            errors=sorted(self._errors.values(), key=lambda e: (-e.count, e.reason))[:MOST_ERRORS],
            finished_at=(before.finished_at or stamp) if phase in OVER_PHASES else "",
        )
        if phase == "running" and before.phase != "running":
            begun = before.started_at or stamp
            status = msgspec.structs.replace(
                status, started_at=begun, running_since=stamp, running_from=ended
            )
        if status != before:
            rate, end = deciding.expectation(status, self._tx.now)
            status = msgspec.structs.replace(
                status, rate=rate, expected_end=end, message=deciding.message(status, self._spec)
            )
            conditions = set_condition(before.conditions, _progressing(status), stamp)
            conditions = set_condition(conditions, _succeeded(status), stamp)
            status = msgspec.structs.replace(status, conditions=conditions)
            self._tx.report(msgspec.structs.replace(self._operation, status=status))
            if phase != before.phase:
                self._tell(status)
        return Next(self._again(), over=phase in OVER_PHASES)

    def _again(self) -> float | None:
        if self._unfinished:
            return 0.0
        due = subcloud_steps.next_deadline(self._tx, self._uid)
        return None if due is None else max(0.01, due - self._now + 0.01)

    def _tell(self, status: SubcloudOperationStatus) -> None:
        name = self._operation.metadata.name
        write_log(
            self._tx,
            self._cloud,
            event=f"subcloud-operation-{status.phase}",
            severity="warning" if status.phase in ("halted", "failed") else "info",
            entity=f"subcloudoperation={name}",
            text=f"{name}, {self._spec.action} at {status.steps.total} subclouds: {status.message}",
        )
        if status.phase in OVER_PHASES:
            _forget_old(self._tx)


def _online(subcloud: Subcloud) -> bool:
    return subcloud.status.availability == "online"


def _why(subcloud: Subcloud, standing: Standing) -> tuple[str, str]:
    """Why it has not come about: the link where that is down, else what the action says."""
    name, status = subcloud.metadata.name, subcloud.status
    if not status.enrolled:
        return "NotEnrolled", f"it has not enrolled; make a token with roost subcloud token {name}"
    if not _online(subcloud):
        since = f" since {status.availability_changed_at}" if status.availability_changed_at else ""
        return "Offline", f"its link is down{since}; what to look at: roost subcloud errors {name}"
    if isinstance(standing, Missing | Impossible):
        return standing.reason, standing.message
    return "", ""


def _progressing(status: SubcloudOperationStatus) -> Condition:
    goes_on = status.phase in ("planned", "running", "aborting")
    return Condition(
        type="Progressing",
        status="True" if goes_on else "False",
        reason=status.phase.capitalize(),
        message=status.message,
        observed_generation=status.observed_generation,
    )


def _succeeded(status: SubcloudOperationStatus) -> Condition:
    over = status.phase in OVER_PHASES
    return Condition(
        type="Succeeded",
        status="Unknown" if not over else "True" if status.phase == "done" else "False",
        reason=status.phase.capitalize(),
        message=status.message,
        observed_generation=status.observed_generation,
    )


def _forget_old(tx: Transaction) -> None:
    """Remove the oldest operations past KEPT that are over, with their rows."""
    over = [o for o in tx.every(SubcloudOperation) if o.status.finished_at]
    over.sort(key=lambda o: o.status.finished_at)
    for old in over[:-KEPT]:
        subcloud_steps.forget(tx, old.metadata.uid)
        tx.remove(SUBCLOUD_OPERATION.kind, "", old.metadata.name)


def stamp_of(seconds: float) -> str:
    """A time of a row in words; empty when it is not set."""
    return time.stamp(datetime.fromtimestamp(seconds, UTC)) if seconds else ""
