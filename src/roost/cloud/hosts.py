"""The controller of hosts: states, operations and alarms of each host, in one transaction.

It reads the host, its configuration, its operations and whether its link is up, decides with
`lifecycle` and `faults`, and writes the difference. A host that is gone loses its alarms; an alarm that
somebody removed by hand is raised again while its cause is there.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.cloud.configuration import EVERY, ports_by_network, write_changed_at
from roost.cloud.contact import contact_due, contact_of
from roost.cloud.faults import CHANGED_AT, configuration_due, host_faults, unobservable
from roost.cloud.lifecycle import decide
from roost.cloud.states import Health
from roost.engine.certificates import certificate_due
from roost.engine.controller import Key, StoreController
from roost.engine.faults import settle, write_log
from roost.engine.overrides import in_force
from roost.engine.presence import Presences
from roost.model import time
from roost.model.alarms import degrades
from roost.model.configuration import HOST_CONFIGURATION, HostConfiguration
from roost.model.fault import ALARM
from roost.model.host import HOST, Host
from roost.model.network import PLATFORM_NETWORK, PlatformNetwork
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
        elif change.kind == ALARM.kind and change.type == "DELETED" and change.name.startswith("host."):
            yield (self._cloud, change.name.split(".")[1])
        elif change.kind == PLATFORM_NETWORK.kind:
            yield (self._cloud, EVERY)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [(self._cloud, s.name) for s in tx.select(HOST.kind, self._cloud, origin=HERE)]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        if key[1] == EVERY:
            return soonest(*[self.decide(tx, one) for one in list(self.all_keys(tx))])
        host = tx.seek(Host, *key)
        if host is None:
            settle(tx, self._cloud, scope(key[1]), [])
            return None
        presence = self._presence(key[1])
        touch = contact_of(presence, host.status)
        configuration = _configuration(tx, key)
        networks = in_force(tx, PlatformNetwork, self._cloud)
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
        return soonest(
            plan.again_in,
            contact_due(presence, touch),
            configuration_due(host, configuration, touch, tx.now),
            certificate_due(host.status.agent.certificate_expires_at, tx.now),
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


def _configuration(tx: Transaction, key: Key) -> HostConfiguration | None:
    """The host's configuration. A change that lies ahead of us was stamped before the clock was set back:
    it counts from now, or its alarm would be a day late."""
    configuration = tx.seek(HostConfiguration, *key)
    if configuration is None:
        return None
    since = configuration.metadata.annotations.get(CHANGED_AT)
    if since and time.parse(since) > tx.now:
        return write_changed_at(tx, configuration)
    return configuration


def soonest(*delays: float | None) -> float | None:
    """The least of the delays that are given."""
    return min((d for d in delays if d is not None), default=None)
