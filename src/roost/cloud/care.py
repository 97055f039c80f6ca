"""What a host's health asks for: put together from examination.py and recovery.py. Pure.

Only a host in service is cared for by itself: a locked one is asked by its unlock, and while an operation
is at work on it nothing else is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

import msgspec

from roost.cloud.contact import Contact
from roost.cloud.examination import (
    WAITS,
    cause_of,
    examination_due,
    examine,
    failing,
    health_faults,
    request_of,
    wanted_request,
)
from roost.cloud.recovery import Facts, Trouble, fell_silent, outlook, recover
from roost.model.alarms import ALARMS, Fault
from roost.model.configuration import HostConfiguration
from roost.model.fault import Alarm
from roost.model.health import CheckRequest, DegradedReason, Examination, RecoveryStatus
from roost.model.host import Host


class Care(msgspec.Struct, frozen=True, kw_only=True):
    """What is made of a host's health, and what follows."""

    examination: Examination
    recovery: RecoveryStatus
    faults: list[Fault] = []
    request: CheckRequest | None = None
    """To be written into its configuration now."""
    restart: bool = False
    again_in: float | None = None


def care_for(host: Host, configuration: HostConfiguration | None, contact: Contact, now: datetime) -> Care:
    """Look at a host's health."""
    status, policy = host.status, host.spec.recovery
    made = examine(host, configuration, contact, now)
    due = examination_due(made, now)
    if status.administrative != "unlocked":
        return Care(examination=made, recovery=RecoveryStatus(round=host.spec.recovery_round), again_in=due)
    request = wanted_request(host, configuration, contact, now)
    if request is not None and contact == "lost":
        return Care(
            examination=made,
            recovery=fell_silent(policy, status.recovery, now),
            request=request,
            again_in=due,
        )
    bad = failing(host, made)
    trouble = None
    if bad:
        trouble = Trouble(cause_of(bad), made.state == "unwell", status.agent.boot_id)
    facts = Facts(
        round=host.spec.recovery_round,
        enabled=status.operational == "enabled",
        waits=contact != "present" or made.state in WAITS,
        trouble=trouble,
    )
    step = recover(policy, status.recovery, facts, now)
    if step.attempt:
        request = request_of(host, step.attempt, now)
    told = outlook(step.status, cause_of(bad), host.metadata.name) if bad else ""
    return Care(
        examination=made,
        recovery=step.status,
        faults=health_faults(host, made, told),
        request=request,
        restart=step.restart,
        again_in=min((d for d in (due, step.again_in) if d is not None), default=None),
    )


SILENT_NETWORK = ("200.005", "200.009")
"""One network of a host is silent. The field degrades the host for it, though not in its table of alarms."""


def reasons(contact: Contact, alarms: Iterable[Alarm], scope: str) -> tuple[DegradedReason, ...]:
    """Everything that degrades a host that serves; what can't be observed now is not held against it, nor
    what operators have suppressed."""
    found = []
    alarms = list(alarms)
    silent = f"{scope}.200.005"
    if contact == "late" and not any(a.metadata.name == silent and a.status.suppressed for a in alarms):
        found.append(DegradedReason(reason="HeartbeatMissing", alarm=silent, message="Its link is silent."))
    for alarm in alarms:
        told = alarm.status
        if told.alarm_id in SILENT_NETWORK and contact == "present":
            degrading = not told.suppressed
        else:
            degrading = told.degrades_host
        if degrading and not told.stale_since:
            found.append(
                DegradedReason(
                    reason=_word(ALARMS[told.alarm_id].title),
                    alarm=alarm.metadata.name,
                    message=told.reason[:1024],
                )
            )
    return tuple(sorted(found, key=lambda r: (r.reason, r.alarm))[:256])


def _word(title: str) -> str:
    """A title as one word: `File system use` is FileSystemUse."""
    return "".join(w[:1].upper() + w[1:] for w in re.split(r"[^A-Za-z0-9]+", title))[:64]
