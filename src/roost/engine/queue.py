"""A work queue of keys: one in flight per key, coalescing, delayed adds, backoff with jitter, bounded.

A key that is added while it waits is not added twice; one added while it is worked on waits until
that work is done, and is then given out once more. Nothing but the key is queued, so what is worked
on is always the latest state. Past LIMIT keys an add is refused with `Full`: whoever adds then
falls back to looking at everything (which the keys, being level-triggered, allow).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from roost.model import chance

K = TypeVar("K", bound=Hashable)

LIMIT = 100_000
FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
RESOLUTION = 0.001
"""Seconds within which a delay counts as over: loops may wake a little early."""


class Full(Exception):
    """The queue holds as many keys as it may."""


class WorkQueue(Generic[K]):
    """Keys to be worked on. Every key that is given out is answered by one `done` or `retry`."""

    def __init__(
        self, *, limit: int = LIMIT, between: Callable[[float, float], float] = chance.between
    ) -> None:
        self._limit = limit
        self._between = between
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._count = 0
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready) + len(self._due)

    def add(self, key: K) -> None:
        """Work on `key` as soon as possible; raises Full."""
        if key in self._working:
            self._again.add(key)
            return
        if key in self._waiting:
            return
        if key not in self._due and len(self) >= self._limit:
            raise Full(f"{self._limit} keys wait")
        self._due.pop(key, None)
        self._waiting.add(key)
        self._ready.append(key)
        self._changed.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on `key` in a while; of several delays for one key the earliest counts."""
        if key in self._waiting:
            return
        due = asyncio.get_running_loop().time() + seconds
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._later, (due, self._count, key))
        if len(self._later) > 2 * len(self._due) + 64:
            self._sweep()
        self._changed.set()

    async def take(self) -> K:
        """The next key; waits for one."""
        while True:
            wait = self._promote()
            if self._ready:
                return self._give()
            self._changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def more(self, most: int) -> list[K]:
        """Further keys that are ready now, each to be answered like one that was taken."""
        return [self._give() for _ in range(min(most, len(self._ready)))]

    def _give(self) -> K:
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K, again_in: float | None = None) -> None:
        """Work on `key` went well; look again after so many seconds, if given."""
        self._failures.pop(key, None)
        self._finish(key)
        if again_in is not None:
            self.add_after(key, again_in)

    def retry(self, key: K) -> float:
        """Work on `key` failed: try again after a growing, jittered delay, which is returned."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 16)) * self._between(0.5, 1.0)
        self._again.discard(key)
        self._finish(key)
        self.add_after(key, delay)
        return delay

    def _sweep(self) -> None:
        """Let go of entries whose key was given out earlier or brought forward."""
        self._later = [entry for entry in self._later if self._due.get(entry[2]) == entry[0]]
        heapq.heapify(self._later)

    def _finish(self, key: K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._due.pop(key, None)
            self._waiting.add(key)
            self._ready.append(key)
            self._changed.set()

    def _promote(self) -> float | None:
        """Move what is due to the ready ones; seconds until the next is due, None when nothing waits."""
        now = asyncio.get_running_loop().time()
        while self._later:
            due, _, key = self._later[0]
            if self._due.get(key) != due:
                heapq.heappop(self._later)
                continue
            if due > now + RESOLUTION:
                return due - now
            heapq.heappop(self._later)
            del self._due[key]
            if key in self._working:
                self._again.add(key)
            elif key not in self._waiting:
                self._waiting.add(key)
                self._ready.append(key)
        return None
