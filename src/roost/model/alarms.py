"""The dictionary of alarms: what every alarm of an id has in common, as `alarms.toml` beside this says.

The file is read once, into strict types: a word too many, a severity that is none, a threshold that the alarm
never reaches stop the program at its start, and a test long before. A `Fault` is an alarm that should be
raised now.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from importlib import resources

import msgspec

from roost.model.fault import Severity


class AlarmDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all alarms of one id share; `alarms.toml` says what each field means."""

    alarm_id: str
    title: str
    entity: str
    severities: tuple[Severity, ...]
    type: str
    cause: str
    repair: str
    meaning: str = ""
    effect: str = ""
    service_affecting: bool = False
    suppressible: bool = False
    degrades_from: Severity | None = None
    """Severity from which on the alarm makes its host degraded."""
    blocks_updates_from: Severity | None = None
    """Severity from which on no software update begins."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm that should be raised. `instance` tells several of one id in one scope apart."""

    alarm_id: str
    severity: Severity
    entity: str
    reason: str
    instance: str = ""


def read_dictionary(text: str) -> dict[str, AlarmDefinition]:
    """The definitions in a file's text, by id. Raises ValueError, which names the id and what is wrong."""
    found = {}
    for alarm_id, fields in tomllib.loads(text).items():
        try:
            found[alarm_id] = msgspec.convert({**fields, "alarm_id": alarm_id}, AlarmDefinition)
        except msgspec.ValidationError as error:
            raise ValueError(f"alarm {alarm_id}: {error}") from error
    return found


ALARMS: dict[str, AlarmDefinition] = read_dictionary(
    resources.files("roost.model").joinpath("alarms.toml").read_text("utf-8")
)

PORT_ALARM = {"oam": "100.106", "mgmt": "100.108", "cluster-host": "100.110"}
"""Alarm of a port that is down, by type of the platform network it carries."""

RANK: dict[str, int] = {"warning": 0, "minor": 1, "major": 2, "critical": 3}
"""Severities by weight."""


def reaches(severity: Severity, limit: Severity | None) -> bool:
    """Whether a severity is at or above a limit; none is reached by nothing."""
    return limit is not None and RANK[severity] >= RANK[limit]


def degrades(fault_id: str, severity: Severity) -> bool:
    """Whether the dictionary has an alarm of this id and severity make its host degraded."""
    return reaches(severity, ALARMS[fault_id].degrades_from)


def alarm_name(scope: str, fault: Fault) -> str:
    """Name of the Alarm resource: `SCOPE.ID`, and for instances a readable, unambiguous suffix."""
    if not fault.instance:
        return f"{scope}.{fault.alarm_id}"
    readable = re.sub(r"[^a-z0-9]+", "-", fault.instance.lower()).strip("-")[:40]
    digest = hashlib.sha256(fault.instance.encode()).hexdigest()[:12]
    return f"{scope}.{fault.alarm_id}.{readable + '-' if readable else ''}{digest}"
