"""The fleet's alarms added up, at the cost of what has changed.

Each cloud counts its own alarms and tells the result in its Cloud, of which the central cloud has a copy.
Here each copy's counts are held in memory, with their sum. When a copy changes, its former counts are taken
from the sum and its new ones added: one row is read, however many subclouds there are. What has changed
meanwhile is read together, and the sum is written at most once a PAUSE, so twenty thousand sites that go down
at once are not twenty thousand writes of one row. Only after a start of this process, or when history was
compacted, is every copy read, by readers that hold up no writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec

from roost.engine.controller import Key
from roost.model.cloud import CLOUD, SUBCLOUD, AlarmCounts, Cloud, FleetCounts
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

TOTAL = ("", "total")
PAUSE = 0.5
"""Seconds between two writes of the sum."""
TOGETHER = 2000
"""Copies read in one transaction."""


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


class FleetCountsController:
    """Keeps the sum in this cloud's own Cloud."""

    name = "fleet-counts"

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud
        self._totals = Totals()
        self._changed: set[str] = set()
        self._everything = True
        self._wrote_at: float | None = None

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == CLOUD.kind and change.name != self._cloud:
            if change.type == "MODIFIED" and _counts(change.data) == _counts(change.previous):
                return
            self._changed.add(change.name)
            yield TOTAL
        elif change.kind == SUBCLOUD.kind and change.type != "MODIFIED":
            self._changed.add(change.name)
            yield TOTAL

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        self._everything = True
        return [TOTAL]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        now = asyncio.get_running_loop().time()
        if self._wrote_at is not None and 0 <= now - self._wrote_at < PAUSE:
            return PAUSE - (now - self._wrote_at)
        names, everything = sorted(self._changed), self._everything
        self._changed, self._everything = set(), False
        try:
            if everything:
                names = await store.read(lambda tx: [s.name for s in tx.select(SUBCLOUD.kind)])
                names = sorted({*names, *self._totals.names()})
            for at in range(0, len(names), TOGETHER):
                part = names[at : at + TOGETHER]
                found = await store.read(lambda tx, p=part: read(tx, p))  # type: ignore[misc]
                for name in part:
                    self._totals.put(name, found.get(name))
            if await store.transact(self._write):
                self._wrote_at = now
        except BaseException:
            self._changed.update(names)
            self._everything = self._everything or everything
            raise
        return None

    def _write(self, tx: Transaction) -> bool:
        cloud = tx.seek(Cloud, "", self._cloud)
        fleet = self._totals.told()
        if cloud is None or cloud.status.fleet == fleet:
            return False
        status = msgspec.structs.replace(cloud.status, fleet=fleet)
        tx.report(msgspec.structs.replace(cloud, status=status))
        return True


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
