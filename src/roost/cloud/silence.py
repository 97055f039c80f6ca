"""The controller of events in which many hosts are silent: one alarm, and what the Cloud's status says."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import msgspec

from roost.cloud.avoidance import Event
from roost.cloud.watching import LOOK_AGAIN, Watch
from roost.engine.controller import Key, StoreController
from roost.engine.faults import settle, write_log
from roost.model import time
from roost.model.alarms import Fault
from roost.model.cloud import CLOUD, Cloud
from roost.model.meta import Condition, set_condition
from roost.store.transaction import Change, Transaction

CONDITION = "FailureAvoidance"
ALARM_ID = "200.203"
LOOK_AT_SILENCE = 5.0
"""Seconds between two looks while hosts are silent, or have not come yet, without an event."""
_SHOWN = 20


class SilenceController(StoreController):
    """Tells of hosts that are silent and not failed. Woken when a host's link or heartbeat changes."""

    name = "silence"

    def __init__(self, cloud: str, watch: Watch) -> None:
        self._cloud, self._watch = cloud, watch

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == CLOUD.kind and change.name == self._cloud:
            yield ("", self._cloud)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [("", self._cloud)]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        self._watch.settings(tx)
        event = self._watch.event(tx)
        # The name of an alarm holds its scope: not the certificates' of the same cloud.
        settle(tx, self._cloud, f"cloud-silence.{self._cloud}", _faults(self._cloud, event))
        cloud = tx.seek(Cloud, "", self._cloud)
        if cloud is not None:
            self._tell(tx, cloud, event)
        if event is None:
            return LOOK_AT_SILENCE if self._watch.anyone_silent else None
        return LOOK_AGAIN

    def _tell(self, tx: Transaction, cloud: Cloud, event: Event | None) -> None:
        before = next((c for c in cloud.status.conditions if c.type == CONDITION), None)
        if event is None and before is None:
            return
        after = _condition(event, self._deadline(tx, event, before))
        if before is not None and (after.status, after.reason, after.message) == (
            before.status,
            before.reason,
            before.message,
        ):
            return
        conditions = set_condition(cloud.status.conditions, after, time.stamp(tx.now))
        tx.report(
            msgspec.structs.replace(
                cloud, status=msgspec.structs.replace(cloud.status, conditions=conditions)
            )
        )
        if before is None or before.status != after.status:
            write_log(
                tx,
                self._cloud,
                event="failure-avoidance" if event else "failure-avoidance-over",
                entity=f"cloud={self._cloud}",
                severity="warning" if event else "info",
                text=after.message,
            )

    def _deadline(self, tx: Transaction, event: Event | None, before: Condition | None) -> str:
        """When the event ends, to the second; what was told stands while that is near."""
        if event is None:
            return ""
        end = tx.now + timedelta(seconds=self._watch.left(event))
        told = before.message.rpartition(" until ")[2].rstrip(".") if before is not None else ""
        try:
            near = abs((time.parse(told) - end).total_seconds()) < 2
        except ValueError:
            near = False
        return told if near else time.seconds(end)


def _faults(cloud: str, event: Event | None) -> list[Fault]:
    if event is None or event.reason != "MultiNodeFailure":
        return []
    return [
        Fault(
            alarm_id=ALARM_ID,
            severity="critical",
            entity=f"cloud={cloud}",
            reason="Several hosts are silent at once. It is taken for the network: none of them is failed.",
        )
    ]


def _condition(event: Event | None, deadline: str) -> Condition:
    if event is None:
        return Condition(
            type=CONDITION,
            status="False",
            reason="NoEvent",
            message="Hosts that are silent are judged one by one.",
        )
    names = sorted(event.hosts)
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    what = "are silent at once" if event.reason == "MultiNodeFailure" else "have not come since the power-up"
    message = f"{len(names)} hosts {what} ({shown}): none of them is failed until {deadline}."
    return Condition(type=CONDITION, status="True", reason=event.reason, message=message)
