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
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any

import msgspec

from roost.link.errors import ConnectionLost
from roost.link.node import Node
from roost.link.wire import Connection, Peer
from roost.sim.deterministic.connection import WINDOW as WINDOW
from roost.sim.deterministic.connection import End as End
from roost.sim.deterministic.connection import Mark, Stream
from roost.sim.deterministic.connection import Skew as Skew
from roost.sim.deterministic.connection import Station as Station
from roost.sim.deterministic.connection import Way as Way
from roost.sim.deterministic.loop import Process

DIAL_WITHIN = 10.0
RETRANSMITTED = (0.2, 0.6)
"""Seconds that a lost frame comes later."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """How one direction of a link is. Seconds; `rate` in bytes a second; `loss` a probability."""

    delay: float = 0.02
    jitter: float = 0.01
    rate: float = 1_250_000.0
    loss: float = 0.005


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
        lower.out.send(Mark.ASK)
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
            upper.out.send(Mark.HEARD)
        else:
            self.refuse(upper, f"{self.upper.name} refused the connection")

    def agreed(self, upper: End) -> None:
        """The handshake is done as far as the upper end can tell: the connection is its process's."""
        process, accept = self.upper.process, self.upper.accept
        if not self._listens or process is None or accept is None:
            self.refuse(upper, f"{self.upper.name} refused the connection")
            return
        upper.process = process
        upper.out.send(Mark.ACCEPTED)
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
                end.out.send(Mark.END)
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
