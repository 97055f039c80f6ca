"""Watch: one timer for all sessions of a process, which says when each has to be looked at.

A session says when it must be looked at next; a heap holds these moments. So a session on which nothing
happens costs one look in a long while, and one timer is armed however many there are. A tick looks at MOST
sessions; those that are due beyond that are next, a PAUSE later: what a second costs is bounded.

What nobody looked at is no evidence. A tick that comes late says that this process stood still, or had too
much to do, and that what peers said meanwhile lies unread: it looks at nobody, and leaves that to the next.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

MOST = 1000
PAUSE = 0.1
LATE = 0.5
AFTER_LATE = 1.0
"""Seconds for reading what came while nobody looked."""
SIGNAL_EVERY = 1.0
NEVER = math.inf


class Watched(Protocol):
    """What is looked at."""

    def look(self, now: float) -> float:
        """When it must be looked at next, on the loop's clock; NEVER when no more."""


class Watch:
    """`by` says when to look, `forget` ends that. Lives on one event loop.

    `signal` is read once a second; when it says another thing than before, all are looked at in turn.
    """

    def __init__(self, signal: Callable[[], object] = lambda: None, *, most: int = MOST) -> None:
        self._signal, self._signalled, self._most = signal, signal(), most
        self._due: dict[Watched, float] = {}
        self._heap: list[tuple[float, int, Watched]] = []
        self._pushed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._late = False

    @property
    def watched(self) -> int:
        """How many are looked at."""
        return len(self._due)

    def by(self, watched: Watched, when: float) -> None:
        """Look at it at `when` at the latest."""
        known = self._due.get(watched)
        if when == NEVER or (known is not None and known <= when):
            return
        self._due[watched] = when
        self._pushed += 1
        heappush(self._heap, (when, self._pushed, watched))
        if self._timer is None or when < self._timer.when() - PAUSE:
            self._arm()

    def forget(self, watched: Watched) -> None:
        """Look at it no more."""
        self._due.pop(watched, None)
        if not self._due:
            self._heap.clear()
            self._disarm()
        elif len(self._heap) > 2 * len(self._due) + 64:
            # What is forgotten, or was to be looked at later than it is now, must not hold memory.
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            self._heap.sort()

    def _arm(self) -> None:
        self._disarm()
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = self._heap[0][0] if self._heap else now + SIGNAL_EVERY
        self._timer = loop.call_at(max(now + PAUSE, min(due, now + SIGNAL_EVERY)), self._tick)

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _tick(self) -> None:
        timer, self._timer = self._timer, None
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = timer is not None and now - timer.when() > LATE
        if late and not self._late:
            self._late = True
            self._timer = loop.call_at(now + AFTER_LATE, self._tick)
            return
        self._late = False
        self._heed()
        for _ in range(self._most):
            if not self._heap or self._heap[0][0] > now:
                break
            when, _number, watched = heappop(self._heap)
            if self._due.get(watched) == when:
                self._look(watched, now)
        if self._due:
            self._arm()

    def _heed(self) -> None:
        said = self._signal()
        if said != self._signalled:
            self._signalled = said
            self._due = dict.fromkeys(self._due, -NEVER)
            self._heap = [(-NEVER, number, watched) for number, watched in enumerate(self._due)]

    def _look(self, watched: Watched, now: float) -> None:
        del self._due[watched]
        try:
            following = watched.look(now)
        except Exception:
            # One that can't be looked at must not hide the others.
            log.exception("link.not-looked-at")
            following = now + SIGNAL_EVERY
        self.by(watched, following)
