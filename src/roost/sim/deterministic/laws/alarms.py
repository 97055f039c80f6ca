"""Alarms and states, from how the machines really are: by a table of its own, not by the cloud's.

Of a site that is healed and quiet this must hold: each host's load, ports and administrative state have the
alarms that follow from them, no other alarm of the identifiers told here is there, and none is stale.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from roost.sim.deterministic.laws.books import HERE, Book, Row
from roost.sim.deterministic.laws.logs import Arrival

Alarms = dict[tuple[str, str], str]
"""Severity by identifier and entity."""

TOLD = frozenset(
    (
        "100.101",
        "100.103",
        "100.104",
        "100.106",
        "100.108",
        "100.110",
        "200.001",
        "200.004",
        "200.005",
        "250.001",
    )
)
_PORTS = {"oam": "100.106", "mgmt": "100.108", "cluster-host": "100.110"}
_LIMITS = {"processor": (90, 95), "memory": (80, 90), "filesystem": (80, 90)}
_DEGRADING = {
    ("100.101", "critical"),
    ("100.103", "critical"),
    ("100.104", "critical"),
    ("100.106", "major"),
    ("100.108", "major"),
    ("100.110", "major"),
}


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """How a machine really is. Use in percent; `addresses` with prefix length by port."""

    processor: float
    memory: float
    root: float
    dark: frozenset[str] = frozenset()
    addresses: Mapping[str, Sequence[str]] = {}


NORMAL = Machine(processor=12.0, memory=40.0, root=30.0)


def unchanged(host: str, told: Arrival, changes: int, machine: Machine) -> str:
    """What is wrong with an entry of the log, when a machine has changed but once, or never; empty: nothing.

    A machine that became bad once and stayed so has no alarm cleared; one that never was has none raised.
    """
    status = msgspec.json.decode(told.data).get("status") or {}
    event, alarm_id, entity = (str(status.get(k, "")) for k in ("event", "alarmId", "entity"))
    if not alarm_id.startswith("100.") or _host_of(entity) != host:
        return ""
    what = _words((alarm_id, entity))
    if event == "alarm-clear" and changes == 1 and _is_bad(alarm_id, entity, machine):
        return f"{what} was cleared while its cause went on"
    if event == "alarm-set" and changes == 0 and not _is_bad(alarm_id, entity, machine):
        return f"{what} was raised and there never was a cause"
    return ""


def _is_bad(alarm_id: str, entity: str, machine: Machine) -> bool:
    """Whether a machine is so bad that any sensible threshold is passed."""
    if alarm_id in _PORTS.values():
        return entity.rpartition("=")[2] in machine.dark
    use = {"100.101": machine.processor, "100.103": machine.memory, "100.104": machine.root}
    return use.get(alarm_id, 0.0) >= 90.0


def of_site(site: str, book: Book, machines: Mapping[str, Machine]) -> Alarms:
    """The alarms that a site should have; a host without a machine that answers is lost."""
    wanted: Alarms = {}
    networks = [r for r in book.of("PlatformNetwork") if r.namespace == site]
    for row in book.of("Host", origin=HERE):
        machine = machines.get(row.name)
        wanted |= _life(row, answers=machine is not None)
        if machine is not None:
            wanted |= _use(row, machine)
            wanted |= _dark(row.name, machine, networks)
    return wanted


def differences(name: str, wanted: Alarms, book: Book, namespace: str) -> list[str]:
    """Where the alarms of a namespace are not those that should be."""
    full = {f"host={host}" for host in overfull(wanted)}
    found = [
        r
        for r in book.of("Alarm")
        if r.namespace == namespace
        and r.status.get("alarmId") in TOLD
        and not (r.status.get("alarmId") == "200.004" and r.status.get("entity") in full)
    ]
    there = {(str(r.status["alarmId"]), str(r.status["entity"])): str(r.status["severity"]) for r in found}
    said = [
        f"{name}: {_words(k)} is {wanted[k]} and is not raised" for k in sorted(wanted.keys() - there.keys())
    ]
    said += [
        f"{name}: {_words(k)} is raised and nothing is wrong" for k in sorted(there.keys() - wanted.keys())
    ]
    for key in sorted(there.keys() & wanted.keys()):
        if there[key] != wanted[key]:
            said.append(f"{name}: {_words(key)} should be {wanted[key]} and is {there[key]}")
    said += [f"{name}: {r.name} is stale, and its host answers" for r in found if r.status.get("staleSince")]
    return said


def overfull(alarms: Alarms) -> set[str]:
    """Hosts on which something is critical: their own checks may keep them out of service, or fail."""
    return {_host_of(k[1]) for k, severity in alarms.items() if severity == "critical" and k[0] < "200"}


def states(site: str, book: Book, alarms: Alarms, machines: Mapping[str, Machine]) -> list[str]:
    """Hosts whose operational state and availability do not follow from the rest."""
    found = []
    busy = {
        str(o.spec.get("host")) for o in book.of("Operation", origin=HERE) if not o.status.get("finishedAt")
    }
    for row in book.of("Host", origin=HERE):
        if row.name not in machines or row.name in busy | overfull(alarms):
            continue
        mine = {k: s for k, s in alarms.items() if _host_of(k[1]) == row.name}
        if row.status.get("administrative", "locked") == "locked":
            wanted = ("disabled", "online")
        else:
            degraded = any((k[0], s) in _DEGRADING for k, s in mine.items())
            wanted = ("enabled", "degraded" if degraded else "available")
        is_now = (row.status.get("operational"), row.status.get("availability"))
        if is_now != wanted:
            found.append(
                f"{site}: {row.name} should be {wanted[0]}, {wanted[1]} and is {is_now[0]}, {is_now[1]}"
            )
    return found


def _life(row: Row, *, answers: bool) -> Alarms:
    entity = f"host={row.name}"
    if row.status.get("administrative", "locked") == "locked":
        return {("200.001", entity): "warning"}
    if not answers:
        return {("200.005", entity): "critical", ("200.004", entity): "critical"}
    return {}


def _use(row: Row, machine: Machine) -> Alarms:
    thresholds = row.spec.get("thresholds") or {}
    seen = {
        ("100.101", f"host={row.name}"): ("processor", machine.processor),
        ("100.103", f"host={row.name}"): ("memory", machine.memory),
        ("100.104", f"host={row.name}.filesystem=/"): ("filesystem", machine.root),
    }
    found: Alarms = {}
    for key, (what, use) in seen.items():
        said: dict[str, Any] = thresholds.get(what) or {}
        major, critical = said.get("major", _LIMITS[what][0]), said.get("critical", _LIMITS[what][1])
        if critical and use >= critical:
            found[key] = "critical"
        elif major and use >= major:
            found[key] = "major"
    return found


def _dark(host: str, machine: Machine, networks: list[Row]) -> Alarms:
    found: Alarms = {}
    for port in machine.dark:
        addresses = [ipaddress.ip_interface(a).ip for a in machine.addresses.get(port, ())]
        for network in networks:
            subnets = [ipaddress.ip_network(s) for s in network.spec.get("subnets") or ()]
            alarm = _PORTS.get(str(network.spec.get("type")))
            if alarm and any(a in s for a in addresses for s in subnets):
                found[(alarm, f"host={host}.port={port}")] = "major"
    return found


def _host_of(entity: str) -> str:
    return entity.partition("host=")[2].partition(".")[0]


def _words(key: tuple[str, str]) -> str:
    return f"alarm {key[0]} of {key[1]}"


def machine_of(load: Any, inventory: Any) -> Machine:
    """The facts of a simulated machine."""
    return Machine(
        processor=load.processor,
        memory=load.memory,
        root=load.root,
        dark=frozenset(load.dark_ports),
        addresses={p.name: tuple(p.addresses) for p in inventory.ports},
    )
