"""Answers that are not read: what they hold is bounded, and who takes nothing is cut off. Real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from roost.api import connection, outgoing, reading, saying, through
from roost.api.access import ADMINISTRATORS
from roost.api.outgoing import Outgoing
from roost.link import exchange
from roost.model.host import Host
from roost.model.meta import Metadata
from tests.api.client import HOSTS
from tests.api.test_gates import PATIENCE, Watched, leave
from tests.api.test_gates import watched as watched
from tests.api.test_server import Streams, ask
from tests.support.certificates import Pair
from tests.support.clock import until

LARGE = 1024 * 1024
COUNT = 6


@pytest.fixture(autouse=True)
async def large_hosts(watched: Watched) -> None:
    """Some objects of a megabyte."""
    saying.said.forget()
    for n in range(COUNT):
        large = Metadata(name=f"h{n}", namespace="central", annotations={"note": "x" * LARGE})
        await watched.store.save(Host(metadata=large))


async def stalled(served: Watched, client: Pair, path: str, *headers: str) -> Streams:
    """Ask, and read no more than the head of the answer."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", served.ports[0]))
    context = ssl.create_default_context(cafile=str(served.authority.path))
    context.load_cert_chain(client.certificate, client.key)
    streams = await asyncio.open_connection(sock=raw, ssl=context, server_hostname="localhost", limit=1024)
    streams[1].write("\r\n".join([f"GET {path} HTTP/1.1", "host: x", *headers, "", ""]).encode())
    async with asyncio.timeout(PATIENCE):
        assert (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    transport: Any = streams[1].transport
    with contextlib.suppress(RuntimeError):
        transport.pause_reading()
    return streams


@pytest.mark.parametrize("path", [f"{HOSTS}/h0", f"{HOSTS}?limit={COUNT}", HOSTS, f"{HOSTS}?watch=1"])
async def test_unread_answers_together_hold_no_more_than_may_be(watched: Watched, path: str) -> None:
    most, many = 12 * LARGE, 15
    watched.state.outgoing = Outgoing(most)
    eve = watched.authority.client("eve", ADMINISTRATORS)
    ada = watched.admin()
    kept = []
    with capture_logs() as logs:
        for _ in range(many):
            kept.append(await stalled(watched, eve, path))
            assert watched.state.outgoing.bytes <= most
        assert watched.state.outgoing.bytes > most / 8
        # Who reads gets all of it, whatever others leave unread.
        status, whole = await ask(await watched.connect(ada), f"{HOSTS}?limit=3")
        assert status == 200 and len(json.loads(whole)["items"]) == 3
        assert watched.state.outgoing.bytes <= most
        await until(lambda: len(watched.state.tasks) == many - watched.state.cut_off, PATIENCE)
    assert watched.state.cut_off > 0
    told = [line for line in logs if line["event"] == "reader cut off"]
    assert len(told) == 1 and "memory" in told[0]["reason"] and told[0]["address"] == "127.0.0.1"
    held = [c.transport.get_write_buffer_size() for c in watched.state.connections]
    assert max(held) <= 4 * connection.PART
    await leave(*kept)
    await watched.until_all_rests()
    assert watched.state.outgoing.bytes == 0


@pytest.mark.parametrize("path", [f"{HOSTS}/h0", f"{HOSTS}?limit={COUNT}", HOSTS, f"{HOSTS}?watch=1"])
async def test_who_takes_nothing_is_cut_off_and_that_is_told(
    watched: Watched, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "UNREAD_FOR", 0.3)
    with capture_logs() as logs:
        kept = await stalled(watched, watched.admin(), path)
        assert watched.state.tasks
        await until(lambda: watched.state.cut_off == 1, PATIENCE)
    assert [line["reason"] for line in logs if line["event"] == "reader cut off"] == [
        "it has taken nothing for 0.3 seconds"
    ]
    await watched.until_all_rests()
    await until(lambda: not watched.state.connections, PATIENCE)
    assert watched.state.outgoing.bytes == 0 and not reading._long.of and reading._long.on_their_way == 0
    await leave(kept)


async def test_who_reads_late_gets_the_whole_also_when_the_connection_ends_with_it(watched: Watched) -> None:
    path = f"{HOSTS}?limit={COUNT}"
    streams = await stalled(watched, watched.admin(), path, "connection: close")
    await until(lambda: watched.state.outgoing.bytes > COUNT * LARGE, PATIENCE)
    assert watched.gates.reads.inside == 1
    transport: Any = streams[1].transport
    transport.resume_reading()
    async with asyncio.timeout(PATIENCE):
        whole = json.loads(await streams[0].read())
    assert len(whole["items"]) == COUNT
    await watched.until_all_rests()
    streams[1].close()


async def test_answers_through_a_link_that_are_not_read_are_bounded(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(through, "MOST", 3 * LARGE)
    ask_below = through.handler(watched.app)

    def request(user: str) -> exchange.Request:
        caller = exchange.Caller(user, [ADMINISTRATORS])
        return exchange.Request(method="GET", path=f"{HOSTS}/h0", headers=[], body=b"", caller=caller)

    before = asyncio.all_tasks()
    with capture_logs() as logs:
        unread = [await ask_below(request("eve")) for _ in range(4)]
        read = [part async for part in (await ask_below(request("ada"))).body]
    assert json.loads(b"".join(read))["metadata"]["name"] == "h0"
    assert max(map(len, read)) <= through.QUEUED
    with pytest.raises(exchange.Unreachable, match="was not read"):
        async for _ in unread[0].body:
            pass
    assert [line["user"] for line in logs if line["event"] == "call broken off"] == ["eve"]
    last = [part async for part in unread[-1].body]
    assert len(json.loads(b"".join(last))["metadata"]["annotations"]["note"]) == LARGE
    for answer in unread:
        await answer.aclose()
    assert asyncio.all_tasks() == before


# -- the decision


def test_the_slowest_of_the_client_that_holds_most_is_cut_off() -> None:
    waiting = Outgoing[str](100)
    assert waiting.add("eve 1", "eve", 40, 0.1) == []
    assert waiting.add("ada", "ada", 20, 0.0) == []
    assert waiting.add("eve 2", "eve", 40, 0.2) == []
    waiting.moved("eve 1", 0.3)
    assert waiting.add("bob", "bob", 10, 0.4) == ["eve 2"]
    assert waiting.bytes == 70
    assert waiting.add("bob 2", "bob", 101, 0.5) == ["bob", "bob 2"]
    waiting.remove("bob 2")
    waiting.moved("bob 2", 0.6)
    assert waiting.bytes == 60


def test_who_has_taken_nothing_for_a_while_is_cut_off_first() -> None:
    waiting = Outgoing[str](100)
    waiting.add("eve", "eve", 10, 0.0)
    waiting.add("ada 1", "ada", 50, 0.1)
    waiting.add("ada 2", "ada", 40, 0.2)
    waiting.moved("ada 1", outgoing.STALLED)
    waiting.moved("ada 2", outgoing.STALLED)
    assert waiting.add("bob", "bob", 10, outgoing.STALLED) == ["eve"]
    assert waiting.add("bob 2", "bob", 10, outgoing.STALLED) == ["ada 1"]


_STEPS = st.tuples(st.sampled_from("adr"), st.integers(0, 9), st.integers(0, 60))


@given(st.lists(_STEPS, max_size=60))
def test_what_is_held_is_counted_and_bounded(steps: list[tuple[str, int, int]]) -> None:
    waiting, held = Outgoing[int](100), dict[int, int]()
    for now, (what, reader, size) in enumerate(steps):
        match what:
            case "a":
                held[reader] = size
                for cut in waiting.add(reader, f"client {reader % 3}", size, float(now)):
                    del held[cut]
            case "d":
                waiting.remove(reader)
                held.pop(reader, None)
            case "r":
                waiting.moved(reader, float(now))
        assert waiting.bytes == sum(held.values()) <= 100
    assert outgoing.MOST >= reading.LARGEST_PAGE
