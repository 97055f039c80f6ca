"""What simulated sites have, as they tell it: a cloud, hosts, alarms, log entries, states of policies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from roost import __version__
from roost.link.messages import Entry
from roost.model import time
from roost.model.cloud import AlarmCounts, Cloud, CloudSpec, CloudStatus, HostCounts
from roost.model.codec import encode
from roost.model.fault import Alarm, AlarmStatus, LogEntry, LogEntryStatus, Severity
from roost.model.host import Host, HostSpec, HostStatus
from roost.model.meta import Condition, Metadata, Resource
from roost.sim.inventory import inventory
from roost.sim.subcloud import host_name

SENT_AT = "roost.edge/sent-at"
"""Annotation: when a change was made, in seconds since the epoch, for who measures how long it takes."""
_BORN = "2026-01-01T00:00:00Z"
_numbers = itertools.count(1)


def base(site: str, hosts: int) -> Iterator[Entry]:
    """All that a site has when nothing has happened yet."""
    yield cloud(site, hosts)
    for number in range(hosts):
        yield host(site, number)


def cloud(site: str, hosts: int, alarms: AlarmCounts | None = None) -> Entry:
    """The site as it sees itself."""
    counts = HostCounts(total=hosts, available=hosts)
    status = CloudStatus(
        version=__version__,
        store_id=f"simulated-{site}",
        upper_connected=True,
        hosts=counts,
        alarms=alarms or AlarmCounts(),
        management_state="managed",
    )
    mode: Literal["simplex", "duplex", "standard"] = (
        "simplex" if hosts < 2 else "duplex" if hosts == 2 else "standard"
    )
    return _object(
        Cloud(metadata=_metadata(site, "", "cloud"), spec=CloudSpec(system_mode=mode), status=status)
    )


def host(site: str, number: int, *, sent_at: float | None = None) -> Entry:
    """A host of a site, enabled and available, with an inventory."""
    name = host_name(number)
    status = HostStatus(
        administrative="unlocked",
        operational="enabled",
        availability="available",
        connected=True,
        inventory=inventory(f"{site}/{name}", name, {"eth0": "192.0.2.10/24", "eth1": "198.51.100.10/24"}),
        inventory_observed_at=_BORN,
    )
    metadata = _metadata(name, site, f"{site}-{name}")
    if sent_at is not None:
        metadata = msgspec.structs.replace(metadata, annotations={SENT_AT: f"{sent_at:.6f}"})
    return _object(Host(metadata=metadata, spec=HostSpec(administrative_state="unlocked"), status=status))


def alarm(site: str, number: int, *, severity: Severity = "major", sent_at: float | None = None) -> Entry:
    """One of a site's alarms: a file system of its first host is full."""
    status = AlarmStatus(
        alarm_id="100.104",
        entity=f"host={host_name(0)}.filesystem=/data{number}",
        severity=severity,
        reason=f"/data{number} is 91% full.",
        repair="Free space on it.",
        raised_at=_now(),
    )
    name = f"simulated-{number}"
    metadata = _metadata(name, site, f"{site}-alarm-{number}")
    if sent_at is not None:
        metadata = msgspec.structs.replace(metadata, annotations={SENT_AT: f"{sent_at:.6f}"})
    return _object(Alarm(metadata=metadata, status=status))


def no_alarm(site: str, number: int) -> Entry:
    """The same alarm is over."""
    return Entry(type="deleted", kind="Alarm", namespace=site, name=f"simulated-{number}")


def log_entry(site: str, text: str) -> Entry:
    """An entry of a site's log."""
    name = f"simulated-{next(_numbers)}"
    status = LogEntryStatus(event="simulated", entity=f"cloud={site}", text=text, source=site, time=_now())
    return _object(LogEntry(metadata=_metadata(name, site, f"{site}-{name}"), status=status))


def in_force(entry: Entry, hosts: int) -> Entry | None:
    """What a site says of a policy that came down: it is in force on all its hosts."""
    raw = msgspec.json.decode(entry.data)
    meta: dict[str, Any] = raw["metadata"]
    ready = Condition(
        type="Ready", status="True", reason="InForce", message="In force.", last_transition_time=_BORN
    )
    status = {
        "observedGeneration": meta.get("generation", 0),
        "hosts": hosts,
        "applied": hosts,
        "conditions": [msgspec.to_builtins(ready)],
    }
    kept = {k: meta[k] for k in ("name", "namespace", "uid") if k in meta}
    told = {"kind": raw["kind"], "metadata": kept, "status": status}
    return Entry(
        type="status",
        kind=entry.kind,
        namespace=entry.namespace,
        name=entry.name,
        data=msgspec.json.encode(told),
    )


def _metadata(name: str, namespace: str, uid: str) -> Metadata:
    return Metadata(
        name=name, namespace=namespace, uid=f"simulated-{uid}", generation=1, creation_timestamp=_BORN
    )


def _object(resource: Resource) -> Entry:
    raw = encode(resource)
    meta = raw["metadata"]
    return Entry(
        type="object",
        kind=raw["kind"],
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        data=msgspec.json.encode(raw),
    )


def _now() -> str:
    return time.stamp(datetime.now(UTC))
