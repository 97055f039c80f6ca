"""Incidents: the alarms of the fleet by their causes, as `causes` judges them.

What is in trouble is held in memory, a subcloud's facts read anew when something of it changes (`summing`),
so the cost goes with what changes and with what is in trouble, not with the fleet. An incident is there while
its cause is; the log tells when one of an uplink begins and is over. Alarms of hosts count that are critical
or major and not suppressed; what they say is a subcloud's own word, and is bounded and checked.

At most MOST incidents are shown, the worst and widest: more at once help nobody, and each is a row.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from roost.engine.controller import Key
from roost.engine.faults import write_log
from roost.fleet.causes import Cause, Site, Told, Topology, Trouble, judge, worst
from roost.fleet.summing import SUMS, Summing
from roost.model import time
from roost.model.cloud import SUBCLOUD, Subcloud
from roost.model.fault import ALARM, Alarm, Severity
from roost.model.incident import INCIDENT, UPLINK, Incident, IncidentStatus, Uplink, UplinkStatus
from roost.model.meta import Metadata
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

MOST = 2000
SHOWN = 100
HOSTS = 20
"""Hosts of one subcloud that are told apart: what it tells is its own word, and must not crowd others out."""
LATE = 60.0
"""Seconds that may pass from the end of a certificate until its subcloud is offline for it."""
_COUNTS: tuple[Severity, ...] = ("critical", "major")
_HOST = re.compile(r"(?:^|\.)host=([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)(?:\.|\Z)")
_ORDER = {"Uplink": 0, "Certificate": 1, "Subcloud": 2, "Host": 3}


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    uplink: str = ""


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    enrolled: bool = False
    availability: str = ""
    availability_changed_at: str = ""
    certificate_expires_at: str = ""


class _Facts(msgspec.Struct, frozen=True):
    spec: _Spec = _Spec()
    status: _Status = _Status()


class _AlarmStatus(msgspec.Struct, frozen=True, rename="camel"):
    entity: str = ""
    severity: str = ""
    reason: str = ""
    raised_at: str = ""
    suppressed: bool = False


class _AlarmFacts(msgspec.Struct, frozen=True):
    status: _AlarmStatus = _AlarmStatus()


_facts = msgspec.json.Decoder(_Facts).decode
_alarm_facts = msgspec.json.Decoder(_AlarmFacts).decode


class Known(msgspec.Struct, frozen=True):
    """What counts of an enrolled subcloud. `site` says what is wrong there; None: nothing."""

    uplink: str
    site: Site | None


class IncidentController(Summing[Known]):
    """Keeps incidents, and how uplinks are."""

    name = "incidents"

    def __init__(self, cloud: str) -> None:
        super().__init__()
        self._cloud = cloud
        self._known: dict[str, str] = {}
        self._direct = Counter[str]()
        self._troubled: dict[str, Site] = {}
        self._uplinks: dict[str, UplinkStatus] | None = None
        self._topology = Topology({})
        self._told: dict[str, IncidentStatus] | None = None
        self._wanted: tuple[dict[str, IncidentStatus], dict[str, UplinkStatus]] = ({}, {})
        self._again: float | None = None

    # -- what has changed

    def news(self, change: Change) -> str:
        if change.kind == SUBCLOUD.kind:
            same = change.type == "MODIFIED" and _facts(change.data) == _facts(change.previous)
            return "" if same else change.name
        if change.kind != ALARM.kind or change.namespace == self._cloud:
            return ""
        same = change.type == "MODIFIED" and _alarm_facts(change.data) == _alarm_facts(change.previous)
        return "" if same else change.namespace

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == UPLINK.kind:
            self._uplinks = None
            yield SUMS
        yield from super().concerned(change)

    # -- what counts

    def read(self, tx: Transaction, names: Sequence[str]) -> Mapping[str, Known]:
        found = {}
        for name in names:
            subcloud = tx.seek(Subcloud, "", name)
            if subcloud is not None and subcloud.status.enrolled:
                alarms = [] if subcloud.status.availability == "offline" else tx.every(Alarm, name)
                found[name] = known(subcloud, alarms, tx.now.timestamp())
        return found

    def names(self) -> set[str]:
        return set(self._known)

    def put(self, name: str, counts: Known | None) -> None:
        before = self._known.pop(name, None)
        self._troubled.pop(name, None)
        if before is not None:
            self._direct[before] -= 1
        if counts is None:
            return
        self._known[name] = counts.uplink
        self._direct[counts.uplink] += 1
        if counts.site is not None:
            self._troubled[name] = counts.site

    # -- what is made of it

    async def prepare(self, store: Store, *, everything: bool) -> None:
        if everything or self._told is None:
            self._told = {i.metadata.name: i.status for i in await store.every(Incident)}
        while everything or self._uplinks is None:
            everything, self._uplinks = False, {}
            declared = await store.every(Uplink)
            if self._uplinks is not None:
                # None: one has changed meanwhile.
                self._uplinks = {u.metadata.name: u.status for u in declared}
                self._topology = Topology({u.metadata.name: u.spec.behind for u in declared})
        told, uplinks = self._told or {}, self._uplinks or {}
        # In a reader's thread: with ten thousand in trouble it takes a tenth of a second.
        self._wanted = await store.read(lambda tx: self._judge(told, uplinks, tx.now.timestamp()))

    def _judge(
        self, told: Mapping[str, IncidentStatus], uplinks: Mapping[str, UplinkStatus], now: float
    ) -> tuple[dict[str, IncidentStatus], dict[str, UplinkStatus]]:
        below, offline = Counter[str](), Counter[str]()
        for uplink, count in self._direct.items():
            for one in self._topology.way(uplink):
                below[one] += count
        for site in self._troubled.values():
            if site.lost_at is not None:
                offline.update(self._topology.way(site.uplink))
        causes = [
            Told(uplink=s.name, since=_seconds(s.since, now), most=s.most, certainty=s.certainty)
            for s in told.values()
            if s.cause == "Uplink"
        ]
        judged = judge(self._troubled.values(), below, self._topology, now, causes)
        self._again = judged.again
        found = {u: UplinkStatus(subclouds=below[u], offline=offline[u]) for u in uplinks}
        return named(judged.causes), found

    def due(self) -> Sequence[Key]:
        incidents, uplinks = self._wanted
        told, lines = self._told or {}, self._uplinks or {}
        # What is over goes first: there are never more than MOST and those of one batch.
        rows = [(INCIDENT.kind, name) for name in sorted(told.keys() - incidents.keys())]
        rows += [(INCIDENT.kind, n) for n in sorted(incidents) if told.get(n) != incidents[n]]
        return rows + [(UPLINK.kind, u) for u, status in uplinks.items() if lines.get(u) != status]

    def write(self, tx: Transaction, rows: Sequence[Key]) -> None:
        incidents, uplinks = self._wanted
        for kind, name in rows:
            if kind == INCIDENT.kind:
                self._settle(tx, name, incidents.get(name))
                continue
            uplink = tx.seek(Uplink, "", name)
            if uplink is not None and uplink.status != uplinks[name]:
                tx.report(msgspec.structs.replace(uplink, status=uplinks[name]))

    def written(self) -> None:
        self._told = self._wanted[0]
        if self._uplinks is not None:
            self._uplinks = self._wanted[1]

    def failed(self) -> None:
        self._told = self._uplinks = None

    def again(self) -> float | None:
        return self._again

    def _settle(self, tx: Transaction, name: str, wanted: IncidentStatus | None) -> None:
        """One incident as it is now; None: it is over."""
        there = tx.seek(Incident, "", name)
        if wanted is not None:
            tx.save(Incident(metadata=Metadata(name=name), status=wanted))
            if there is None:
                self._tell(tx, name, "incident", wanted, wanted.reason)
        elif there is not None:
            tx.drop(INCIDENT.kind, "", name)
            self._tell(tx, name, "incident-over", there.status, f"over: {there.status.reason}")

    def _tell(self, tx: Transaction, name: str, event: str, status: IncidentStatus, text: str) -> None:
        # Of the others the log has the entries of their alarms.
        if status.cause == "Uplink":
            write_log(tx, self._cloud, event=event, entity=f"incident={name}", text=text)


def known(subcloud: Subcloud, alarms: Iterable[Alarm], now: float) -> Known:
    """What counts of a subcloud and its alarms. Pure."""
    status, name = subcloud.status, subcloud.metadata.name
    lost_at, expired = None, False
    if status.availability == "offline":
        lost_at = _seconds(status.availability_changed_at, now)
        end = status.certificate_expires_at
        # By when it went offline, not by now: a certificate may end while its subcloud is long lost.
        expired = bool(end) and _seconds(end, now) <= lost_at + LATE
    by_host: dict[str, list[Alarm]] = defaultdict(list)
    for alarm in alarms:
        host = _HOST.search(alarm.status.entity)
        if host and alarm.status.severity in _COUNTS and not alarm.status.suppressed:
            by_host[host[1]].append(alarm)
    found = sorted(
        (_trouble(host, some, now) for host, some in by_host.items()),
        key=lambda t: (t.severity != "critical", t.host),
    )
    troubles = tuple(found[:HOSTS])
    if more := len(found) - HOSTS if len(found) > HOSTS else 0:
        last = troubles[-1]
        reason = f"{last.reason[:900]} (and {more} hosts more)"
        troubles = (*troubles[:-1], msgspec.structs.replace(last, reason=reason))
    site = Site(name=name, uplink=subcloud.spec.uplink, lost_at=lost_at, expired=expired, troubles=troubles)
    return Known(subcloud.spec.uplink, site if lost_at is not None or troubles else None)


def _trouble(host: str, alarms: Sequence[Alarm], now: float) -> Trouble:
    severity = worst(alarm.status.severity for alarm in alarms)
    first = min(alarms, key=lambda a: (a.status.severity != severity, a.status.raised_at, a.metadata.name))
    return Trouble(
        host=host,
        alarms=len(alarms),
        severity=severity,
        since=min(now, *(_seconds(alarm.status.raised_at, now) for alarm in alarms)),
        reason=first.status.reason[:1024],
    )


def _seconds(stamp: str, now: float) -> float:
    """Seconds since the epoch, not before it; of what is no time, now."""
    try:
        return max(0.0, time.parse(stamp).timestamp())
    except (ValueError, OverflowError):
        return now


def named(causes: Iterable[Cause]) -> dict[str, IncidentStatus]:
    """Incidents by name, the worst and widest of them. Two of one cause, at two times, have two names."""
    chosen = sorted(
        causes,
        key=lambda c: (_ORDER[c.kind], c.severity != "critical", -len(c.sites), c.name, c.since),
    )
    found: dict[str, IncidentStatus] = {}
    for cause in chosen[:MOST]:
        stem = f"{cause.kind.lower()}.{cause.name.replace('/', '.')}"
        number = next(n for n in range(1, MOST + 2) if (stem if n == 1 else f"{stem}.{n}") not in found)
        found[stem if number == 1 else f"{stem}.{number}"] = IncidentStatus(
            cause=cause.kind,
            name=cause.name,
            certainty=cause.certainty,
            severity=cause.severity,
            reason=cause.reason[:1024],
            chain=list(cause.chain),
            subclouds=len(cause.sites),
            most=max(cause.most, len(cause.sites)),
            alarms=cause.alarms,
            concerned=list(cause.sites[:SHOWN]),
            since=time.seconds(datetime.fromtimestamp(cause.since, UTC)),
        )
    return found
