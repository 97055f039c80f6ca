"""What suppressions of alarms may say, and for which clouds; rules for people, with reason and remedy.

That one is removed before its end is told in the log where it is removed, within that write; how they begin
and end by themselves the controller of alarms tells.
"""

from __future__ import annotations

from datetime import timedelta
from typing import cast

from roost.engine.admission import Refused, Request, Rule
from roost.engine.faults import write_log
from roost.engine.overrides import signed
from roost.model import time
from roost.model.alarms import ALARMS
from roost.model.cloud import SUBCLOUD
from roost.model.marking import seconds_left
from roost.model.monitoring import MONITORING_PROFILE
from roost.model.suppression import ALARM_POLICY, ALARM_SUPPRESSION, AlarmSuppression
from roost.store.transaction import Transaction

MOST = 200
"""Suppressions of one cloud: each alarm is compared with all."""
LONGEST = timedelta(days=366)


def rules(cloud: str) -> dict[str, list[Rule]]:
    """Rules by kind."""

    def place(tx: Transaction, request: Request) -> None:
        """They are for this cloud, or for one below it: elsewhere nobody would ever read them."""
        if request.operation != "create" or request.new is None:
            return
        namespace = request.new.metadata.namespace
        if namespace != cloud and tx.find(SUBCLOUD.kind, "", namespace) is None:
            raise Refused(
                f"{namespace} is neither this cloud nor a subcloud of it",
                f"leave the namespace out for {cloud}, or see: roost subcloud list",
                field="metadata.namespace",
            )

    def suppressions(tx: Transaction, request: Request) -> None:
        if request.operation == "delete":
            _tell_of_removed(tx, cloud, cast(AlarmSuppression, request.old), request.user)
            return
        new = cast(AlarmSuppression, request.new)
        old = cast(AlarmSuppression | None, request.old)
        if old is not None and old.spec == new.spec:
            return
        signed(request.user, new.spec.by, old.spec.by if old else "")
        if old is None and tx.count(ALARM_SUPPRESSION.kind, new.metadata.namespace) >= MOST:
            raise Refused(f"there are {MOST} suppressions already", "delete those that have ended")
        _ids(new)
        if old is None or old.spec.until != new.spec.until:
            _end(tx, new)

    return {
        ALARM_SUPPRESSION.kind: [place, suppressions],
        ALARM_POLICY.kind: [place],
        MONITORING_PROFILE.kind: [place],
    }


def _tell_of_removed(tx: Transaction, cloud: str, old: AlarmSuppression, user: str) -> None:
    meta, spec = old.metadata, old.spec
    if meta.deletion_timestamp is not None or seconds_left(old, tx.now) <= 0:
        return
    where = f" of {meta.namespace}" if meta.namespace != cloud else ""
    what = f"{', '.join(spec.alarm_ids)} at {spec.entity}{where}"
    text = f"{what} counts again: {meta.name} is removed by {user} before its end at {spec.until}"
    write_log(tx, cloud, event="suppression-removed", text=text)


def _ids(new: AlarmSuppression) -> None:
    for alarm_id in new.spec.alarm_ids:
        known = ALARMS.get(alarm_id)
        if known is None:
            raise Refused(
                f"no alarm has the id {alarm_id}", "see: roost alarm list --ids", field="spec.alarmIds"
            )
        if not known.suppressible:
            raise Refused(
                f"{alarm_id} ({known.title}) can't be suppressed, as it means: {known.effect.rstrip('.')}",
                f"mend its cause, or acknowledge it: roost alarm acknowledge {alarm_id}",
                field="spec.alarmIds",
            )


def _end(tx: Transaction, new: AlarmSuppression) -> None:
    until = time.parse(new.spec.until)
    if until <= tx.now:
        raise Refused(
            f"{new.spec.until} is past; here it is {time.seconds(tx.now)}",
            "choose a later time",
            field="spec.until",
        )
    if until > tx.now + LONGEST:
        raise Refused(
            f"{new.spec.until} is more than {LONGEST.days} days ahead",
            "choose an earlier time; it can be put off later",
            field="spec.until",
        )
