"""A simulated network: links between lower and upper nodes, and on them connections that behave as TCP does.

A connection is two streams, one for each direction. Within a stream nothing is lost, doubled or reordered,
for TCP and TLS see to that; what a bad network does shows as delay:

- each frame takes the direction's delay and jitter and the time that its size takes; one that was lost on the
  way comes a retransmission later, and all behind it wait;
- a direction that is cut holds its frames. Mended, they come with a retransmission, the later the longer the
  cut was, unless an end has given up meanwhile;
- acknowledgements travel in the other direction: when that is cut, the sender may fill its window, and then
  waits;
- two connections of one node share nothing: frames of an old one still arrive while a new one is dialled.

Dialling is a handshake of two round trips, so it needs both directions. It is refused at once where a machine
is up and nothing listens; where nothing answers, it ends with the dialler's own deadline. When only the last
answer is lost, the upper end has a connection that its peer knows nothing of.

A process that dies takes its ends with it. Its machine's kernel either sends what was written and closes, or
resets, which loses what is under way. When the machine itself is off, nobody is told: the peer learns by its
own timeouts, or by a reset, when it sends something to the machine once that is up again.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections import deque
from collections.abc import Callable
from datetime import datetime
from enum import Enum, auto
from random import Random
from typing import Any, Literal

import msgspec

from roost.link import messages
from roost.link.errors import ConnectionLost
from roost.link.messages import Hello
from roost.link.node import Node
from roost.link.sockets import CLOSE_WITHIN
from roost.link.wire import Connection, Peer
from roost.sim.deterministic.loop import Process

Way = Literal["up", "down"]
WINDOW = 64
"""Frames that a sender may have under way or unread."""
DIAL_WITHIN = 10.0
RETRANSMITTED = (0.2, 0.6)
"""Seconds that a lost frame comes later."""
LONGEST_RETRANSMISSION = 60.0


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """How one direction of a link is. Seconds; `rate` in bytes a second; `loss` a probability."""

    delay: float = 0.02
    jitter: float = 0.01
    rate: float = 1_250_000.0
    loss: float = 0.005


class Skew(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's hello says of itself otherwise than it is."""

    version: str = ""
    without: frozenset[str] = frozenset()


