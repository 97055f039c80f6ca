"""The controller of subclouds: availability, sync and the alarm of each, in one transaction.

Availability follows from the link alone; sync from what the subcloud says of its copies of shared
intent, and of what it has overridden of them. While a subcloud is offline its sync is what was last known,
and a lost site is one alarm. What a managed site overrides is another, until it is adopted or reverted.
After a restart here a subcloud is what it was until it has had its time to come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from roost.engine.certificates import RENEWAL_GRACE, certificate_due, certificate_faults
from roost.engine.controller import Key, StoreController
from roost.engine.faults import settle, write_log
from roost.engine.presence import Presence, Presences
from roost.engine.troubles import trouble_faults, untold
from roost.fleet.reach import Row, in_force, row_of
from roost.fleet.rehoming import moved_status, owned
from roost.fleet.sharing import SHARED_BY
from roost.model import time
from roost.model.alarms import Fault
from roost.model.cloud import CLOUD, SUBCLOUD, Cloud, Subcloud, SubcloudStatus, SyncState
from roost.model.fault import ALARM
from roost.model.firewall import FIREWALL_POLICY, FirewallPolicy
from roost.model.meta import Condition, condition_is, set_condition
from roost.model.override import LOCAL_OVERRIDE, LocalOverride
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
        self._written: dict[str, int] = {}
        """By name, the hash of each subcloud as it was last written here."""

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == SUBCLOUD.kind:
            # As it was written here it is right, and needs no second look: ten thousand are lost at once.
            if change.type != "MODIFIED" or self._written.get(change.name) != hash(change.data):
                yield ("", change.name)
        elif change.kind == CLOUD.kind and change.name != self._cloud:
            yield ("", change.name)
        elif change.kind in (FIREWALL_POLICY.kind, LOCAL_OVERRIDE.kind) and change.namespace != self._cloud:
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
            self._written.pop(name, None)
            settle(tx, self._cloud, scope(name), [])
            return None
        if subcloud.status.moved_to:
            self._let_go(tx, subcloud)
            return None
        presence = self._presence(name)
        mirrored = tx.find(CLOUD.kind, "", name)
        enrolled = subcloud.status.enrolled or presence.connected or mirrored is not None
        rows = (row_of(s.data) for s in tx.select(FIREWALL_POLICY.kind, name, origin=HERE))
        copies = [row for row in rows if row.metadata.labels.get(SHARED_BY) == self._cloud]
        overrides = tx.every(LocalOverride, name)
        version = presence.version or subcloud.status.version
        status = observe(subcloud, presence, copies, time.stamp(tx.now), enrolled, overrides)
        alarms = mirrored.typed(Cloud).status.alarms if mirrored else subcloud.status.alarms
        status = msgspec.structs.replace(status, version=version, alarms=alarms)
        offline = status.availability == "offline"
        faults = [_lost(name)] if offline else []
        faults += override_faults(subcloud, overrides)
        faults += certificate_faults(
            f"subcloud={name}", status.certificate_expires_at, tx.now, grace=RENEWAL_GRACE
        )
        faults += trouble_faults(f"subcloud={name}", presence)
        settle(tx, self._cloud, scope(name), faults, untold(presence))
        if status != subcloud.status:
            self._tell(tx, subcloud, status)
            tx.report(msgspec.structs.replace(subcloud, status=status))
            self._written[name] = hash(tx.get(SUBCLOUD.kind, "", name).data)
        again = certificate_due(status.certificate_expires_at, tx.now)
        if not presence.connected and presence.silent < _patience(presence):
            left = _patience(presence) - presence.silent + 0.01
            return left if again is None else min(left, again)
        return again

    def _let_go(self, tx: Transaction, subcloud: Subcloud) -> None:
        """One that is owned elsewhere is neither lost nor out of sync."""
        name, status = subcloud.metadata.name, moved_status(subcloud, time.stamp(tx.now))
        settle(tx, self._cloud, scope(name), [])
        if status == subcloud.status:
            return
        if not condition_is(subcloud.status.conditions, "Owned", "False"):
            text = f"{name} moved to {status.moved_to} at epoch {status.epoch}."
            entity = f"subcloud={name}"
            write_log(tx, self._cloud, event="subcloud-moved", severity="warning", entity=entity, text=text)
        tx.report(msgspec.structs.replace(subcloud, status=status))

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
    copies: Sequence[FirewallPolicy | Row],
    now: str,
    enrolled: bool,  # noqa: FBT001 - a fact, not a switch
    overrides: Sequence[LocalOverride] = (),
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
        sync = "out-of-sync" if late or overrides else "in-sync"
    conditions = set_condition(before.conditions, _online(availability, enrolled, subcloud), now)
    conditions = set_condition(conditions, _synced(sync, late, overrides), now)
    if before.epoch:
        conditions = set_condition(conditions, owned(subcloud), now)
    late += [f"LocalOverride/{o.metadata.name}" for o in overrides]
    moved = availability != before.availability
    return msgspec.structs.replace(
        before,
        enrolled=enrolled,
        availability=availability,
        availability_changed_at=now if moved else before.availability_changed_at,
        sync=sync,
        out_of_sync=late[:100],
        certificate_expires_at=presence.certificate_expires_at or before.certificate_expires_at,
        conditions=conditions,
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


def _synced(sync: SyncState, late: list[str], overrides: Sequence[LocalOverride]) -> Condition:
    if sync == "unknown":
        message = "It is unmanaged or has not enrolled: nothing is asked of it."
        return Condition(type="InSync", status="Unknown", reason="NotManaged", message=message)
    if overrides:
        return Condition(
            type="InSync", status="False", reason="LocalOverrides", message=_overridden(overrides)
        )
    if late:
        message = "Not in force there: " + ", ".join(late[:20]) + ("." if len(late) <= 20 else ", and more.")
        return Condition(type="InSync", status="False", reason="NotInForce", message=message)
    return Condition(type="InSync", status="True", reason="InForce", message="What is shared is in force.")


def _overridden(overrides: Sequence[LocalOverride]) -> str:
    """What a site has overridden, in words."""
    targets = [f"{o.spec.target.kind}/{o.spec.target.name}" for o in overrides]
    named = ", ".join(targets[:5]) + (" and more" if len(targets) > 5 else "")
    conflicts = sum(o.status.conflicts > 0 for o in overrides)
    both = f"; {conflicts} of these changed here too" if conflicts else ""
    return f"The site has overridden {named}{both}. Adopt or revert each."


def override_faults(subcloud: Subcloud, overrides: Sequence[LocalOverride]) -> list[Fault]:
    """The alarm of a managed subcloud that goes its own way somewhere. Pure."""
    if not overrides or subcloud.spec.management_state != "managed":
        return []
    entity = f"subcloud={subcloud.metadata.name}.resource=platform"
    reason = _overridden(overrides)[:1000]
    return [Fault(alarm_id="280.002", severity="warning", entity=entity, reason=reason)]


def _lost(name: str) -> Fault:
    return Fault(
        alarm_id="280.001",
        severity="critical",
        entity=f"subcloud={name}",
        reason=f"{name} is offline: its link to this cloud is down.",
    )
