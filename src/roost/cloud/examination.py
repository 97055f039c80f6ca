"""What a cloud makes of its hosts' health checks, and what it asks of them. Pure.

A verdict counts for the request that stands in the host's configuration and for the start of the machine
that its agent speaks of: an old one is never taken for a new one. `fit_boot` is the start in which the host
was last in service; a host looked at anew in that start goes on serving, for nothing was restarted.

    asked --the host begins--> running --> passed | failed          a start in which it has not served yet
    again (serves meanwhile) ------------> passed | unwell          the start in which it serves

While a host is not heard nothing is made of it. When it was lost it is asked anew under the name of that
silence, so that its first word after it can't be one from before: until then it does not serve.
A wait that lasts too long has failed, which the next report mends.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from roost.cloud.contact import Contact
from roost.model import time
from roost.model.alarms import Fault
from roost.model.configuration import HostConfiguration
from roost.model.fault import AlarmStatus
from roost.model.health import (
    CheckReport,
    CheckRequest,
    CheckResult,
    Examination,
    ExaminationState,
    RecoveryCause,
)
from roost.model.host import Host

ASKED_SECONDS = 60.0
"""How long an agent may take to begin."""
EXAMINATION_SECONDS = 960.0
"""How long the checks may take; an agent gives them a little less."""
WAITS: tuple[ExaminationState, ...] = ("asked", "running", "again")
HOST_FAILED, CONFIGURATION_FAILED, CHECK_FAILED = "200.004", "200.011", "200.201"


def examine(
    host: Host, configuration: HostConfiguration | None, contact: Contact, now: datetime
) -> Examination:
    """What is known of the host's health."""
    request = configuration.spec.health if configuration is not None else None
    report, boot = host.status.health, host.status.agent.boot_id
    before = host.status.examination
    if report is None or request is None:
        return _since(before, Examination(state="none", boot_id=boot), now)
    if contact == "lost":
        # Nobody waits for one that is not there.
        return Examination(state="asked", request=request.id)
    state = _state(host, report, request)
    made = _since(before, Examination(state=state, request=request.id, boot_id=boot), now)
    if state not in WAITS:
        return made
    longest = timedelta(seconds=ASKED_SECONDS if state == "asked" else EXAMINATION_SECONDS)
    since = time.parse(made.since)
    if now - since < longest:
        return msgspec.structs.replace(made, deadline=time.stamp(since + longest))
    late: ExaminationState = "unwell" if _serves(host, report, request) else "failed"
    # Its beginning is kept: it stays overdue until the host says something else.
    return msgspec.structs.replace(made, state=late, deadline=time.stamp(since + longest))


def _state(host: Host, report: CheckReport, request: CheckRequest) -> ExaminationState:
    serves = _serves(host, report, request)
    if (report.request, report.boot_id) == (request.id, host.status.agent.boot_id):
        if report.state == "passed":
            return "passed"
        if report.state == "failed":
            return "unwell" if serves else "failed"
    if serves:
        return "again"
    return "running" if report.request == request.id else "asked"


def _serves(host: Host, report: CheckReport, request: CheckRequest) -> bool:
    """Whether it has served in this start, as far as that can be known: it has spoken since the request, or
    was never out of service since it last spoke."""
    status = host.status
    same = bool(status.agent.boot_id) and status.fit_boot == status.agent.boot_id
    return same and (report.request == request.id or status.operational == "enabled")


def _since(before: Examination, made: Examination, now: datetime) -> Examination:
    """The time from which the state counts: it stays while request, start and kind of wait do."""
    same = (before.request, before.boot_id) == (made.request, made.boot_id)
    overdue = bool(before.deadline) and before.state not in WAITS and made.state in WAITS
    began = before.since if same and before.since and (before.state == made.state or overdue) else ""
    # A beginning that lies ahead was written before the clock was set back.
    if began and time.parse(began) <= now:
        return msgspec.structs.replace(made, since=began)
    return msgspec.structs.replace(made, since=time.stamp(now))