class _Mark(Enum):
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
        self._under_way: deque[tuple[float, bytes | _Mark]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0
        self._taken = 0
        self._broken = False
        self.receiver: End
        self.unacknowledged = 0

    def send(self, item: bytes | _Mark) -> None:
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
            self.out.send(_Mark.END)

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

    def arrived(self, item: bytes | _Mark) -> None:
        """Something came out of the stream to this end."""
        match item:
            case bytes():
                self._took(item)
            case _Mark.END:
                self._told_end()
            case _ if self.left:
                self.link.refuse(self, "the connection was given up")
            case _Mark.ASK:
                self.link.asked(self)
            case _Mark.HEARD:
                self.out.send(_Mark.AGREE)
            case _Mark.AGREE:
                self.link.agreed(self)
            case _Mark.ACCEPTED:
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


class Link:
    """The way between one lower node and the one above it, and its connections."""

    def __init__(self, network: Network, node: Node, lower: Station, upper: Station) -> None:
        self.network, self.node, self.lower, self.upper = network, node, lower, upper
        self.conditions: dict[Way, Conditions] = {"up": Conditions(), "down": Conditions()}
        self._cut_since: dict[Way, float] = {}
        self._free: dict[Way, float] = {"up": 0.0, "down": 0.0}
        self._ends: list[End] = []
        self._dialled = 0

    # -- its state

    def is_cut(self, way: Way) -> bool:
        """Whether nothing passes in this direction."""
        return way in self._cut_since

    @property
    def whole(self) -> bool:
        """Whether both directions pass."""
        return not self._cut_since

    def cut(self, *ways: Way) -> None:
        """Let nothing pass any more."""
        for way in ways:
            self._cut_since.setdefault(way, self.network.loop.time())

    def mend(self) -> None:
        """Let everything pass again."""
        now, cut = self.network.loop.time(), self._cut_since
        self._cut_since = {}
        for end in self._ends:
            if end.out.way in cut:
                end.out.resume(now - cut[end.out.way])
            end.into.tell()

    def heal(self) -> None:
        """Let it be as it was at first."""
        self.conditions = {"up": Conditions(), "down": Conditions()}
        self.mend()

    def arrival(self, way: Way, size: int) -> float:
        """When something of this size that is sent now arrives."""
        chance, conditions = self.network.chance, self.conditions[way]
        begins = max(self.network.loop.time(), self._free[way])
        self._free[way] = begins + size / conditions.rate
        due = self._free[way] + conditions.delay + conditions.jitter * chance.random()
        if chance.random() < conditions.loss:
            due += chance.uniform(*RETRANSMITTED)
        return due

    # -- dialling

    async def probe(self) -> None:
        """Dial, and be answered; nobody at the upper end hears of it. Raises ConnectionLost."""
        connection = await self._handshake(probing=True)
        await connection.close()

    async def dial(self) -> Connection:
        """A connection from the lower node to the upper; raises ConnectionLost."""
        return await self._handshake(probing=False)

    async def _handshake(self, *, probing: bool) -> Connection:
        self._ends = [e for e in self._ends if not (e.left and e.other.left)]
        self._dialled += 1
        address = f"{self.lower.name}#{self._dialled}"
        lower = End(self, self.lower, Peer(node=None, address=self.upper.name), self.lower.process)
        upper = End(self, self.upper, Peer(node=self.node, address=address), None)
        upper.probed = probing
        lower.out = upper.into = Stream(self, "up")
        lower.into = upper.out = Stream(self, "down")
        lower.other = lower.out.receiver = upper
        upper.other = lower.into.receiver = lower
        self._ends += [lower, upper]
        lower.established = self.network.loop.create_future()
        lower.out.send(_Mark.ASK)
        try:
            async with asyncio.timeout(DIAL_WITHIN):
                await lower.established
        except TimeoutError:
            raise ConnectionLost(f"{self.upper.name} did not answer within {DIAL_WITHIN:g} s") from None
        finally:
            if not lower.established.done() or lower.established.cancelled():
                # What the upper end may have of it is reset with its next word.
                lower.closed = lower.left = True
                lower.out.cut_off()
        return lower

    def asked(self, upper: End) -> None:
        """Somebody knocks."""
        if self._listens:
            upper.out.send(_Mark.HEARD)
        else:
            self.refuse(upper, f"{self.upper.name} refused the connection")

    def agreed(self, upper: End) -> None:
        """The handshake is done as far as the upper end can tell: the connection is its process's."""
        process, accept = self.upper.process, self.upper.accept
        if not self._listens or process is None or accept is None:
            self.refuse(upper, f"{self.upper.name} refused the connection")
            return
        upper.process = process
        upper.out.send(_Mark.ACCEPTED)
        if upper.probed:
            upper.closed = upper.left = True
        else:
            process.call(accept, self.node, upper)

    @property
    def _listens(self) -> bool:
        station = self.upper
        return station.process is not None and station.process.alive and station.accept is not None

    # -- the end of connections

    def refuse(self, end: End, reason: str) -> None:
        """`end` is no more: its peer is told so, if that way is open, and again with all that it sends."""
        end.closed = end.left = True
        end.into.lose()
        end.out.cut_off()
        other = end.other
        if not self.is_cut(end.out.way) and other.station.powered:
            self.network.at(self.arrival(end.out.way, 0), lambda: other.reset(reason))

    def break_all(self) -> None:
        """Break every connection in the middle, as a firewall does that forgot its table."""
        for end in self._ends:
            end.out.cut_off()
            when = self.arrival(end.into.way, 0)
            self.network.at(when, functools.partial(end.reset, "the connection was reset on its way"))

    def died(self, station: Station, process: Process) -> None:
        """A process on one of the two machines is gone, and its ends with it."""
        for end in self._ends:
            if end.station is not station or end.left or end.process not in (None, process):
                continue
            end.closed = end.left = True
            end.over = end.over or "its process is gone"
            if not station.powered:
                end.out.cut_off()
            elif self.network.chance.random() < 0.5:
                end.out.send(_Mark.END)
            else:
                self.refuse(end, "the connection was reset by the peer")

    def powered(self, station: Station) -> None:
        """A machine is up again: what its peers still send to it arrives."""
        for end in self._ends:
            if end.station is station:
                end.into.resume(1.0)


class Network:
    """All links of a tree."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: Random) -> None:
        self.loop, self.chance = loop, chance
        self._context = contextvars.Context()
        self.links: dict[str, Link] = {}

    def at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Call at a time, within no process: the network outlives them all."""
        return self.loop.call_at(when, callback, context=self._context)

    def join(self, name: str, node: Node, lower: Station, upper: Station) -> Link:
        """A link of the node `name` to the one above it."""
        link = self.links[name] = Link(self, node, lower, upper)
        return link

    def died(self, station: Station, process: Process, *, silent: bool) -> None:
        """A process has died; `silent`: with its machine."""
        station.powered = station.powered and not silent
        for link in self.links.values():
            if station in (link.lower, link.upper):
                link.died(station, process)

    def powered(self, station: Station) -> None:
        """A machine that was off is up."""
        station.powered = True
        for link in self.links.values():
            if station in (link.lower, link.upper):
                link.powered(station)


class NetworkDialer:
    """Dials over a link; a `roost.link.lower.Dialer` without certificates."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def dial(self) -> Connection:
        """A connection; raises ConnectionLost."""
        return await self._link.dial()

    async def probe(self) -> None:
        """Whether it can be dialled anew; raises ConnectionLost."""
        await self._link.probe()

    def expires(self) -> datetime | None:
        return None

    def renewal_due(self) -> datetime | None:
        return None

    async def renew(self, ask: Any, now: datetime) -> None:
        return None


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
