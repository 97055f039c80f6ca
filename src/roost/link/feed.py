"""Feed: one reader of the store's history for all sessions of a process.

Twenty thousand sessions that each read every change would cost their product. One task reads; it asks
`audience` whom a change can concern, by its key alone, and puts it into the queues of those sessions
only, so an idle link costs nothing when others are busy.

A queue is bounded. One that overflows is emptied and marked: its session reads the store itself from
where it was until it has caught up with the feed. Nothing is lost, for the revision is the truth and
the queue only saves reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from roost.store.errors import Compacted, FutureRevision, Unavailable
from roost.store.store import Batch, Store
from roost.store.transaction import Change

log = structlog.get_logger(__name__)

QUEUE = 1000
RETRY = 1.0
CHUNK = 500
EVERYONE = "*"


class Subscription:
    """The changes for one session, after revision `start`. `wake` is called when there may be some."""

    def __init__(self, feed: Feed, audience: str, wake: Callable[[], None]) -> None:
        self._feed, self.audience, self._wake = feed, audience, wake
        self._queue: list[Change] = []
        self._start = feed.position

    def put(self, change: Change) -> None:
        if len(self._queue) >= QUEUE:
            self.restart(change.revision)
            return
        self._queue.append(change)
        self._wake()

    def restart(self, revision: int) -> None:
        """Forget what is queued: up to `revision` the session must read the store itself."""
        self._queue.clear()
        self._start = revision
        self._wake()

    def waiting(self, position: int) -> bool:
        """Whether there may be something after `position` to take."""
        return bool(self._queue) or position < self._start

    @property
    def fed(self) -> int:
        """The revision up to which the feed has come."""
        return self._feed.position

    async def take(self, position: int) -> Batch:
        """The next changes after `position`; empty when there are none. Raises Compacted, FutureRevision."""
        if position < self._start:
            return await self._feed.store.changes(position, limit=CHUNK)
        taken, used = list[Change](), 0
        for change in self._queue:
            if len(taken) >= CHUNK:
                break
            used += 1
            if change.revision > position:
                taken.append(change)
        del self._queue[:used]
        upto = taken[-1].revision if self._queue and taken else max(position, self._feed.position)
        return Batch(taken, upto)


class Feed:
    """Start with `run` in a task; sessions `subscribe` and `unsubscribe`."""

    def __init__(self, store: Store, audience: Callable[[Change], Iterable[str]]) -> None:
        self.store = store
        self.position = store.revision
        self._audience = audience
        self._subscriptions: dict[str, dict[Subscription, None]] = {}

    def subscribe(self, audience: str, wake: Callable[[], None]) -> Subscription:
        subscription = Subscription(self, audience, wake)
        self._subscriptions.setdefault(audience, {})[subscription] = None
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        group = self._subscriptions.get(subscription.audience, {})
        group.pop(subscription, None)
        if not group:
            self._subscriptions.pop(subscription.audience, None)

    async def run(self) -> None:
        """Until the store closes."""
        while True:
            try:
                async for batch in self.store.watch(self.position):
                    self._spread(batch)
                return
            except Unavailable as error:
                log.error("link.feed", reason=str(error))
                await asyncio.sleep(RETRY)
            except (Compacted, FutureRevision):
                self._restart_all()
            except Exception:
                # Sessions would stall with their heartbeats going on: let each read the store itself.
                log.exception("link.feed-failed")
                self._restart_all()
                await asyncio.sleep(RETRY)

    def _restart_all(self) -> None:
        self.position = self.store.revision
        for group in self._subscriptions.values():
            for subscription in group:
                subscription.restart(self.position)

    def _spread(self, batch: Batch) -> None:
        # The position moves first: a queue that is drained stands at the feed's position.
        self.position = batch.upto
        if not self._subscriptions:
            return
        for change in batch.changes:
            for audience in self._audience(change):
                for subscription in self._subscriptions.get(audience, ()):
                    subscription.put(change)


def everyone(_: Change) -> tuple[str, ...]:
    """The audience where one session takes everything: at the lower end."""
    return (EVERYONE,)
