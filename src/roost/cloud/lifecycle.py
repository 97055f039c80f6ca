"""What a host's status should be, which operation it needs, and what its host should be asked. Pure.

The operator's word is `spec.administrativeState`; the state it has is `status.administrative`. When
they differ, an operation brings them together: one per generation and try, named so that a restart
finds it again. A try that failed is repeated by itself after a growing pause, for nobody may be there: at
once when it failed for want of the host and the host answers now; at most UNLOCK_TRIES times when what the
host found was the reason, for then people have to mend it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from roost.cloud.contact import Contact
from roost.cloud.examination import cause_of, failing, host_failed, told
from roost.cloud.recovery import outlook
from roost.cloud.states import Facts, Work, state
from roost.model import time
from roost.model.alarms import Fault
from roost.model.health import DegradedReason, Examination, RecoveryStatus
from roost.model.host import Host, HostStatus
from roost.model.meta import Condition, Metadata, set_condition
from roost.model.operation import Operation, OperationAction, OperationSpec

FIRST_PAUSE = 30.0
LONGEST_PAUSE = 1800.0
UNLOCK_TRIES = 5
ANSWER_STEP = "check"
"""The step of an unlock that waits for the host to answer."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a host beside what it says itself."""

    contact: Contact
    examination: Examination = Examination()
    recovery: RecoveryStatus = RecoveryStatus()
    reasons: tuple[DegradedReason, ...] = ()
    """What degrades it, each for itself."""


class Plan(msgspec.Struct, frozen=True):
    """What follows for a host: its status, an operation to create, when to look again."""

    status: HostStatus
    operation: Operation | None = None
    again_in: float | None = None


def decide(host: Host, operations: list[Operation], known: Known, now: datetime) -> Plan:
    """Plan for a host from its operations (all that name it) and what is known of it."""
    before = host.status
    running = next((o for o in operations if not o.status.finished_at), None)
    work: Work = "none"
    if running is not None:
        work = "unlock" if running.spec.action == "unlock" else "other"
    wanted, again_in = _wanted(host, operations, running, known.contact, now)
    row = state(
        Facts(
            administrative=before.administrative,
            contact=known.contact,
            work=work,
            checks=known.examination.state,
            health="degraded" if known.reasons else "well",
        )
    )
    connected = known.contact == "present"
    moved = connected != before.connected
    stamp = time.stamp(now)
    conditions = set_condition(before.conditions, _settled(host, operations, running or wanted), stamp)
    healthy = _healthy(host, known)
    if healthy is not None:
        conditions = set_condition(conditions, healthy, stamp)
    status = msgspec.structs.replace(
        before,
        operational=row.operational,
        availability=row.availability,
        connected=connected,
        connection_changed_at=stamp if moved else before.connection_changed_at,
        task=_task(running) or (_test(host) if row.availability == "intest" else ""),
        observed_generation=host.metadata.generation,
        conditions=conditions,
        examination=known.examination,
        recovery=known.recovery,
        degraded=list(known.reasons) if row.availability == "degraded" else [],
        fit_boot=_fit_boot(before, connected=connected, serves=row.operational == "enabled"),
    )
    return Plan(status, wanted, again_in)


def _fit_boot(status: HostStatus, *, connected: bool, serves: bool) -> str:
    """The start in which it serves. One that is locked has to be found fit anew."""
    if status.administrative == "locked":
        return ""
    return status.agent.boot_id if connected and serves else status.fit_boot


def operation_for(host: Host, action: OperationAction, attempt: int) -> Operation:
    """The operation that brings a host to its administrative state."""
    meta = host.metadata
    name = f"{action}-{meta.name}-{meta.generation}-{attempt}"
    # Without an owner reference: what was done to a host is still told when the host is gone.
    return Operation(
        metadata=Metadata(name=name, namespace=meta.namespace),
        spec=OperationSpec(action=action, host=meta.name, host_uid=meta.uid),
    )


def _wanted(
    host: Host, operations: list[Operation], running: Operation | None, contact: Contact, now: datetime
) -> tuple[Operation | None, float | None]:
    """The operation to create now, or the seconds until the next try."""
    if host.spec.administrative_state == host.status.administrative:
        return None, None
    action = _action(host)
    if running is not None:
        return None, None
    tries = _tries(host, action, operations)
    if _given_up(tries):
        return None, None
    if tries and not _answers_now(host, tries, contact):
        ended = max(time.parse(o.status.finished_at) for o in tries)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (len(tries) - 1))
        waited = (now - ended).total_seconds()
        if 0 <= waited < pause:
            return None, pause - waited
    taken = _named(host, action, operations)
    attempt = 1 + max((int(o.metadata.name.rsplit("-", 1)[1]) for o in taken), default=0)
    return operation_for(host, action, attempt), None


def _given_up(tries: list[Operation]) -> bool:
    """Whether an unlock failed so often for what the host found that another try is of no use."""
    found = [o for o in tries if o.spec.action == "unlock" and o.status.state == "failed" and not _unheard(o)]
    return len(found) >= UNLOCK_TRIES


