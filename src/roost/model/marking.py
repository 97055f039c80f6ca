"""What is made of an alarm beside its being there: degrading, blocking, suppressed, acknowledged. Pure.

All of it is a function of the alarm, of what operators say of it and of the time: worked out anew whenever
the alarm is settled, whenever a suppression, a policy or an acknowledgement changes, and when a suppression
ends. So it does not matter in which order these come, nor how often.

- Of several suppressions that fit, the one that ends last counts.
- A suppressed alarm degrades nothing and blocks nothing: whoever suppresses it answers for that, with a name,
  a reason and an end.
- An acknowledgement speaks of a severity and holds while the alarm is no worse. Worse, it holds no more, and
  holds again when the alarm is back to what was acknowledged.
- An alarm that can't be observed now (stale) blocks updates as it did, and degrades nothing: that is not
  known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Protocol

import msgspec

from roost.model import time
from roost.model.alarms import ALARMS, RANK, AlarmDefinition, reaches
from roost.model.cloud import AlarmCounts
from roost.model.fault import Acknowledgement, Alarm, AlarmSpec, AlarmStatus, Severity, Suppressed
from roost.model.suppression import AlarmPolicy, AlarmSuppression, limit_of


class Limits(msgspec.Struct, frozen=True):
    """From which severity on alarms of one id degrade their host, and keep updates from beginning."""

    degrades_from: Severity | None = None
    blocks_updates_from: Severity | None = None


class Rules(msgspec.Struct, frozen=True):
    """What a cloud's operators have decided of alarms."""

    suppressions: tuple[AlarmSuppression, ...] = ()
    policies: tuple[AlarmPolicy, ...] = ()

    def limits(self, alarm_id: str) -> Limits:
        """What holds for an id: the dictionary, with each policy laid over it in the order of names."""
        known: AlarmDefinition | None = ALARMS.get(alarm_id)
        degrades = known.degrades_from if known else None
        blocks = known.blocks_updates_from if known else None
        for policy in sorted(self.policies, key=lambda p: p.metadata.name):
            for rule in policy.spec.rules:
                if rule.alarm_id == alarm_id:
                    degrades = limit_of(rule.degrades_from, degrades)
                    blocks = limit_of(rule.blocks_updates_from, blocks)
        return Limits(degrades, blocks)


def suppresses(suppression: AlarmSuppression, alarm_id: str, entity: str, now: datetime) -> bool:
    """Whether a suppression keeps an alarm from counting now."""
    definition, spec = ALARMS.get(alarm_id), suppression.spec
    if definition is None or not definition.suppressible or alarm_id not in spec.alarm_ids:
        return False
    return fnmatchcase(entity, spec.entity) and seconds_left(suppression, now) > 0


def seconds_left(suppression: AlarmSuppression, now: datetime) -> float:
    """Seconds until a suppression ends; none are left of one whose end can't be read."""
    try:
        return (time.parse(suppression.spec.until) - now).total_seconds()
    except ValueError:
        return 0.0


def marked(status: AlarmStatus, spec: AlarmSpec, generation: int, rules: Rules, now: datetime) -> AlarmStatus:
    """The status of an alarm with all that follows from what operators say. `generation` is the spec's."""
    fitting = [s for s in rules.suppressions if suppresses(s, status.alarm_id, status.entity, now)]
    last = max(fitting, key=lambda s: (seconds_left(s, now), s.metadata.name), default=None)
    limits = rules.limits(status.alarm_id)
    acknowledgement = _acknowledgement(status, spec, generation, now)
    return msgspec.structs.replace(
        status,
        suppressed=last is not None,
        suppression=_words(last) if last else None,
        degrades_host=last is None and reaches(status.severity, limits.degrades_from),
        blocks_updates=last is None and reaches(status.severity, limits.blocks_updates_from),
        acknowledgement=acknowledgement,
        acknowledged=acknowledgement is not None and RANK[status.severity] <= RANK[acknowledgement.severity],
    )


def _words(suppression: AlarmSuppression) -> Suppressed:
    spec = suppression.spec
    return Suppressed(name=suppression.metadata.name, by=spec.by, reason=spec.reason, until=spec.until)


def _acknowledgement(
    status: AlarmStatus, spec: AlarmSpec, generation: int, now: datetime
) -> Acknowledgement | None:
    if not spec.acknowledged_by:
        return None
    before = status.acknowledgement
    if before is not None and before.generation == generation:
        return before
    return Acknowledgement(
        by=spec.acknowledged_by,
        at=time.stamp(now),
        comment=spec.comment,
        severity=spec.acknowledged_severity or status.severity,
        generation=generation,
    )


def blocks_upgrade(alarms: Iterable[Alarm]) -> list[Alarm]:
    """The alarms that keep a software update from beginning, the worst first; none: it may begin."""
    found = [a for a in alarms if a.status.blocks_updates]
    return sorted(found, key=lambda a: (-RANK[a.status.severity], a.metadata.namespace, a.metadata.name))


class Countable(Protocol):
    """What of an alarm's status is counted."""

    @property
    def severity(self) -> Severity: ...
    @property
    def suppressed(self) -> bool: ...
    @property
    def acknowledged(self) -> bool: ...
    @property
    def blocks_updates(self) -> bool: ...


def counted(alarms: Sequence[Countable]) -> AlarmCounts:
    """How many alarms count, by severity; how many of these are acknowledged or block updates; how many are
    suppressed."""
    active = [a for a in alarms if not a.suppressed]
    by = Counter(a.severity for a in active)
    return AlarmCounts(
        critical=by["critical"],
        major=by["major"],
        minor=by["minor"],
        warning=by["warning"],
        suppressed=len(alarms) - len(active),
        acknowledged=sum(a.acknowledged for a in active),
        blocking_updates=sum(a.blocks_updates for a in active),
    )
