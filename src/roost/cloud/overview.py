"""The cloud's own counts: hosts and alarms in Cloud, hosts in PlatformNetwork and FirewallPolicy."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.cloud.configuration import is_for_subclouds, ports_by_network
from roost.engine.controller import Key, StoreController
from roost.engine.faults import SHED, shed
from roost.engine.overrides import in_force, management
from roost.engine.pacing import Pace
from roost.model import time
from roost.model.cloud import CLOUD, AlarmCounts, Cloud, HostCounts
from roost.model.configuration import HOST_CONFIGURATION, HostConfiguration, is_in_force
from roost.model.fault import ALARM, LOG_ENTRY, Severity
from roost.model.firewall import (
    FIREWALL_POLICY,
    FirewallPolicy,
    FirewallPolicyStatus,
    is_shared,
    selects,
)
from roost.model.host import HOST, Host
from roost.model.marking import counted
from roost.model.meta import Condition, set_condition
from roost.model.network import PLATFORM_NETWORK, PlatformNetwork
from roost.model.override import LOCAL_OVERRIDE, MANAGEMENT
from roost.store.store import Store
from roost.store.transaction import Change, Transaction


class _HostStates(msgspec.Struct, frozen=True):
    administrative: str = ""
    operational: str = ""
    availability: str = ""


class _HostLine(msgspec.Struct, frozen=True):
    """What of a host is counted. Each change of an alarm has all looked at, so no more of them is decoded."""

    status: _HostStates = _HostStates()


class _AlarmStates(msgspec.Struct, frozen=True, rename="camel"):
    severity: Severity = "warning"
    suppressed: bool = False
    acknowledged: bool = False
    blocks_updates: bool = False


class _AlarmLine(msgspec.Struct, frozen=True):
    """What of an alarm is counted."""

    status: _AlarmStates = _AlarmStates()


_host = msgspec.json.Decoder(_HostLine).decode
_alarm = msgspec.json.Decoder(_AlarmLine).decode


class _Counts(msgspec.Struct, frozen=True):
    hosts: HostCounts
    alarms: AlarmCounts


_COUNTED = (HOST.kind, ALARM.kind, LOCAL_OVERRIDE.kind, MANAGEMENT.kind)
_CONFIGURED = (
    HOST.kind,
    HOST_CONFIGURATION.kind,
    FIREWALL_POLICY.kind,
    PLATFORM_NETWORK.kind,
    LOCAL_OVERRIDE.kind,
)


class OverviewController(StoreController):
    """Counts hosts and alarms, and on how many hosts each policy is in force."""

    name = "overview"

    def __init__(self, cloud: str, version: str) -> None:
        self._cloud, self._version = cloud, version
        self._pace = Pace()

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == CLOUD.kind and change.name == self._cloud:
            yield ("", "cloud")
        if change.namespace != self._cloud:
            return
        if change.kind in _COUNTED or (change.kind == LOG_ENTRY.kind and f'"{SHED}"' in change.data):
            yield ("", "cloud")
        if change.kind in _CONFIGURED and not (is_for_subclouds(change) or _is_own_word(change)):
            yield ("", "policies")

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [("", "cloud"), ("", "policies")]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        if key[1] != "cloud":
            return await super().reconcile(store, key)
        # A reader counts, for there may be tens of thousands of alarms, and no writer should wait for that.
        # What changes meanwhile has them counted again.
        counts = await store.read(self._count)
        if isinstance(counts, float):
            return counts
        await store.transact(lambda tx: self._tell(tx, counts))
        return None

    def decide(self, tx: Transaction, key: Key) -> float | None:
        if wait := self._pace.wait(key[1], tx.now):
            return wait
        self._pace.looked(key[1], tx.now, self._policies(tx))
        return None

    def _count(self, tx: Transaction) -> _Counts | float:
        """Count hosts and alarms; the seconds to wait when they were counted a moment ago."""
        if wait := self._pace.wait("cloud", tx.now):
            return wait
        hosts = [_host(s.data).status for s in tx.select(HOST.kind, self._cloud)]
        alarms = [_alarm(s.data).status for s in tx.select(ALARM.kind, self._cloud)]
        self._pace.looked("cloud", tx.now, len(hosts) + len(alarms))
        return _Counts(
            hosts=HostCounts(
                total=len(hosts),
                available=sum(h.availability == "available" for h in hosts),
                degraded=sum(h.availability == "degraded" for h in hosts),
                locked=sum(h.administrative == "locked" for h in hosts),
                failed=sum(h.administrative == "unlocked" and h.operational == "disabled" for h in hosts),
            ),
            alarms=counted(alarms),
        )

    def _tell(self, tx: Transaction, counts: _Counts) -> None:
        cloud = tx.load(Cloud, "", self._cloud)
        status = msgspec.structs.replace(
            cloud.status,
            version=self._version,
            log_shed=told if (told := shed(tx, self._cloud)).total else None,
            management_state=management(tx, self._cloud),
            local_overrides=tx.count(LOCAL_OVERRIDE.kind, self._cloud),
            hosts=counts.hosts,
            alarms=counts.alarms,
        )
        if status != cloud.status:
            tx.report(msgspec.structs.replace(cloud, status=status))

    def _policies(self, tx: Transaction) -> int:
        """Tell where networks and policies stand; how many things that took."""
        hosts = tx.every(Host, self._cloud)
        networks = in_force(tx, PlatformNetwork, self._cloud)
        configurations = {c.metadata.name: c for c in tx.every(HostConfiguration, self._cloud)}
        ports = {h.metadata.name: ports_by_network(h, networks) for h in hosts}
        for network in networks:
            count = sum(network.metadata.name in ports[h.metadata.name] for h in hosts)
            if count != network.status.hosts:
                network_status = msgspec.structs.replace(network.status, hosts=count)
                tx.report(msgspec.structs.replace(network, status=network_status))
        policies = in_force(tx, FirewallPolicy, self._cloud, besides=is_shared)
        for policy in policies:
            status = policy_status(policy, hosts, networks, ports, configurations, time.stamp(tx.now))
            if status != policy.status:
                tx.report(msgspec.structs.replace(policy, status=status))
        self._withdrawn(tx, {p.metadata.name for p in policies})
        return len(hosts) + len(networks) + len(configurations) + len(policies)

    def _withdrawn(self, tx: Transaction, in_force: set[str]) -> None:
        """Say of policies that the site has put out of force that they are."""
        for stored in tx.select(FIREWALL_POLICY.kind, self._cloud):
            if stored.name in in_force or is_shared(stored.data):
                continue
            policy = stored.typed(FirewallPolicy)
            generation = policy.metadata.generation
            message = "A LocalOverride has put it out of force here."
            ready = Condition(
                type="Ready",
                status="False",
                reason="Withdrawn",
                message=message,
                observed_generation=generation,
            )
            conditions = set_condition(policy.status.conditions, ready, time.stamp(tx.now))
            status = FirewallPolicyStatus(observed_generation=generation, conditions=conditions)
            if status != policy.status:
                tx.report(msgspec.structs.replace(policy, status=status))


def _is_own_word(change: Change) -> bool:
    """Whether only the status of a network or policy has changed, which is written here."""
    if change.type != "MODIFIED" or change.kind not in (FIREWALL_POLICY.kind, PLATFORM_NETWORK.kind):
        return False
    now, before = msgspec.json.decode(change.data), change.before()
    return all(now.get(part) == before.get(part) for part in ("metadata", "spec"))


def policy_status(
    policy: FirewallPolicy,
    hosts: list[Host],
    networks: list[PlatformNetwork],
    ports: dict[str, dict[str, list[str]]],
    configurations: dict[str, HostConfiguration],
    now: str,
) -> FirewallPolicyStatus:
    """On how many of its hosts a policy is in force. Pure."""
    meant = {n.metadata.name for n in networks if n.spec.type in policy.spec.networks}
    name, generation = policy.metadata.name, policy.metadata.generation
    concerned = [
        h.metadata.name
        for h in hosts
        if selects(policy.spec.hosts, h) and meant & set(ports[h.metadata.name])
    ]
    late = []
    for host in concerned:
        configuration = configurations.get(host)
        if (
            configuration is None
            or configuration.spec.sources.get(name) != generation
            or not is_in_force(configuration)
        ):
            late.append(host)
    if late:
        message = "Not in force on " + ", ".join(late[:20]) + ("." if len(late) <= 20 else ", and more.")
        ready = Condition(type="Ready", status="False", reason="NotInForce", message=message)
    elif concerned:
        ready = Condition(type="Ready", status="True", reason="InForce", message="In force on every host.")
    else:
        ready = Condition(type="Ready", status="True", reason="NoHosts", message="It applies to no host.")
    ready = msgspec.structs.replace(ready, observed_generation=generation)
    return FirewallPolicyStatus(
        observed_generation=generation,
        hosts=len(concerned),
        applied=len(concerned) - len(late),
        conditions=set_condition(policy.status.conditions, ready, now),
    )
