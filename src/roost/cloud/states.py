"""The table of host states. Code, tests and documentation go by this one table.

Administrative state is what the operator has (through lock and unlock); contact is what the link
says; work is what is being done to the host; checks are what its health checks say of this start of its
machine; health is whether something degrades it. Operational state and availability follow from these
alone: nothing depends on how the host came there.

Contact is told in contact.py, what is made of checks in examination.py.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from roost.cloud.contact import Contact
from roost.model.health import ExaminationState
from roost.model.host import AdministrativeState, Availability, OperationalState

Work = Literal["none", "unlock", "other"]
Health = Literal["well", "degraded"]
TESTED: tuple[ExaminationState, ...] = ("asked", "running")


class Row(msgspec.Struct, frozen=True):
    """One row; an empty tuple matches anything. The first row that matches holds."""

    administrative: AdministrativeState
    contact: tuple[Contact, ...]
    work: tuple[Work, ...]
    checks: tuple[ExaminationState, ...]
    health: tuple[Health, ...]
    operational: OperationalState
    availability: Availability
    meaning: str


TABLE: tuple[Row, ...] = (
    Row("locked", ("late", "lost"), (), (), (), "disabled", "offline", "Out of service, does not answer."),
    Row("locked", (), ("unlock",), (), (), "disabled", "intest", "Being brought into service."),
    Row("locked", (), (), (), (), "disabled", "online", "Out of service, answers: safe to work on."),
    Row("unlocked", ("lost",), (), (), (), "disabled", "failed", "Should serve, but does not answer."),
    Row("unlocked", (), (), ("failed",), (), "disabled", "failed", "Should serve; a health check fails."),
    Row("unlocked", (), (), TESTED, (), "disabled", "intest", "Has started or come back; is being checked."),
    Row("unlocked", ("late",), (), (), (), "enabled", "degraded", "Serves; its heartbeat is missing."),
    Row("unlocked", (), (), (), ("degraded",), "enabled", "degraded", "Serves; something degrades it."),
    Row("unlocked", (), (), (), (), "enabled", "available", "Serves."),
)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the states of a host follow from."""

    administrative: AdministrativeState
    contact: Contact
    work: Work = "none"
    checks: ExaminationState = "none"
    health: Health = "well"


def state(facts: Facts) -> Row:
    """The row of the table that holds."""
    for row in TABLE:
        if (
            row.administrative == facts.administrative
            and (not row.contact or facts.contact in row.contact)
            and (not row.work or facts.work in row.work)
            and (not row.checks or facts.checks in row.checks)
            and (not row.health or facts.health in row.health)
        ):
            return row
    raise LookupError(f"no row for {facts}")


def as_markdown() -> str:
    """The table as the documentation shows it."""
    lines = [
        "| administrative | contact | work | checks | health | operational | availability | meaning |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in TABLE:
        cells = [
            row.administrative,
            " or ".join(row.contact) or "any",
            " or ".join(row.work) or "any",
            " or ".join(row.checks) or "any",
            " or ".join(row.health) or "any",
            row.operational,
            row.availability,
            row.meaning,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