def examination_due(made: Examination, now: datetime) -> float | None:
    """Seconds until a wait is over; None when there is none."""
    if made.state not in WAITS or not made.deadline:
        return None
    return max(0.05, (time.parse(made.deadline) - now).total_seconds() + 0.01)


def wanted_request(
    host: Host, configuration: HostConfiguration | None, contact: Contact, now: datetime
) -> CheckRequest | None:
    """What to ask of a host in service now: a first look, or a look after a silence. None: nothing new."""
    status = host.status
    if configuration is None or status.health is None or status.administrative != "unlocked":
        return None
    current = configuration.spec.health
    if contact == "lost" and status.connected:
        return None  # the silence has no name yet
    if contact == "lost":
        name = f"silence-{status.connection_changed_at or 'first'}"
    elif current is None:
        name = "first"
    else:
        return None
    return None if current is not None and current.id == name else request_of(host, name, now)


def request_of(host: Host, name: str, now: datetime) -> CheckRequest:
    """A request of this name, under the host's own settings."""
    return CheckRequest(id=name, deadline_seconds=host.spec.check_seconds, requested_at=time.stamp(now))


def failing(host: Host, made: Examination) -> list[CheckResult]:
    """The checks that keep a host from being well; one that stands for the wait when that was too long."""
    if made.state not in ("failed", "unwell"):
        return []
    report = host.status.health or CheckReport()
    bad = [c for c in report.checks if c.state in ("failed", "timed-out")]
    if report.state == "failed" and report.request == made.request and bad:
        return bad
    at = next((c.name for c in report.checks if c.state == "running"), "")
    where = f"it is at {at}" if at else "it has not begun"
    message = f"the checks did not end in time, {where}; look at the agent's log on the host"
    return [CheckResult(name="agent", state="timed-out", message=message)]


def cause_of(bad: list[CheckResult]) -> RecoveryCause:
    """What the host has to be recovered from."""
    return "configuration" if any(c.name == "configuration" for c in bad) else "health"


def told(bad: list[CheckResult]) -> str:
    """The checks that fail, for people."""
    words = {"failed": "failed", "timed-out": "timed out"}
    return "; ".join(f"{c.name} {words.get(c.state, c.state)}: {c.message or 'no message'}" for c in bad)[
        :1500
    ]


def health_faults(host: Host, made: Examination, outlook: str) -> list[Fault]:
    """The alarms of a host in service whose checks fail; `outlook` says what is done about it."""
    if host.status.administrative != "unlocked":
        return []
    name = host.metadata.name
    bad = failing(host, made)
    faults = [
        Fault(
            alarm_id=CHECK_FAILED,
            severity="major",
            entity=f"host={name}.check={c.name}",
            reason=f"Health check {told([c])}"[:1000],
            instance=c.name,
        )
        for c in bad
    ]
    if made.state == "failed":
        reason = f"{name} is unlocked and does not serve: {told(bad)[:700]}. {outlook}"
        faults.append(host_failed(host, cause_of(bad), reason))
    return faults


def host_failed(host: Host, cause: RecoveryCause, reason: str) -> Fault:
    """The alarm of a host that should serve and does not."""
    alarm = CONFIGURATION_FAILED if cause == "configuration" else HOST_FAILED
    entity = f"host={host.metadata.name}"
    return Fault(alarm_id=alarm, severity="critical", entity=entity, reason=reason[:1000])


def unjudged(host: Host, made: Examination, contact: Contact, alarm: AlarmStatus) -> bool:
    """Whether the state behind an alarm of health can't be told now: the host is being looked at."""
    if host.status.administrative != "unlocked":
        return False
    if alarm.alarm_id == CHECK_FAILED:
        return contact == "lost" or made.state in WAITS
    failed = alarm.alarm_id in (HOST_FAILED, CONFIGURATION_FAILED)
    return failed and made.state in ("asked", "running")
