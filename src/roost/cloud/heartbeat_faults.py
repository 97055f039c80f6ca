"""Alarms of heartbeats: of each network that is silent, with the field's ids where it has them. Pure.

The management network shares its alarm with the host's link, cluster-host has one of its own, other networks
one for each. What can't be judged now is neither raised nor cleared (`heartbeats_unknown`). While a host is
held, no alarm of it is critical: the one of the event is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from roost.cloud.faults import unobservable
from roost.cloud.watching import Sight
from roost.model.alarms import Fault
from roost.model.fault import AlarmStatus, Severity
from roost.model.host import Host

MANAGEMENT, CLUSTER, OTHER = "200.005", "200.009", "200.202"
_ALARM = {"mgmt": MANAGEMENT, "cluster-host": CLUSTER}
_NAMES = {"mgmt": "management", "cluster-host": "cluster-host"}


def heartbeat_faults(host: Host, sight: Sight, types: Mapping[str, str]) -> list[Fault]:
    """The alarms of a host's silent networks. `types` are those of the platform networks, by name."""
    if host.status.administrative == "locked":
        return []
    worst: dict[tuple[str, str], Fault] = {}
    for network in sight.heartbeat.networks:
        if network.state not in ("degraded", "failed") or network.network not in types:
            continue
        severity: Severity = "critical" if network.state == "failed" and not sight.held else "major"
        kind = types[network.network]
        fault = Fault(
            alarm_id=_ALARM.get(kind, OTHER),
            severity=severity,
            entity=_entity(host, kind, network.network),
            reason=f"{host.metadata.name} is silent on {_NAMES.get(kind, kind)} network {network.network}.",
            instance="" if kind in _ALARM else network.network,
        )
        key = (fault.alarm_id, fault.instance)
        if key not in worst or severity == "critical":
            worst[key] = fault
    return list(worst.values())


def heartbeats_unknown(host: Host, sight: Sight, types: Mapping[str, str]) -> Callable[[AlarmStatus], bool]:
    """Whether the network behind an alarm can't be judged now."""
    hidden: set[tuple[str, str]] = set()
    beat = sight.heartbeat
    for network, kind in types.items():
        known = [n for n in beat.networks if n.network == network]
        if (beat.awaited and not known) or any(n.state == "unknown" for n in known):
            hidden.add((_ALARM.get(kind, OTHER), _entity(host, kind, network)))

    def unknown(alarm: AlarmStatus) -> bool:
        return (alarm.alarm_id, alarm.entity) in hidden

    return unknown


def _entity(host: Host, kind: str, network: str) -> str:
    name = f"host={host.metadata.name}"
    return name if kind in _ALARM else f"{name}.network={network}"


def with_heartbeats(faults: list[Fault], host: Host, sight: Sight, types: Mapping[str, str]) -> list[Fault]:
    """A host's faults with those of its networks; of two with one name the graver stays."""
    found = {(f.alarm_id, f.instance): f for f in faults}
    for fault in heartbeat_faults(host, sight, types):
        there = found.get((fault.alarm_id, fault.instance))
        if there is None or there.severity != "critical":
            found[fault.alarm_id, fault.instance] = fault
    return list(found.values())


def unseen(host: Host, sight: Sight, types: Mapping[str, str]) -> Callable[[AlarmStatus], bool]:
    """Whether the state behind an alarm of a host can't be seen now."""
    hidden = unobservable(host, sight.contact)
    unknown = heartbeats_unknown(host, sight, types)
    return lambda alarm: hidden(alarm) or unknown(alarm)
