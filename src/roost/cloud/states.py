"""The table of host states. Code, tests and documentation go by this one table.

Administrative state is what the operator has (through lock and unlock); contact is what the link
says; work is what is being done to the host; health is what its alarms say. Operational state and
availability follow from these four alone: nothing depends on how the host came there.

Contact: `present` while the link is up, or down for less than LATE seconds; `late` from then on;
`lost` from LOST seconds on. A short cut or an agent's restart changes nothing. After a restart of the
controller a host that was not met yet keeps the contact it had, and is lost after RETURN seconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from roost.engine.presence import Presence
from roost.model.host import AdministrativeState, Availability, HostStatus, OperationalState

LATE = 3.0
LOST = 10.0
RETURN = 30.0

Contact = Literal["present", "late", "lost"]
Work = Literal["none", "unlock", "other"]
Health = Literal["well", "degraded"]


class Row(msgspec.Struct, frozen=True):
    """One row; an empty tuple matches anything. The first row that matches holds."""

    administrative: AdministrativeState
    contact: tuple[Contact, ...]
    work: tuple[Work, ...]
    health: tuple[Health, ...]
    operational: OperationalState
    availability: Availability
    meaning: str


TABLE: tuple[Row, ...] = (
    Row("locked", ("late", "lost"), (), (), "disabled", "offline", "Out of service, does not answer."),
    Row("locked", (), ("unlock",), (), "disabled", "intest", "Being brought into service."),
    Row("locked", (), (), (), "disabled", "online", "Out of service, answers: safe to work on."),
    Row("unlocked", ("lost",), (), (), "disabled", "failed", "Should serve, but does not answer."),
    Row("unlocked", ("late",), (), (), "enabled", "degraded", "Serves; its heartbeat is missing."),
    Row("unlocked", (), (), ("degraded",), "enabled", "degraded", "Serves with alarms that degrade it."),
    Row("unlocked", (), (), (), "enabled", "available", "Serves."),
)


def contact(connected: bool, seconds: float) -> Contact:  # noqa: FBT001 - a fact, not a switch
    """Contact of a host whose link has been up or down for so long."""
    if connected or seconds < LATE:
        return "present"
    return "late" if seconds < LOST else "lost"


def contact_of(presence: Presence, status: HostStatus) -> Contact:
    """Contact of a host from its link, and from its last status while its link was not met yet."""
    if presence.connected or presence.met:
        return contact(presence.connected, presence.silent)
    return contact_before(status) if presence.silent < RETURN else "lost"


def contact_before(status: HostStatus) -> Contact:
    """The contact that a status was written with; of a host that was never there: lost."""
    if status.connected:
        return "present"
    return "late" if status.operational == "enabled" else "lost"


def contact_due(presence: Presence, contact: Contact) -> float | None:
    """Seconds until the contact gets worse by silence alone; None when it can't."""
    if presence.connected or contact == "lost":
        return None
    if not presence.met:
        return max(0.05, RETURN - presence.silent + 0.01)
    return max(0.05, (LATE if contact == "present" else LOST) - presence.silent + 0.01)


def state(administrative: AdministrativeState, contact: Contact, work: Work, health: Health) -> Row:
    """The row of the table that holds."""
    for row in TABLE:
        if (
            row.administrative == administrative
            and (not row.contact or contact in row.contact)
            and (not row.work or work in row.work)
            and (not row.health or health in row.health)
        ):
            return row
    raise LookupError(f"no row for {administrative}, {contact}, {work}, {health}")


def as_markdown() -> str:
    """The table as the documentation shows it."""
    lines = [
        "| administrative | contact | work | health | operational | availability | meaning |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in TABLE:
        cells = [
            row.administrative,
            " or ".join(row.contact) or "any",
            " or ".join(row.work) or "any",
            " or ".join(row.health) or "any",
            row.operational,
            row.availability,
            row.meaning,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
