"""Connections over TLS: websockets, mutual certificates, and what went wrong in words.

The lower end verifies the upper against the pinned CA under the one name `link.roost`. The upper asks
for a client certificate but does not insist (a node that enrols has none yet): the path decides. Nor does its
TLS look at the times of the client's certificate, only at its signature and its key: what one that is over
may still do is decided by path too (`renewal`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from websockets.asyncio.client import connect as websocket_connect
from websockets.asyncio.connection import Connection as WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from roost.link.dialing import NotReached, open_socket
from roost.link.errors import ConnectionLost, LinkError
from roost.link.messages import FRAME_LIMIT
from roost.link.node import BadNode, parse_uri
from roost.link.token import endpoint
from roost.link.wire import UNKNOWN_WAY, Peer, Way

log = structlog.get_logger(__name__)

SERVER_NAME = "link.roost"
LINK_PATH = "/link"
ENROL_PATH = "/enrol"
RENEWAL_PATH = "/renew"
PROCESS_PATH = "/process"
_OF_PROCESS = ["roost:process"]
"""As `pki.PROCESS_URI`, which costs an import that lower ends do without."""
ENDED_HEADER = "Roost-Certificate"
ENDED = "ended"
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (OpenSSL, x509_vfy.h): signatures are checked, times are not."""
CLOSE_WITHIN = 2.0
QUEUED = 8 * 1024
"""Bytes that may wait in each buffer between a sender and the network. What is written after them waits for
them: on a narrow link that is time."""
RETRY_AFTER_MOST = 3600.0
_UNACKNOWLEDGED, _ACKNOWLEDGED, _ROUND_TRIP = slice(24, 28), slice(56, 60), slice(68, 72)
"""Where TCP_INFO (Linux, tcp.h) has the packets that are not acknowledged (tcpi_unacked), the milliseconds
since anything was (tcpi_last_ack_recv), and the smoothed microseconds of a round trip (tcpi_rtt)."""

KEEPALIVE = {socket.TCP_KEEPIDLE: 2, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 6}
"""After 2 seconds of rest the kernel asks the peer's kernel, once a second; after 6 questions without an
answer the connection ends. TCP_USER_TIMEOUT is left alone: it would end connections to peers that are there
and read slowly, too, and take the place of that count (`quiet` watches what was sent and does not arrive)."""

# What the library logs of each handshake that fails is said in our own words, once.
QUIET = logging.getLogger("roost.link.websockets")
QUIET.setLevel(logging.CRITICAL)
OPTIONS: dict[str, Any] = {
    "compression": None,
    "max_size": FRAME_LIMIT,
    "max_queue": 2,
    "ping_interval": None,
    "close_timeout": CLOSE_WITHIN,
    "write_limit": QUEUED,
    "logger": QUIET,
}


class CannotConnect(LinkError):
    """No connection came about. `expired`: the upper end says our certificate has.

    `retry_after`: seconds after which the upper end says it may be worth to come again; else 0.
    """

    def __init__(
        self, endpoint: str, reason: str, *, expired: bool = False, retry_after: float = 0.0
    ) -> None:
        super().__init__(f"{endpoint}: {reason}")
        self.endpoint, self.reason, self.expired = endpoint, reason, expired
        self.retry_after = retry_after


