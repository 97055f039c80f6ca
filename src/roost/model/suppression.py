"""AlarmSuppression and AlarmPolicy: what operators decide of whole classes of alarms.

A suppression keeps alarms from counting until a point in time: they are raised, kept and logged as ever,
marked with it, and count again by themselves. A policy sets from which severity on an alarm degrades its
host or keeps software updates from beginning, where the dictionary is not what a cloud wants.

Both are applied where the alarms have their home, in one place (`roost.model.marking`). A cloud's own are
written there. The central cloud writes those for a subcloud in the subcloud's namespace; they flow down and
hold on at the site while it is cut off. What they do comes back up with the alarms.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from roost.model import time
from roost.model.alarms import ALARMS
from roost.model.fault import Severity
from roost.model.kind import Column, Flow, KindInfo, Problem
from roost.model.meta import DNS_NAME, Part, Resource, doc

Limit = Literal["", "none", "warning", "minor", "major", "critical"]
_ALARM_ID = r"^[0-9]{3}\.[0-9]{3}$"
_ENTITY = re.compile(r"[^\s\[\]]{1,253}")
_Id = Annotated[str, doc("NNN.NNN, as in the dictionary of alarms.", pattern=_ALARM_ID)]


class AlarmSuppressionSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What should not count, and how long."""

    alarm_ids: Annotated[
        list[_Id], doc("Ids of the alarms meant.", list_type="set", min_length=1, max_length=100)
    ]
    entity: Annotated[
        str,
        doc("Entity instances meant; * stands for anything, ? for one character.", max_length=253),
    ] = "*"
    reason: Annotated[str, doc("Why.", min_length=1, max_length=1024)]
    until: Annotated[str, doc("When they count again by themselves.", format="date-time", max_length=64)]
    by: Annotated[str, doc("Who; nobody can name another than himself.", max_length=255)] = ""


class AlarmSuppressionStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What it does where it is applied."""

    observed_generation: Annotated[int, doc("Generation of spec this speaks of.")] = 0
    state: Annotated[
        Literal["", "active", "expired"],
        doc("Whether it is in force; empty where it is only declared, for a cloud below."),
    ] = ""
    alarms: Annotated[int, doc("Alarms that it suppresses now.")] = 0
    message: Annotated[str, doc("What of it is not done, and when it ends.", max_length=1024)] = ""


class AlarmSuppression(Resource, frozen=True, kw_only=True):
    """Some alarms do not count for a while."""

    spec: Annotated[AlarmSuppressionSpec, doc("What should not count, and how long.")]
    status: Annotated[AlarmSuppressionStatus, doc("What it does.")] = AlarmSuppressionStatus()


class AlarmRule(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What alarms of one id bring about here."""

    alarm_id: _Id
    degrades_from: Annotated[
        Limit, doc("Severity from which on its host is degraded; none: never; empty: as the dictionary says.")
    ] = ""
    blocks_updates_from: Annotated[
        Limit, doc("Severity from which on no update begins; none: never; empty: as the dictionary says.")
    ] = ""


class AlarmPolicySpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is otherwise than in the dictionary of alarms."""

    rules: Annotated[
        list[AlarmRule],
        doc(
            "By alarm. Of several policies the last by name counts, field by field.",
            list_type="map",
            list_keys=("alarmId",),
            max_length=200,
        ),
    ] = []
    description: Annotated[str, doc("For people.", max_length=255)] = ""


class AlarmPolicy(Resource, frozen=True, kw_only=True):
    """Which severities degrade hosts and block updates, where the dictionary is not what a cloud wants."""

    spec: Annotated[AlarmPolicySpec, doc("What is otherwise.")] = AlarmPolicySpec()


def limit_of(limit: Limit, otherwise: Severity | None) -> Severity | None:
    """The severity that a rule sets, or what the dictionary says where it sets nothing."""
    if limit == "":
        return otherwise
    return None if limit == "none" else limit


def _suppression_problems(resource: AlarmSuppression) -> list[Problem]:
    spec, problems = resource.spec, []
    try:
        time.parse(spec.until)
    except ValueError:
        problems.append(
            Problem("spec.until", f"{spec.until!r} is no time with its zone", "write 2026-11-23T18:00:00Z")
        )
    if not _ENTITY.fullmatch(spec.entity):
        problems.append(
            Problem("spec.entity", f"{spec.entity!r} matches no entity", "write it as host=worker-*, or *")
        )
    return problems


def _policy_problems(resource: AlarmPolicy) -> list[Problem]:
    problems, seen = [], set()
    for n, rule in enumerate(resource.spec.rules):
        at = f"spec.rules[{n}].alarmId"
        if rule.alarm_id not in ALARMS:
            problems.append(
                Problem(at, f"no alarm has the id {rule.alarm_id}", "see: roost alarm list --ids")
            )
        if rule.alarm_id in seen:
            problems.append(Problem(at, f"{rule.alarm_id} has a rule already", "merge the two"))
        seen.add(rule.alarm_id)
    return problems


ALARM_SUPPRESSION = KindInfo(
    kind="AlarmSuppression",
    plural="alarmsuppressions",
    singular="alarmsuppression",
    short_names=("asup",),
    categories=("roost",),
    type=AlarmSuppression,
    description="Some alarms do not count until a point in time; they are kept, and come back by themselves.",
    flow=Flow.DOWN,
    name_pattern=DNS_NAME,
    invariants=_suppression_problems,
    selectable=("status.state",),
    columns=(
        Column("Alarms", "spec.alarmIds[*]", "Ids of the alarms meant."),
        Column("Entity", "spec.entity", "Entity instances meant."),
        Column("Until", "spec.until", "When they count again."),
        Column("State", "status.state", "Whether it is in force."),
        Column("Suppressed", "status.alarms", "Alarms that it suppresses now.", "integer"),
        Column("Reason", "spec.reason", "Why."),
        Column("By", "spec.by", "Who.", "string", 1),
        Column("Message", "status.message", "What of it is not done, and when it ends.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)

ALARM_POLICY = KindInfo(
    kind="AlarmPolicy",
    plural="alarmpolicies",
    singular="alarmpolicy",
    short_names=("apol",),
    categories=("roost",),
    type=AlarmPolicy,
    description="From which severity on alarms degrade hosts and keep software updates from beginning.",
    flow=Flow.DOWN,
    invariants=_policy_problems,
    columns=(
        Column("Alarms", "spec.rules[*].alarmId", "Alarms that it speaks of."),
        Column("Description", "spec.description", "For people.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
