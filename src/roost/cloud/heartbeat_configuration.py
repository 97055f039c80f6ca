"""Where each host sends its heartbeats: to the active process, on each network that both are on. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from roost.model.heartbeat import Heartbeat, HeartbeatConfiguration, HeartbeatNetwork
from roost.model.host import Host
from roost.model.network import PlatformNetwork


class Meeting(msgspec.Struct, frozen=True):
    """Where heartbeats are taken: the host of the active process, its addresses by network, the port."""

    host: str
    port: int
    period_milliseconds: int
    addresses: Mapping[str, tuple[str, ...]]


def meeting(
    here: Host | None, networks: Iterable[PlatformNetwork], heartbeat: Heartbeat, port: int
) -> Meeting | None:
    """Where `here` can be reached; None when it takes no heartbeats or is on none of its own hosts."""
    if here is None or not port or here.status.inventory is None:
        return None
    own = [ipaddress.ip_interface(a).ip for p in here.status.inventory.ports for a in p.addresses]
    found: dict[str, tuple[str, ...]] = {}
    for network in networks:
        subnets = [ipaddress.ip_network(s) for s in network.spec.subnets]
        # One per family: a host may have either, and two of one would only double the beats.
        first = {a.version: str(a) for a in reversed(own) if any(a in s for s in subnets)}
        if first:
            found[network.metadata.name] = tuple(first[version] for version in sorted(first))
    return Meeting(here.metadata.name, port, heartbeat.period_milliseconds, found)


def heartbeat_of(
    host: Host, ports: Mapping[str, Sequence[str]], meeting: Meeting | None
) -> HeartbeatConfiguration | None:
    """What a host is told; None for the active process's own, and for one that shares no network with it.

    `ports` are the host's, by network.
    """
    if meeting is None or host.metadata.name == meeting.host:
        return None
    shared = [
        HeartbeatNetwork(network=name, ports=list(ports[name]), targets=list(addresses))
        for name, addresses in sorted(meeting.addresses.items())
        if name in ports and addresses
    ][:16]
    if not shared:
        return None
    return HeartbeatConfiguration(
        period_milliseconds=meeting.period_milliseconds, port=meeting.port, networks=shared
    )
