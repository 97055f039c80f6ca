"""The controller of hosts: states, operations and alarms of each host, in one transaction.

It reads the host, its configuration, its operations and whether its link is up, decides with
`lifecycle` and `faults`, and writes the difference. A host that is gone loses its alarms; an alarm that
somebody removed by hand is raised again while its cause is there.

What is said of networks reaches all hosts: each is then looked at by itself, as the watch has told of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.cloud.care import Care, care_for, reasons
from roost.cloud.configuration import intent, ports_by_network, write_changed_at, write_configuration
from roost.cloud.contact import Contact
from roost.cloud.examination import unjudged
from roost.cloud.faults import CHANGED_AT, configuration_due, host_faults
from roost.cloud.heartbeat_faults import unseen, with_heartbeats
from roost.cloud.lifecycle import Known, decide, unlock_faults
from roost.cloud.watching import Watch
from roost.cloud.workloads import withdrawn
from roost.engine.certificates import certificate_due
from roost.engine.controller import Key, StoreController
from roost.engine.faults import settle, write_log
from roost.engine.overrides import in_force
from roost.engine.troubles import trouble_faults, untold
from roost.model import time
from roost.model.configuration import HOST_CONFIGURATION, HostConfiguration
from roost.model.fault import ALARM
from roost.model.host import HOST, Host
from roost.model.network import PLATFORM_NETWORK, PlatformNetwork
from roost.model.operation import OPERATION, Operation
from roost.model.override import LOCAL_OVERRIDE
from roost.store.transaction import HERE, Change, Transaction

_OF_NETWORKS = (PLATFORM_NETWORK.kind, LOCAL_OVERRIDE.kind)
"""What says, here or above, which networks are in force."""


class _Target(msgspec.Struct, frozen=True):
    host: str = ""


class _Wanted(msgspec.Struct, frozen=True):
    """Of an operation, whose it is."""

    spec: _Target = _Target()


_wanted = msgspec.json.Decoder(_Wanted).decode


def scope(host: str) -> str:
    """Scope of a host's alarms."""
    return f"host.{host}"


class HostController(StoreController):
    """Drives every host of this cloud."""

    name = "hosts"

    def __init__(self, cloud: str, watch: Watch) -> None:
        self._cloud, self._watch = cloud, watch
        self._hosts: dict[str, None] = {}

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.namespace != self._cloud:
            return
        if change.kind in _OF_NETWORKS:
            if change.type != "MODIFIED" or intent(change.data) != intent(change.previous):
                yield from [(self._cloud, name) for name in self._hosts]
        elif change.origin != HERE:
            return
        elif change.kind in (HOST.kind, HOST_CONFIGURATION.kind):
            if change.kind == HOST.kind:
                self._know(change)
            yield (self._cloud, change.name)
        elif change.kind == OPERATION.kind:
            yield (self._cloud, _wanted(change.data).spec.host)
        elif change.kind == ALARM.kind and change.name.startswith("host.") and counts_otherwise(change):
            yield (self._cloud, change.name.split(".")[1])

    def _know(self, change: Change) -> None:
        if change.type == "DELETED":
            self._hosts.pop(change.name, None)
        else:
            self._hosts[change.name] = None

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        self._hosts = dict.fromkeys(s.name for s in tx.select(HOST.kind, self._cloud, origin=HERE))
        return [(self._cloud, name) for name in self._hosts]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        host = tx.seek(Host, *key)
        if host is None:
            settle(tx, self._cloud, scope(key[1]), [])
            return None
        sight = self._watch.look(tx, host)
        touch = sight.contact
        configuration = _configuration(tx, key)
        networks = in_force(tx, PlatformNetwork, self._cloud)
        types = {n.metadata.name: n.spec.type for n in networks}
        carried = {p: types[n] for n, ports in ports_by_network(host, networks).items() for p in ports}
        operations = operations_of(tx, *key)
        care = self._care(tx, host, configuration, touch, operations)
        faults = host_faults(host, configuration, touch, carried, tx.now)
        faults = with_heartbeats(faults, host, sight, types)
        faults += care.faults + unlock_faults(host, operations)
        faults += trouble_faults(f"host={key[1]}", sight.presence)
        hidden, silent = unseen(host, sight, types), untold(sight.presence)
        alarms = settle(
            tx,
            self._cloud,
            scope(key[1]),
            faults,
            lambda a: hidden(a) or silent(a) or unjudged(host, care.examination, touch, a),
        )
        known = Known(
            contact=touch,
            examination=care.examination,
            recovery=care.recovery,
            reasons=reasons(touch, alarms, scope(key[1])),
        )
        plan = decide(host, operations, known, tx.now)
        if plan.operation is not None:
            tx.save(plan.operation)
        if plan.status != host.status:
            self._tell(tx, host, plan.status.availability)
            tx.report(msgspec.structs.replace(host, status=plan.status))
        return soonest(
            plan.again_in,
            care.again_in,
            sight.due,
            configuration_due(host, configuration, touch, tx.now),
            certificate_due(host.status.agent.certificate_expires_at, tx.now),
        )

    def _care(
        self,
        tx: Transaction,
        host: Host,
        configuration: HostConfiguration | None,
        touch: Contact,
        operations: list[Operation],
    ) -> Care:
        """Look at the host's health, and write what it is asked or told because of that."""
        care = care_for(host, configuration, touch, tx.now)
        if configuration is None:
            return care
        spec = withdrawn(configuration.spec, operations)
        if care.request is not None:
            spec = msgspec.structs.replace(spec, health=care.request)
        if care.restart:
            spec = msgspec.structs.replace(spec, reboot_from=host.status.agent.boot_id)
        if spec != configuration.spec:
            write_configuration(tx, self._cloud, host.metadata.name, spec)
            self._tell_care(tx, host, care)
        return care

    def _tell_care(self, tx: Transaction, host: Host, care: Care) -> None:
        name = host.metadata.name
        if care.restart:
            text = f"{name} is told to restart: it does not serve, and its tries are used up."
            event = "host-recovery-restart"
        elif care.request is not None and care.request.id.startswith("recovery-"):
            text, event = f"{name} is recovered by itself: {care.request.id}.", "host-recovery"
        else:
            return
        write_log(tx, self._cloud, event=event, entity=f"host={name}", severity="warning", text=text)

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


def operations_of(tx: Transaction, cloud: str, host: str) -> list[Operation]:
    """A host's operations; of the others is read no more than whose they are."""
    found = tx.select(OPERATION.kind, cloud)
    return [s.typed(Operation) for s in found if _wanted(s.data).spec.host == host]


def counts_otherwise(change: Change) -> bool:
    """Whether an alarm is gone, or degrades its host no more or anew: operators have a say in that."""
    if change.type != "MODIFIED":
        return change.type == "DELETED"
    words = ('"degradesHost":true', '"suppressed":true')
    return any((word in change.data) != (word in change.previous) for word in words)


def soonest(*delays: float | None) -> float | None:
    """The least of the delays that are given."""
    return min((d for d in delays if d is not None), default=None)
