"""The newest changes in memory, in order and without gaps, and those who are told of each.

All of it happens in the loop. Whoever brings changes, a commit of this store or what was read of others'
commits, may bring some twice: what is known already is passed over. When some are missing in between, what
was kept is dropped, for it must have no gap, and subscribers are told to read anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from roost.store.transaction import Change

RECENT_BYTES = 4 * 1024 * 1024

Subscriber = Callable[[list[Change]], None]


class Recent:
    """The newest changes, at most RECENT_BYTES of them, up to `revision`."""

    def __init__(self) -> None:
        self.revision = 0
        self.kept: deque[Change] = deque()
        self.bytes = 0
        self.woken = asyncio.Event()
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have `subscriber` told of every change from now on; returns what ends it."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def add(self, changes: Sequence[Change]) -> None:
        """Take in changes that follow each other."""
        if not changes or changes[-1].revision <= self.revision:
            return
        missing = changes[0].revision > self.revision + 1
        fresh = [change for change in changes if change.revision > self.revision]
        if missing:
            self.kept.clear()
            self.bytes = 0
        for change in fresh:
            self.kept.append(change)
            self.bytes += len(change.data) + len(change.previous)
        while self.bytes > RECENT_BYTES and len(self.kept) > 1:
            gone = self.kept.popleft()
            self.bytes -= len(gone.data) + len(gone.previous)
        self.revision = fresh[-1].revision
        self._tell([] if missing else fresh)
        self.wake()

    def skip(self, revision: int) -> None:
        """All up to a revision are gone before they could be read."""
        if revision > self.revision:
            self.kept.clear()
            self.bytes = 0
            self.revision = revision
            self._tell([])
            self.wake()

    def lose(self) -> None:
        """Tell all that changes were missed, without knowing how many."""
        self._tell([])
        self.wake()

    def after(self, revision: int, limit: int) -> list[Change] | None:
        """Changes after a revision; None when they are not all kept here."""
        if not self.kept or self.kept[0].revision > revision + 1:
            return None
        skip = revision + 1 - self.kept[0].revision
        return [self.kept[n] for n in range(skip, min(skip + limit, len(self.kept)))]

    def wake(self) -> None:
        """Let all who wait look again."""
        self.woken.set()
        self.woken = asyncio.Event()

    def _tell(self, changes: list[Change]) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(changes)
            except Exception as error:
                told = {"message": "a subscriber of the store failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)
