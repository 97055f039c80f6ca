"""The TLS listener: certificates, limits, reload, and a quick end. Real sockets, small deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from roost.api import connection, reading, saying, server
from roost.api.access import ADMINISTRATORS, CALLER
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.gates import LOGINS, Gate, Gates, _stays
from roost.api.status import ApiError
from roost.api.through import handler
from roost.link import exchange
from roost.store.errors import Compacted
from roost.store.store import Store
from tests.api.client import HOSTS, Client, host
from tests.support.certificates import Authority, Pair

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """A server and the means to talk to it byte by byte."""

    def __init__(self, authority: Authority, store: Store) -> None:
        self.authority, self.store = authority, store
        self.app = Api(ApiContext(store=store, cloud="central"))
        self.stop = asyncio.Event()
        self.pair = authority.server()
        self.task: asyncio.Task[None]
        self.ports: list[int] = []

    async def start(self, *sockets: socket.socket) -> None:
        ready: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(
            server.serve(
                self.app,
                certificate=self.pair.certificate,
                key=self.pair.key,
                client_ca=self.authority.path,
                stop=self.stop,
                sockets=sockets,
                host="127.0.0.1",
                ready=ready,
            )
        )
        self.ports = [port for _, port in await ready]

    async def connect(self, client: Pair | None = None, port: int = 0) -> Streams:
        context = ssl.create_default_context(cafile=str(self.authority.path))
        if client:
            context.load_cert_chain(client.certificate, client.key)
        return await asyncio.open_connection("127.0.0.1", port or self.ports[0], ssl=context)

    def admin(self) -> Pair:
        return self.authority.client("ada", ADMINISTRATORS)


@pytest.fixture
async def served(tmp_path: Path, store: Store) -> AsyncIterator[Served]:
    made = Served(Authority(tmp_path), store)
    await made.start()
    yield made
    made.stop.set()
    async with asyncio.timeout(10):
        await made.task


async def ask(streams: Streams, path: str, *headers: str) -> tuple[int, bytes]:
    """One request, and its whole answer."""
    reader, writer = streams
    writer.write("\r\n".join([f"GET {path} HTTP/1.1", "host: x", *headers, "", ""]).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split()[1])
    length = next((int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.startswith(b"content-length")), 0)
    return status, await reader.readexactly(length)


async def closed(streams: Streams) -> bool:
    """Whether the server hangs up."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(10):
            await streams[0].read()
    streams[1].close()
    return True


async def test_client_certificates(served: Served, tmp_path: Path) -> None:
    streams = await served.connect(served.admin())
    for _ in range(2):
        assert (await ask(streams, HOSTS))[0] == 200
    streams[1].close()
    anonymous = await served.connect()
    assert (await ask(anonymous, HOSTS))[0] == 401
    assert await ask(anonymous, "/healthz") == (200, b"ok")
    anonymous[1].close()


async def test_certificates_of_others_are_refused(served: Served, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stranger = Authority(elsewhere).client("ada", ADMINISTRATORS)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await ask(await served.connect(stranger), HOSTS)
    used_as_client = served.pair
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await ask(await served.connect(used_as_client), HOSTS)


async def test_old_tls_is_refused(served: Served) -> None:
    context = ssl.create_default_context(cafile=str(served.authority.path))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", served.ports[0], ssl=context)


async def test_headers_that_do_not_end(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADERS_WITHIN", 0.2)
    silent = await served.connect()
    slow = await served.connect()
    slow[1].write(b"GET /healthz HTTP/1.1\r\nhost: ")
    assert await closed(silent) and await closed(slow)
    again = await served.connect()
    assert (await ask(again, "/healthz"))[0] == 200
    again[1].write(b"GET /")
    assert await closed(again)


async def test_heads_that_are_too_large(served: Served) -> None:
    for headers in ([f"x-large: {'x' * 70_000}"], [f"x-{n}: y" for n in range(200)]):
        streams = await served.connect()
        status, body = await ask(streams, "/healthz", *headers)
        assert status == 431 and b"larger than" in body
        assert await closed(streams)
    streams = await served.connect(served.admin())
    status, body = await ask(streams, f"{HOSTS}?labelSelector={'a' * 20_000}")
    assert status == 414 and b'"kind":"Status"' in body
    streams[1].close()


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-endless: ",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-endless: ",
    ],
    ids=["header", "trailer"],
)
async def test_a_line_that_does_not_end_is_not_gathered(served: Served, begin: bytes) -> None:
    reader, writer = await served.connect()
    writer.write(begin)
    sent = 0
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(10):
            while sent < 64 * connection.LONGEST_HEAD and not reader.at_eof():
                writer.write(b"a" * 16_384)
                await writer.drain()
                await asyncio.sleep(0)
                sent += 16_384
    assert sent < 64 * connection.LONGEST_HEAD
    writer.close()


