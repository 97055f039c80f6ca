"""The door: TCP connections on their way to being links, before and during TLS.

Anyone may open a connection and say nothing, or dial a thousand times a second. So a connection is counted
from the moment it is accepted until its request was heard (`Arriving.arrived`):

- of one address ADDRESS_ARRIVING may be on their way at once, of all ARRIVING; what is more is closed
  before any TLS, which costs a twentieth of a handshake;
- each has ARRIVE_WITHIN seconds for TLS and as many for its request;
- an address from which a node dials too often has a small allowance for MISTRUST seconds. Nodes that share
  that address (NAT) have to share it, too: they come in, more slowly.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import structlog
from websockets.asyncio.server import Server, ServerConnection
from websockets.server import ServerProtocol

from roost.engine.allowance import Allowance

log = structlog.get_logger(__name__)

BACKLOG = 1024
ARRIVING = 4096
ADDRESS_ARRIVING = 1024
ARRIVE_WITHIN = 10.0
MISTRUST = 60.0
ADDRESSES = 10_000
NO_ROOM = 0.5
TELL_EVERY = 60.0


class Arriving(ServerConnection):
    """A connection that counts as on its way until `arrived`."""

    on_arrived: Callable[[], None] | None = None

    def arrived(self) -> None:
        """Its request was heard, or it is gone."""
        if self.on_arrived is not None:
            done, self.on_arrived = self.on_arrived, None
            done()

    def connection_lost(self, error: Exception | None) -> None:
        self.arrived()
        super().connection_lost(error)


class Door:
    """Counts who is on the way, by address. Lives on one event loop."""

    def __init__(self) -> None:
        self._arriving: dict[str, int] = {}
        self._all = 0
        self._mistrusted: OrderedDict[str, float] = OrderedDict()
        self._allowance = Allowance(5, 1.0)
        self.turned_away = 0
        self._told = -TELL_EVERY
        self._untold = 0

    def enter(self, address: str, now: float) -> Callable[[], None] | None:
        """Let a connection on its way; what to call when it has arrived. None: turn it away."""
        crowded = self._all >= ARRIVING or self._arriving.get(address, 0) >= ADDRESS_ARRIVING
        if crowded or (self._is_mistrusted(address, now) and self._allowance.take(address, now) > 0):
            self._turn_away(address, now)
            return None
        self._all += 1
        self._arriving[address] = self._arriving.get(address, 0) + 1
        return lambda: self._leave(address)

    def mistrust(self, address: str, now: float) -> None:
        """A node dials too often from there."""
        self._mistrusted.pop(address, None)
        self._mistrusted[address] = now + MISTRUST
        if len(self._mistrusted) > ADDRESSES:
            self._mistrusted.popitem(last=False)

    @property
    def arriving(self) -> int:
        """How many are on the way."""
        return self._all

    def _is_mistrusted(self, address: str, now: float) -> bool:
        until = self._mistrusted.get(address)
        if until is None:
            return False
        if now >= until:
            del self._mistrusted[address]
            return False
        return True

    def _leave(self, address: str) -> None:
        self._all -= 1
        left = self._arriving[address] - 1
        if left:
            self._arriving[address] = left
        else:
            del self._arriving[address]

    def _turn_away(self, address: str, now: float) -> None:
        self.turned_away += 1
        self._untold += 1
        if now - self._told >= TELL_EVERY:
            log.warning("link.turned-away", address=address, count=self._untold, arriving=self._all)
            self._told, self._untold = now, 0


class Listener:
    """Accepts on bound sockets for a websocket server; stands where its asyncio server would."""

    def __init__(
        self,
        door: Door,
        listening: list[socket.socket],
        server: Server,
        context: ssl.SSLContext,
        options: dict[str, Any],
    ) -> None:
        self.sockets = tuple(listening)
        self._door, self._server, self._context, self._options = door, server, context, options
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = [self._loop.create_task(self._accept(one)) for one in listening]

    # -- as asyncio.Server

    def close(self) -> None:
        for task in [*self._accepting, *self._tasks]:
            task.cancel()
        for one in self.sockets:
            one.close()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._accepting, *self._tasks, return_exceptions=True)

    def is_serving(self) -> bool:
        return not all(task.done() for task in self._accepting)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    # -- inside

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, peer = await self._loop.sock_accept(listening)
            except OSError as error:
                if error.errno == errno.EBADF:
                    return
                # Out of files or memory: whoever waits is taken when there is room again.
                log.error("link.not-accepted", reason=error.strerror or str(error), retry_in=NO_ROOM)
                await asyncio.sleep(NO_ROOM)
                continue
            arrived = self._door.enter(str(peer[0]), self._loop.time())
            if arrived is None:
                accepted.close()
                continue
            task = self._loop.create_task(self._secure(accepted, arrived))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _secure(self, accepted: socket.socket, arrived: Callable[[], None]) -> None:
        """TLS; the websocket server does the rest."""
        made: list[Arriving] = []

        def factory() -> Arriving:
            protocol = ServerProtocol(max_size=self._options["max_size"], logger=self._options["logger"])
            chosen = {
                k: self._options[k] for k in ("ping_interval", "close_timeout", "max_queue", "write_limit")
            }
            made.append(Arriving(protocol, self._server, **chosen))
            made[0].on_arrived = arrived
            return made[0]

        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                factory,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=ARRIVE_WITHIN,
                ssl_shutdown_timeout=self._options["close_timeout"],
            )
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            log.debug("link.not-secured", reason=str(error))
            accepted.close()
            if made:
                made[0].arrived()
            else:
                arrived()


def bound(host: str, port: int) -> list[socket.socket]:
    """Listening sockets of an address; an empty host is every address of the machine. Raises OSError."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            made.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            listen(one)
    except OSError:
        for one in made:
            one.close()
        raise
    return made


def listen(one: socket.socket) -> socket.socket:
    """A bound socket, listening and not blocking."""
    one.listen(BACKLOG)
    one.setblocking(False)
    return one
