"""What answers hold that their readers have not taken yet, bounded over all connections of a server. Pure.

Large parts of answers are counted while they are handed, bit by bit, to connections that take them. When all
together would be more than MOST bytes, readers are cut off until the rest fits: the one that has gone longest
without taking anything, when that is at least STALLED seconds; else, of the client that holds most, the one
that has. So the memory of answers is bounded however many there are and whoever asks; who reads on is the
last to be cut off, and one client that asks faster than it reads costs none but itself. What is cut off looks
broken off to its reader, never whole.
"""

from __future__ import annotations

from collections import Counter
from typing import Generic, TypeVar

import msgspec

Reader = TypeVar("Reader")

MOST = 128 * 1024 * 1024
"""Bytes, of one server."""
STALLED = 1.0


class _Held(msgspec.Struct):
    client: str
    size: int
    since: float


class Outgoing(Generic[Reader]):
    """The parts of answers on their way, at most one for each reader. `now` is in seconds of any clock that
    never goes back."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[Reader, _Held] = {}
        self._of = Counter[str]()
        self.bytes = 0
        """What is held at present."""

    def add(self, reader: Reader, client: str, size: int, now: float) -> list[Reader]:
        """A reader of a client is to take `size` bytes. Returns who is to be cut off for that; they hold
        nothing any more."""
        self.remove(reader)
        self._held[reader] = _Held(client, size, now)
        self._of[client] += size
        self.bytes += size
        cut = list[Reader]()
        while self.bytes > self._most:
            slowest = self._slowest(now)
            self.remove(slowest)
            cut.append(slowest)
        return cut

    def moved(self, reader: Reader, now: float) -> None:
        """A reader has taken some of its part."""
        held = self._held.get(reader)
        if held is not None:
            held.since = now

    def remove(self, reader: Reader) -> None:
        """A reader has taken all of its part, or is gone."""
        held = self._held.pop(reader, None)
        if held is None:
            return
        self.bytes -= held.size
        self._of[held.client] -= held.size
        if not self._of[held.client]:
            del self._of[held.client]

    def _slowest(self, now: float) -> Reader:
        slowest = min(self._held, key=lambda reader: self._held[reader].since)
        if now - self._held[slowest].since >= STALLED:
            return slowest
        largest = max(self._of, key=lambda name: self._of[name])
        its = (reader for reader, held in self._held.items() if held.client == largest)
        return min(its, key=lambda reader: self._held[reader].since)
