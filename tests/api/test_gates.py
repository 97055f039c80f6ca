"""Slow bodies hold no place that others need: over real sockets, and however a body comes or stays away."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from roost.api import bodies, connection, gates, server
from roost.api.access import ADMINISTRATORS, PEER
from roost.api.addresses import origin
from roost.api.gates import LOGINS, SMALL, Gates
from roost.api.status import ApiError
from roost.store.store import Store
from tests.api.client import HOSTS, host
from tests.api.test_server import Served, Streams, ask, closed
from tests.support.certificates import Authority, Pair
from tests.support.clock import until

PATIENCE = 60.0


class Watched(Served):
    """A server whose gates can be looked at."""

    gates: Gates
    state: connection.State

    def inside(self) -> list[int]:
        """How many each gate has let through."""
        kept = self.gates
        return [gate.inside for gate in (kept.reads, kept.writes, kept.logins, kept.arriving)]

    async def post(self, client: Pair | None, path: str, length: int, body: bytes) -> Streams:
        """Begin a request whose body is `length` bytes, and send these of it."""
        streams = await self.connect(client)
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        streams[1].write(f"{head}content-length: {length}\r\n\r\n".encode() + body)
        return streams

    async def until_all_rests(self) -> None:
        """Until no request is left, and then nothing is held."""
        await until(lambda: not self.state.tasks, PATIENCE)
        assert self.inside() == [0, 0, 0, 0]


@pytest.fixture
async def watched(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    made = Watched(Authority(tmp_path), store)

    class Kept(Gates):
        def __init__(self, app: Any) -> None:
            super().__init__(app)
            made.gates = self

    class State(connection.State):
        def __init__(self) -> None:
            super().__init__()
            made.state = self

    monkeypatch.setattr(server, "Gates", Kept)
    monkeypatch.setattr(server, "State", State)
    await made.start()
    yield made
    made.stop.set()
    async with asyncio.timeout(PATIENCE):
        await made.task


async def answered(streams: Streams) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    async with asyncio.timeout(PATIENCE):
        head = await streams[0].readuntil(b"\r\n\r\n")
        length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.startswith(b"content-length"))
        return int(head.split()[1]), await streams[0].readexactly(length)


async def create(served: Watched, client: Pair, name: str, note: str = "") -> int:
    """Create a host on a connection of its own, and give the status."""
    raw = host(name)
    raw["metadata"]["annotations"] = {"note": note}
    body = json.dumps(raw).encode()
    streams = await served.post(client, HOSTS, len(body), body)
    status, _ = await answered(streams)
    streams[1].close()
    return status


async def leave(*many: Streams) -> None:
    for _, writer in many:
        writer.transport.abort()
    await asyncio.sleep(0)


async def test_bodies_that_do_not_come_keep_no_write_out(watched: Watched) -> None:
    each = gates.WRITES // 2
    slow = [
        await watched.post(pair, HOSTS, 500, b'{"kind":')
        for pair in (watched.authority.client(name, ADMINISTRATORS) for name in ("eve", "mal"))
        for _ in range(each)
    ]
    await until(lambda: len(watched.state.tasks) == 2 * each and not watched.gates.writes.inside, PATIENCE)
    begun = asyncio.get_running_loop().time()
    assert await create(watched, watched.admin(), "h1") == 201
    assert asyncio.get_running_loop().time() - begun < bodies.READING / 3
    # Nor are the slow ones refused: they may still come to their end.
    raw = json.dumps(host("h2")).encode()
    late = await watched.post(watched.authority.client("eve", ADMINISTRATORS), HOSTS, len(raw), raw[:9])
    late[1].write(raw[9:])
    assert (await answered(late))[0] == 201
    assert len(watched.state.tasks) == 2 * each
    await leave(*slow, late)
    await watched.until_all_rests()


async def test_logins_whose_bodies_do_not_come_keep_no_login_out(watched: Watched) -> None:
    slow = [await watched.post(None, "/login", 500, b"{") for _ in range(LOGINS + 8)]
    await until(lambda: len(watched.state.tasks) == len(slow) and not watched.gates.logins.inside, PATIENCE)
    body = b'{"name": "tom", "password": "wrong"}'
    streams = await watched.post(None, "/login", len(body), body)
    assert (await answered(streams))[0] == 401
    await leave(*slow, streams)
    await watched.until_all_rests()


async def test_large_bodies_on_their_way_are_bounded(watched: Watched) -> None:
    half, more = gates.ARRIVING // 2, 5
    eve = watched.authority.client("eve", ADMINISTRATORS)
    begin = b" " * (SMALL + 10_000)
    slow = [await watched.post(eve, HOSTS, 2 * SMALL, begin) for _ in range(half + more)]
    beginnings: list[Any] = [streams[0] for streams in slow]
    await until(lambda: sum(b" 429 " in bytes(reader._buffer) for reader in beginnings) == more, PATIENCE)
    await until(lambda: watched.inside() == [0, 0, 0, half], PATIENCE)
    assert await create(watched, watched.admin(), "h1", "x" * 2 * SMALL) == 201
    assert await create(watched, eve, "h2") == 201
    await leave(*slow)
    await watched.until_all_rests()


async def test_a_body_that_is_late_leaves_no_place_taken(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "READING", 0.2)
    for sent in (b"{", b" " * 2 * SMALL):
        streams = await watched.post(watched.admin(), HOSTS, 4 * SMALL, sent)
        assert (await answered(streams))[0] == 408
        await watched.until_all_rests()
        await leave(streams)


async def test_the_rest_of_a_body_that_nobody_waits_for_has_its_time_too(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BODY_WITHIN", 0.3)
    streams = await watched.post(None, HOSTS, 500, b"{")
    assert (await answered(streams))[0] == 401
    streams[1].write(b" ")
    assert await closed(streams)
    # One whose body is whole may stay.
    streams = await watched.post(None, HOSTS, 2, b"{}")
    assert (await answered(streams))[0] == 401
    assert await ask(streams, "/healthz") == (200, b"ok")
    assert not watched.state.tasks
    await leave(streams)


# -- without sockets


def scope_of(client: str, method: str = "POST", path: str = "/x") -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [],
        PEER: {"serialNumber": client},
    }


def part(size: int, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": b" " * size, "more_body": more}


async def test_the_place_is_taken_again_when_the_body_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """And refused then, when others have taken all meanwhile."""
    monkeypatch.setattr(gates, "WRITES", 2)
    go, came, codes = asyncio.Event(), asyncio.Event(), list[int]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    door = Gates(app)

    async def sent(message: Message) -> None:
        if "status" in message:
            codes.append(message["status"])

    async def slow() -> Message:
        await came.wait()
        return part(1, more=False)

    async def quick() -> Message:
        return part(1, more=False)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(door(scope_of("eve"), slow, sent))
        tasks.create_task(door(scope_of("eve"), quick, sent))
        await asyncio.sleep(0)
        assert door.writes.inside == 1 and not codes
        came.set()
        for _ in range(3):
            await asyncio.sleep(0)
        assert codes == [429] and door.writes.inside == 1
        go.set()
    assert codes == [429, 200] and door.writes.inside == 0


_SIZES = st.lists(st.sampled_from([0, 1, SMALL, SMALL + 1]), max_size=5)


@given(
    _SIZES,
    st.sampled_from(["end", "leave", "stay"]),
    st.integers(0, 7),
    st.sampled_from(["", "answer", "raise"]),
)
async def test_however_a_request_ends_nothing_is_held(
    sizes: Sequence[int], last: str, reads: int, then: str
) -> None:
    messages = [part(size) for size in sizes]
    endings: dict[str, list[Message]] = {
        "end": [part(3, more=False)],
        "leave": [{"type": "http.disconnect"}],
        "stay": [],
    }
    messages += endings[last]

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(reads):
            await receive()
            assert door.writes.inside + door.arriving.inside <= 1
        if then == "raise":
            raise ApiError(500, "broken")
        if then == "answer":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await receive()

    async def send(message: Message) -> None:
        pass

    door = Gates(app)
    task = asyncio.ensure_future(door(scope_of("eve"), receive, send))
    for _ in range(4):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not any(gate.inside for gate in (door.reads, door.writes, door.logins, door.arriving))


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("/run/socket", "/run/socket"),
        ("", ""),
    ],
)
def test_from_where_a_client_comes(host: str, counted: str) -> None:
    assert origin(host) == counted