class SocketConnection:
    """A connection over TLS."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._peer = peer_of(websocket)
        _queue_little(websocket)
        _keep_alive(websocket)
        for said in (websocket.request, websocket.response):
            # They would be kept for as long as the link: some kilobytes.
            if said is not None:
                said.headers.clear()

    @property
    def peer(self) -> Peer:
        return self._peer

    async def send(self, frame: bytes) -> None:
        try:
            await self._websocket.send(frame)
        except (ConnectionClosed, OSError) as error:
            raise ConnectionLost(_words(error)) from None

    async def receive(self) -> bytes:
        try:
            frame = await self._websocket.recv(decode=False)
        except (ConnectionClosed, OSError) as error:
            raise ConnectionLost(_words(error)) from None
        return frame if isinstance(frame, bytes) else bytes(frame, "utf-8")

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_WITHIN + 1):
                await self._websocket.close()
        except TimeoutError:
            # Its goodbye stands behind what a peer does not take: the library waits for that without end.
            self.abort()

    @property
    def way(self) -> Way:
        """What the kernel knows of the way."""
        kernels = self._websocket.transport.get_extra_info("socket")
        try:
            told = kernels.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ROUND_TRIP.stop)
        except (AttributeError, OSError):
            return UNKNOWN_WAY
        silent = _number(told[_ACKNOWLEDGED]) / 1000 if _number(told[_UNACKNOWLEDGED]) else 0.0
        return Way(round_trip=_number(told[_ROUND_TRIP]) / 1_000_000, unanswered=silent)

    def abort(self) -> None:
        """Break it without a word, as a network does."""
        self._websocket.transport.abort()


def _queue_little(websocket: WebSocket) -> None:
    """Let senders wait rather than their bytes, in the kernel and below TLS."""
    kernels = websocket.transport.get_extra_info("socket")
    with contextlib.suppress(AttributeError, OSError):
        kernels.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, QUEUED)
    # asyncio has no public way to the transport below TLS, whose buffer is 64 KiB; uvloop has none at all.
    below = getattr(getattr(websocket.transport, "_ssl_protocol", None), "_transport", None)
    if isinstance(below, asyncio.WriteTransport):
        below.set_write_buffer_limits(QUEUED)


def _keep_alive(websocket: WebSocket) -> None:
    """Have the kernel find out when the way to the peer is cut, or its machine is gone."""
    kernels = websocket.transport.get_extra_info("socket")
    try:
        kernels.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            kernels.setsockopt(socket.IPPROTO_TCP, option, value)
    except (AttributeError, OSError) as error:
        log.warning("link.no-keepalive", reason=str(error))


def _number(told: bytes) -> int:
    return int.from_bytes(told, sys.byteorder)


def peer_of(websocket: WebSocket) -> Peer:
    """Who is there, by its certificate (verified by TLS) and address."""
    secured = websocket.transport.get_extra_info("ssl_object")
    shown: bytes = (secured.getpeercert(binary_form=True) if secured else None) or b""
    certificate: dict[str, Any] = (secured.getpeercert() if secured else None) or {}
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    node, expires = None, None
    if len(uris) == 1:
        try:
            node = parse_uri(uris[0])
        except BadNode:
            node = None
    if "notAfter" in certificate:
        expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    address = websocket.remote_address
    return Peer(
        node=node,
        address=str(address[0]) if address else "",
        certificate_expires_at=expires,
        fingerprint=hashlib.sha256(shown).hexdigest() if shown else "",
        is_process=uris == _OF_PROCESS,
    )


async def connect(where: str, context: ssl.SSLContext, path: str, *, within: float) -> SocketConnection:
    """Dial `host:port`; raises CannotConnect.

    A connection has to come about `within` seconds, and TLS with its answer within as many after that.
    """
    host, port = endpoint(where)
    try:
        connected = await open_socket(host, port, within=within)
    except NotReached as error:
        raise CannotConnect(where, error.reason) from None
    try:
        websocket = await websocket_connect(
            f"wss://{SERVER_NAME}{path}",
            sock=connected,
            ssl=context,
            server_hostname=SERVER_NAME,
            open_timeout=within,
            proxy=None,
            **OPTIONS,
        )
    except TimeoutError:
        connected.close()
        reason = f"it took the connection, and said nothing to the end of {within:g} s"
        raise CannotConnect(where, reason) from None
    except (OSError, WebSocketException, EOFError) as error:
        connected.close()
        later = _retry_after(error)
        raise CannotConnect(where, _words(error), expired=_says_expired(error), retry_after=later) from None
    except BaseException:
        connected.close()
        raise
    return SocketConnection(websocket)


# -- TLS


def anyone_context() -> ssl.SSLContext:
    """To fetch the CA certificate, whose hash is then compared: trusts nobody, so verifies nothing."""
    context = _client()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def verified_context(ca: str, certificate: Path | None = None) -> ssl.SSLContext:
    """Trusts this CA (PEM) alone; shows the key and certificate of one PEM file, when there is one."""
    context = _client()
    context.load_verify_locations(cadata=ca)
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def server_context(ca: str, certificate: Path) -> ssl.SSLContext:
    """Asks for a client certificate of this CA (PEM), of any time, but lets in who has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= _NO_CHECK_TIME
    context.num_tickets = 0
    context.load_verify_locations(cadata=ca)
    context.load_cert_chain(certificate)
    return context


def _client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


# -- words


def _words(error: BaseException) -> str:
    """What went wrong, for people."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(cause)
        if isinstance(cause, ssl.SSLError):
            return _alert(cause)
    if isinstance(error, InvalidStatus):
        body = bytes(error.response.body or b"").decode("utf-8", "replace").strip()[:200]
        return body or f"the server answered {error.response.status_code}"
    if isinstance(error, ConnectionClosed):
        return "the connection was lost"
    if isinstance(error, OSError):
        return error.strerror or str(error) or "the network failed"
    return str(error) or type(error).__name__


def _retry_after(error: BaseException) -> float:
    said = error.response.headers.get("Retry-After", "") if isinstance(error, InvalidStatus) else ""
    return min(float(said), RETRY_AFTER_MOST) if said.isdecimal() and len(said) < 10 else 0.0


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    match error.verify_code:
        case 9:
            return "the upper cloud's certificate is not valid yet by this machine's clock; set the clock"
        case 10:
            return "the upper cloud's certificate has expired by this machine's clock; check the clock"
        case 7 | 18 | 19 | 20 | 21:
            return "what answers there has no certificate of the cloud this node was enrolled with"
    return f"its certificate is not trusted: {error.verify_message}"


def _alert(error: ssl.SSLError) -> str:
    reason = (error.reason or "").upper()
    if "CERTIFICATE_EXPIRED" in reason:
        return "the upper cloud says that this node's certificate has expired"
    if "UNKNOWN_CA" in reason:
        return "the upper cloud does not know the CA of this node's certificate; enrol again"
    return f"TLS failed: {error.reason or error}"


def _says_expired(error: BaseException) -> bool:
    if isinstance(error, InvalidStatus) and error.response.headers.get(ENDED_HEADER) == ENDED:
        return True
    return any(
        isinstance(cause, ssl.SSLError) and "ALERT_CERTIFICATE_EXPIRED" in (cause.reason or "").upper()
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


async def close_quietly(connection: SocketConnection) -> None:
    """Close, at most for CLOSE_WITHIN and a little."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN + 1):
            await connection.close()
    except TimeoutError:
        return
