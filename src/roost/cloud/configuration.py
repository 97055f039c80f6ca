"""Compile each host's intent from hosts, platform networks and firewall policies.

`compile_host` is pure; the controller writes the HostConfiguration of each host when the result
differs, and removes it with its host. Policies shared from the central cloud count like local ones, with what
the site overrides of them.

Rules of the platform's own come first, so that no policy can cut the links on which the cloud stands:
a controller always takes links from the subnets of its networks (from anywhere when it has subclouds),
and every host may always dial its cloud and the central cloud.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from roost.cloud.faults import CHANGED_AT
from roost.cloud.heartbeat_configuration import Meeting, heartbeat_of, meeting
from roost.engine.controller import Key, StoreController
from roost.engine.overrides import in_force
from roost.engine.pacing import Pace
from roost.model import time
from roost.model.cloud import CLOUD, SUBCLOUD, Cloud
from roost.model.configuration import (
    HOST_CONFIGURATION,
    FirewallConfiguration,
    HostConfiguration,
    HostConfigurationSpec,
    NetworkFirewall,
)
from roost.model.firewall import FIREWALL_POLICY, FirewallPolicy, FirewallRule, is_shared, selects
from roost.model.host import HOST, Host
from roost.model.meta import Metadata
from roost.model.monitoring import MONITORING_PROFILE, MonitoringProfile, selected
from roost.model.monitoring import in_force as thresholds_in_force
from roost.model.network import PLATFORM_NETWORK, PlatformNetwork
from roost.model.override import LOCAL_OVERRIDE
from roost.store.transaction import HERE, Change, Stored, Transaction

EVERY = "*"
_SHARED = (FIREWALL_POLICY.kind, PLATFORM_NETWORK.kind, LOCAL_OVERRIDE.kind, MONITORING_PROFILE.kind)
"""What is written once and reaches many hosts."""


class PlatformPorts(msgspec.Struct, frozen=True):
    """Ports the platform itself needs: where this cloud takes links, and where it dials."""

    links: tuple[int, ...] = ()
    dialled: tuple[int, ...] = ()
    from_anywhere: bool = False
    """Whether links come from beyond the networks' own subnets: there are subclouds."""
    heartbeat: int = 0
    """UDP port on which the active process takes heartbeats; 0: it takes none."""
    host: str = ""
    """The host that this process of the cloud is on; empty: none of its own."""


def platform_of(tx: Transaction, ports: PlatformPorts) -> PlatformPorts:
    """The platform's needs as they are now: a cloud with subclouds takes links from anywhere.

    Nobody links without a certificate of this cloud; a policy must not cut off a whole fleet.
    """
    return msgspec.structs.replace(ports, from_anywhere=bool(tx.select(SUBCLOUD.kind, limit=1)))


def is_for_subclouds(change: Change) -> bool:
    """Whether a policy was and is for subclouds: thousands of these concern no host here."""
    return change.kind == FIREWALL_POLICY.kind and all(
        is_shared(data) for data in (change.data, change.previous) if data
    )


def ports_by_network(host: Host, networks: Iterable[PlatformNetwork]) -> dict[str, list[str]]:
    """Ports of the host on each network, by name: as assigned, else by their addresses."""
    assigned = {i.port: i.networks for i in host.spec.interfaces}
    found: dict[str, list[str]] = {}
    for network in networks:
        name = network.metadata.name
        subnets = [ipaddress.ip_network(s) for s in network.spec.subnets]
        ports = [p for p, names in assigned.items() if name in names]
        for port in host.status.inventory.ports if host.status.inventory else []:
            if port.name in assigned:
                continue
            addresses = [ipaddress.ip_interface(a).ip for a in port.addresses]
            if any(a in s for a in addresses for s in subnets):
                ports.append(port.name)
        if ports:
            found[name] = sorted(ports)
    return found


