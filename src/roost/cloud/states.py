"""The table of host states. Code, tests and documentation go by this one table.

Administrative state is what the operator has (through lock and unlock); contact is what the link
says; work is what is being done to the host; health is what its alarms say. Operational state and
availability follow from these four alone: nothing depends on how the host came there.

Contact is told in contact.py.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from roost.cloud.contact import Contact
from roost.model.host import AdministrativeState, Availability, OperationalState

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
