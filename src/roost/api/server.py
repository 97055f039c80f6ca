"""The TLS listener: uvicorn's HTTP protocol with client certificates, limits and a quick end.

What is added to uvicorn:
- the verified client certificate of a connection goes into the ASGI scope (`access.PEER`);
- limits: connections, bytes of URL, headers and trailers (also of one that never ends), time for the
  headers of a request to arrive, time a client may leave its answer unread;
- certificates are read again when their files change, for connections made from then on;
- several listeners, also inherited ones; ending takes GRACE seconds at most: watches are ended
  by the application, what still runs after that is cancelled.

It installs no signal handlers and polls nothing but the certificate files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any, Protocol

import structlog
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from roost.api.access import PEER

GRACE = 3.0
CONNECTIONS = 2048
HEADERS_WITHIN = 15.0
HANDSHAKE_WITHIN = 10.0
KEEP_ALIVE = 120
UNREAD_FOR = 60.0
LONGEST_HEAD = 64 * 1024
MOST_HEADERS = 128
CERTIFICATES_EVERY = 30.0

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
    config = Config(app=app, ws="none", lifespan="off", log_config=None, timeout_keep_alive=KEEP_ALIVE)
    config.load()
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


class _State(ServerState):
    """uvicorn's shared state; the Date header is made when it is needed."""

    def __init__(self) -> None:
        self.total_requests = 0
        self.connections = set()
        self.tasks = set()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]
        return [(b"date", formatdate(usegmt=True).encode())]


class _Connection(HttpToolsProtocol):
    """One client."""

    def __init__(self, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._peer: dict[str, Any] | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._head = 0
        self._unfinished = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come: know it, or send it away when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            _log.warning("too many connections", limit=CONNECTIONS)
            transport.abort()
            return
        secured = transport.get_extra_info("ssl_object")
        self._peer = secured.getpeercert() or None if secured else None
        _keep_alive(transport.get_extra_info("socket"))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """A client has gone."""
        self._got_head()
        self.resume_writing()
        super().connection_lost(exc)

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
        if self._head <= LONGEST_HEAD:
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
        self.send_400_response(f"URL and headers are larger than {LONGEST_HEAD} bytes")


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
