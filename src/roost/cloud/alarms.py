"""The controller of what operators say of alarms: suppressions, policies, acknowledgements.

Alarms are raised and cleared where their causes are observed (`engine.faults.settle`), which lays over them
what operators say. This controller does the same for alarms that stand, when an operator says something else
or a suppression ends: level, by the cloud's own clock, so a process that was away at the end of a suppression
catches up when it is back. It tells what each suppression does in its status, and the log when it begins and
ends. What is said of all alarms is laid over a PAGE of them in each transaction, so that nobody waits for a
whole fleet's; what is said anew meanwhile begins again behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial

import msgspec

from roost.engine.controller import Key, StoreController
from roost.engine.faults import remark, rules_of, write_log
from roost.engine.pacing import Pace
from roost.model.alarms import ALARMS
from roost.model.fault import ALARM, Alarm
from roost.model.marking import Rules, seconds_left
from roost.model.suppression import (
    ALARM_POLICY,
    ALARM_SUPPRESSION,
    AlarmSuppression,
    AlarmSuppressionStatus,
)
from roost.store.store import Store
from roost.store.transaction import HERE, Change, Transaction

ALL = ("", "all")
COUNTS = ("", "counts")
_SUPPRESSED = '"suppressed":true'
LONGEST_LOOK = 3600.0
"""Clocks are set: an end is looked at anew after so many seconds at the latest."""
PAGE = 500


class _Named(msgspec.Struct, frozen=True):
    name: str = ""


class _Marks(msgspec.Struct, frozen=True):
    suppression: _Named = _Named()


class _Line(msgspec.Struct, frozen=True):
    """Of an alarm, what suppresses it."""

    status: _Marks = _Marks()


_read = msgspec.json.Decoder(_Line).decode


class Marked(msgspec.Struct, frozen=True):
    """How far alarms were marked: how many of them, how many each suppression has, the last one looked at
    unless it was the last of all, and in how many seconds to look anew."""

    looked: int = 0
    number: Mapping[str, int] = {}
    after: Key | None = None
    again_in: float | None = None


class AlarmController(StoreController):
    """Keeps alarms marked as operators say."""

    name = "alarms"

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud
        self._pace = Pace()

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.namespace != self._cloud:
            return
        if change.kind in (ALARM_SUPPRESSION.kind, ALARM_POLICY.kind):
            if change.type != "MODIFIED" or _part(change, "spec"):
                yield ALL
        elif change.kind == ALARM.kind and change.origin == HERE:
            if change.type == "MODIFIED" and _part(change, "spec"):
                yield (self._cloud, change.name)
            if _SUPPRESSED in change.data or _SUPPRESSED in change.previous:
                yield COUNTS

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [ALL]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        if key != ALL:
            return await super().reconcile(store, key)
        done = await store.transact(lambda tx: self._mark(tx, Marked()))
        while done.after is not None:
            done = await store.transact(partial(self._mark, before=done))
        return done.again_in

    def decide(self, tx: Transaction, key: Key) -> float | None:
        rules = rules_of(tx, self._cloud)
        if key != COUNTS:
            alarm = tx.seek(Alarm, *key)
            if alarm is not None:
                remark(tx, alarm, rules)
            return None
        if wait := self._pace.wait(COUNTS[1], tx.now):
            return wait
        if rules.suppressions:
            alarms = tx.select(ALARM.kind, self._cloud, origin=HERE)
            self._pace.looked(COUNTS[1], tx.now, len(alarms) + len(rules.suppressions))
            names = (_read(s.data).status.suppression.name for s in alarms if _SUPPRESSED in s.data)
            self._tell(tx, rules, Counter(names))
        return None

    def _mark(self, tx: Transaction, before: Marked) -> Marked:
        """Mark the next page of alarms as operators say; after the last one tell what that comes to."""
        if before.after is None and (wait := self._pace.wait(ALL[1], tx.now)):
            return Marked(again_in=wait)
        rules = rules_of(tx, self._cloud)
        page = tx.select(ALARM.kind, self._cloud, origin=HERE, after=before.after, limit=PAGE)
        alarms = [remark(tx, stored.typed(Alarm), rules) for stored in page]
        number = Counter(before.number) + Counter(
            a.status.suppression.name for a in alarms if a.status.suppression
        )
        looked = before.looked + len(page)
        if len(page) == PAGE:
            return Marked(looked, number, (page[-1].namespace, page[-1].name))
        self._pace.looked(ALL[1], tx.now, looked + len(rules.suppressions))
        self._tell(tx, rules, number)
        return Marked(looked, number, again_in=due(rules, tx.now))

    def _tell(self, tx: Transaction, rules: Rules, number: Mapping[str, int]) -> None:
        for suppression in rules.suppressions:
            name, before = suppression.metadata.name, suppression.status
            status = told(suppression, number.get(name, 0), tx.now)
            if status == before:
                continue
            tx.report(msgspec.structs.replace(suppression, status=status))
            if status.state != before.state:
                what = ", ".join(suppression.spec.alarm_ids)
                ends = "is suppressed" if status.state == "active" else "counts again"
                reason = f"{suppression.spec.by or 'somebody'}: {suppression.spec.reason}"
                write_log(
                    tx,
                    self._cloud,
                    event=f"suppression-{status.state}",
                    text=f"{what} at {suppression.spec.entity} {ends}: {name} ({reason})",
                )


def told(suppression: AlarmSuppression, number: int, now: datetime) -> AlarmSuppressionStatus:
    """What a suppression does, as its status tells it. Pure."""
    spec = suppression.spec
    # What comes from above may speak of alarms that this version doesn't know or doesn't let be suppressed.
    deaf = [i for i in spec.alarm_ids if i not in ALARMS or not ALARMS[i].suppressible]
    active = seconds_left(suppression, now) > 0
    words = f"Counts again by itself at {spec.until}." if active else f"Ended at {spec.until}; delete it."
    if deaf:
        words += f" Not suppressible here: {', '.join(deaf[:20])}."
    return AlarmSuppressionStatus(
        observed_generation=suppression.metadata.generation,
        state="active" if active else "expired",
        alarms=number,
        message=words,
    )


def due(rules: Rules, now: datetime) -> float | None:
    """Seconds until the next suppression ends; None while none is in force. Pure."""
    left = [seconds for s in rules.suppressions if (seconds := seconds_left(s, now)) > 0]
    return min(min(left) + 0.01, LONGEST_LOOK) if left else None


def _part(change: Change, part: str) -> bool:
    """Whether a part of a resource has changed."""
    now: object = msgspec.json.decode(change.data).get(part)
    return now != change.before().get(part)
