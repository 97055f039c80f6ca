"""Alarm and LogEntry: what is wrong now, and what has happened.

An alarm is a function of state: the cloud's fault controller compares the set that should be with
the set that is. A log entry is written once and never changed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from roost.model.kind import Column, Flow, KindInfo
from roost.model.meta import DNS_NAME, Owner, Part, Resource, doc

Severity = Literal["critical", "major", "minor", "warning"]
LogSeverity = Literal["critical", "major", "minor", "warning", "info"]


class AlarmSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What operators say of it."""

    acknowledged_by: Annotated[str, doc("Who has taken it in hand.", max_length=255)] = ""
    acknowledged_severity: Annotated[
        Severity | Literal[""],
        doc("Severity that was seen and acknowledged; empty: the one it had when the cloud heard of it."),
    ] = ""
    comment: Annotated[str, doc("For people.", max_length=1024)] = ""


class Acknowledgement(Part, frozen=True, kw_only=True, omit_defaults=False):
    """That somebody has the alarm in hand: from the spec, with when and at which severity."""

    by: Annotated[str, doc("Who.", max_length=255)] = ""
    at: Annotated[str, doc("When the cloud heard of it.", format="date-time")] = ""
    comment: Annotated[str, doc("For people.", max_length=1024)] = ""
    severity: Annotated[Severity, doc("It holds while the alarm is no worse than this.")] = "warning"
    generation: Annotated[int, doc("Generation of spec this follows from.")] = 0


class Suppressed(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Which AlarmSuppression keeps the alarm from counting."""

    name: Annotated[str, doc("Its name.")] = ""
    by: Annotated[str, doc("Who has declared it.", max_length=255)] = ""
    reason: Annotated[str, doc("Why.", max_length=1024)] = ""
    until: Annotated[str, doc("When the alarm counts again by itself.", format="date-time")] = ""


class AlarmStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is wrong."""

    alarm_id: Annotated[str, doc("NNN.NNN, as in the dictionary of alarms.")] = ""
    entity: Annotated[str, doc("Entity instance, as host=controller-0.filesystem=/var.")] = ""
    severity: Annotated[Severity, doc("How bad.")] = "warning"
    reason: Annotated[str, doc("What is wrong.", max_length=1024)] = ""
    repair: Annotated[str, doc("Proposed repair action.", max_length=1024)] = ""
    type: Annotated[str, doc("Alarm type (X.733).")] = ""
    cause: Annotated[str, doc("Probable cause (X.733).")] = ""
    service_affecting: Annotated[bool, doc("Whether service suffers.")] = False
    suppressible: Annotated[bool, doc("Whether it may be suppressed.")] = False
    degrades_host: Annotated[bool, doc("Whether it makes its host degraded.")] = False
    blocks_updates: Annotated[bool, doc("Whether no software update begins while it is there.")] = False
    suppressed: Annotated[
        bool, doc("Whether it is kept from counting: it degrades nothing, blocks nothing, is sent nowhere.")
    ] = False
    suppression: Annotated[Suppressed | None, doc("What suppresses it; absent: nothing.")] = None
    acknowledged: Annotated[bool, doc("Whether somebody has it in hand as it is now.")] = False
    acknowledgement: Annotated[
        Acknowledgement | None,
        doc("Who said so, and of which severity; it holds no more once the alarm is worse."),
    ] = None
    raised_at: Annotated[str, doc("When it was raised.", format="date-time")] = ""
    stale_since: Annotated[
        str, doc("Set while its state can't be observed: it may have ended meanwhile.", format="date-time")
    ] = ""


class Alarm(Resource, frozen=True, kw_only=True):
    """Something is wrong now."""

    spec: Annotated[AlarmSpec, doc("What operators say of it.")] = AlarmSpec()
    status: Annotated[AlarmStatus, doc("What is wrong.")] = AlarmStatus()


ALARM = KindInfo(
    kind="Alarm",
    operating=("acknowledgedBy", "acknowledgedSeverity", "comment"),
    plural="alarms",
    singular="alarm",
    short_names=("al",),
    categories=("roost",),
    type=Alarm,
    description="Something is wrong now; raised and cleared by comparing what should be with what is.",
    flow=Flow.UP,
    name_pattern=DNS_NAME,
    selectable=(
        "status.alarmId",
        "status.severity",
        "status.entity",
        "status.suppressed",
        "status.acknowledged",
        "status.blocksUpdates",
        "status.degradesHost",
    ),
    columns=(
        Column("Id", "status.alarmId", "As in the dictionary of alarms."),
        Column("Severity", "status.severity", "How bad."),
        Column("Entity", "status.entity", "Entity instance."),
        Column("Reason", "status.reason", "What is wrong."),
        Column("Repair", "status.repair", "Proposed repair action.", "string", 1),
        Column("Blocks updates", "status.blocksUpdates", "Whether updates wait for it.", "boolean", 1),
        Column("Suppressed until", "status.suppression.until", "When it counts again.", "string", 1),
        Column("Acknowledged", "spec.acknowledgedBy", "Who has taken it in hand.", "string", 1),
        Column("Age", "status.raisedAt", "Time since it was raised.", "date"),
    ),
)


class LogEntryStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What happened."""

    time: Annotated[str, doc("When.", format="date-time")] = ""
    source: Annotated[str, doc("Who tells: a cloud, or cloud/host.")] = ""
    sequence: Annotated[int, doc("Rises by one with each entry of its source.")] = 0
    severity: Annotated[LogSeverity, doc("How bad.")] = "info"
    event: Annotated[str, doc("alarm-set, alarm-clear, or the id of an event.")] = ""
    alarm_id: Annotated[str, doc("Alarm it speaks of.")] = ""
    entity: Annotated[str, doc("Entity instance.")] = ""
    entity_uid: Annotated[
        str, doc("Identity of the host, cloud or subcloud that the entity lies in, if there is one.")
    ] = ""
    text: Annotated[str, doc("For people.", max_length=2048)] = ""


class LogEntry(Resource, frozen=True, kw_only=True):
    """Something has happened."""

    status: Annotated[LogEntryStatus, doc("What happened.")] = LogEntryStatus()


LOG_ENTRY = KindInfo(
    kind="LogEntry",
    plural="logentries",
    singular="logentry",
    short_names=("log",),
    categories=(),
    type=LogEntry,
    description="Something has happened; written once, never changed, kept up to a bound.",
    flow=Flow.UP,
    spec_owner=Owner.CLOUD,
    name_pattern=DNS_NAME,
    selectable=("status.severity", "status.event", "status.alarmId", "status.entity", "status.source"),
    columns=(
        Column("Time", "status.time", "When."),
        Column("Severity", "status.severity", "How bad."),
        Column("Event", "status.event", "What kind of event."),
        Column("Alarm", "status.alarmId", "Alarm it speaks of.", "string", 1),
        Column("Entity", "status.entity", "Entity instance."),
        Column("Text", "status.text", "For people."),
    ),
)