async def test_too_many_connections(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", 2)
    kept = [await served.connect(), await served.connect()]
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        assert await closed(await served.connect())
    assert (await ask(kept[0], "/healthz"))[0] == 200
    kept[0][1].close()
    kept[1][1].close()


async def test_an_answer_that_is_not_read(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD_FOR", 0.2)
    client = Client(served.app)
    note = {"metadata": {"annotations": {"note": "x" * 200_000}}}
    await client.post(HOSTS, host("h1"))
    (await client.merge(f"{HOSTS}/h1", note)).ok()
    raw = socket.create_connection(("127.0.0.1", served.ports[0]))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    context = ssl.create_default_context(cafile=str(served.authority.path))
    pair = served.admin()
    context.load_cert_chain(pair.certificate, pair.key)
    streams = await asyncio.open_connection(sock=raw, ssl=context, server_hostname="localhost", limit=1024)
    request = f"GET {HOSTS}?watch=true HTTP/1.1\r\nhost: x\r\n\r\n"
    streams[1].write(request.encode())
    transport: Any = streams[1].transport
    await streams[0].readuntil(b"\r\n\r\n")
    transport.pause_reading()
    async with asyncio.timeout(30):
        while served_connections(served):
            await client.merge(f"{HOSTS}/h1", {"spec": {"location": os.urandom(4).hex()}})
    transport.abort()


def served_connections(served: Served) -> int:
    """Connections with a request in flight, as the event loop knows them."""
    return sum(1 for t in asyncio.all_tasks() if "run_asgi" in repr(t.get_coro()))


async def test_certificates_are_read_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serial() -> str:
        _, writer = await served.connect()
        peer = writer.get_extra_info("ssl_object").getpeercert()
        writer.close()
        return str(peer["serialNumber"])

    monkeypatch.setattr(server, "CERTIFICATES_EVERY", 0.05)
    served.stop.set()
    await served.task
    served.stop.clear()
    await served.start()
    before = await serial()
    served.pair.key.write_text("half-written")
    served.authority.server()
    async with asyncio.timeout(20):
        while await serial() == before:
            pass


async def test_it_ends_within_its_grace(served: Served) -> None:
    streams = await served.connect(served.admin())
    idle = await served.connect(served.admin())
    streams[1].write(f"GET {HOSTS}?watch=true HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    await streams[0].readuntil(b"\r\n\r\n")
    served.stop.set()
    async with asyncio.timeout(server.GRACE + 2):
        rest = await streams[0].read()
        await served.task
    assert rest == b"0\r\n\r\n"
    assert await closed(idle)
    streams[1].close()


async def test_several_and_inherited_listeners(tmp_path: Path, store: Store) -> None:
    made = Served(Authority(tmp_path), store)
    first = socket.create_server(("127.0.0.1", 0))
    inherited = server.inherited(os.dup(first.fileno()))
    first.close()
    await made.start(inherited, socket.create_server(("127.0.0.1", 0)))
    assert len(set(made.ports)) == 2
    for port in made.ports:
        streams = await made.connect(port=port)
        assert (await ask(streams, "/livez"))[0] == 200
        streams[1].close()
    made.stop.set()
    await made.task


def test_listeners_for_a_name() -> None:
    for listener in (*server.bind("localhost", 0), *server.bind("", 0)):
        assert listener.getsockname()[1]
        listener.close()


async def test_calls_through_a_link_end_early_and_tell_failures(store: Store) -> None:
    app = Api(ApiContext(store=store, cloud="central"))
    caller = exchange.Caller("ada", [ADMINISTRATORS])

    def request(path: str) -> exchange.Request:
        return exchange.Request(method="GET", path=path, headers=[], body=b"", caller=caller)

    before = set[asyncio.Task[Any]]()
    for _ in range(2):
        # The first watch begins what looks after all of them; the second leaves nothing more behind.
        before = asyncio.all_tasks()
        watch = await handler(app)(request(f"{HOSTS}?watch=true"))
        assert watch.status == 200
        await watch.body.aclose()  # type: ignore[attr-defined]
        assert [part async for part in watch.body] == []
    assert asyncio.all_tasks() == before

    async def breaks(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await handler(breaks)(request("/"))


async def test_the_way_to_subclouds(store: Store) -> None:
    sent: list[exchange.Request] = []

    async def body() -> AsyncIterator[bytes]:
        yield b"one,"
        yield b"two"

    async def call(cloud: str, request: exchange.Request) -> exchange.Response:
        if cloud == "lost":
            raise exchange.Unreachable(cloud, "its link is down since 12:00")
        sent.append(request)
        return exchange.Response(200, [("content-type", "text/plain"), ("connection", "close")], body())

    client = Client(Api(ApiContext(store=store, cloud="central", call_cloud=call)))
    (await client.get("/clouds/lost/apis")).refused(404, "cloud central has no subcloud lost")
    lost = {"metadata": {"name": "lost"}}
    assert (await client.send("POST", "/apis/roost.edge/v1/subclouds", lost)).status == 201
    answer = await client.send("POST", "/clouds/harbor/apis/x?a=b%20c", {"d": 1}, accept="text/plain")
    assert (answer.status, answer.body) == (200, b"one,two") and "connection" not in answer.headers
    assert sent[0].path == "/apis/x?a=b%20c" and sent[0].body == b'{"d":1}' and sent[0].method == "POST"
    assert dict(sent[0].headers)["accept"] == "text/plain" and "authorization" not in dict(sent[0].headers)
    assert sent[0].caller.name == "ada" and ADMINISTRATORS in sent[0].caller.groups
    refused = (await client.get("/clouds/lost/apis")).refused(
        503, "cloud lost can't be reached: its link is down since 12:00", "try again when"
    )
    assert refused["details"]["name"] == "lost"
    await client.get("/clouds/harbor")
    assert sent[-1].path == "/"
    for name in ("..", "%00", "a%2fb", "a" * 64, "A"):
        (await client.get(f"/clouds/{name}/apis")).refused(404, "can't be the name of a cloud")


async def test_a_link_that_is_lost_under_an_answer_ends_the_connection_and_is_no_fault(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches a subcloud through here sees half an answer as such; the log has no traceback."""
    ended: list[str] = []

    class Body:
        pieces = [b'{"type":"ADDED"}\n']

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            if self.pieces:
                return self.pieces.pop()
            raise exchange.Unreachable("subcloud/harbor", "the connection was lost")

        async def aclose(self) -> None:
            ended.append("harbor")

    async def call(cloud: str, request: exchange.Request) -> exchange.Response:
        return exchange.Response(200, [("content-type", "application/json")], Body())

    saying.said.forget()
    context = ApiContext(store=served.store, cloud="central", call_cloud=call)
    monkeypatch.setattr(served.app, "_context", context)
    reader, writer = await served.connect(served.admin())
    writer.write(b"GET /clouds/harbor/apis/roost.edge/v1/hosts?watch=true HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ") and b'{"type":"ADDED"}' in answer, answer
    assert not answer.endswith(b"0\r\n\r\n"), "it looks like a whole answer"
    assert ended == ["harbor"]
    assert not [r for r in caplog.records if r.exc_info or r.levelname == "ERROR"], caplog.text


async def test_a_client_that_leaves_before_the_body_ends_the_call_to_the_subcloud(store: Store) -> None:
    ended: list[str] = []

    class Body:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            await asyncio.Event().wait()
            raise StopAsyncIteration

        async def aclose(self) -> None:
            ended.append("harbor")

    async def call(cloud: str, request: exchange.Request) -> exchange.Response:
        value = "\u2026" if request.path == "/odd" else "text/plain"
        return exchange.Response(200, [("content-type", value)], Body())

    app = Api(ApiContext(store=store, cloud="central", call_cloud=call))

    async def ask(path: str) -> None:
        async def gone(message: object) -> None:
            raise OSError("the client is gone")

        came = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, object]:
            if not came:
                await asyncio.Event().wait()
            return came.pop()

        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/clouds/harbor{path}",
            "raw_path": f"/clouds/harbor{path}".encode(),
            "query_string": b"",
            "headers": [],
            CALLER: exchange.Caller("ada", [ADMINISTRATORS]),
        }
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                await app(scope, receive, gone)

    await ask("/apis")
    assert ended == ["harbor"]
    await ask("/odd")
    assert ended == ["harbor", "harbor"]


async def test_a_small_answer_leaves_in_one_piece(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    plain = connection.Writer.release

    def release(self: connection.Writer) -> None:
        if self._held:
            written.append(b"".join(self._held))
        plain(self)

    monkeypatch.setattr(connection.Writer, "release", release)
    streams = await served.connect()
    assert await ask(streams, "/healthz") == (200, b"ok")
    (whole,) = written
    assert whole.startswith(b"HTTP/1.1 200") and whole.endswith(b"\r\n\r\nok")
    streams[1].close()


async def head_of(streams: Streams, path: str) -> bytes:
    """Send a request and read the head of its answer alone."""
    streams[1].write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    async with asyncio.timeout(10):
        return await streams[0].readuntil(b"\r\n\r\n")


async def test_the_head_of_a_watch_does_not_wait_for_its_first_event(served: Served) -> None:
    streams = await served.connect(served.admin())
    head = await head_of(streams, f"{HOSTS}?watch=1&resourceVersion={served.store.revision}")
    assert head.startswith(b"HTTP/1.1 200") and b"chunked" in head
    streams[1].close()


async def test_watches_end_properly_when_the_server_stops(served: Served) -> None:
    """Each client reads the end of its answer, and then that of its connection; none is broken off."""
    before = served.store.revision
    many = [await served.connect(served.admin()) for _ in range(20)]
    for streams in many:
        path = f"{HOSTS}?watch=1&resourceVersion={before}&allowWatchBookmarks=1"
        assert (await head_of(streams, path)).startswith(b"HTTP/1.1 200")
    idle = await served.connect()
    assert (await ask(idle, "/healthz"))[0] == 200
    await Client(served.app).post(HOSTS, host("h1"))
    served.stop.set()
    async with asyncio.timeout(20):
        for streams in many:
            rest = await streams[0].read()
            assert rest.count(b'"ADDED"') == 1 and rest.endswith(b"0\r\n\r\n")
        assert await idle[0].read() == b""
        await served.task
    for streams in (*many, idle):
        streams[1].close()
    with pytest.raises(OSError):
        await served.connect()


async def test_a_client_goes_on_at_the_next_server(served: Served) -> None:
    """The last revision that the first server told is where the next one begins."""
    streams = await served.connect(served.admin())
    path = f"{HOSTS}?watch=1&allowWatchBookmarks=1&resourceVersion="
    await head_of(streams, path + str(served.store.revision))
    await Client(served.app).post("/apis/roost.edge/v1/users", {"metadata": {"name": "u"}})
    served.stop.set()
    async with asyncio.timeout(20):
        rest = await streams[0].read()
        await served.task
    (line,) = [json.loads(part) for part in rest.split(b"\r\n") if part.startswith(b"{")]
    assert line["type"] == "BOOKMARK"
    told = line["object"]["metadata"]["resourceVersion"]
    assert told == str(served.store.revision)
    again = Served(served.authority, served.store)
    await again.start()
    await Client(again.app).post(HOSTS, host("h2"))
    streams = await again.connect(again.admin())
    await head_of(streams, path + told)
    async with asyncio.timeout(20):
        assert b'"name":"h2"' in await streams[0].readuntil(b"\n\r\n")
    streams[1].close()
    again.stop.set()
    await again.task


async def test_a_list_longer_than_a_slice_over_a_socket(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SLICE", 3000)
    monkeypatch.setattr(reading, "FIRST_ROWS", 4)
    client = Client(served.app)
    for n in range(30):
        body = host(f"h{n:02}")
        body["metadata"]["annotations"] = {"note": "x" * 500}
        await client.post(HOSTS, body)
    for headers, open_ in (((), bytes), (("accept-encoding: gzip",), gzip.decompress)):
        streams = await served.connect(served.admin())
        asked = "\r\n".join([f"GET {HOSTS} HTTP/1.1", "host: x", "connection: close", *headers, "", ""])
        streams[1].write(asked.encode())
        async with asyncio.timeout(20):
            head, _, rest = (await streams[0].read()).partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head and (b"content-encoding: gzip" in head) is bool(headers)
        pieces = dechunked(rest)
        assert len(pieces) > 1
        found = json.loads(open_(b"".join(pieces)))
        assert [i["metadata"]["name"] for i in found["items"]] == [f"h{n:02}" for n in range(30)]
        streams[1].close()


async def test_half_a_list_does_not_look_like_a_whole_one(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SLICE", 1)
    monkeypatch.setattr(reading, "FIRST_ROWS", 1)
    client = Client(served.app)
    for n in range(5):
        await client.post(HOSTS, host(f"h{n}"))

    def fails(self: reading.Listing, tx: object) -> bytes:
        raise Compacted(1, 9)

    monkeypatch.setattr(reading.Listing, "more", fails)
    streams = await served.connect(served.admin())
    assert (await head_of(streams, HOSTS)).startswith(b"HTTP/1.1 200")
    async with asyncio.timeout(20):
        rest = await streams[0].read()
    assert b'"items":[' in rest and not rest.endswith(b"0\r\n\r\n")
    streams[1].close()


def dechunked(body: bytes) -> list[bytes]:
    """The pieces of a chunked body; it must be whole."""
    pieces = list[bytes]()
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            assert body == b"\r\n"
            return pieces
        pieces.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]


async def test_one_address_gets_its_share_of_connections(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS_OF_ONE_ADDRESS", 2)
    two = [await served.connect() for _ in range(2)]
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await ask(await served.connect(), "/healthz")
    two.pop()[1].close()
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
                streams = await served.connect()
                assert (await ask(streams, "/healthz"))[0] == 200
                break
    streams[1].close()
    two.pop()[1].close()


async def test_what_clients_provoke_is_logged_once(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    saying.said.forget()
    for _ in range(5):
        streams = await served.connect()
        streams[1].write(b"nonsense\r\n\r\n")
        assert b"400" in await streams[0].read()
        streams[1].close()
    assert [r.message for r in caplog.records].count("Invalid HTTP request received.") == 1


def test_a_text_is_said_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("roost.api.saying.time.monotonic", lambda: now[0])
    said = saying.OncePerMinute()
    assert said.first("a") and not said.first("a") and said.first("b")
    now[0] += saying.SAY_AGAIN_AFTER
    assert said.first("a")
    for n in range(2 * said.MOST):
        said.first(str(n))
    assert len(said._said) <= said.MOST


async def test_requests_beyond_what_can_be_worked_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go = asyncio.Semaphore(0), asyncio.Event()
    plain = served.app.__call__

    async def slow(self: object, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == HOSTS:
            inside.release()
            await go.wait()
        await plain(scope, receive, send)

    monkeypatch.setattr(type(served.app), "__call__", slow)
    monkeypatch.setattr("roost.api.gates.READS", 4)
    again = Served(served.authority, served.store)
    again.app = served.app
    await again.start()
    mine, other = again.admin(), again.authority.client("eve", ADMINISTRATORS)
    running = [asyncio.ensure_future(ask(await again.connect(mine), HOSTS)) for _ in range(2)]
    async with asyncio.timeout(10):
        for _ in running:
            await inside.acquire()
    third = await again.connect(mine)
    head = await head_of(third, HOSTS)
    assert head.startswith(b"HTTP/1.1 429") and b"retry-after: 1" in head.lower()
    running.append(asyncio.ensure_future(ask(await again.connect(other), HOSTS)))
    async with asyncio.timeout(10):
        await inside.acquire()
    go.set()
    assert [status for status, _ in await asyncio.gather(*running)] == [200, 200, 200]
    third[1].close()
    again.stop.set()
    await again.task


def test_a_gate_counts() -> None:
    gate = Gate(4, "reads")
    with contextlib.ExitStack() as stack:
        for client in ("a", "a", "b", "c"):
            stack.enter_context(gate.passing(client))
        for client in ("a", "d"):
            with pytest.raises(ApiError) as raised, gate.passing(client):
                pass
            assert raised.value.code == 429 and raised.value.headers["Retry-After"]
    with gate.passing("a"), gate.passing("a"), pytest.raises(ApiError), gate.passing("a"):
        pass
    assert not gate._of and gate._inside == 0


async def test_logins_that_do_not_arrive_keep_no_write_out(client: Client) -> None:
    inside, go = asyncio.Semaphore(0), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/login":
            inside.release()
            await go.wait()
        await client.app(scope, receive, send)

    both = Client(Gates(app))
    waiting = [asyncio.ensure_future(both.post("/login", {})) for _ in range(LOGINS // 2)]
    async with asyncio.timeout(10):
        for _ in waiting:
            await inside.acquire()
    (await both.post("/login", {})).refused(429, "too many logins")
    (await both.post(HOSTS, host("h1"))).ok(201)
    go.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [400] * len(waiting)


def test_only_what_goes_on_is_bounded_elsewhere() -> None:
    assert _stays(b"watch=true") and _stays(b"limit=1&watch=1") and _stays(b"follow=t")
    assert _stays(b"w%61tch=true") and not _stays(b"a=%20")
    assert not _stays(b"watch=false") and not _stays(b"rewatch=1") and not _stays(b"labelSelector=watch%3D1")


async def test_what_comes_while_it_stops(client: Client) -> None:
    gates = Gates(client.app)
    assert (await Client(gates).get(HOSTS)).status == 200
    gates.stopping = True
    answer = await Client(gates).get(HOSTS)
    answer.refused(503, "stopping")
    assert answer.headers["retry-after"] == "1" and answer.headers["connection"] == "close"
