"""The TLS listener: uvicorn's HTTP protocol with client certificates, limits and a quick end.

What is added to uvicorn:
- the verified client certificate of a connection goes into the ASGI scope (`access.PEER`);
- limits: connections, also of one address; requests of a connection that come before answers; bytes of URL,
  headers and trailers (also of one that never ends), time for the headers of a request to arrive, time a
  client may leave its answer unread;
- what is no HTTP is refused with a Status, as anything else;
- the head of an answer leaves together with the first of its body, when that is there at once: one TLS
  record and one call of the kernel instead of two, which is most of what a small answer costs;
- what clients can provoke at will is logged once a minute;
- certificates are read again when their files change, for connections made from then on;
- several listeners, also inherited ones; ending takes GRACE seconds at most: watches are ended
  by the application, what still runs after that is cancelled.

It installs no signal handlers and polls nothing but the certificate files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
from starlette.types import Message, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from roost.api.access import PEER
from roost.api.gates import Gates
from roost.api.status import ApiError, bad_request

GRACE = 3.0
CONNECTIONS = 2048
CONNECTIONS_OF_ONE_ADDRESS = CONNECTIONS // 2
HEADERS_WITHIN = 15.0
HANDSHAKE_WITHIN = 10.0
KEEP_ALIVE = 120
UNREAD_FOR = 60.0
LONGEST_HEAD = 64 * 1024
MOST_HEADERS = 128
MOST_WAITING = 64
"""Requests of one connection that may come before the first of them is answered."""
CERTIFICATES_EVERY = 30.0
SAY_AGAIN_AFTER = 60.0

_log = structlog.get_logger("roost.api.server")


class Door(Protocol):
    """An ASGI application that can end its watches."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def end_watches(self) -> None:
        """End all watches, now and from now on."""


async def serve(
    app: Door,
    *,
    certificate: Path,
    key: Path,
    client_ca: Path,
    stop: asyncio.Event,
    sockets: Sequence[socket.socket] = (),
    host: str = "",
    port: int = 0,
    ready: asyncio.Future[list[tuple[str, int]]] | None = None,
) -> None:
    """Serve until `stop` is set. `sockets` are bound (inherited ones too); else `host` and `port`.

    `ready` gets the addresses once connections are taken. Raises OSError when a listener can't be made.
    """
    context = tls(certificate, key, client_ca)
    listeners = list(sockets) or bind(host, port)
    state = _State()
    gates = Gates(app)
    config = Config(
        app=gates,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE,
        # A client's address is that of its connection, not what a header says.
        proxy_headers=False,
    )
    config.load()
    logging.getLogger("uvicorn.error").addFilter(_said)
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(
            lambda: _Connection(config, state),
            sock=listener,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_WITHIN,
            ssl_shutdown_timeout=1.0,
            backlog=512,
        )
        for listener in listeners
    ]
    if ready is not None and not ready.done():
        ready.set_result([listener.getsockname()[:2] for listener in listeners])
    reloading = asyncio.create_task(_reload(context, certificate, key, client_ca))
    try:
        await stop.wait()
    finally:
        reloading.cancel()
        for server in servers:
            server.close()
        gates.stopping = True
        app.end_watches()
        await _finish(state)


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address of a host name; "" is all addresses, IPv4 and IPv6."""
    if not host:
        return [socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = {(family, address[:2]) for family, _, _, _, address in found}
    made = []
    for family, address in sorted(addresses, key=str):
        made.append(socket.create_server((str(address[0]), int(address[1])), family=family))
    return made


def inherited(descriptor: int) -> socket.socket:
    """The listening socket that a service manager has handed over."""
    return socket.socket(fileno=descriptor)


def tls(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """TLS 1.2 or later; a client certificate may be given and must then be of our authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


