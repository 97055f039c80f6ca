"""What a host's status should be and which operation it needs. Pure.

The operator's word is `spec.administrativeState`; the state it has is `status.administrative`. When
they differ, an operation brings them together: one per generation and try, named so that a restart
finds it again. A try that failed is repeated by itself after a growing pause, for nobody may be there.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from roost.cloud.contact import Contact
from roost.cloud.states import Health, Work, state
from roost.model import time
from roost.model.host import Host, HostStatus
from roost.model.meta import Condition, Metadata, set_condition
from roost.model.operation import Operation, OperationAction, OperationSpec

FIRST_PAUSE = 30.0
LONGEST_PAUSE = 1800.0


class Plan(msgspec.Struct, frozen=True):
    """What follows for a host: its status, an operation to create, when to look again."""

    status: HostStatus
    operation: Operation | None = None
    again_in: float | None = None


def decide(host: Host, operations: list[Operation], contact: Contact, health: Health, now: datetime) -> Plan:
    """Plan for a host from its operations (all that name it), its contact and its health."""
    running = next((o for o in operations if not o.status.finished_at), None)
    work: Work = "none"
    if running is not None:
        work = "unlock" if running.spec.action == "unlock" else "other"
    wanted, again_in = _wanted(host, operations, running, now)
    row = state(host.status.administrative, contact, work, health)
    connected = contact == "present"
    moved = connected != host.status.connected
    conditions = set_condition(
        host.status.conditions, _settled(host, operations, running or wanted), time.stamp(now)
    )
    status = msgspec.structs.replace(
        host.status,
        operational=row.operational,
        availability=row.availability,
        connected=connected,
        connection_changed_at=time.stamp(now) if moved else host.status.connection_changed_at,
        task=_task(running),
        observed_generation=host.metadata.generation,
        conditions=conditions,
    )
    return Plan(status, wanted, again_in)


def operation_for(host: Host, action: OperationAction, attempt: int) -> Operation:
    """The operation that brings a host to its administrative state."""
    meta = host.metadata
    name = f"{action}-{meta.name}-{meta.generation}-{attempt}"
    # Without an owner reference: what was done to a host is still told when the host is gone.
    return Operation(
        metadata=Metadata(name=name, namespace=meta.namespace),
        spec=OperationSpec(action=action, host=meta.name),
    )


def _wanted(
    host: Host, operations: list[Operation], running: Operation | None, now: datetime
) -> tuple[Operation | None, float | None]:
    """The operation to create now, or the seconds until the next try."""
    if host.spec.administrative_state == host.status.administrative:
        return None, None
    action = _action(host)
    if running is not None:
        return None, None
    tries = _tries(host, action, operations)
    if tries:
        ended = max(time.parse(o.status.finished_at) for o in tries)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (len(tries) - 1))
        waited = (now - ended).total_seconds()
        if 0 <= waited < pause:
            return None, pause - waited
    attempt = 1 + max((int(o.metadata.name.rsplit("-", 1)[1]) for o in tries), default=0)
    return operation_for(host, action, attempt), None


def _tries(host: Host, action: OperationAction, operations: Iterable[Operation]) -> list[Operation]:
    """The operations made for the host's generation; such names are kept from people by admission."""
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
    if failed:
        last = failed[-1]
        why = f"{last.metadata.name} {last.status.state}: {last.status.message} It is tried again by itself."
        return condition("False", "OperationFailed", why)
    return condition("False", "Waiting", "The operation is about to start.")
