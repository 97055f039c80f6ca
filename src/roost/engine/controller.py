"""Controllers: loops that make the world agree with the store.

A controller names the keys a change concerns and reconciles one key at a time. The runner feeds it:
at start all keys, then those of each change, from the revision of the first look on, so nothing is
missed; when history was compacted, all keys again. Keys are worked on by a few workers, one in
flight per key; a failing key backs off alone and is logged with what failed.

Most controllers only read and write the store: they subclass `StoreController`, whose `reconcile` is
a plain function in one transaction. A worker may work on several of their keys `together`: the store then
commits all of them at once, and a storm of keys waits for the disk once in so many. Facts from outside the
store (whether a link is up) are handed to a controller as a callable, and their change is told with
`Runner.wake`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

import structlog

from roost.engine.queue import Full, WorkQueue
from roost.store.errors import Compacted, FutureRevision, Overloaded, Unavailable
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

Key = tuple[str, str]
"""Namespace and name."""

FEED_RETRY = 5.0
LOOK_SECONDS = 30.0
"""How long keys that were woken and found the queue full may wait until everything is looked at."""

ROOM_SECONDS = 0.05
TOGETHER = 16
"""Keys of a StoreController that a worker takes at once."""


class Controller(Protocol):
    """What the runner needs."""

    name: str

    def concerned(self, change: Change) -> Iterable[Key]:
        """Keys that a change concerns."""
        ...

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        """Every key there is."""
        ...

    async def reconcile(self, store: Store, key: Key) -> float | None:
        """Make things agree for one key; seconds until it wants to look again, or None."""
        ...


class StoreController:
    """Base of controllers that only read and write the store."""

    name = ""

    def decide(self, tx: Transaction, key: Key) -> float | None:
        """Read, decide, write, in one transaction."""
        raise TypeError(f"{type(self).__name__} decides nothing")

    async def reconcile(self, store: Store, key: Key) -> float | None:
        return await store.transact(lambda tx: self.decide(tx, key))


class Runner:
    """Runs one controller on one store: `workers` side by side.

    What only reads and writes the store is decided for up to TOGETHER keys at once by each worker, for the
    store commits together what waits together. What reaches out is done for one key at a time.
    """

    def __init__(self, store: Store, controller: Controller, *, workers: int = 2) -> None:
        self._store, self._controller, self._workers = store, controller, workers
        self._together = TOGETHER if isinstance(controller, StoreController) else 1
        self._queue: WorkQueue[Key] = WorkQueue()
        self._log = structlog.get_logger().bind(controller=controller.name)
        self._look_at_all = True

    def wake(self, *keys: Key) -> None:
        """Facts outside the store have changed for these keys."""
        try:
            for key in keys:
                self._queue.add(key)
        except Full:
            self._look_at_all = True

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed())
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _put(self, key: Key) -> None:
        """Queue a key, waiting for room: history is kept meanwhile, and is told compacted if it is not."""
        while True:
            try:
                return self._queue.add(key)
            except Full:
                await asyncio.sleep(ROOM_SECONDS)

    async def _feed(self) -> None:
        while True:
            try:
                await self._follow()
            except (Compacted, FutureRevision):
                self._look_at_all = True
            except (Unavailable, Overloaded) as error:
                self._log.warning("store failed, looking again in a second", reason=str(error))
                await asyncio.sleep(1)
            except Exception as error:
                # One controller that meets what it can't read must not take the process with it.
                self._log.error("the feed failed, looking at everything anew", error=repr(error))
                await asyncio.sleep(FEED_RETRY)

    async def _follow(self) -> None:
        revision, keys = await self._store.read(lambda tx: (tx.revision, list(self._controller.all_keys(tx))))
        self._look_at_all = False
        for key in keys:
            await self._put(key)
        async for batch in self._store.watch(revision, idle=LOOK_SECONDS):
            for change in batch.changes:
                for key in self._controller.concerned(change):
                    await self._put(key)
            if self._look_at_all:
                return
        # The store is closed: wait to be cancelled rather than spin.
        await asyncio.Event().wait()

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            more = self._queue.more(self._together - 1)
            if more:
                await asyncio.gather(*map(self._look, (key, *more)))
            else:
                await self._look(key)

    async def _look(self, key: Key) -> None:
        try:
            again = await self._controller.reconcile(self._store, key)
        except Exception as error:
            delay = self._queue.retry(key)
            self._log.warning(
                "reconcile failed", key="/".join(key), retry_in=round(delay, 2), error=repr(error)
            )
        else:
            self._queue.done(key, again)
