"""One connection of a client: uvicorn's HTTP protocol with limits.

What is added to uvicorn:
- the verified client certificate of a connection goes into the ASGI scope (`access.PEER`);
- limits: connections, also of one address; requests of a connection that come before answers; bytes of URL,
  headers and trailers (also of one that never ends); time for the headers of a request to arrive, for its
  body, also when it was answered before, and for the client to take some more of its answer;
- an answer goes to the transport PIECE by PIECE, as the client takes it: what the transport holds is bounded,
  a request is worked on until its client has taken all but the last of the answer, and what is still to be
  taken is bounded over all connections (`outgoing`). Who takes nothing is cut off, and that is logged;
- what is no HTTP is refused with a Status, as anything else;
- the head of an answer leaves together with the first of its body, when that is there at once: one TLS
  record and one call of the kernel instead of two, which is most of what a small answer costs.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import msgspec
import structlog
from starlette.types import Message
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from roost.api import outgoing
from roost.api.access import AT_ONCE, PEER
from roost.api.addresses import origin
from roost.api.gates import client_of
from roost.api.outgoing import Outgoing
from roost.api.saying import said
from roost.api.status import ApiError, bad_request
from roost.api.streaming import BrokenOff

CONNECTIONS = 2048
CONNECTIONS_OF_ONE_ADDRESS = CONNECTIONS // 2
HEADERS_WITHIN = 15.0
BODY_WITHIN = 60.0
"""The application waits for bodies for less (`bodies.READING`); this ends those that nobody asked for."""
UNREAD_FOR = 60.0
PART = 64 * 1024
"""What a transport may hold before who sends has to wait."""
PIECE = 3 * PART
"""Of an answer, that is handed over at once."""
LONGEST_HEAD = 64 * 1024
MOST_HEADERS = 128
MOST_WAITING = 64
"""Requests of one connection that may come before the first of them is answered."""

_log = structlog.get_logger("roost.api.server")


class State(ServerState):
    """uvicorn's shared state, the connections per address, and the answers that wait for their readers.
    The Date header is made when it is needed, once a second at most."""

    def __init__(self) -> None:
        self.total_requests = 0
        self.connections = set()
        self.tasks = set()
        self.addresses = Counter[str]()
        self.outgoing = Outgoing[Connection](outgoing.MOST)
        self.cut_off = 0
        """How many readers were cut off since the start."""
        self._second = 0
        self._date = b""

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]
        second = int(time.time())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True).encode()
        return [(b"date", self._date)]


class Writer(asyncio.Transport):
    """A transport that can hold what is written for a moment, to send it in one piece."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport, self._loop = transport, loop
        self._held: list[bytes] | None = None

    @property
    def holds(self) -> bool:
        """Whether what is written waits."""
        return self._held is not None

    def hold(self) -> None:
        """Keep what is written until `release`, or until all that runs now has run."""
        if self._held is None:
            self._held = []
            self._loop.call_soon(self.release)

    def release(self) -> None:
        """Send what was held."""
        held, self._held = self._held, None
        if held and not self._transport.is_closing():
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or hold."""
        if self._held is None:
            self._transport.write(data)
        else:
            self._held.append(bytes(data))

    def close(self) -> None:
        """Send what was held and close."""
        self.release()
        self._transport.close()

    def abort(self) -> None:
        """Close without sending."""
        self._held = None
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closing or closed."""
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """How many bytes wait to be taken."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._held or ()))

    def pause_reading(self) -> None:
        """Take nothing more in."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take in again."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection."""
        return self._transport.get_extra_info(name, default)


class Connection(HttpToolsProtocol):
    """One client."""

    def __init__(self, config: Config, state: State) -> None:
        super().__init__(config, state, {})
        self._state = state
        self._writer: Writer
        self._address = ""
        self._peer: dict[str, Any] | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._arriving: asyncio.TimerHandle | None = None
        self._head = 0
        self._unfinished = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come: know it, or send it away when there are too many."""
        self._writer = Writer(transport, self.loop)
        super().connection_made(self._writer)
        self._address = origin(self.client[0]) if self.client else ""
        self._state.addresses[self._address] += 1
        if self._too_many():
            transport.abort()
            return
        secured = transport.get_extra_info("ssl_object")
        self._peer = secured.getpeercert() or None if secured else None
        transport.set_write_buffer_limits(high=PART)
        _set_up(transport.get_extra_info("socket"))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """A client has gone."""
        self._state.addresses[self._address] -= 1
        if self._state.addresses[self._address] <= 0:
            del self._state.addresses[self._address]
        self._got_head()
        self._got_body()
        self._state.outgoing.remove(self)
        self.resume_writing()
        super().connection_lost(exc)
        # After an error uvicorn lets the timer run on, and with it all that was not sent yet.
        self._unset_keepalive_if_required()

    def _too_many(self) -> bool:
        """Whether there are more connections than are served, of all or of this address."""
        if len(self.connections) > CONNECTIONS:
            if said.first("too many connections"):
                _log.warning("too many connections", limit=CONNECTIONS)
            return True
        if self._state.addresses[self._address] > CONNECTIONS_OF_ONE_ADDRESS:
            if said.first(f"too many connections of {self._address}"):
                limit = CONNECTIONS_OF_ONE_ADDRESS
                _log.warning("too many connections of one address", address=self._address, limit=limit)
            return True
        return False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def serve(scope: Any, receive: Any, send: Any) -> None:
            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._writer.hold()
                    await send(message)
                elif len(message.get("body", b"")) > PART:
                    await self._send_parts(client_of(scope), message, send)
                else:
                    await send(message)
                    self._writer.release()

            scope[AT_ONCE] = lambda body: self._send_at_once(cycle, body)
            try:
                await app(scope, receive, sent)  # type: ignore[arg-type]
            except BrokenOff as error:
                self._break_off(cycle, str(error))

        super()._start_asgi_task(cycle, serve)

    def _break_off(self, cycle: RequestResponseCycle, reason: str) -> None:
        """End the connection under an answer that has no end; that is everyday, and no fault of ours."""
        if said.first(f"answer broken off {reason}"):
            _log.info("answer broken off", address=self._address, reason=reason)
        cycle.disconnected = True
        self.transport.close()

    def _send_at_once(self, cycle: RequestResponseCycle, body: bytes) -> bool:
        """Send part of an answer that has begun, without its task, when its client takes it now; says whether
        it was sent. Only while the task sends nothing itself."""
        begun = cycle.response_started and not cycle.response_complete and cycle.chunked_encoding
        if (
            not begun
            or cycle.disconnected
            or self.flow.write_paused
            or self._writer.holds
            or len(body) > PART
        ):
            return False
        self._writer.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    async def _send_parts(
        self, client: str, message: Message, send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Send a large piece of an answer as its reader takes it."""
        body, more = memoryview(message["body"]), message.get("more_body", False)
        waiting, time = self._state.outgoing, self.loop.time
        for reader in waiting.add(self, client, len(body), time()):
            reader.cut_off("answers that are not read would take too much memory")
        try:
            for at in range(0, len(body), PIECE):
                if self.transport.is_closing():
                    # What follows goes nowhere, once the connection has been told of its end.
                    await asyncio.sleep(0)
                follows = more or at + PIECE < len(body)
                # A copy: what waits in the transport must not keep the whole.
                await send({**message, "body": bytes(body[at : at + PIECE]), "more_body": follows})
                self._writer.release()
                waiting.moved(self, time())
        finally:
            waiting.remove(self)

    def cut_off(self, reason: str) -> None:
        """End the connection of a reader that reads too slowly."""
        self._state.cut_off += 1
        if said.first(f"reader cut off {self._address}"):
            _log.warning(
                "reader cut off", address=self._address, reason=reason, cut_off_so_far=self._state.cut_off
            )
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes: what the parser gathers of a header or trailer that does not end must stay bounded."""
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > LONGEST_HEAD and not self.transport.is_closing():
            self._too_large()
        self._expect_body()

    def on_response_complete(self) -> None:
        """An answer has gone out; the next request may have waited for that, half of it here."""
        super().on_response_complete()
        self._expect_body()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head = 0
        self.scope[PEER] = self._peer  # type: ignore[literal-required]
        if self._waiting is None:
            self._expect_head()

    def on_url(self, url: bytes) -> None:
        """Part of the URL."""
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._grow(len(name) + len(value))
        if len(self.headers) >= MOST_HEADERS:
            self._grow(LONGEST_HEAD)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._got_head()
        self._unfinished = 0
        if len(self.pipeline) >= MOST_WAITING:
            self.transport.abort()
        elif self._head <= LONGEST_HEAD:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        self._unfinished = 0
        if self._head <= LONGEST_HEAD:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there."""
        self._unfinished = 0
        self._got_body()
        if self._head <= LONGEST_HEAD:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        super().pause_writing()
        if self._unread is None:
            reason = f"it has taken nothing for {UNREAD_FOR:g} seconds"
            self._unread = self.loop.call_later(UNREAD_FOR, self.cut_off, reason)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _expect_head(self) -> None:
        self._waiting = self.loop.call_later(HEADERS_WITHIN, self.transport.abort)

    def _got_head(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _expect_body(self) -> None:
        """Set the time for the rest of a body, unless it waits for an answer that comes before."""
        if self._arriving is None and self.cycle is not None and self.cycle.more_body and not self.pipeline:
            self._arriving = self.loop.call_later(BODY_WITHIN, self.transport.abort)

    def _got_body(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _grow(self, size: int) -> None:
        """Count the head; past the limit, answer once and close."""
        if self._head > LONGEST_HEAD:
            return
        self._head += size
        if self._head > LONGEST_HEAD:
            self._too_large()

    def _too_large(self) -> None:
        self._turn_away(ApiError(431, f"URL and headers are larger than {LONGEST_HEAD} bytes"))

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._turn_away(bad_request(msg))

    def _turn_away(self, refusal: ApiError) -> None:
        """Answer without asking the application, and close. A request before this that is still worked on
        gets its answer, and this none: it would be taken for that one's."""
        before = self.cycle
        if before is None or before.response_complete:
            body = msgspec.json.encode(refusal.body())
            lines = [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
            length = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            head = [STATUS_LINE[refusal.code], *lines, length, b"connection: close\r\n\r\n"]
            self.transport.write(b"".join([*head, body]))
        elif not (before.more_body or before.response_started or self.pipeline):
            before.keep_alive = False
            self.flow.pause_reading()
            return
        self.transport.close()


def _set_up(connection: socket.socket | None) -> None:
    """Find clients that are gone without a word, within about two minutes. And let the kernel keep little of
    what it can't send yet: megabytes for each client that does not read, otherwise."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2 * PART)
