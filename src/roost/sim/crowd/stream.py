"""What a simulated site tells its centre, and how far that was taken in. Pure.

A site is made of a base, which never changes and is made anew when it is asked for, and of what has changed
since, each with its revision. So ten thousand sites that are at rest take no memory for what they have. A
stream goes on from the revision that the centre has taken in, or tells everything as a snapshot; what is
deleted is remembered until the centre knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from roost.link.messages import Entries, Entry, Key

BATCH = 200
FIRST = 1
"""Revision of the base."""

Base = Callable[[], Iterable[Entry]]


class Stream:
    """One site's stream. At most one batch is on its way at a time: `due` gives it, `acknowledge` ends it."""

    def __init__(self, store_id: str, base: Base) -> None:
        self.store_id, self.revision = store_id, FIRST
        self._base = base
        self._changed: dict[Key, tuple[int, Entry]] = {}
        self._pending: dict[Key, tuple[int, Entry]] = {}
        self._snapshot: list[Entry] = []
        self._anew = False
        self._number = 0
        self._on_its_way: tuple[int, int] | None = None
        self.taken = 0
        """The revision up to which the centre has everything."""

    @property
    def in_step(self) -> bool:
        """Whether the centre has everything."""
        return not self._pending and not self._anew and self._on_its_way is None and self.taken >= FIRST

    def say(self, entry: Entry) -> int:
        """Something has changed; the revision of it."""
        self.revision += 1
        said = (self.revision, entry)
        for changes in (self._changed, self._pending):
            # Told last, for a stream is in the order of revisions.
            changes.pop(entry.key, None)
            changes[entry.key] = said
        return self.revision

    def again(self, keys: Iterable[Key]) -> None:
        """The centre asks for these once more, as they are now."""
        wanted = set(keys)
        there = {entry.key: entry for entry in self._base() if entry.key in wanted}
        there |= {key: entry for key, (_, entry) in self._changed.items() if key in wanted}
        for kind, namespace, name in wanted:
            gone = Entry(type="deleted", kind=kind, namespace=namespace, name=name)
            self.say(there.get((kind, namespace, name), gone))

    def begin(self, taken_store_id: str, taken_revision: int) -> None:
        """A session begins; the centre says how far it took in the stream of which store."""
        self._number, self._on_its_way, self._snapshot = 0, None, []
        if taken_store_id == self.store_id and FIRST <= taken_revision <= self.revision:
            self._anew, self.taken = False, taken_revision
            self._forget(taken_revision)
            self._pending = {k: said for k, said in self._changed.items() if said[0] > taken_revision}
            return
        self._anew, self.taken, self._pending = True, 0, {}
        there = {entry.key: entry for entry in self._base()}
        for key, (_, entry) in self._changed.items():
            there.pop(key, None)
            if entry.type != "deleted":
                there[key] = entry
        self._snapshot = list(there.values())

    def due(self) -> Entries | None:
        """The next batch, when none is on its way and there is something to tell."""
        if self._on_its_way is not None or not (self._anew or self._pending):
            return None
        self._number += 1
        if self._anew:
            return self._part_of_snapshot()
        told = [self._pending.pop(key) for key in list(self._pending)[:BATCH]]
        upto = told[-1][0] if self._pending else self.revision
        self._on_its_way = (self._number, upto)
        return Entries(number=self._number, entries=[entry for _, entry in told], upto=upto)

    def _part_of_snapshot(self) -> Entries:
        part, self._snapshot = self._snapshot[:BATCH], self._snapshot[BATCH:]
        if self._snapshot:
            # What changes meanwhile follows the snapshot, which may be newer than its beginning, never older.
            place: Literal["begin", "middle"] = "begin" if self._number == 1 else "middle"
            self._on_its_way = (self._number, 0)
            return Entries(number=self._number, entries=part, upto=0, snapshot=place)
        self._anew = False
        before = min((said[0] for said in self._pending.values()), default=self.revision + 1) - 1
        self._on_its_way = (self._number, max(before, FIRST))
        return Entries(number=self._number, entries=part, upto=max(before, FIRST), snapshot="end")

    def acknowledge(self, number: int) -> None:
        """The centre has batches up to this one."""
        if self._on_its_way is None or number < self._on_its_way[0]:
            return
        upto, self._on_its_way = self._on_its_way[1], None
        if upto:
            self.taken = upto
            self._forget(upto)

    def _forget(self, upto: int) -> None:
        """What is gone, or was only ever news, is not remembered once the centre knows."""
        gone = [
            key
            for key, (revision, entry) in self._changed.items()
            if revision <= upto and (entry.type == "deleted" or entry.kind == "LogEntry")
        ]
        for key in gone:
            del self._changed[key]
