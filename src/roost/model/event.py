"""Event: what a program noted about a resource, for a while; and entries of the log shown as such.

Events come from clients (`core/v1`, and the same kind as `events.k8s.io/v1`, where the fields have other
names). They are notes, not history: bounded in number and age (`engine.events`). What the platform itself
has to say stands in its log alone (`LogEntry`), and `of_log_entry` shows an entry as an Event, so that
`kubectl describe` finds both in one place. The fields are those of Kubernetes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from roost.model.coordination import time_problems
from roost.model.kind import Column, Conversion, KindInfo, Problem
from roost.model.meta import API_VERSION, DNS_NAME, Part, Resource, doc

Raw = dict[str, Any]
EVENTS = "events.k8s.io"
LOG_NAME = re.compile(r"^(log\.|[-a-z0-9]+-)\d{10}$")
"""Names that entries of the log have."""

_ALARM = {"alarm-set": "AlarmSet", "alarm-clear": "AlarmCleared"}
_SUBJECTS = {"host": "Host", "subcloud": "Subcloud", "cloud": "Cloud"}
_RENAMED = (
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
)
"""Fields as core/v1 and as events.k8s.io/v1 call them."""


class ObjectReference(Part, frozen=True, kw_only=True):
    """A resource."""

    api_version: Annotated[str, doc("Group and version of its kind.", max_length=253)] = ""
    kind: Annotated[str, doc("Its kind.", max_length=253)] = ""
    namespace: Annotated[str, doc("Its namespace.", max_length=253)] = ""
    name: Annotated[str, doc("Its name.", max_length=253)] = ""
    uid: Annotated[str, doc("Its identity.", max_length=128)] = ""
    resource_version: Annotated[str, doc("Revision of it that is meant.", max_length=64)] = ""
    field_path: Annotated[str, doc("Part of it that is meant.", max_length=1024)] = ""


class EventSource(Part, frozen=True, kw_only=True):
    """Who tells."""

    component: Annotated[str, doc("Program.", max_length=253)] = ""
    host: Annotated[str, doc("Where it runs.", max_length=253)] = ""


class EventSeries(Part, frozen=True, kw_only=True):
    """The same again and again."""

    count: Annotated[int, doc("How often so far.", ge=0)] = 0
    last_observed_time: Annotated[str | None, doc("When it was seen last.", format="date-time")] = None


class Event(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """Something was noted about a resource."""

    involved_object: Annotated[ObjectReference, doc("What it is about.", map_type="atomic")] = (
        ObjectReference()
    )
    type: Annotated[str, doc("Normal or Warning.", max_length=64)] = ""
    reason: Annotated[str, doc("One CamelCase word for the cause.", max_length=128)] = ""
    message: Annotated[str, doc("For people.", max_length=4096)] = ""
    count: Annotated[int, doc("How often it happened.", ge=0)] = 0
    first_timestamp: Annotated[str | None, doc("When it first happened.", format="date-time")] = None
    last_timestamp: Annotated[str | None, doc("When it last happened.", format="date-time")] = None
    source: Annotated[EventSource, doc("Who tells.")] = EventSource()
    event_time: Annotated[str | None, doc("When it first happened, exactly.", format="date-time")] = None
    series: Annotated[EventSeries | None, doc("Present when it went on happening.")] = None
    action: Annotated[str, doc("What was done or failed.", max_length=128)] = ""
    related: Annotated[
        ObjectReference | None, doc("Another resource that matters to it.", map_type="atomic")
    ] = None
    reporting_component: Annotated[str, doc("Controller that tells.", max_length=253)] = ""
    reporting_instance: Annotated[str, doc("Which of several such.", max_length=128)] = ""


class EventV1(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """Something was noted about a resource."""

    regarding: Annotated[ObjectReference, doc("What it is about.", map_type="atomic")] = ObjectReference()
    type: Annotated[str, doc("Normal or Warning.", max_length=64)] = ""
    reason: Annotated[str, doc("One CamelCase word for the cause.", max_length=128)] = ""
    note: Annotated[str, doc("For people.", max_length=4096)] = ""
    event_time: Annotated[str | None, doc("When it first happened, exactly.", format="date-time")] = None
    series: Annotated[EventSeries | None, doc("Present when it went on happening.")] = None
    action: Annotated[str, doc("What was done or failed.", max_length=128)] = ""
    related: Annotated[
        ObjectReference | None, doc("Another resource that matters to it.", map_type="atomic")
    ] = None
    reporting_controller: Annotated[str, doc("Controller that tells.", max_length=253)] = ""
    reporting_instance: Annotated[str, doc("Which of several such.", max_length=128)] = ""
    deprecated_count: Annotated[int, doc("How often it happened.", ge=0)] = 0
    deprecated_first_timestamp: Annotated[str | None, doc("When it first happened.", format="date-time")] = (
        None
    )
    deprecated_last_timestamp: Annotated[str | None, doc("When it last happened.", format="date-time")] = None
    deprecated_source: Annotated[EventSource, doc("Who tells.")] = EventSource()


def _problems(event: Event) -> list[Problem]:
    found = time_problems(
        firstTimestamp=event.first_timestamp,
        lastTimestamp=event.last_timestamp,
        eventTime=event.event_time,
        series_lastObservedTime=event.series.last_observed_time if event.series else None,
    )
    if LOG_NAME.match(event.metadata.name):
        found.append(Problem("metadata.name", "entries of the log have such names", "choose another name"))
    if event.type not in ("", "Normal", "Warning"):
        found.append(Problem("type", f"{event.type!r} is no type of event", "write Normal or Warning"))
    return found


def _renamed(raw: Raw, api_version: str, names: dict[str, str]) -> Raw:
    return {**{names.get(key, key): value for key, value in raw.items()}, "apiVersion": api_version}


def to_core(raw: Raw) -> Raw:
    """An Event of events.k8s.io/v1 as one of core/v1."""
    return _renamed(raw, "v1", {new: old for old, new in _RENAMED})


def from_core(raw: Raw) -> Raw:
    """An Event of core/v1 as one of events.k8s.io/v1."""
    return _renamed(raw, f"{EVENTS}/v1", dict(_RENAMED))


def of_log_entry(entry: Raw) -> Raw:
    """A LogEntry as an Event of core/v1. Alarms that came are warnings, all else is normal."""
    told, meta = entry.get("status", {}), entry["metadata"]
    code, severity = told.get("event", ""), told.get("severity", "info")
    warns = severity != "info" and code != "alarm-clear"
    alarm = f"{told['alarmId']}: " if told.get("alarmId") else ""
    shown = {k: v for k, v in meta.items() if k not in ("labels", "annotations", "generation")}
    host = told.get("source", "").partition("/")[2]
    return {
        "apiVersion": "v1",
        "kind": EVENT.kind,
        "metadata": shown,
        "involvedObject": _subject(told, meta.get("namespace", "")),
        "type": "Warning" if warns else "Normal",
        "reason": _ALARM.get(code) or _camel(code),
        "message": f"{alarm}{told.get('text', '')}",
        "count": 1,
        "firstTimestamp": told.get("time"),
        "lastTimestamp": told.get("time"),
        "source": {"component": "roost", **({"host": host} if host else {})},
        "reportingComponent": "roost",
    }


def _camel(code: str) -> str:
    if code[:1].isdigit():
        return code
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[^0-9A-Za-z]+", code))


def subject(entity: str) -> tuple[str, str]:
    """Kind and name of the resource that an entity instance lies in, as host=h1.filesystem=/var in Host h1;
    both empty when it lies in none."""
    what, _, name = entity.partition(".")[0].partition("=")
    return (_SUBJECTS[what], name) if what in _SUBJECTS and name else ("", "")


def _subject(told: Raw, namespace: str) -> Raw:
    kind, name = subject(told.get("entity", ""))
    if not kind:
        return {}
    found = {"apiVersion": API_VERSION, "kind": kind, "name": name}
    if kind == "Host":
        found["namespace"] = namespace
    if told.get("entityUid"):
        found["uid"] = told["entityUid"]
    part = told["entity"].partition(".")[2]
    return {**found, "fieldPath": part} if part else found


_SELECTABLE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
EVENT = KindInfo(
    kind="Event",
    group="",
    plural="events",
    singular="event",
    short_names=("ev",),
    type=Event,
    description="Something was noted about a resource; kept for an hour.",
    name_pattern=DNS_NAME,
    invariants=_problems,
    selectable=(
        *(f"involvedObject.{path}" for path in _SELECTABLE),
        "reason",
        "type",
        "source.component",
        "reportingComponent",
    ),
    columns=(
        Column("Last seen", "lastTimestamp,series.lastObservedTime,eventTime", "Time since.", "date"),
        Column("Type", "type", "Normal or Warning."),
        Column("Reason", "reason", "One word for the cause."),
        Column("Kind", "involvedObject.kind", "Kind of what it is about."),
        Column("Object", "involvedObject.name", "Name of what it is about."),
        Column("Source", "source.component,reportingComponent", "Who tells.", "string", 1),
        Column("Message", "message", "For people."),
        Column("Count", "count", "How often it happened.", "integer", 1),
    ),
)
EVENT_V1 = KindInfo(
    kind="Event",
    group=EVENTS,
    plural="events",
    singular="event",
    short_names=("ev",),
    type=EventV1,
    description=EVENT.description,
    name_pattern=DNS_NAME,
    conversion=Conversion(to_stored=to_core, from_stored=from_core),
    selectable=(
        *(f"regarding.{path}" for path in _SELECTABLE),
        "reason",
        "type",
        "reportingController",
    ),
    columns=(
        Column(
            "Last seen", "deprecatedLastTimestamp,series.lastObservedTime,eventTime", "Time since.", "date"
        ),
        Column("Type", "type", "Normal or Warning."),
        Column("Reason", "reason", "One word for the cause."),
        Column("Kind", "regarding.kind", "Kind of what it is about."),
        Column("Object", "regarding.name", "Name of what it is about."),
        Column("Source", "reportingController", "Who tells.", "string", 1),
        Column("Note", "note", "For people."),
    ),
)
