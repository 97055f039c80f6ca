"""Figures of subclouds added up, at the cost of what has changed.

What counts of each subcloud is held in memory. When something of one changes, its row is read, what it
counted before is taken from the sums and what it counts now is added, however many subclouds there are. What
has changed meanwhile is read together, and the sums are looked at at most once a PAUSE, so twenty thousand
sites that go down at once are not twenty thousand writes of one row. However many rows are otherwise then, a
transaction writes no more than WRITTEN: other writers go in between. Only after a start of this process, or
when history was compacted, is every row read, by readers that hold up no writer.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from roost.engine.controller import Key
from roost.engine.queue import RESOLUTION
from roost.model.cloud import SUBCLOUD
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

SUMS = ("", "sums")
PAUSE = 0.5
"""Seconds between two looks at sums."""
TOGETHER = 2000
"""Subclouds read in one transaction."""
WRITTEN = 50
"""Rows written in one transaction."""

T = TypeVar("T")


class Summing(ABC, Generic[T]):
    """Keeps sums over subclouds; T is what counts of one."""

    name: str

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._asked, self._done = 1, 0
        self._looked_at: float | None = None

    @abstractmethod
    def news(self, change: Change) -> str:
        """The subcloud of which something that counts may have changed; empty when none has."""

    @abstractmethod
    def read(self, tx: Transaction, names: Sequence[str]) -> Mapping[str, T]:
        """What counts of each of these that is a subcloud."""

    @abstractmethod
    def names(self) -> set[str]:
        """Subclouds that are counted."""

    @abstractmethod
    def put(self, name: str, counts: T | None) -> None:
        """What counts of a subcloud now; None: it is no subcloud any more."""

    async def prepare(self, store: Store, *, everything: bool) -> None:
        """Read what else is needed, and work out what to write; beside the store's writer, not in its way."""

    @abstractmethod
    def due(self) -> Sequence[Key]:
        """What is to be written: rows that may be otherwise than they are written, by kind and name."""

    @abstractmethod
    def write(self, tx: Transaction, rows: Sequence[Key]) -> None:
        """Write some of what is due."""

    def written(self) -> None:
        """The sums are written."""

    def failed(self) -> None:
        """They are not, and are worked out anew."""

    def again(self) -> float | None:
        """Seconds after which to write once more though nothing changes; None: never."""
        return None

    def concerned(self, change: Change) -> Iterable[Key]:
        name = self.news(change)
        if name:
            self._changed.add(name)
            yield SUMS

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        # In a reader's thread: counted, so that no asking is lost between a look and its end.
        self._asked += 1
        return [SUMS]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        now = asyncio.get_running_loop().time()
        # Less than the resolution of the queue is over: it would be given back at the same moment, for ever.
        if self._looked_at is not None and RESOLUTION < (left := self._looked_at + PAUSE - now) <= PAUSE:
            return left
        self._looked_at = now
        names, asked = sorted(self._changed), self._asked
        everything = asked != self._done
        self._changed = set()
        try:
            if everything:
                names = await store.read(lambda tx: [s.name for s in tx.select(SUBCLOUD.kind)])
                names = sorted({*names, *self.names()})
            for at in range(0, len(names), TOGETHER):
                part = names[at : at + TOGETHER]
                found = await store.read(lambda tx, p=part: self.read(tx, p))  # type: ignore[misc]
                for name in part:
                    self.put(name, found.get(name))
            await self.prepare(store, everything=everything)
            due = self.due()
            for at in range(0, len(due), WRITTEN):
                await store.transact(lambda tx, some=due[at : at + WRITTEN]: self.write(tx, some))  # type: ignore[misc]
        except BaseException:
            self._changed.update(names)
            self.failed()
            raise
        self._done = asked
        self.written()
        return self.again()
