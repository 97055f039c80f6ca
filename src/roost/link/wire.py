"""Connection: frames to and fro, whatever carries them; and the in-memory kind.

`SocketConnection` (in `sockets`) runs over TLS. `memory_pair` joins two ends inside one process: for
the host that lives in its cloud's process, for simulation, and for tests, which can delay, tamper
with or cut what passes. Both are bounded: who sends faster than the other reads, waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import msgspec

from roost.link.errors import ConnectionLost
from roost.link.node import Node

MEMORY_FRAMES = 64


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end, as proven by the transport. `node` is None where the upper end is."""

    node: Node | None
    address: str
    certificate_expires_at: datetime | None = None
    fingerprint: str = ""
    """SHA-256 of its certificate; empty where none was shown."""
    is_process: bool = False
    """Whether it is another process of this cloud."""


class Way(msgspec.Struct, frozen=True):
    """What the kernel knows of the way to a peer, in seconds.

    `round_trip` is the smoothed time there and back; `unanswered` how long nothing has been acknowledged
    while something is to be.
    """

    round_trip: float = 0.0
    unanswered: float = 0.0


UNKNOWN_WAY = Way()
"""Of a connection without a network."""


class Connection(Protocol):
    """One connection. `send` and `receive` raise ConnectionLost once it is gone."""

    @property
    def peer(self) -> Peer: ...

    async def send(self, frame: bytes) -> None: ...

    async def receive(self) -> bytes: ...

    async def close(self) -> None: ...


class Pipe:
    """One direction of an in-memory pair. The hooks are for tests and simulation."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: deque[tuple[float, bytes]] = deque()
        self._changed = asyncio.Event()
        self.closed = ""
        self.tamper: Callable[[bytes], list[bytes]] = lambda frame: [frame]
        self.delay: Callable[[], float] = lambda: 0.0

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def shut(self, reason: str, *, lose: int = 0) -> None:
        """End it; `lose` frames of those under way are lost, the newest first."""
        self.closed = self.closed or reason
        for _ in range(min(lose, len(self._frames))):
            self._frames.pop()
        self._notify()

    async def put(self, frame: bytes) -> None:
        while len(self._frames) >= self._limit and not self.closed:
            await self._changed.wait()
        if self.closed:
            raise ConnectionLost(self.closed)
        due = asyncio.get_running_loop().time() + self.delay()
        for passed in self.tamper(frame):
            self._frames.append((due, passed))
        self._notify()

    async def get(self) -> bytes:
        while not self._frames:
            if self.closed:
                raise ConnectionLost(self.closed)
            await self._changed.wait()
        wait = self._frames[0][0] - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)
        if not self._frames:
            raise ConnectionLost(self.closed or "the connection was cut")
        frame = self._frames.popleft()[1]
        self._notify()
        return frame


class MemoryConnection:
    """One end of an in-memory pair."""

    def __init__(self, out: Pipe, into: Pipe, peer: Peer) -> None:
        self.out, self.into = out, into
        self._peer = peer

    @property
    def peer(self) -> Peer:
        return self._peer

    async def send(self, frame: bytes) -> None:
        await self.out.put(frame)

    async def receive(self) -> bytes:
        return await self.into.get()

    async def close(self) -> None:
        self.out.shut("the peer closed the connection")
        self.into.shut("the connection is closed", lose=MEMORY_FRAMES)

    def cut(self) -> None:
        """Break it as a network does: both ends lose it, and what is under way is lost."""
        for pipe in (self.out, self.into):
            pipe.shut("the connection was cut", lose=MEMORY_FRAMES)


def memory_pair(node: Node, *, limit: int = MEMORY_FRAMES) -> tuple[MemoryConnection, MemoryConnection]:
    """The lower and the upper end of a connection of `node` inside this process."""
    up, down = Pipe(limit), Pipe(limit)
    lower = MemoryConnection(up, down, Peer(node=None, address="this process"))
    upper = MemoryConnection(down, up, Peer(node=node, address="this process"))
    return lower, upper
