"""A node that has a valid certificate and means harm: what it can do to the upper end of its link.

Real sockets, real TLS, real frames. Each attack goes on until it is cancelled and counts what it got done.
It dials from an address of its own (all of 127.0.0.0/8 is this machine), so that it can be told from others.

`python -m roost.sim.hostile DIRECTORY ATTACK [SOURCE]` attacks with the identity in a directory until it is
ended, and prints how often it dialled, was refused, and sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import WebSocketException

from roost.link import identity, messages, sockets
from roost.link.messages import CallStart, Entries, Entry, Heartbeat, Hello, Message
from roost.link.node import Node
from roost.link.token import endpoint

SOURCE = "127.0.0.2"
PAUSE = 0.01


class Hostile:
    """One hostile node, with the identity kept in `directory`."""

    def __init__(self, directory: Path, *, source: str = SOURCE) -> None:
        self._identity = identity.load(directory)
        self._where = endpoint(self._identity.endpoints[0])
        ca = (directory / identity.AUTHORITY_FILE).read_text()
        self._context = sockets.verified_context(ca, directory / identity.NODE_FILE)
        self._source = source
        self.dialled = self.refused = self.sent = 0

    @property
    def node(self) -> Node:
        """Who it is."""
        return self._identity.who()

    # -- means

    async def tcp(self) -> socket.socket:
        """A TCP connection from its own address."""
        one = socket.socket()
        try:
            one.setblocking(False)
            one.bind((self._source, 0))
            await asyncio.get_running_loop().sock_connect(one, self._where)
        except BaseException:
            one.close()
            raise
        return one

    async def dial(self) -> ClientConnection:
        """A connection that was let in. Raises OSError, WebSocketException, TimeoutError."""
        self.dialled += 1
        connected = await self.tcp()
        options = {**sockets.OPTIONS, "max_size": None, "max_queue": 16}
        try:
            return await websocket_connect(
                f"wss://{sockets.SERVER_NAME}{sockets.LINK_PATH}",
                sock=connected,
                ssl=self._context,
                server_hostname=sockets.SERVER_NAME,
                open_timeout=20,
                proxy=None,
                **options,
            )
        except BaseException:
            self.refused += 1
            connected.close()
            raise

    async def linked(self) -> ClientConnection:
        """A connection on which both have said hello."""
        websocket = await self.dial()
        await self.say(websocket, self.hello())
        await websocket.recv(decode=False)
        return websocket

    def hello(self, **fields: object) -> Hello:
        """What it says first."""
        said = Hello(
            protocol_min=messages.PROTOCOL_MIN,
            protocol_max=messages.PROTOCOL,
            version="0.1.0",
            node=str(self.node),
            store_id="hostile",
            taken_store_id="",
            taken_revision=0,
            features=list(messages.FEATURES),
        )
        return msgspec.structs.replace(said, **fields)

    async def say(self, websocket: ClientConnection, message: Message) -> None:
        """Send a message."""
        await self._send(websocket, messages.pack(message))

    async def _send(self, websocket: ClientConnection, frame: bytes) -> None:
        await websocket.send(frame)
        self.sent += 1
        # A send that need not wait gives nobody else a turn.
        await asyncio.sleep(0)

    # -- attacks

    async def again_and_again(self, attack: Callable[[ClientConnection], Awaitable[None]]) -> None:
        """Link, attack, and link anew whenever it is thrown out."""
        while True:
            try:
                websocket = await self.linked()
                reading = asyncio.ensure_future(_read(websocket))
                try:
                    await attack(websocket)
                finally:
                    reading.cancel()
                    websocket.transport.abort()
            except (OSError, WebSocketException, TimeoutError, EOFError):
                await asyncio.sleep(PAUSE)

    async def heartbeats(self, websocket: ClientConnection) -> None:
        """As many as go through."""
        while True:
            await self.say(websocket, Heartbeat(sequence=self.sent))

    async def calls(self, websocket: ClientConnection) -> None:
        """Calls with the largest bodies that may be announced, and never a body."""
        number = 1
        while True:
            headers = [("x", "y" * 1000)] * 50
            start = CallStart(
                call=number, method="GET", path="/", headers=headers, caller="", groups=[], size=3_000_000
            )
            await self.say(websocket, start)
            number += 2

    async def batches(self, websocket: ClientConnection) -> None:
        """Large batches of what it may write, without waiting for anybody."""
        number = 0
        cloud = self.node.cloud
        while True:
            number += 1
            entries = []
            for n in range(200):
                name = f"e{number}-{n}"
                raw = {
                    "apiVersion": "roost.edge/v1",
                    "kind": "LogEntry",
                    "metadata": {"name": name, "namespace": cloud, "uid": name},
                    "status": {"text": "x" * 4000},
                }
                data = msgspec.json.encode(raw)
                entries.append(Entry(type="object", kind="LogEntry", namespace=cloud, name=name, data=data))
            await self.say(websocket, Entries(number=number, entries=entries, upto=0, snapshot="middle"))

    async def huge(self, websocket: ClientConnection) -> None:
        """Frames as large as they may be, that unpack to as many objects as they can."""
        many = [{"type": "deleted", "kind": "", "namespace": "", "name": ""}] * 150_000
        plain = msgspec.msgpack.encode({"type": "entries", "number": 1, "upto": 0, "entries": many})
        while True:
            await self._send(websocket, b"\0" + plain[: messages.FRAME_LIMIT - 1])

    async def nonsense(self, websocket: ClientConnection) -> None:
        """Bytes that mean nothing."""
        while True:
            await self._send(websocket, b"\0\xc1 nothing of the kind")

    async def claims(self, websocket: ClientConnection) -> None:
        """What is another's to say."""
        entries = []
        for cloud in ("valley", "central"):
            raw = {
                "apiVersion": "roost.edge/v1",
                "kind": "LogEntry",
                "metadata": {"name": "forged", "namespace": cloud},
                "status": {"text": "all is well"},
            }
            data = msgspec.json.encode(raw)
            entries.append(Entry(type="object", kind="LogEntry", namespace=cloud, name="forged", data=data))
        await self.say(websocket, Entries(number=1, entries=entries, upto=0, snapshot="end"))
        while True:
            await self.say(websocket, Heartbeat(sequence=self.sent))
            await asyncio.sleep(0.5)

    async def deaf(self) -> None:
        """Speak now and then, and take nothing of what one is told."""
        while True:
            try:
                websocket = await self.linked()
                websocket.transport.pause_reading()
                while True:
                    await self.say(websocket, Heartbeat(sequence=self.sent))
                    await asyncio.sleep(0.2)
            except (OSError, WebSocketException, TimeoutError, EOFError):
                await asyncio.sleep(PAUSE)

    async def dials(self, *, at_once: int = 32) -> None:
        """Connect as often as goes, with the valid certificate."""

        async def one() -> None:
            while True:
                try:
                    (await self.dial()).transport.abort()
                except (OSError, WebSocketException, TimeoutError, EOFError):
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(one())

    async def half_open(self, *, most: int = 3000) -> None:
        """TCP connections on which nothing is ever said."""
        held: list[socket.socket] = []
        try:
            while True:
                try:
                    held.append(await self.tcp())
                    self.dialled += 1
                except OSError:
                    self.refused += 1
                    await asyncio.sleep(PAUSE)
                if len(held) >= most:
                    held.pop(0).close()
        finally:
            for one in held:
                one.close()


async def _read(websocket: ClientConnection) -> None:
    try:
        while True:
            await websocket.recv(decode=False)
    except (WebSocketException, ssl.SSLError, OSError, EOFError):
        return


ATTACKS = ("heartbeats", "calls", "batches", "huge", "nonsense", "claims", "deaf", "dials", "half_open")


async def _main(directory: str, attack: str, source: str = SOURCE) -> None:
    # What the libraries say of a connection that breaks is what an attacker expects.
    logging.disable()
    hostile = Hostile(Path(directory), source=source)
    work = getattr(hostile, attack)
    whole = attack in ("deaf", "dials", "half_open")
    task = asyncio.ensure_future(work() if whole else hostile.again_and_again(work))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    print(hostile.dialled, hostile.refused, hostile.sent)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[2] not in ATTACKS:
        sys.exit(f"usage: python -m roost.sim.hostile DIRECTORY {{{','.join(ATTACKS)}}} [SOURCE]")
    asyncio.run(_main(*sys.argv[1:]))
