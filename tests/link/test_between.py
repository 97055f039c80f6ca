"""Calls from one process of a cloud to the one that has a link: over real sockets, with real certificates."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roost.link import between, pki, sockets
from roost.link.between import Between
from roost.link.exchange import Caller, Request, Response, Unreachable
from roost.link.files import write_private
from roost.link.node import Node, subcloud
from roost.link.sockets import CannotConnect
from roost.link.upper import Settings, UpperLink
from roost.link.wire import Connection
from tests.support.stores import new_database, opened

NODE = subcloud("harbor")
ASKED = Request(
    method="GET",
    path="/apis/roost.edge/v1/hosts?limit=5",
    headers=[("accept", "application/json")],
    body=b"body",
    caller=Caller("ana", ["operators"], "u-1", {"scope": ["a", "b"]}, "root"),
)


def clock() -> datetime:
    return datetime.now(UTC)


class Site:
    """What the process with the link does when a node is asked."""

    def __init__(self) -> None:
        self.heard: list[tuple[Node, Request]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def call(self, node: Node, request: Request) -> Response:
        self.heard.append((node, request))
        await self.hold.wait()
        if node != NODE:
            raise Unreachable(str(node), "its link is down")

        async def body() -> AsyncIterator[bytes]:
            for part in range(3):
                yield b"x" * 100_000 + str(part).encode()

        return Response(200, [("content-type", "text/plain")], body())


@contextlib.asynccontextmanager
async def door(tmp_path: Path, site: Site) -> AsyncIterator[tuple[str, pki.Authority, UpperLink]]:
    authority = pki.Authority.open(tmp_path / "ca", "central", clock())

    async def answer(connection: Connection) -> None:
        await between.serve(connection, site.call)

    with new_database() as url:
        async with opened(url) as store:
            upper = UpperLink(
                store,
                authority,
                name="central",
                directory=tmp_path,
                clock=clock,
                settings=Settings(addresses=[("127.0.0.1", 0)]),
                answer_process=answer,
            )
            await upper.start()
            try:
                yield f"127.0.0.1:{upper.ports[0]}", authority, upper
            finally:
                await upper.stop()


async def test_a_call_goes_through_with_who_asks_and_comes_back_whole(tmp_path: Path) -> None:
    site = Site()
    async with door(tmp_path, site) as (where, authority, _):
        other = Between(authority, tmp_path, clock)
        answers = await asyncio.gather(*(other.call("two", where, NODE, ASKED) for _ in range(5)))
        for answer in answers:
            assert (answer.status, answer.headers) == (200, [("content-type", "text/plain")])
            body = b"".join([part async for part in answer.body])
            assert len(body) == 300_003 and body.endswith(b"2")
        assert site.heard == [(NODE, ASKED)] * 5
        with pytest.raises(Unreachable, match=r"subcloud/else can't be reached: .*its link is down"):
            await other.call("two", where, subcloud("else"), ASKED)
        await other.close()


async def test_a_process_that_is_gone_is_told_and_found_again(tmp_path: Path) -> None:
    site = Site()
    other = None
    async with door(tmp_path, site) as (where, authority, upper):
        other = Between(authority, tmp_path, clock)
        await other.call("two", where, NODE, ASKED)
        site.hold.clear()
        waiting = asyncio.ensure_future(other.call("two", where, NODE, ASKED))
        while len(site.heard) < 2:  # noqa: ASYNC110 - a condition, within the test's deadline
            await asyncio.sleep(0.01)
        await upper.stop()
        with pytest.raises(Unreachable, match="ended"):
            await waiting
    with pytest.raises(
        Unreachable, match=r"its link is at two of this cloud, which can't be reached: .*refused"
    ):
        await other.call("two", where, NODE, ASKED)
    await other.close()


async def test_only_the_clouds_own_processes_come_in(tmp_path: Path) -> None:
    site = Site()
    async with door(tmp_path, site) as (where, authority, _):
        ca = authority.certificate_pem.decode()
        key = pki.new_key()
        node = authority.sign_node(pki.request(key), NODE, clock(), timedelta(days=1))
        administrator = authority.issue_user("admin", ["roost:administrators"], clock(), timedelta(days=1))
        former = authority.issue_process(clock() - timedelta(days=3), timedelta(days=1))
        stranger = pki.Authority.create("central", clock()).issue_process(clock(), timedelta(days=1))
        shown = {
            "a node": key + node,
            "a person": administrator.key + administrator.certificate,
            "one that is over": former.key + former.certificate,
            "another authority's": stranger.key + stranger.certificate,
        }
        for who, pem in shown.items():
            path = tmp_path / "shown.pem"
            write_private(path, pem)
            with pytest.raises(CannotConnect) as refused:
                connection = await sockets.connect(
                    where, sockets.verified_context(ca, path), sockets.PROCESS_PATH, within=5
                )
                await connection.receive()
            assert site.heard == [], (who, refused.value)
