"""A simulated connection: two streams, which keep what TCP promises, and the ends at which they are used.

How they fare on a link is told in `network`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal

import msgspec

from roost.link import messages
from roost.link.errors import ConnectionLost
from roost.link.messages import Hello
from roost.link.node import Node
from roost.link.sockets import CLOSE_WITHIN
from roost.link.wire import Connection, Peer
from roost.sim.deterministic.loop import Process

if TYPE_CHECKING:
    from roost.sim.deterministic.network import Link

Way = Literal["up", "down"]
WINDOW = 64
"""Frames that a sender may have under way or unread."""
LONGEST_RETRANSMISSION = 60.0


class Skew(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's hello says of itself otherwise than it is."""

    version: str = ""
    without: frozenset[str] = frozenset()


class Mark(Enum):
    """What travels in a stream beside frames."""

    ASK = auto()
    HEARD = auto()
    AGREE = auto()
    ACCEPTED = auto()
    END = auto()


class Station:
    """A machine on the network: whether it is powered, and who takes connections there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.powered = True
        self.process: Process | None = None
        self.accept: Callable[[Node, Connection], None] | None = None
        self.skew = Skew()


class Stream:
    """One direction of one connection: what was sent and has not come out at `receiver` yet, in order."""

    def __init__(self, link: Link, way: Way) -> None:
        self._link, self.way = link, way
        self._under_way: deque[tuple[float, bytes | Mark]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0
        self._taken = 0
        self._broken = False
        self.receiver: End
        self.unacknowledged = 0

    def send(self, item: bytes | Mark) -> None:
        """Send after all that was sent before."""
        if self._broken:
            return
        due = self._link.arrival(self.way, len(item) if isinstance(item, bytes) else 0)
        self._last = max(self._last, due)
        self._under_way.append((self._last, item))
        self._await_head()

    def _await_head(self) -> None:
        """Deliver the first item when it is due, unless it is held by a cut or by a machine that is off."""
        if self._timer is None and self._under_way and self._passes:
            self._timer = self._link.network.at(self._under_way[0][0], self._deliver)

    @property
    def _passes(self) -> bool:
        return self.receiver.station.powered and not self._link.is_cut(self.way)

    def _deliver(self) -> None:
        self._timer = None
        now = self._link.network.loop.time()
        while self._under_way and self._under_way[0][0] <= now and self._passes:
            self.receiver.arrived(self._under_way.popleft()[1])
        self._await_head()

    def resume(self, held_for: float) -> None:
        """The cut is mended, or the machine is up: what was held comes with the next retransmission."""
        if not self._under_way or self._timer is not None:
            return
        network = self._link.network
        wait = network.chance.uniform(0.0, min(max(held_for, 1.0), LONGEST_RETRANSMISSION))
        due, item = self._under_way[0]
        self._last = max(self._last, due, network.loop.time() + wait)
        self._under_way[0] = (max(due, network.loop.time() + wait), item)
        self._await_head()

    def acknowledge(self) -> None:
        """The receiver took one frame; the sender is told, unless the way back is cut."""
        self._taken += 1
        self.tell()

    def tell(self) -> None:
        """Tell the sender of all that was taken."""
        if self._taken and not self._link.is_cut("down" if self.way == "up" else "up"):
            self.unacknowledged -= self._taken
            self._taken = 0
            self.receiver.other.wake()

    def lose(self) -> None:
        """Lose all that is under way."""
        self._under_way.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def cut_off(self) -> None:
        """Lose all that is under way, and all that is sent from now on."""
        self._broken = True
        self.lose()


class End:
    """One end of a connection; a `roost.link.wire.Connection`.

    It is `closed` once its owner has closed it, and `left` once the owner waits no more for the peer's end:
    what arrives then is answered by a reset, as a kernel does that knows of no such connection.
    """

    def __init__(self, link: Link, station: Station, peer: Peer, process: Process | None) -> None:
        self.link, self.station, self._peer, self.process = link, station, peer, process
        self.out: Stream
        self.into: Stream
        self.other: End
        self.over = ""
        self.closed = self.left = self.probed = False
        self.established: asyncio.Future[None] | None = None
        """Of a lower end that is dialling."""
        self._ended = self._said_end = self._said_hello = False
        self._frames: deque[bytes] = deque()
        self._changed: asyncio.Event | None = None

    @property
    def peer(self) -> Peer:
        return self._peer

    # -- a connection

    async def send(self, frame: bytes) -> None:
        """Waits while the window is full; raises ConnectionLost."""
        while self.out.unacknowledged >= WINDOW and not self.over:
            await self._change()
        if self.over:
            raise ConnectionLost(self.over)
        if not self._said_hello:
            self._said_hello = True
            frame = _skewed(frame, self.station.skew)
        self.out.unacknowledged += 1
        self.out.send(frame)

    async def receive(self) -> bytes:
        """The next frame, in order; raises ConnectionLost."""
        while not self._frames:
            if self.over:
                raise ConnectionLost(self.over)
            await self._change()
        frame = self._frames.popleft()
        self.into.acknowledge()
        return frame

    async def close(self) -> None:
        """Send what is written and an end; wait a little for the peer's."""
        if self.closed:
            return
        self.closed, self.over = True, self.over or "the connection is closed"
        self._frames.clear()
        self.wake()
        self._say_end()
        try:
            async with asyncio.timeout(CLOSE_WITHIN):
                while not self._ended:
                    await self._change()
        except TimeoutError:
            return
        finally:
            self.left = True

    def _say_end(self) -> None:
        if not self._said_end:
            self._said_end = True
            self.out.send(Mark.END)

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def wake(self) -> None:
        """Wake whoever waits at this end."""
        if self._changed is not None:
            changed, self._changed = self._changed, None
            changed.set()

    # -- what the network tells

    def arrived(self, item: bytes | Mark) -> None:
        """Something came out of the stream to this end."""
        match item:
            case bytes():
                self._took(item)
            case Mark.END:
                self._told_end()
            case _ if self.left:
                self.link.refuse(self, "the connection was given up")
            case Mark.ASK:
                self.link.asked(self)
            case Mark.HEARD:
                self.out.send(Mark.AGREE)
            case Mark.AGREE:
                self.link.agreed(self)
            case Mark.ACCEPTED:
                if self.established is not None and not self.established.done():
                    self.established.set_result(None)

    def _took(self, frame: bytes) -> None:
        if self.left:
            self.link.refuse(self, "the connection was reset by the peer")
        elif self.closed:
            self.into.acknowledge()
        else:
            self._frames.append(frame)
            self.wake()

    def _told_end(self) -> None:
        self._ended = True
        if not self.left:
            self.over = self.over or "the peer closed the connection"
            self._say_end()
        self.wake()

    def reset(self, reason: str) -> None:
        """There is no such connection any more, says the network."""
        self.into.lose()
        self.out.cut_off()
        self._frames.clear()
        self._ended = self._said_end = True
        self.over = self.over or reason
        if self.established is not None and not self.established.done():
            self.established.set_exception(ConnectionLost(reason))
        self.wake()


def _skewed(frame: bytes, skew: Skew) -> bytes:
    """A hello that says what an older node would; every other frame as it is."""
    if skew == Skew():
        return frame
    message = messages.unpack(frame)
    if not isinstance(message, Hello):
        return frame
    features = [f for f in message.features if f not in skew.without]
    return messages.pack(
        msgspec.structs.replace(message, version=skew.version or message.version, features=features)
    )