class OncePerMinute(logging.Filter):
    """Passes each text once in SAY_AGAIN_AFTER seconds. Keeps MOST texts at most."""

    MOST = 256

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record of the logging library is passed; what tells of an exception always is."""
        return record.exc_info is not None or self.first(record.getMessage())

    def forget(self) -> None:
        """Say everything again."""
        self._said.clear()

    def first(self, text: str) -> bool:
        """Whether a text is to be said now."""
        now = time.monotonic()
        if now - self._said.get(text, -SAY_AGAIN_AFTER) < SAY_AGAIN_AFTER:
            return False
        if len(self._said) >= self.MOST:
            self._said.clear()
        self._said[text] = now
        return True


_said = OncePerMinute()


class _State(ServerState):
    """uvicorn's shared state, and the connections per address. The Date header is made when it is needed,
    once a second at most."""

    def __init__(self) -> None:
        self.total_requests = 0
        self.connections = set()
        self.tasks = set()
        self.addresses = Counter[str]()
        self._second = 0
        self._date = b""

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]
        second = int(time.time())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True).encode()
        return [(b"date", self._date)]


class _Writer(asyncio.Transport):
    """A transport that can hold what is written for a moment, to send it in one piece."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport, self._loop = transport, loop
        self._held: list[bytes] | None = None

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

    def pause_reading(self) -> None:
        """Take nothing more in."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take in again."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection."""
        return self._transport.get_extra_info(name, default)


class _Connection(HttpToolsProtocol):
    """One client."""

    def __init__(self, config: Config, state: _State) -> None:
        super().__init__(config, state, {})
        self._state = state
        self._writer: _Writer
        self._address = ""
        self._peer: dict[str, Any] | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._head = 0
        self._unfinished = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come: know it, or send it away when there are too many."""
        self._writer = _Writer(transport, self.loop)
        super().connection_made(self._writer)
        self._address = self.client[0] if self.client else ""
        self._state.addresses[self._address] += 1
        if self._too_many():
            transport.abort()
            return
        secured = transport.get_extra_info("ssl_object")
        self._peer = secured.getpeercert() or None if secured else None
        _keep_alive(transport.get_extra_info("socket"))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """A client has gone."""
        self._state.addresses[self._address] -= 1
        if self._state.addresses[self._address] <= 0:
            del self._state.addresses[self._address]
        self._got_head()
        self.resume_writing()
        super().connection_lost(exc)

    def _too_many(self) -> bool:
        """Whether there are more connections than are served, of all or of this address."""
        if len(self.connections) > CONNECTIONS:
            if _said.first("too many connections"):
                _log.warning("too many connections", limit=CONNECTIONS)
            return True
        if self._state.addresses[self._address] > CONNECTIONS_OF_ONE_ADDRESS:
            if _said.first(f"too many connections of {self._address}"):
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
                else:
                    await send(message)
                    self._writer.release()

            await app(scope, receive, sent)  # type: ignore[arg-type]

        super()._start_asgi_task(cycle, serve)

    def data_received(self, data: bytes) -> None:
        """Bytes: what the parser gathers of a header or trailer that does not end must stay bounded."""
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > LONGEST_HEAD and not self.transport.is_closing():
            self._too_large()

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
        if self._head <= LONGEST_HEAD:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_FOR, self.transport.abort)

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
        """Answer without asking the application, and close. While a request before is still worked on the
        answer would be taken for that one's: then there is none."""
        if self.cycle is None or self.cycle.response_complete:
            body = msgspec.json.encode(refusal.body())
            lines = [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
            length = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            head = [STATUS_LINE[refusal.code], *lines, length, b"connection: close\r\n\r\n"]
            self.transport.write(b"".join([*head, body]))
        self.transport.close()


def _keep_alive(connection: socket.socket | None) -> None:
    """Find clients that are gone without a word, within about two minutes."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def _reload(context: ssl.SSLContext, certificate: Path, key: Path, client_ca: Path) -> None:
    """Take renewed certificates into use. A half-written pair is tried again at the next look."""
    seen = _versions(certificate, key, client_ca)
    while True:
        await asyncio.sleep(CERTIFICATES_EVERY)
        now = _versions(certificate, key, client_ca)
        if now == seen:
            continue
        try:
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            _log.warning("certificates not reloaded", certificate=str(certificate), error=str(error))
            continue
        seen = now
        _log.info("certificates reloaded", certificate=str(certificate))


def _versions(*paths: Path) -> list[tuple[int, int]]:
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)  # noqa: PTH116
            found.append((status.st_mtime_ns, status.st_ino))
    return found


async def _finish(state: ServerState) -> None:
    """Let requests end, cancel those that don't, close every connection."""
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        await asyncio.wait(list(state.tasks), timeout=GRACE - 1.0)
    for task in list(state.tasks):
        task.cancel()
    if state.tasks:
        await asyncio.wait(list(state.tasks), timeout=0.5)
    for connection in list(state.connections):
        if connection.transport is not None:
            connection.transport.abort()
    await asyncio.sleep(0)