def compile_host(
    host: Host,
    networks: list[PlatformNetwork],
    policies: list[FirewallPolicy],
    platform: PlatformPorts,
    profiles: Iterable[MonitoringProfile] = (),
) -> HostConfigurationSpec:
    """The intent for one host."""
    monitored = selected(profiles, host)
    used: dict[str, int] = {f"monitoringprofile/{p.metadata.name}": p.metadata.generation for p in monitored}
    ours = [p for p in policies if p.spec.subclouds is None and selects(p.spec.hosts, host)]
    ours.sort(key=lambda p: (p.spec.order, p.metadata.name))
    ports = ports_by_network(host, networks)
    firewalls: list[NetworkFirewall] = []
    for network in sorted(networks, key=lambda n: n.metadata.name):
        name = network.metadata.name
        applied = [p for p in ours if network.spec.type in p.spec.networks]
        if name not in ports or not applied:
            continue
        used |= {p.metadata.name: p.metadata.generation for p in applied}
        rules = _platform_rules(host, network, platform)
        rules += [rule for p in applied for rule in p.spec.rules]
        firewalls.append(
            NetworkFirewall(
                network=name,
                ports=ports[name],
                rules=rules,
                default_ingress="deny" if any(p.spec.default_ingress == "deny" for p in applied) else "allow",
                default_egress="deny" if any(p.spec.default_egress == "deny" for p in applied) else "allow",
            )
        )
    return HostConfigurationSpec(
        firewall=FirewallConfiguration(networks=firewalls) if firewalls else None,
        thresholds=thresholds_in_force(host.spec.thresholds, monitored),
        platform_ports=sorted({port for names in ports.values() for port in names}),
        sources=used,
    )


def _platform_rules(host: Host, network: PlatformNetwork, platform: PlatformPorts) -> list[FirewallRule]:
    rules = []
    if "controller" in host.spec.personalities and platform.links:
        rules.append(
            FirewallRule(
                action="allow",
                protocol="tcp",
                ports=[str(p) for p in platform.links],
                peers=[] if platform.from_anywhere else list(network.spec.subnets),
                description="platform: links of subclouds and hosts"
                if platform.from_anywhere
                else "platform: links of this cloud's hosts",
            )
        )
    if platform.heartbeat:
        rules += _heartbeat_rules(host, network, platform.heartbeat)
    dialled = sorted({*platform.links, *platform.dialled})
    if dialled:
        rules.append(
            FirewallRule(
                action="allow",
                direction="egress",
                protocol="tcp",
                ports=[str(p) for p in dialled],
                description="platform: links to the cloud and the central cloud",
            )
        )
    return rules


def _heartbeat_rules(host: Host, network: PlatformNetwork, port: int) -> list[FirewallRule]:
    rules = [
        FirewallRule(
            action="allow",
            direction="egress",
            protocol="udp",
            ports=[str(port)],
            peers=list(network.spec.subnets),
            description="platform: heartbeats to the controller",
        )
    ]
    if "controller" in host.spec.personalities:
        rules.append(
            FirewallRule(
                action="allow",
                protocol="udp",
                ports=[str(port)],
                peers=list(network.spec.subnets),
                description="platform: heartbeats of this cloud's hosts",
            )
        )
    return rules