def unlock_faults(host: Host, operations: Iterable[Operation]) -> list[Fault]:
    """The alarm of a host that should serve and whose unlock is not tried again by itself."""
    if host.spec.administrative_state != "unlocked" or host.status.administrative == "unlocked":
        return []
    tries = _tries(host, "unlock", operations)
    if not _given_up(tries):
        return []
    last = max(tries, key=lambda o: o.status.finished_at)
    configuring = any(s.name == "configure" and s.state == "failed" for s in last.status.steps)
    reason = f"{host.metadata.name} should serve and stays locked: {_why_given_up(host, last)}"
    return [host_failed(host, "configuration" if configuring else "health", reason)]


def _why_given_up(host: Host, last: Operation) -> str:
    return (
        f"{last.metadata.name} failed: {last.status.message[:600]} It is not tried again by itself after "
        f"{UNLOCK_TRIES} tries. Mend that, then begin anew with `roost host recover {host.metadata.name}`."
    )


def _unheard(operation: Operation) -> bool:
    """Whether an operation failed because its host did not answer."""
    return any(s.name == ANSWER_STEP and s.state == "failed" for s in operation.status.steps)


def _answers_now(host: Host, tries: list[Operation], contact: Contact) -> bool:
    """Whether the last try failed for want of the host, and now it is there."""
    last = max(tries, key=lambda o: o.status.finished_at)
    return _unheard(last) and contact == "present" and host.status.inventory is not None


def _tries(host: Host, action: OperationAction, operations: Iterable[Operation]) -> list[Operation]:
    """The operations made for the host's generation, and not for a deleted host of its name."""
    return [o for o in _named(host, action, operations) if o.spec.meant_for(host.metadata.uid)]


def _named(host: Host, action: OperationAction, operations: Iterable[Operation]) -> list[Operation]:
    """The operations with names of the host's generation; such names are kept from people by admission."""
    prefix = f"{action}-{host.metadata.name}-{host.metadata.generation}-"
    return [o for o in operations if o.spec.action == action and o.metadata.name.startswith(prefix)]


def _action(host: Host) -> OperationAction:
    if host.spec.administrative_state == "unlocked":
        return "unlock"
    return "force-lock" if host.spec.force_lock else "lock"


def _task(running: Operation | None) -> str:
    if running is None:
        return ""
    step = next((s for s in running.status.steps if s.state in ("running", "pending")), None)
    return f"{running.spec.action}: {step.name}" if step else f"{running.spec.action}"


def _test(host: Host) -> str:
    """The check that is at work on a host in test."""
    checks = host.status.health.checks if host.status.health is not None else []
    at = next((c.name for c in checks if c.state in ("running", "pending")), "")
    return f"in test: {at}"[:255] if at else "in test"


def _healthy(host: Host, known: Known) -> Condition | None:
    """What the health checks say; None for a host that was never asked."""
    made = known.examination
    if made.state == "none":
        return None
    status, reason, message = "Unknown", "InTest", ""
    if made.state == "passed":
        count = len(host.status.health.checks) if host.status.health is not None else 0
        status, reason, message = "True", "ChecksPassed", f"All {count} checks have passed."
    elif made.state in ("failed", "unwell"):
        bad = failing(host, made)
        next_step = outlook(known.recovery, cause_of(bad), host.metadata.name)
        status, reason, message = "False", "ChecksFailed", f"{told(bad)}. {next_step}"
    elif known.contact == "lost":
        reason, message = "NotHeard", "It does not answer; once it does, its checks are run."
    elif made.state == "again":
        reason, message = "LookedAtAgain", f"It serves while its checks are run again, until {made.deadline}."
    else:
        what = _test(host).removeprefix("in test").lstrip(": ") or "waiting for the agent to begin"
        message = f"{what}; it serves when all checks have passed, and has failed at {made.deadline}."
    return Condition(
        type="Healthy",
        status=status,  # type: ignore[arg-type]
        reason=reason,
        message=message[:4096],
        observed_generation=host.metadata.generation,
    )


def _settled(host: Host, operations: Iterable[Operation], coming: Operation | None) -> Condition:
    """Whether the host is in the administrative state the operator wants; if not, why and what next."""
    generation = host.metadata.generation

    def condition(status: str, reason: str, message: str) -> Condition:
        return Condition(
            type="Settled",
            status=status,  # type: ignore[arg-type]
            reason=reason,
            message=message,
            observed_generation=generation,
        )

    if host.spec.administrative_state == host.status.administrative:
        return condition("True", "AsWanted", f"The host is {host.status.administrative}.")
    if coming is not None:
        message = coming.status.message or f"Operation {coming.metadata.name} is on its way."
        return condition("False", "Working", message)
    tries = _tries(host, _action(host), operations)
    failed = [o for o in tries if o.status.state in ("failed", "aborted")]
    failed.sort(key=lambda o: o.status.finished_at)
    if failed and _given_up(tries):
        return condition("False", "RecoveryOff", _why_given_up(host, failed[-1]))
    if failed:
        last = failed[-1]
        why = f"{last.metadata.name} {last.status.state}: {last.status.message} It is tried again by itself."
        return condition("False", "OperationFailed", why)
    return condition("False", "Waiting", "The operation is about to start.")
