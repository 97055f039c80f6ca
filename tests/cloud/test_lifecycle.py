"""Which operation a host needs, and what its status says meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from roost.cloud.contact import Contact
from roost.cloud.lifecycle import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    UNLOCK_TRIES,
    Known,
    decide,
    operation_for,
    unlock_faults,
)
from roost.model import time
from roost.model.host import Host, HostSpec, HostStatus, Inventory
from roost.model.meta import Condition, Metadata
from roost.model.operation import Operation, OperationSpec, OperationStatus, StepStatus
from tests.support.clock import START

HERE = Known(contact="present")


def host(wish: str = "locked", has: str = "locked", generation: int = 3, **spec: Any) -> Host:
    return Host(
        metadata=Metadata(name="h", namespace="harbor", uid="u", generation=generation),
        spec=HostSpec(administrative_state=wish, **spec),  # type: ignore[arg-type]
        status=HostStatus(administrative=has),  # type: ignore[arg-type]
    )


def operation(
    name: str, action: str, state: str = "running", ago: float = 0.0, message: str = ""
) -> Operation:
    ended = time.stamp(START - timedelta(seconds=ago)) if state in ("succeeded", "failed", "aborted") else ""
    return Operation(
        metadata=Metadata(name=name, namespace="harbor"),
        spec=OperationSpec(action=action, host="h"),  # type: ignore[arg-type]
        status=OperationStatus(
            state=state,  # type: ignore[arg-type]
            message=message,
            finished_at=ended,
            steps=[
                StepStatus(name="check", state="succeeded"),
                StepStatus(name="configure", state="running"),
            ],
        ),
    )


def created(subject: Host, *operations: Operation) -> str:
    plan = decide(subject, list(operations), HERE, START)
    return plan.operation.metadata.name if plan.operation else ""


def settled(subject: Host, *operations: Operation) -> Condition:
    plan = decide(subject, list(operations), HERE, START)
    (condition,) = plan.status.conditions
    return condition


@pytest.mark.parametrize(
    ("subject", "operations", "expected"),
    [
        (host(), [], ""),
        (host("unlocked"), [], "unlock-h-3-1"),
        (host("locked", "unlocked"), [], "lock-h-3-1"),
        (host("locked", "unlocked", force_lock=True), [], "force-lock-h-3-1"),
        (host("unlocked", "locked", force_lock=True), [], "unlock-h-3-1"),
        # One operation per generation and try.
        (host("unlocked"), [operation("unlock-h-3-1", "unlock")], ""),
        (host("unlocked"), [operation("unlock-h-2-1", "unlock")], ""),
        (host("unlocked"), [operation("unlock-h-2-1", "unlock", "failed", 1)], "unlock-h-3-1"),
        # A try that failed pauses, then the next one comes.
        (host("unlocked"), [operation("unlock-h-3-1", "unlock", "failed", 1)], ""),
        (host("unlocked"), [operation("unlock-h-3-1", "unlock", "failed", 31)], "unlock-h-3-2"),
        (host("unlocked"), [operation("unlock-h-3-9", "unlock", "failed", 31)], "unlock-h-3-10"),
        (host("unlocked"), [operation("unlock-h-3-1", "unlock", "aborted", 31)], "unlock-h-3-2"),
        # A clock set back does not make it wait for a day.
        (host("unlocked"), [operation("unlock-h-3-1", "unlock", "failed", -86400)], "unlock-h-3-2"),
        # Other work goes first.
        (host("unlocked"), [operation("r", "reboot")], ""),
        (host("unlocked"), [operation("r", "reboot", "succeeded", 0)], "unlock-h-3-1"),
        (host("unlocked"), [operation("lock-h-2-1", "lock")], ""),
        # Names that people chose do not confuse it.
        (host("unlocked"), [operation("unlock-h-3-x", "reboot", "failed", 0)], "unlock-h-3-1"),
        # Back to what it has before anything happened.
        (host("locked", "locked"), [operation("unlock-h-2-1", "unlock")], ""),
    ],
)
def test_the_operation_to_create(subject: Host, operations: list[Operation], expected: str) -> None:
    assert created(subject, *operations) == expected


def test_a_restart_finds_the_same_operation() -> None:
    subject = host("unlocked")
    first = decide(subject, [], HERE, START).operation
    assert first == operation_for(subject, "unlock", 1)
    assert first is not None and created(subject, first) == ""
    assert not first.metadata.owner_references, "what was done is told when the host is gone"


def test_what_was_done_to_a_deleted_host_of_the_same_name_is_no_try_and_keeps_its_name() -> None:
    former = operation("lock-h-3-1", "lock", "succeeded", ago=0.5)
    former = msgspec.structs.replace(former, spec=msgspec.structs.replace(former.spec, host_uid="former"))
    assert created(host("locked", "unlocked"), former) == "lock-h-3-2"
    own = msgspec.structs.replace(former, spec=msgspec.structs.replace(former.spec, host_uid="u"))
    assert created(host("locked", "unlocked"), own) == ""


def test_the_pause_grows_to_a_bound() -> None:
    pauses = []
    for tries in range(1, 12):
        # Aborted by people: what a host found wrong is not tried so often.
        failed = [operation(f"unlock-h-3-{n + 1}", "unlock", "aborted", 0.0) for n in range(tries)]
        pauses.append(decide(host("unlocked"), failed, HERE, START).again_in)
    assert pauses[:3] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]
    assert pauses[-1] == LONGEST_PAUSE
    assert pauses == sorted(p or 0.0 for p in pauses)


def test_the_status_tells_what_is_done_and_why_it_waits() -> None:
    running = operation("unlock-h-3-1", "unlock", message="Waiting for the host.")
    plan = decide(host("unlocked"), [running], HERE, START)
    assert (plan.status.task, plan.status.availability) == ("unlock: configure", "intest")
    told = settled(host("unlocked"), running)
    assert (told.status, told.reason, told.message) == ("False", "Working", "Waiting for the host.")
    told = settled(host("unlocked"))
    assert (told.reason, "unlock-h-3-1" in told.message) == ("Working", True)
    told = settled(host())
    assert (told.status, told.observed_generation) == ("True", 3)


def test_a_failure_is_told_of_this_wish_only() -> None:
    failed = operation("unlock-h-3-1", "unlock", "failed", 1, "no contact")
    old = operation("r", "reboot", "failed", 0, "long ago")
    told = settled(host("unlocked"), failed, old)
    assert told.reason == "OperationFailed"
    assert "no contact" in told.message and "long ago" not in told.message


def test_the_time_of_the_connection_moves_with_it_alone() -> None:
    first = decide(host(), [], HERE, START).status
    assert (first.connected, first.connection_changed_at) == (True, time.stamp(START))
    later = START + timedelta(seconds=60)
    same = Host(metadata=host().metadata, spec=host().spec, status=first)
    assert decide(same, [], HERE, later).status == first
    touches: tuple[Contact, ...] = ("late", "lost")
    for touch in touches:
        gone = decide(same, [], Known(contact=touch), later).status
        assert (gone.connected, gone.connection_changed_at) == (False, time.stamp(later))


def unlocks(count: int, step: str, ago: float = 0.0) -> list[Operation]:
    """Unlocks that failed at a step."""
    made = [operation(f"unlock-h-3-{n + 1}", "unlock", "failed", ago, "Why.") for n in range(count)]
    steps = [StepStatus(name=step, state="failed")]
    return [msgspec.structs.replace(o, status=msgspec.structs.replace(o.status, steps=steps)) for o in made]


def test_an_unlock_that_the_host_refuses_is_tried_so_often_and_then_people_are_called() -> None:
    subject = host("unlocked")
    for count in range(1, UNLOCK_TRIES):
        assert created(subject, *unlocks(count, "test", LONGEST_PAUSE + 1)) == f"unlock-h-3-{count + 1}"
        assert unlock_faults(subject, unlocks(count, "test")) == []
    over = unlocks(UNLOCK_TRIES, "test", 10 * LONGEST_PAUSE)
    plan = decide(subject, over, HERE, START)
    assert (plan.operation, plan.again_in) == (None, None)
    told = settled(subject, *over)
    assert told.reason == "RecoveryOff" and "roost host recover h" in told.message
    (fault,) = unlock_faults(subject, over)
    assert (fault.alarm_id, fault.severity) == ("200.004", "critical") and "recover h" in fault.reason
    (fault,) = unlock_faults(subject, unlocks(UNLOCK_TRIES, "configure"))
    assert fault.alarm_id == "200.011"
    assert unlock_faults(host(), over) == [], "nobody wants it unlocked"
    # People have looked: another generation begins anew.
    again = host("unlocked", generation=4)
    assert created(again, *over) == "unlock-h-4-1" and unlock_faults(again, over) == []


def test_an_unlock_that_waited_for_the_host_is_tried_for_ever_and_at_once_when_it_answers() -> None:
    there = HostStatus(inventory=Inventory())
    subject = msgspec.structs.replace(host("unlocked"), status=there)
    tries = unlocks(50, "check", 1.0)
    plan = decide(subject, tries, Known(contact="lost"), START)
    assert plan.operation is None and plan.again_in is not None
    plan = decide(subject, tries, HERE, START)
    assert plan.operation is not None and plan.operation.metadata.name == "unlock-h-3-51"
