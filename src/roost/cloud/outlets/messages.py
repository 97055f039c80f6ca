"""What an outlet sends, made from changes of the store. Pure.

Whether a receiver should know an alarm (`shown`) is a function of the alarm: it passes the filter and is not
suppressed. A change is told by what it did to that: from unshown to shown an alarm is `set`, from shown to
unshown it is `clear`, whatever the reason; while it stays shown, it is `changed` when what is told of it
differs. So the receiver's picture follows from the sum of what it was sent.

A message's id is made of the store's identity and the revision: the same change has the same id whenever and
however often it is sent, and receivers can tell doubled ones by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from roost.model.fault import ALARM, LOG_ENTRY, Alarm, LogEntry
from roost.model.meta import Part
from roost.model.outlet import AlarmOutletSpec, Missed, OutletFilter
from roost.model.selector import Requirement, parse_labels
from roost.store.transaction import Change

What = Literal[
    "set",
    "changed",
    "clear",
    "log",
    "summary",
    "missed",
    "snapshot-begin",
    "present",
    "snapshot-end",
    "test",
]
Labels = Callable[[str], Mapping[str, str] | None]
"""Labels of the Subcloud of a name; None when there is no such."""

TOLD_AS_ALARMS = frozenset({"alarm-set", "alarm-clear"})
"""Entries of the log that say what the alarms' own messages say."""

_alarm = msgspec.json.Decoder(Alarm).decode
_entry = msgspec.json.Decoder(LogEntry).decode


class AlarmFacts(Part, frozen=True, kw_only=True, omit_defaults=False):
    """An alarm as receivers see it."""

    name: str
    alarm_id: str
    severity: str
    former_severity: str = ""
    entity: str = ""
    reason: str = ""
    repair: str = ""
    type: str = ""
    cause: str = ""
    service_affecting: bool = False
    raised_at: str = ""
    acknowledged_by: str = ""
    stale_since: str = ""


class LogFacts(Part, frozen=True, kw_only=True, omit_defaults=False):
    """An entry of the log as receivers see it."""

    source: str
    sequence: int
    event: str
    severity: str
    alarm_id: str = ""
    entity: str = ""
    text: str = ""


class SummaryFacts(Part, frozen=True, kw_only=True, omit_defaults=False):
    """How many messages of one cause this one stands for: by cloud, the first MOST_CLOUDS of them."""

    of: str
    alarm_id: str = ""
    event: str = ""
    severity: str = ""
    count: int = 0
    clouds: dict[str, int] = {}
    more_clouds: int = 0


