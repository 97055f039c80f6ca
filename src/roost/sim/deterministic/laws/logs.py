"""Log entries: each number of a source is given once, and arrives once and in order wherever it goes.

A source counts from 1 in a counter of its store. What is missing there must have been shed, and counted.
While a run goes on the history of every store is read along: an entry never changes, a number is never given
to another entry, and entries of one source come in rising order. A restored source counts on from its
snapshot, and its numbers come again: of it only the end is judged.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from roost.sim.deterministic.laws.books import HERE, Book

KIND = "LogEntry"


class Arrival(msgspec.Struct, frozen=True):
    """One step of a store's history that concerns a log entry."""

    type: str
    name: str
    data: str


class Told:
    """What one store has said of log entries so far, while it was one and the same store."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], str] = {}
        self._last: dict[str, int] = {}

    def take(self, arrivals: list[Arrival], restored: Collection[str] = ()) -> list[str]:
        """What is wrong with these, in order. `restored` are sources that were put back to an older state."""
        found = []
        for arrival in arrivals:
            raw: dict[str, Any] = msgspec.json.decode(arrival.data)
            status = raw.get("status") or {}
            source, number = str(status.get("source", "")), int(status.get("sequence", 0))
            uid = str(raw["metadata"].get("uid", ""))
            if arrival.type == "DELETED" or source in restored:
                continue
            known = self._known.get((source, number))
            if known is not None and known != uid:
                found.append(f"number {number} of {source} was given to two entries")
            elif arrival.type == "MODIFIED":
                found.append(f"entry {number} of {source} was changed")
            elif known is None and number <= self._last.get(source, 0):
                found.append(f"entry {number} of {source} came after {self._last[source]}")
            self._known[(source, number)] = uid
            self._last[source] = max(number, self._last.get(source, 0))
        return found


def gaps(name: str, book: Book) -> list[str]:
    """Numbers that a store gave and that are neither there nor counted as shed."""
    there: dict[str, list[int]] = {}
    for row in book.of(KIND, origin=HERE):
        there.setdefault(str(row.status.get("source", "")), []).append(int(row.status.get("sequence", 0)))
    found = []
    for counter, count in sorted(book.counters.items()):
        if not counter.startswith("log:"):
            continue
        source = counter.removeprefix("log:")
        numbers = sorted(there.pop(source, []))
        shed = int(book.properties.get(f"log-shed:{source.partition('/')[0]}", "0"))
        if len(set(numbers)) != len(numbers):
            found.append(f"{name}: a number of {source} is there twice")
        missing = sorted(set(range(1, count + 1)) - set(numbers))
        if len(missing) > shed:
            found.append(
                f"{name}: of {count} entries of {source} {len(missing)} are missing and {shed} were shed, "
                f"the first missing is {missing[0]}"
            )
        if numbers and numbers[-1] > count:
            found.append(f"{name}: entry {numbers[-1]} of {source} is there, and only {count} were numbered")
    found += [f"{name}: entries of {source} are there, and nobody numbered them" for source in sorted(there)]
    return found
