"""What the kernel does for a link: keepalive at both ends, and a way that is cut found with real packets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from roost.link import sockets
from roost.link.errors import ConnectionLost
from roost.link.lower import LowerLink, TlsDialer
from roost.link.node import Node
from roost.link.quiet import CUT_AFTER
from roost.link.sockets import SocketConnection
from roost.link.upper import UpperLink
from roost.link.wire import Connection
from tests.link.test_tls import Site
from tests.support.namespaces import Namespace, namespaces

CUT = "add table inet cut; add chain inet cut everything { type filter hook input priority 0; policy drop; }"
PATIENCE = 5 * CUT_AFTER
STEADY = 3.0


def options(connection: Connection) -> dict[int, int]:
    """What keepalive is set to on a connection's socket."""
    assert isinstance(connection, SocketConnection)
    kernels = connection._websocket.transport.get_extra_info("socket")
    assert kernels.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    return {option: kernels.getsockopt(socket.IPPROTO_TCP, option) for option in sockets.KEEPALIVE}


async def test_keepalive_is_set_at_both_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Connection] = []
    link, dial = UpperLink._link, TlsDialer.dial

    async def linked(self: UpperLink, node: Node, connection: Connection) -> None:
        made.append(connection)
        await link(self, node, connection)

    async def dialled(self: TlsDialer) -> SocketConnection:
        connection = await dial(self)
        made.append(connection)
        return connection

    monkeypatch.setattr(UpperLink, "_link", linked)
    monkeypatch.setattr(TlsDialer, "dial", dialled)
    site = Site(tmp_path)
    try:
        await site.start()
        lower: LowerLink = await site.joined()
        assert lower.state.connected
        assert len(made) == 2
        wanted = {socket.TCP_KEEPIDLE: 2, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 6}
        assert [options(one) for one in made] == [wanted, wanted]
        for one in made:
            assert isinstance(one, SocketConnection)
            assert 0 < one.way.round_trip < 5
            assert one.way.unanswered < CUT_AFTER
    finally:
        await site.close()


def test_keepalive_takes_as_long_as_is_looked_for() -> None:
    keepalive = sockets.KEEPALIVE
    asked = keepalive[socket.TCP_KEEPINTVL] * keepalive[socket.TCP_KEEPCNT]
    assert keepalive[socket.TCP_KEEPIDLE] + asked == CUT_AFTER


# -- real packets


@asynccontextmanager
async def joined(lower: Namespace, upper: Namespace) -> AsyncIterator[list[SocketConnection]]:
    """Both ends of a connection between two namespaces, the lower first."""
    listening = upper.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("10.0.0.2", 7444))
    dialling = lower.socket(socket.AF_INET, socket.SOCK_STREAM)
    ends: list[SocketConnection] = []
    over = asyncio.Event()

    async def serves(websocket: ServerConnection) -> None:
        ends.append(SocketConnection(websocket))
        await over.wait()

    async with serve(serves, sock=listening, **sockets.OPTIONS):
        await asyncio.to_thread(dialling.connect, ("10.0.0.2", 7444))
        client = await connect("ws://10.0.0.2:7444/link", sock=dialling, proxy=None, **sockets.OPTIONS)
        async with asyncio.timeout(PATIENCE):
            while not ends:  # noqa: ASYNC110 - a real server accepts
                await asyncio.sleep(0.01)
        try:
            yield [SocketConnection(client), *ends]
        finally:
            over.set()
            client.transport.abort()


@pytest.mark.namespaces
async def test_a_cut_is_found_by_the_kernels_of_both_ends() -> None:
    """The link rests, and packets are dropped from some moment on: neither end is told."""
    with namespaces("site", "centre") as world:
        world.join("site", "eth0", ["10.0.0.1/24"], "centre", "eth0", ["10.0.0.2/24"])
        async with joined(world["site"], world["centre"]) as ends:
            began = time.monotonic()
            world["centre"].run("nft", CUT)
            async with asyncio.timeout(PATIENCE):
                found = await asyncio.gather(*(end.receive() for end in ends), return_exceptions=True)
            assert all(isinstance(one, ConnectionLost) for one in found), found
            assert time.monotonic() - began > CUT_AFTER - 2


@pytest.mark.namespaces
async def test_what_is_under_way_shows_for_how_long_the_peer_s_kernel_is_silent() -> None:
    with namespaces("site", "centre") as world:
        world.join("site", "eth0", ["10.0.0.1/24"], "centre", "eth0", ["10.0.0.2/24"])
        async with joined(world["site"], world["centre"]) as (lower, upper):
            await lower.send(b"before the cut")
            assert await upper.receive() == b"before the cut"
            world["centre"].run("nft", CUT)
            await lower.send(b"after it")
            async with asyncio.timeout(PATIENCE):
                while lower.way.unanswered < CUT_AFTER:  # noqa: ASYNC110 - the kernel counts
                    await asyncio.sleep(0.1)


@pytest.mark.namespaces
async def test_a_peer_that_reads_nothing_is_no_cut() -> None:
    """Its kernel answers: whether a process stands still is for heartbeats and for deadlines to find."""
    with namespaces("site", "centre") as world:
        world.join("site", "eth0", ["10.0.0.1/24"], "centre", "eth0", ["10.0.0.2/24"])
        async with joined(world["site"], world["centre"]) as (lower, upper):
            upper._websocket.transport.pause_reading()

            async def fill() -> None:
                while True:
                    await lower.send(bytes(1024 * 1024))

            filling = asyncio.create_task(fill())
            since, deadline = time.monotonic(), time.monotonic() + PATIENCE
            # The kernel goes on asking for room, more and more seldom; what was sent has all arrived.
            while time.monotonic() - since < STEADY:
                assert time.monotonic() < deadline
                assert not filling.done()
                if lower.way.unanswered:
                    since = time.monotonic()
                await asyncio.sleep(0.1)
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
