"""The controller of subclouds: availability, sync and the alarm of each, in one transaction.

Availability follows from the link alone; sync from what the subcloud says of its copies of shared
intent. While a subcloud is offline its sync is what was last known, and a lost site is one alarm.
After a restart here a subcloud is what it was until it has had its time to come back.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.engine.certificates import certificate_due, certificate_faults
from roost.engine.controller import Key, StoreController
from roost.engine.faults import settle, write_log
from roost.engine.presence import Presence, Presences
from roost.fleet.sharing import SHARED_BY, in_force
from roost.model import time
from roost.model.alarms import Fault
from roost.model.cloud import CLOUD, SUBCLOUD, Subcloud, SubcloudStatus, SyncState
from roost.model.fault import ALARM
from roost.model.firewall import FIREWALL_POLICY, FirewallPolicy
from roost.model.meta import Condition, set_condition
from roost.store.transaction import HERE, Change, Transaction

OFFLINE_AFTER = 5.0
"""Seconds a link may be down before its subcloud counts as offline."""

RETURN = 60.0
"""The same after a restart here, when every subcloud dials anew."""


def scope(subcloud: str) -> str:
    """Scope of a subcloud's alarms."""
    return f"subcloud.{subcloud}"


class SubcloudController(StoreController):
    """Observes every subcloud of this cloud."""

    name = "subclouds"

    def __init__(self, cloud: str, presence: Presences) -> None:
        self._cloud, self._presence = cloud, presence

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == SUBCLOUD.kind or (change.kind == CLOUD.kind and change.name != self._cloud):
            yield ("", change.name)
        elif change.kind == FIREWALL_POLICY.kind and change.namespace != self._cloud:
            yield ("", change.namespace)
        elif (
            change.kind == ALARM.kind
            and change.type == "DELETED"
            and change.namespace == self._cloud
            and change.name.startswith("subcloud.")
        ):
            yield ("", change.name.split(".")[1])

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [("", s.name) for s in tx.select(SUBCLOUD.kind)]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        name = key[1]
        subcloud = tx.seek(Subcloud, "", name)
        if subcloud is None:
            settle(tx, self._cloud, scope(name), [])
            return None
        presence = self._presence(name)
        mirrored = tx.find(CLOUD.kind, "", name)
        enrolled = subcloud.status.enrolled or presence.connected or mirrored is not None
        copies = [
            s.typed(FirewallPolicy)
            for s in tx.select(FIREWALL_POLICY.kind, name, origin=HERE)
            if s.raw["metadata"].get("labels", {}).get(SHARED_BY) == self._cloud
        ]
        version = presence.version or subcloud.status.version
        status = observe(subcloud, presence, copies, time.stamp(tx.now), enrolled)
        status = msgspec.structs.replace(status, version=version)
        offline = status.availability == "offline"
        faults = [_lost(name)] if offline else []
        faults += certificate_faults(f"subcloud={name}", status.certificate_expires_at, tx.now)
        settle(tx, self._cloud, scope(name), faults)
        if status != subcloud.status:
            self._tell(tx, subcloud, status)
            tx.report(msgspec.structs.replace(subcloud, status=status))
        again = certificate_due(status.certificate_expires_at, tx.now)
        if not presence.connected and presence.silent < _patience(presence):
            left = _patience(presence) - presence.silent + 0.01
            return left if again is None else min(left, again)
        return again

    def _tell(self, tx: Transaction, subcloud: Subcloud, status: SubcloudStatus) -> None:
        before, name = subcloud.status, subcloud.metadata.name
        told = []
        if before.availability != status.availability:
            told.append(
                ("subcloud-availability", f"{name} was {before.availability} and is {status.availability}.")
            )
        if before.sync != status.sync:
            told.append(("subcloud-sync", f"{name} was {before.sync} and is {status.sync}."))
        if status.enrolled and not before.enrolled:
            told.append(("subcloud-enrolled", f"{name} has enrolled."))
        for event, text in told:
            write_log(tx, self._cloud, event=event, entity=f"subcloud={name}", text=text)


def observe(
    subcloud: Subcloud,
    presence: Presence,
    copies: list[FirewallPolicy],
    now: str,
    enrolled: bool,  # noqa: FBT001 - a fact, not a switch
) -> SubcloudStatus:
    """The status of a subcloud from what is known of it. Pure."""
    before = subcloud.status
    availability = before.availability
    if not enrolled:
        availability = "unknown"
    elif presence.connected:
        availability = "online"
    elif presence.silent >= _patience(presence):
        availability = "offline"
    late = [f"FirewallPolicy/{c.metadata.name}" for c in copies if not in_force(c)]
    sync: SyncState = "unknown"
    if enrolled and subcloud.spec.management_state == "managed":
        sync = "out-of-sync" if late else "in-sync"
    moved = availability != before.availability
    return msgspec.structs.replace(
        before,
        enrolled=enrolled,
        availability=availability,
        availability_changed_at=now if moved else before.availability_changed_at,
        sync=sync,
        out_of_sync=late[:100],
        certificate_expires_at=presence.certificate_expires_at or before.certificate_expires_at,
        conditions=set_condition(before.conditions, _online(availability, enrolled, subcloud), now),
    )


def _patience(presence: Presence) -> float:
    return OFFLINE_AFTER if presence.met else RETURN


def _online(availability: str, enrolled: bool, subcloud: Subcloud) -> Condition:  # noqa: FBT001 - a fact
    name = subcloud.metadata.name
    if not enrolled:
        message = (
            f"{name} has not enrolled: make a token with `roost subcloud token {name}` and join with it."
        )
        return Condition(type="Online", status="Unknown", reason="NotEnrolled", message=message)
    if availability == "online":
        return Condition(type="Online", status="True", reason="LinkUp", message="The link is up.")
    if availability == "offline":
        message = "The link is down; what runs there goes on alone and tells everything when it returns."
        return Condition(type="Online", status="False", reason="LinkDown", message=message)
    return Condition(type="Online", status="Unknown", reason="Waiting", message="The link is awaited.")


def _lost(name: str) -> Fault:
    return Fault(
        alarm_id="280.001",
        severity="critical",
        entity=f"subcloud={name}",
        reason=f"{name} is offline: its link to this cloud is down.",
    )
