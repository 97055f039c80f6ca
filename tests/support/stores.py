"""Stores for tests. `BACKENDS` lists the databases that every test of the store runs on.

A backend makes a new, empty database, within a directory where it keeps files, and takes it away
afterwards. Another database is another entry here; the tests know nothing but the URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from roost.engine.clock import LoopClock
from roost.engine.controller import Controller, Runner
from roost.engine.presence import PresenceBook
from roost.model.codec import Raw
from roost.model.meta import API_VERSION
from roost.store.database import sqlite_url
from roost.store.store import Store
from roost.store.transaction import Change
from tests.support import postgresql
from tests.support.clock import START

CLOUD = "harbor"


@contextlib.contextmanager
def _sqlite(directory: Path) -> Iterator[str]:
    yield sqlite_url(directory / "roost.db")


@contextlib.contextmanager
def _postgresql(_directory: Path) -> Iterator[str]:
    with postgresql.database() as url:
        yield url


BACKENDS: dict[str, Callable[[Path], contextlib.AbstractContextManager[str]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
}


@contextlib.contextmanager
def new_database(backend: str = "sqlite") -> Iterator[str]:
    """URL of a new database that goes away: for tests that need many."""
    with tempfile.TemporaryDirectory() as directory, BACKENDS[backend](Path(directory)) as url:
        yield url


@contextlib.asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Store]:
    """An open store, closed afterwards."""
    store = await Store.open(url, **options)
    try:
        yield store
    finally:
        await store.close()


class World:
    """A store on the loop's own time, the presence of nodes, and the controllers at work on it."""

    def __init__(self, store: Store, clock: LoopClock) -> None:
        self.store, self.clock = store, clock
        self.presence = PresenceBook(asyncio.get_running_loop().time)
        self._tasks: list[asyncio.Task[None]] = []
        self._runners: dict[str, Runner] = {}

    def start(self, controllers: Iterable[Controller]) -> None:
        """Set controllers to work. The first ones begin a new process, which has met nobody."""
        if not self._tasks:
            self.presence = PresenceBook(asyncio.get_running_loop().time)
        for controller in controllers:
            runner = Runner(self.store, controller)
            self._runners[controller.name] = runner
            self._tasks.append(asyncio.ensure_future(runner.run()))

    async def stop(self) -> None:
        """End the controllers, as the death of their process would."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._runners.clear()

    def up(self, name: str, namespace: str = CLOUD, **facts: str) -> None:
        """A node's link comes up."""
        self.presence.up(name, **facts)
        self._wake(namespace, name)

    def down(self, name: str, namespace: str = CLOUD) -> None:
        """A node's link goes down."""
        self.presence.down(name)
        self._wake(namespace, name)

    def _wake(self, namespace: str, name: str) -> None:
        for runner in self._runners.values():
            runner.wake((namespace, name))


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    """A world on a new database; call it on a loop with fake time."""
    clock = LoopClock(START)
    with new_database() as url:
        async with opened(url, clock=clock, inline=True) as store:
            made = World(store, clock)
            try:
                yield made
            finally:
                await made.stop()


def raw(kind: str, name: str, namespace: str = CLOUD, **parts: Any) -> Raw:
    """A raw resource."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **parts.pop("metadata", {})}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, **parts}


async def history(store: Store, after: int = 0) -> list[Change]:
    """All changes after a revision."""
    found: list[Change] = []
    while True:
        batch = await store.changes(after)
        if not batch.changes:
            return found
        found += batch.changes
        after = batch.upto
