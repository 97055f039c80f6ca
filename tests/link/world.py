"""A small world for link tests: two stores and a link between them that tests can break.

It runs on a fake clock: nothing here takes real time but the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import looptime

from roost.link.errors import LinkError
from roost.link.feed import Feed, everyone
from roost.link.flow import audience
from roost.link.node import Node
from roost.link.session import Session, Timing
from roost.link.wire import MemoryConnection, memory_pair
from roost.model.codec import Raw
from roost.store.database import sqlite_url
from roost.store.store import Store
from roost.store.transaction import Stored, Transaction

T = TypeVar("T")
START = datetime(2026, 11, 23, tzinfo=UTC)
TIMING = Timing(heartbeat=1, lost_after=5, hello_within=5, acknowledge_within=10, send_within=10)


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a fake clock."""
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        return runner.run(work())


def clock() -> datetime:
    return START + timedelta(seconds=asyncio.get_running_loop().time())


async def until(condition: Callable[[], bool], within: float = 60, what: str = "") -> None:
    """Wait for a condition, at most `within` seconds of the loop's clock."""
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"did not come true within {within} s: {what or condition}")
        await asyncio.sleep(0.01)


class Link:
    """Two stores joined by a link that dials again whenever it ends."""

    def __init__(self, node: Node, lower: Store, upper: Store) -> None:
        self.node, self.lower, self.upper = node, lower, upper
        self.lower_feed, self.upper_feed = Feed(lower, everyone), Feed(upper, audience)
        self.connected: tuple[MemoryConnection, MemoryConnection] | None = None
        self.sessions: tuple[Session, Session] | None = None
        self.ends: list[str] = []
        self.prepare: Callable[[MemoryConnection, MemoryConnection], None] = lambda lower, upper: None
        self._tasks: list[asyncio.Task[Any]] = []
        self._dialling = asyncio.Event()
        self._dialling.set()

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self.lower_feed.run()),
            loop.create_task(self.upper_feed.run()),
            loop.create_task(self._dial()),
        ]

    def session(self, store: Store, feed: Feed, connection: MemoryConnection, side: Any) -> Session:
        return Session(
            connection, store, feed, side=side, node=self.node, name="central", timing=TIMING, clock=clock
        )

    async def _dial(self) -> None:
        while True:
            await self._dialling.wait()
            lower, upper = memory_pair(self.node)
            self.prepare(lower, upper)
            ends = (
                self.session(self.lower, self.lower_feed, lower, "lower"),
                self.session(self.upper, self.upper_feed, upper, "upper"),
            )
            self.connected, self.sessions = (lower, upper), ends
            await asyncio.gather(*(self._drive(end) for end in ends))
            self.sessions = None
            await asyncio.sleep(0.05)

    async def _drive(self, session: Session) -> None:
        try:
            await session.greet()
            await session.run()
        except LinkError as error:
            self.ends.append(str(error))
            await session.abandon()

    def cut(self) -> None:
        if self.connected:
            self.connected[0].cut()

    def hold(self) -> None:
        """Stay cut."""
        self._dialling.clear()
        self.cut()

    def release(self) -> None:
        self._dialling.set()

    @property
    def in_step(self) -> bool:
        if self.sessions is None:
            return False
        lower, upper = self.sessions
        fed = (
            self.lower_feed.position == self.lower.revision
            and self.upper_feed.position == self.upper.revision
        )
        return fed and lower.outgoing.in_step and upper.outgoing.in_step

    async def settle(self, within: float = 120) -> None:
        """Until both ends have told each other everything, and it stays so."""
        steady = 0
        deadline = asyncio.get_running_loop().time() + within
        while steady < 20:
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"the link did not settle: {self.ends[-5:]}")
            await asyncio.sleep(0.01)
            steady = steady + 1 if self.in_step else 0

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task


async def with_link(
    path: Path, node: Node, work: Callable[[Link], Awaitable[None]], *, history: int = 20_000
) -> None:
    """Open two stores and a link, run `work`, close all."""
    stores = []
    for name in ("lower", "upper"):
        url = sqlite_url(path / f"{name}.db")
        stores.append(await Store.open(url, clock=clock, inline=True, history=history))
    link = Link(node, *stores)
    try:
        link.start()
        await work(link)
    finally:
        await link.stop()
        for store in stores:
            await store.close()


def resource(kind: str, namespace: str, name: str, **fields: Any) -> Raw:
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "roost.edge/v1", "kind": kind, "metadata": meta, **fields}


async def put(store: Store, raw: Raw) -> Stored:
    """Create or change a resource whose home is here; spec and status only where given."""

    def work(tx: Transaction) -> Stored:
        meta = raw["metadata"]
        current = tx.find(raw["kind"], meta.get("namespace", ""), meta["name"])
        if current is None:
            return tx.create(raw)
        return tx.replace({**current.raw, **{k: v for k, v in raw.items() if k in ("spec", "status")}})

    return await store.transact(work)


async def put_all(store: Store, new: list[Raw]) -> None:
    """Create many at once: one commit, but a revision for each."""

    def work(tx: Transaction) -> None:
        for raw in new:
            tx.create(raw)

    await store.transact(work)


async def remove(store: Store, kind: str, namespace: str, name: str) -> None:
    await store.transact(lambda tx: tx.remove(kind, namespace, name))


async def find(store: Store, kind: str, namespace: str, name: str) -> Stored | None:
    return await store.read(lambda tx: tx.find(kind, namespace, name))
