"""The TLS listener: client certificates, renewed certificates, a quick end.

- what clients can provoke at will is logged once a minute (`saying`);
- certificates are read again when their files change, for connections made from then on;
- several listeners, also inherited ones; ending takes GRACE seconds at most: watches are ended
  by the application, what still runs after that is cancelled.

What is asked of each connection is in `connection`.

It installs no signal handlers and polls nothing but the certificate files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import structlog
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config

from roost.api.connection import Connection, State
from roost.api.gates import Gates
from roost.api.saying import said

GRACE = 3.0
HANDSHAKE_WITHIN = 10.0
GOODBYE_WITHIN = 10.0
"""For the client to take the last of its last answer, when the connection ends with it."""
KEEP_ALIVE = 120
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
    state = State()
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
    logging.getLogger("uvicorn.error").addFilter(said)
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(
            lambda: Connection(config, state),
            sock=listener,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_WITHIN,
            ssl_shutdown_timeout=GOODBYE_WITHIN,
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


async def _finish(state: State) -> None:
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
