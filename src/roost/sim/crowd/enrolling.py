"""Certificates of simulated sites: by enrolment with real tokens at the real door, or from files.

All sites of a process have one key, for a thousand keys would show nothing that one does not, and each has a
certificate of its own for it. Each dials from an address of its own within 127.0.0.0/8, as sites do: a centre
that bounds what comes from one address bounds none of them for another.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect

from roost.link import messages, pki, sockets
from roost.link import token as tokens
from roost.link.errors import BadMessage, Refused
from roost.link.files import write_private
from roost.link.messages import EnrolHello, Enrolled, EnrolRequest, Refusal
from roost.link.node import subcloud
from roost.link.token import Token

OPEN_WITHIN = 120.0
BUSY_TRIES = 200
BUSY_PAUSE = 0.5
KEY, AUTHORITY = "node.key", "ca.crt"


def address_of(number: int) -> str:
    """The loopback address of a site; 16 million of them."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


class Identities:
    """The certificates of sites, in a directory: `NAME.pem` each, one key, one authority."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        key = directory / KEY
        if not key.exists():
            write_private(key, pki.new_key())
        self.key = key.read_bytes()

    def has(self, name: str) -> bool:
        """Whether a site has a certificate."""
        return (self._directory / f"{name}.pem").exists()

    def keep(self, name: str, certificate: bytes, authority: bytes) -> None:
        """Keep a site's certificate."""
        known = self._directory / AUTHORITY
        if not known.exists() or known.read_bytes() != authority:
            write_private(known, authority)
        write_private(self._directory / f"{name}.pem", self.key + certificate)

    def context(self, name: str) -> ssl.SSLContext:
        """What a site shows, and whom it trusts. Raises OSError."""
        ca = (self._directory / AUTHORITY).read_text()
        return sockets.verified_context(ca, self._directory / f"{name}.pem")


async def dial(where: tuple[str, int], number: int, context: ssl.SSLContext, path: str) -> ClientConnection:
    """A connection of a site, from its own address. Raises OSError, WebSocketException, TimeoutError."""
    one = socket.socket()
    try:
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if where[0].startswith("127."):
            one.bind((address_of(number), 0))
        async with asyncio.timeout(OPEN_WITHIN):
            await asyncio.get_running_loop().sock_connect(one, where)
        return await websocket_connect(
            f"wss://{sockets.SERVER_NAME}{path}",
            sock=one,
            ssl=context,
            server_hostname=sockets.SERVER_NAME,
            open_timeout=OPEN_WITHIN,
            proxy=None,
            **{**sockets.OPTIONS, "max_queue": 16},
        )
    except BaseException:
        one.close()
        raise


async def enrol(identities: Identities, name: str, number: int, text: str) -> None:
    """Turn a token into a certificate. Raises Refused, BadToken, BadMessage, OSError, WebSocketException."""
    token = tokens.decode(text)
    for _ in range(BUSY_TRIES):
        answer, authority = await _ask(identities, token, number)
        if isinstance(answer, Enrolled):
            pki.check_issued(answer.certificate.encode(), identities.key, subcloud(name))
            identities.keep(name, answer.certificate.encode(), authority)
            return
        if answer.code != "busy":
            raise Refused(answer.code, answer.reason, answer.remedy)
        await asyncio.sleep(BUSY_PAUSE)
    raise Refused("busy", f"the door was busy {BUSY_TRIES} times", "enrol fewer at once")


async def _ask(identities: Identities, token: Token, number: int) -> tuple[Enrolled | Refusal, bytes]:
    # What answers is known by the token's pin of its authority; a real site then dials anew to be sure of
    # who hears its secret, which a simulated one spares the centre.
    where = tokens.endpoint(token.endpoints[0])
    websocket = await dial(where, number, sockets.anyone_context(), sockets.ENROL_PATH)
    try:
        hello = messages.unpack(_bytes(await websocket.recv(decode=False)))
        if not isinstance(hello, EnrolHello):
            if isinstance(hello, Refusal):
                return hello, b""
            raise BadMessage("the first word was no hello")
        if pki.pin(hello.ca.encode()) != token.ca:
            raise BadMessage("what answers is not the cloud that the token is from")
        request = pki.request(identities.key).decode()
        await websocket.send(messages.pack(EnrolRequest(secret=token.secret, request=request)))
        answer = messages.unpack(_bytes(await websocket.recv(decode=False)))
        if not isinstance(answer, Enrolled | Refusal):
            raise BadMessage("no certificate came")
        return answer, hello.ca.encode()
    finally:
        websocket.transport.abort()


def _bytes(frame: bytes | str) -> bytes:
    return frame if isinstance(frame, bytes) else frame.encode()