class SnapshotFacts(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Which snapshot, why, and how many alarms it has (at its end: had)."""

    id: str
    why: str
    count: int = 0


class Message(Part, frozen=True, kw_only=True):
    """One thing that is told. `revision` and `last` (of those that it stands for) are the store's."""

    id: str
    what: What
    time: str
    cloud: str
    revision: int
    last: int = 0
    again: bool = False
    """It may have been sent before: the answer was lost, or the sender was."""
    alarm: AlarmFacts | None = None
    log: LogFacts | None = None
    summary: SummaryFacts | None = None
    missed: Missed | None = None
    snapshot: SnapshotFacts | None = None

    @property
    def upto(self) -> int:
        """The last revision that this message stands for."""
        return self.last or self.revision

    @property
    def severity(self) -> str:
        """How bad what it tells is; info when it tells of nothing bad."""
        if self.alarm is not None:
            return self.alarm.severity
        if self.log is not None:
            return self.log.severity
        return (self.summary.severity if self.summary else "") or "info"

    @property
    def text(self) -> str:
        """In one sentence, for people."""
        if self.alarm is not None:
            verb = {"clear": "cleared: ", "present": "still: "}.get(self.what, "")
            return f"{self.alarm.alarm_id} {self.alarm.entity} {verb}{self.alarm.reason}"
        if self.log is not None:
            return self.log.text
        if self.summary is not None:
            named = self.summary.alarm_id or self.summary.event
            clouds = len(self.summary.clouds) + self.summary.more_clouds
            return f"{self.summary.count} of {self.summary.of} {named} in {clouds} clouds, told together"
        if self.missed is not None:
            return (
                f"{self.missed.number} alarms set or cleared between {self.missed.since} and "
                f"{self.missed.until} were never told; what stands now follows"
            )
        if self.snapshot is not None:
            return f"{self.what} {self.snapshot.id}: {self.snapshot.count} alarms ({self.snapshot.why})"
        return "a test, asked for by an operator"


class Scope:
    """What an outlet's spec selects. `cloud` is this cloud; `labels` tells of its subclouds."""

    def __init__(self, spec: AlarmOutletSpec, cloud: str, outlet: str, labels: Labels) -> None:
        self._filter, self._cloud, self._labels = spec.filter, cloud, labels
        self._sends = frozenset(spec.sends)
        self._own = f"outlet={outlet}"
        self._requirements: Sequence[Requirement] = parse_labels(spec.filter.subcloud_selector)

    @property
    def needs_labels(self) -> bool:
        """Whether labels of subclouds matter."""
        return bool(self._requirements)

    @property
    def has_alarms(self) -> bool:
        """Whether alarms are sent at all, not the log alone."""
        return "alarms" in self._sends

    def shows(self, alarm: Alarm) -> bool:
        """Whether the receiver should know of an alarm."""
        status = alarm.status
        if "alarms" not in self._sends or status.suppressed:
            return False
        return self._selects(alarm.metadata.namespace, status.severity, status.alarm_id, status.entity)

    def tells(self, entry: LogEntry) -> bool:
        """Whether the receiver should be told of an entry of the log."""
        status = entry.status
        if "log" not in self._sends or status.entity == self._own:
            return False
        if "alarms" in self._sends and status.event in TOLD_AS_ALARMS:
            return False
        return self._selects(entry.metadata.namespace, status.severity, status.alarm_id, status.entity)

    def _selects(self, cloud: str, severity: str, alarm_id: str, entity: str) -> bool:
        wanted: OutletFilter = self._filter
        if wanted.severities and severity not in wanted.severities:
            return False
        for patterns, text in (
            (wanted.alarm_ids, alarm_id),
            (wanted.entities, entity),
            (wanted.clouds, cloud),
        ):
            if patterns and not any(fnmatchcase(text, pattern) for pattern in patterns):
                return False
        if not self._requirements:
            return True
        labels = None if cloud == self._cloud else self._labels(cloud)
        return labels is not None and all(r.holds(dict(labels)) for r in self._requirements)


def concerns(change: Change) -> bool:
    """Whether a change may be something to tell, without reading it."""
    return change.kind == ALARM.kind or (change.kind == LOG_ENTRY.kind and change.type == "ADDED")


def message_of(change: Change, scope: Scope, store: str, now: str) -> Message | None:
    """What a change is told as; None when it is not told. `store` is the store's identity, `now` the time
    for what has none of its own."""
    if change.kind == LOG_ENTRY.kind:
        return _of_entry(change, scope, store) if change.type == "ADDED" else None
    if change.kind != ALARM.kind:
        return None
    # What was removed is in `data` as it was before.
    gone = change.type == "DELETED"
    before = _alarm(change.data if gone else change.previous) if gone or change.previous else None
    after = None if gone else _alarm(change.data)
    was = before if before is not None and scope.shows(before) else None
    stands = after if after is not None and scope.shows(after) else None
    what: What
    if stands is None:
        if was is None:
            return None
        what, told = "clear", _facts(was)
    elif was is None:
        what, told = "set", _facts(stands)
    else:
        what, told = "changed", _facts(stands)
        if told == _facts(was):
            return None
        told = msgspec.structs.replace(told, former_severity=was.status.severity)
    when = told.raised_at if what == "set" and told.raised_at else now
    return Message(
        id=_id(store, change.revision),
        what=what,
        time=when,
        cloud=change.namespace,
        revision=change.revision,
        alarm=told,
    )


def present(alarm: Alarm, snapshot: str, revision: int) -> Message:
    """An alarm that stands, as part of a snapshot."""
    return Message(
        id=f"{snapshot}-{alarm.metadata.uid}",
        what="present",
        time=alarm.status.raised_at,
        cloud=alarm.metadata.namespace,
        revision=revision,
        alarm=_facts(alarm),
    )


def bracket(
    what: Literal["snapshot-begin", "snapshot-end"], told: SnapshotFacts, cloud: str, revision: int, now: str
) -> Message:
    """Begin or end of a snapshot: what is neither in between nor set since it began does not stand."""
    return Message(id=f"{told.id}-{what}", what=what, time=now, cloud=cloud, revision=revision, snapshot=told)


def missed_message(missed: Missed, store: str, cloud: str, revision: int, now: str) -> Message:
    """Says that some of what happened was never told, and how much."""
    return Message(
        id=f"{_id(store, revision)}-missed",
        what="missed",
        time=now,
        cloud=cloud,
        revision=revision,
        missed=missed,
    )


def test_message(store: str, cloud: str, now: str, unique: str) -> Message:
    """What `roost outlet test` sends."""
    return Message(id=f"{store[:8]}-test-{unique}", what="test", time=now, cloud=cloud, revision=0)


def count_missed(entries: Sequence[LogEntry], revisions: int, now: str) -> Missed:
    """What entries of the log still tell of changes that are gone."""
    counted = dict.fromkeys(("critical", "major", "minor", "warning"), 0)
    cleared, times = 0, []
    for entry in entries:
        if entry.status.event not in TOLD_AS_ALARMS:
            continue
        times.append(entry.status.time)
        if entry.status.event == "alarm-clear":
            cleared += 1
        elif entry.status.severity in counted:
            counted[entry.status.severity] += 1
    return Missed(
        at=now,
        revisions=revisions,
        since=min(times, default=""),
        until=max(times, default=""),
        number=len(times),
        cleared=cleared,
        **counted,
    )


def _of_entry(change: Change, scope: Scope, store: str) -> Message | None:
    entry = _entry(change.data)
    if not scope.tells(entry):
        return None
    status = entry.status
    told = LogFacts(
        source=status.source,
        sequence=status.sequence,
        event=status.event,
        severity=status.severity,
        alarm_id=status.alarm_id,
        entity=status.entity,
        text=status.text,
    )
    return Message(
        id=_id(store, change.revision),
        what="log",
        time=status.time,
        cloud=change.namespace,
        revision=change.revision,
        log=told,
    )


def _facts(alarm: Alarm) -> AlarmFacts:
    status = alarm.status
    return AlarmFacts(
        name=alarm.metadata.name,
        alarm_id=status.alarm_id,
        severity=status.severity,
        entity=status.entity,
        reason=status.reason,
        repair=status.repair,
        type=status.type,
        cause=status.cause,
        service_affecting=status.service_affecting,
        raised_at=status.raised_at,
        acknowledged_by=alarm.spec.acknowledged_by,
        stale_since=status.stale_since,
    )


def _id(store: str, revision: int) -> str:
    return f"{store[:8]}-{revision}"
