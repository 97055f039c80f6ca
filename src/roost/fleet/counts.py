"""The fleet's alarms added up.

Each cloud counts its own alarms and tells the result in its Cloud, of which the central cloud has a copy; the
copies' counts are added up as `summing` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from roost.fleet.summing import Summing
from roost.model.cloud import CLOUD, SUBCLOUD, AlarmCounts, Cloud, FleetCounts
from roost.store.transaction import Change, Transaction


class Totals:
    """Counts by subcloud, and their sum."""

    def __init__(self) -> None:
        self._counts: dict[str, AlarmCounts] = {}
        self._sums = dict.fromkeys(AlarmCounts.__struct_fields__, 0)
        self._critical = 0

    def put(self, name: str, counts: AlarmCounts | None) -> None:
        """What a subcloud has now; None: it is no subcloud any more."""
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
            clouds_with_critical=self._critical,
            alarms=AlarmCounts(**self._sums),
        )

    def _add(self, counts: AlarmCounts | None, sign: int) -> None:
        if counts is None:
            return
        for field in self._sums:
            self._sums[field] += sign * getattr(counts, field)
        self._critical += sign * (counts.critical > 0)


class FleetCountsController(Summing[AlarmCounts]):
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

    def read(self, tx: Transaction, names: Sequence[str]) -> Mapping[str, AlarmCounts]:
        return read(tx, names)

    def names(self) -> set[str]:
        return self._totals.names()

    def put(self, name: str, counts: AlarmCounts | None) -> None:
        self._totals.put(name, counts)

    def write(self, tx: Transaction) -> None:
        cloud = tx.seek(Cloud, "", self._cloud)
        fleet = self._totals.told()
        if cloud is not None and cloud.status.fleet != fleet:
            status = msgspec.structs.replace(cloud.status, fleet=fleet)
            tx.report(msgspec.structs.replace(cloud, status=status))


def read(tx: Transaction, names: Iterable[str]) -> Mapping[str, AlarmCounts]:
    """The counts of those that are subclouds, by name; nothing was ever heard of some."""
    found = {}
    for name in names:
        if tx.find(SUBCLOUD.kind, "", name) is not None:
            copy = tx.find(CLOUD.kind, "", name)
            found[name] = _counts(copy.data) if copy else AlarmCounts()
    return found


class _Status(msgspec.Struct, frozen=True):
    alarms: AlarmCounts = AlarmCounts()


class _Copy(msgspec.Struct, frozen=True):
    status: _Status = _Status()


_decode = msgspec.json.Decoder(_Copy).decode


def _counts(data: str) -> AlarmCounts:
    return _decode(data).status.alarms