class ConfigurationController(StoreController):
    """Keeps the HostConfiguration of each host of this cloud."""

    name = "configuration"

    def __init__(self, cloud: str, platform: PlatformPorts) -> None:
        self._cloud, self._platform = cloud, platform
        self._pace = Pace()
        self._meeting: Meeting | None = None

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == SUBCLOUD.kind and change.type != "MODIFIED":
            yield (self._cloud, EVERY)
        if change.kind == CLOUD.kind and intent(change.data) != intent(change.previous):
            yield (self._cloud, EVERY)
        if change.namespace != self._cloud:
            return
        if change.kind in _SHARED:
            if is_for_subclouds(change):
                return
            if intent(change.data) != intent(change.previous) or change.type == "DELETED":
                yield (self._cloud, EVERY)
        elif change.kind == HOST.kind or (
            change.kind == HOST_CONFIGURATION.kind and change.type == "DELETED"
        ):
            yield (self._cloud, change.name)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [(self._cloud, EVERY)]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        wait = self._pace.wait(EVERY, tx.now) if key[1] == EVERY else 0.0
        if wait:
            return wait
        networks = in_force(tx, PlatformNetwork, self._cloud)
        policies = in_force(tx, FirewallPolicy, self._cloud, besides=is_shared)
        platform = platform_of(tx, self._platform)
        if self._meets_elsewhere(tx, networks):
            # The heartbeats of all hosts go by it.
            key = (self._cloud, EVERY)
        profiles = tx.every(MonitoringProfile, self._cloud)
        hosts = self._concerned(tx, key[1])
        for stored in hosts:
            self._write(tx, stored.typed(Host), networks, policies, platform, profiles)
        there = {s.name for s in hosts}
        if key[1] == EVERY:
            self._pace.looked(EVERY, tx.now, len(hosts) + len(policies))
            gone = [s.name for s in tx.select(HOST_CONFIGURATION.kind, self._cloud, origin=HERE)]
        else:
            gone = [key[1]]
        for name in gone:
            if name not in there and tx.find(HOST_CONFIGURATION.kind, self._cloud, name):
                tx.remove(HOST_CONFIGURATION.kind, self._cloud, name)
        return None

    def _concerned(self, tx: Transaction, name: str) -> list[Stored]:
        """The host of a name, or all."""
        if name == EVERY:
            return tx.select(HOST.kind, self._cloud)
        found = tx.find(HOST.kind, self._cloud, name)
        return [found] if found else []

    def _meets_elsewhere(self, tx: Transaction, networks: list[PlatformNetwork]) -> bool:
        """Whether heartbeats are taken elsewhere than at the last look, or at another period."""
        cloud = tx.seek(Cloud, "", self._cloud)
        here = tx.seek(Host, self._cloud, self._platform.host) if self._platform.host else None
        met = meeting(here, networks, cloud.spec.heartbeat, self._platform.heartbeat) if cloud else None
        changed, self._meeting = met != self._meeting, met
        return changed

    def _write(
        self,
        tx: Transaction,
        host: Host,
        networks: list[PlatformNetwork],
        policies: list[FirewallPolicy],
        platform: PlatformPorts,
        profiles: list[MonitoringProfile],
    ) -> None:
        name = host.metadata.name
        current = tx.seek(HostConfiguration, self._cloud, name)
        beats = heartbeat_of(host, ports_by_network(host, networks), self._meeting)
        spec = compile_host(host, networks, policies, platform, profiles)
        spec = msgspec.structs.replace(spec, heartbeat=beats)
        if current is not None:
            was = current.spec
            spec = msgspec.structs.replace(
                spec, reboot_from=was.reboot_from, health=was.health, drain=was.drain
            )
            if current.spec == spec:
                return
        write_configuration(tx, self._cloud, name, spec)


def write_configuration(
    tx: Transaction,
    cloud: str,
    host: str,
    spec: HostConfigurationSpec,
    annotations: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a host's intent and remember when it changed."""
    current = tx.seek(HostConfiguration, cloud, host)
    base = current or HostConfiguration(metadata=Metadata(name=host, namespace=cloud))
    metadata = msgspec.structs.replace(
        base.metadata, annotations={**base.metadata.annotations, **annotations}
    )
    write_changed_at(tx, msgspec.structs.replace(base, metadata=metadata, spec=spec))


def write_changed_at(tx: Transaction, configuration: HostConfiguration) -> HostConfiguration:
    """Write a host's intent as changed now."""
    annotations = {**configuration.metadata.annotations, CHANGED_AT: time.stamp(tx.now)}
    metadata = msgspec.structs.replace(configuration.metadata, annotations=annotations)
    return tx.save(msgspec.structs.replace(configuration, metadata=metadata))


def intent(data: str) -> tuple[object, object]:
    """What of a resource the compilation reads."""
    if not data:
        return None, None
    raw = msgspec.json.decode(data)
    return raw.get("spec"), raw["metadata"].get("generation")
