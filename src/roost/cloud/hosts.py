"""The controller of hosts: states, operations and alarms of each host, in one transaction.

It reads the host, its configuration, its operations and whether its link is up, decides with
`lifecycle` and `faults`, and writes the difference. A host that is gone loses its alarms.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.cloud.configuration import ports_by_network
from roost.cloud.faults import CHANGED_AT, configuration_due, host_faults, unobservable
from roost.cloud.lifecycle import decide
from roost.cloud.states import LATE, LOST, Contact, Health, contact
from roost.engine.controller import Key, StoreController
from roost.engine.faults import settle, write_log
from roost.engine.presence import Presences
from roost.model import time
from roost.model.alarms import degrades
from roost.model.configuration import HOST_CONFIGURATION, HostConfiguration
from roost.model.host import HOST, Host
from roost.model.network import PlatformNetwork
from roost.model.operation import OPERATION, Operation
from roost.store.transaction import HERE, Change, Transaction


def scope(host: str) -> str:
    """Scope of a host's alarms."""
    return f"host.{host}"


class HostController(StoreController):
    """Drives every host of this cloud."""

    name = "hosts"

    def __init__(self, cloud: str, presence: Presences) -> None:
        self._cloud, self._presence = cloud, presence

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.namespace != self._cloud or change.origin != HERE:
            return
        if change.kind in (HOST.kind, HOST_CONFIGURATION.kind):
            yield (self._cloud, change.name)
        elif change.kind == OPERATION.kind:
            spec = msgspec.json.decode(change.data).get("spec", {})
            yield (self._cloud, str(spec.get("host", "")))

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [(self._cloud, s.name) for s in tx.select(HOST.kind, self._cloud, origin=HERE)]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        host = tx.seek(Host, *key)
        if host is None:
            settle(tx, self._cloud, scope(key[1]), [])
            return None
        presence = self._presence(key[1])
        silent = max(0.0, (tx.now - presence.since).total_seconds())
        touch = contact(presence.connected, silent)
        if presence.since > tx.now:
            touch = "present" if presence.connected else contact(presence.connected, LATE)
        configuration = tx.seek(HostConfiguration, *key)
        networks = tx.every(PlatformNetwork, self._cloud)
        types = {n.metadata.name: n.spec.type for n in networks}
        carried = {p: types[n] for n, ports in ports_by_network(host, networks).items() for p in ports}
        faults = host_faults(host, configuration, touch, carried, tx.now)
        alarms = settle(tx, self._cloud, scope(key[1]), faults, unobservable(host, touch))
        bad = any(degrades(a.status.alarm_id, a.status.severity) for a in alarms if not a.status.stale_since)
        health: Health = "degraded" if bad else "well"
        operations = [o for o in tx.every(Operation, self._cloud) if o.spec.host == key[1]]
        plan = decide(host, operations, touch, health, tx.now)
        if plan.operation is not None:
            tx.save(plan.operation)
        if plan.status != host.status:
            self._tell(tx, host, plan.status.availability)
            tx.report(msgspec.structs.replace(host, status=plan.status))
        return _soonest(
            plan.again_in,
            _contact_due(touch, presence.connected, silent),
            _configuration_due(configuration, tx),
        )

    def _tell(self, tx: Transaction, host: Host, availability: str) -> None:
        before = host.status.availability
        if before == availability:
            return
        write_log(
            tx,
            self._cloud,
            event="host-availability",
            entity=f"host={host.metadata.name}",
            severity="warning" if availability in ("failed", "offline", "degraded") else "info",
            text=f"{host.metadata.name} was {before} and is {availability}.",
        )


def _contact_due(touch: Contact, connected: bool, silent: float) -> float | None:  # noqa: FBT001 - a fact
    """Seconds until the contact of a silent host gets worse."""
    if connected or touch == "lost":
        return None
    return max(0.05, (LATE if touch == "present" else LOST) - silent + 0.01)


def _configuration_due(configuration: HostConfiguration | None, tx: Transaction) -> float | None:
    if configuration is None:
        return None
    since = configuration.metadata.annotations.get(CHANGED_AT)
    if not since:
        return None
    due = configuration_due(configuration, time.parse(since), tx.now)
    return due + 0.1 if due else None


def _soonest(*delays: float | None) -> float | None:
    given = [d for d in delays if d is not None]
    return min(given) if given else None
