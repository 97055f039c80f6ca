"""What an operation does next, from its counts alone. Pure.

Invariants: no more run than the window allows; once more have failed than the budget allows nothing is
started; an operation is over only when none of its steps is open.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from roost.model import time
from roost.model.fleet import SubcloudGroupSpec
from roost.model.subcloud_operation import (
    SubcloudOperationPhase,
    SubcloudOperationSpec,
    SubcloudOperationStatus,
    SubcloudStepCounts,
)

LONGEST_EXPECTED = timedelta(days=3650)


class Limits(msgspec.Struct, frozen=True):
    """How many may run at once, and how many may fail before it halts, of those that `failed` counts."""

    window: int
    budget: int


class Verdict(msgspec.Struct, frozen=True):
    """The phase, and how many steps may start now; `further`: the stage is over and another follows."""

    phase: SubcloudOperationPhase
    starts: int = 0
    further: bool = False


def limits(
    spec: SubcloudOperationSpec,
    group: SubcloudGroupSpec,
    steps: SubcloudStepCounts,
    stage: SubcloudStepCounts,
) -> Limits:
    """The limits of a stage: the operation's own, else those of the stage's group."""
    apply_type = spec.apply_type or ("parallel" if spec.max_parallel else group.apply_type)
    window = 1 if apply_type == "serial" else spec.max_parallel or group.max_parallel
    if spec.failure_budget:
        return Limits(window, budget(spec.failure_budget, steps.total))
    return Limits(window, budget(group.failure_budget, stage.total))


def budget(text: str, total: int) -> int:
    """How many of a total a budget is; a share is rounded down."""
    if text.endswith("%"):
        return total * int(text[:-1]) // 100
    return int(text)


def decide(
    spec: SubcloudOperationSpec, steps: SubcloudStepCounts, stage: SubcloudStepCounts, limits: Limits
) -> Verdict:
    """What comes next, from the counts of all steps and of the stage at work."""
    left = steps.waiting + steps.offline
    if spec.aborted and (left or steps.running or steps.aborted):
        return Verdict("aborting" if steps.open else "aborted")
    failed = steps.failed if spec.failure_budget else stage.failed
    if failed > limits.budget:
        return Verdict("halted" if steps.open else "failed")
    if not steps.open:
        return Verdict("done")
    if spec.paused:
        return Verdict("paused")
    if not stage.open:
        return Verdict("running", further=True)
    return Verdict("running", starts=max(0, min(limits.window - steps.running, stage.waiting)))


def expectation(status: SubcloudOperationStatus, now: datetime) -> tuple[float, str]:
    """Steps that end in a minute since it last began to run, and when it will be over; 0 and empty while
    that is not known."""
    if status.phase != "running" or not status.running_since:
        return 0.0, ""
    seconds = (now - time.parse(status.running_since)).total_seconds()
    ended = status.steps.ended - status.running_from
    if seconds <= 0 or ended <= 0:
        return 0.0, ""
    left = timedelta(seconds=status.steps.open * seconds / ended)
    return round(ended / seconds * 60, 1), time.stamp(now + min(left, LONGEST_EXPECTED))


def message(status: SubcloudOperationStatus, spec: SubcloudOperationSpec) -> str:
    """Why it stands where it does, and what to do. In words."""
    steps = status.steps
    failed = f"{steps.failed} of {steps.total} failed"
    offline = f"; {steps.offline} are offline and are waited for" if steps.offline else ""
    match status.phase:
        case "planned":
            return "Its subclouds are being chosen."
        case "running":
            return f"{steps.running} run, {steps.waiting} wait{offline}."
        case "paused":
            return f"Paused, {steps.running} still run; set spec.paused to false to go on."
        case "halted":
            return (
                f"{failed}, {status.budget} may; nothing further is started, {steps.running} still run. Mend "
                "what failed and raise spec.retry, raise spec.failureBudget, or set spec.aborted."
            )
        case "aborting":
            return f"Aborted; {steps.running} still run, until they end or reach their deadline."
        case "aborted":
            return f"Aborted: {steps.aborted} of {steps.total} were not begun, {steps.failed} failed."
        case "failed":
            return f"{failed}, {status.budget} may. Mend what failed and raise spec.retry."
        case _:
            if not steps.total:
                return "No subcloud was selected."
            again = "; raise spec.retry to try these again" if steps.failed else ""
            return f"{steps.done} done, {steps.skipped} needed nothing, {steps.failed} failed{again}."
