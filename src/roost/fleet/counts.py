"""The fleet's alarms added up, on all levels.

Each cloud counts its own alarms, and adds up its subclouds' if it has any; it tells both in its Cloud, of
which the cloud above has a copy. What a subcloud stands for here is itself and what it has added up, so each
level needs no more than one row for each of its own subclouds, however many levels lie below. The rows are
added up as `summing` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from roost.engine.controller import Key
from roost.fleet.summing import Summing
from roost.model.cloud import CLOUD, SUBCLOUD, AlarmCounts, Cloud, FleetCounts
from roost.store.transaction import Change, Transaction

ALARMS = AlarmCounts.__struct_fields__


def stands_for(alarms: AlarmCounts, fleet: FleetCounts | None) -> FleetCounts:
    """What a subcloud counts for above: itself, and all below it. Pure."""
    below = fleet or FleetCounts()
    return FleetCounts(
        subclouds=1,
        # A cloud of a version that knew no other levels tells of its subclouds alone.
        clouds=1 + max(below.clouds, below.subclouds),
        clouds_with_critical=(alarms.critical > 0) + below.clouds_with_critical,
        alarms=AlarmCounts(**{f: getattr(alarms, f) + getattr(below.alarms, f) for f in ALARMS}),
    )


class Totals:
    """What subclouds stand for, by name, and its sum."""

    def __init__(self) -> None:
        self._counts: dict[str, FleetCounts] = {}
        self._alarms = dict.fromkeys(ALARMS, 0)
        self._clouds = self._critical = 0

    def put(self, name: str, counts: FleetCounts | None) -> None:
        """What a subcloud stands for now; None: it is no subcloud any more."""
        before = self._counts.pop(name, None)
        self._add(before, -1)
        if counts is not None:
            self._counts[name] = counts
            self._add(counts, 1)

    def names(self) -> set[str]:
        """Subclouds that are counted."""
        return set(self._counts)

    def told(self) -> FleetCounts | None:
        """The sum; None when there is nothing to add up."""
        if not self._counts:
            return None
        return FleetCounts(
            subclouds=len(self._counts),
            clouds=self._clouds,
            clouds_with_critical=self._critical,
            alarms=AlarmCounts(**self._alarms),
        )

    def _add(self, counts: FleetCounts | None, sign: int) -> None:
        if counts is None:
            return
        for field in ALARMS:
            self._alarms[field] += sign * getattr(counts.alarms, field)
        self._clouds += sign * counts.clouds
        self._critical += sign * counts.clouds_with_critical


class FleetCountsController(Summing[FleetCounts]):
    """Keeps the sum in this cloud's own Cloud."""

    name = "fleet-counts"

    def __init__(self, cloud: str) -> None:
        super().__init__()
        self._cloud = cloud
        self._totals = Totals()

    def news(self, change: Change) -> str:
        if change.kind == CLOUD.kind and change.name != self._cloud:
            same = change.type == "MODIFIED" and _counts(change.data) == _counts(change.previous)
            return "" if same else change.name
        return change.name if change.kind == SUBCLOUD.kind and change.type != "MODIFIED" else ""

    def read(self, tx: Transaction, names: Sequence[str]) -> Mapping[str, FleetCounts]:
        return read(tx, names)

    def names(self) -> set[str]:
        return self._totals.names()

    def put(self, name: str, counts: FleetCounts | None) -> None:
        self._totals.put(name, counts)

    def due(self) -> Sequence[Key]:
        return [(CLOUD.kind, self._cloud)]

    def write(self, tx: Transaction, rows: Sequence[Key]) -> None:
        cloud = tx.seek(Cloud, "", self._cloud)
        fleet = self._totals.told()
        if cloud is not None and cloud.status.fleet != fleet:
            status = msgspec.structs.replace(cloud.status, fleet=fleet)
            tx.report(msgspec.structs.replace(cloud, status=status))


def read(tx: Transaction, names: Iterable[str]) -> Mapping[str, FleetCounts]:
    """What those that are subclouds stand for, by name; nothing was ever heard of some."""
    found = {}
    for name in names:
        if tx.find(SUBCLOUD.kind, "", name) is not None:
            copy = tx.find(CLOUD.kind, "", name)
            found[name] = _counts(copy.data) if copy else stands_for(AlarmCounts(), None)
    return found


class _Status(msgspec.Struct, frozen=True):
    alarms: AlarmCounts = AlarmCounts()
    fleet: FleetCounts | None = None


class _Copy(msgspec.Struct, frozen=True):
    status: _Status = _Status()


_decode = msgspec.json.Decoder(_Copy).decode


def _counts(data: str) -> FleetCounts:
    status = _decode(data).status
    return stands_for(status.alarms, status.fleet)
