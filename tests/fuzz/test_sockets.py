"""Bytes that are no requests, and clients that behave badly: the server goes on serving the others."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import examples
from tests.fuzz.promises import keeps, logged
from tests.fuzz.serving import ADMINISTRATOR, Server
from tests.fuzz.wire import PATIENCE, Asked

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
_SHOWN = b"Authorization: Bearer " + ADMINISTRATOR.encode() + b"\r\n"
_MAPS = b" /api/v1/namespaces/central/configmaps HTTP/1.1\r\nHost: x\r\n" + _SHOWN
_JSON = b"Content-Type: application/json\r\n"
QUIET = 0.1
"""Seconds without a byte after which no answer is waited for."""
RUDE: tuple[bytes, ...] = (
    b"",
    b"\r\n\r\n",
    b"GET",
    b"GET /",
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\nHost",
    b"GET / HTTP/0.9\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET // HTTP/1.1\r\n\r\n",
    b"GET ?x HTTP/1.1\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST" + _MAPS + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    b"POST" + _MAPS + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST" + _MAPS + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST" + _MAPS + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"POST" + _MAPS + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    b"POST" + _MAPS + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n",
    b"POST" + _MAPS + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 70_000,
    b"POST" + _MAPS + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST" + _MAPS + b"Transfer-Encoding: identity\r\n\r\n{}",
    b"POST" + _MAPS + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    b"POST" + _MAPS + _JSON + b"Content-Length: 100\r\n\r\n{",
    b"POST" + _MAPS + _JSON + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x00\xff\x00",
    b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n" + b"x" * 100,
    b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n" + GET * 5,
    b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000,
    b"GET / HTTP/1.1\r\nx: " + b"y" * 200_000,
    b"GET /" + b"a" * 200_000,
    b" " * 100_000,
    b"\x00" * 1000,
    b"\x16\x03\x01\x02\x00\x01\x00",
    GET * 2000,
    GET + b"garbage\r\n\r\n",
    GET + b"\x00" + GET,
    b"GET" + _MAPS.replace(b" HTTP", b"?watch=true HTTP") + b"\r\nnonsense\r\n\r\n",
)


@contextlib.contextmanager
def others_are_served(server: Server) -> Iterator[None]:
    """Whoever behaves is answered meanwhile and afterwards."""
    server.alive()
    yield
    server.alive()


def dribbled(connected: ssl.SSLSocket, data: bytes, sizes: list[int]) -> None:
    """Send in pieces; a server that hangs up may do so."""
    with contextlib.suppress(OSError):
        for size in sizes:
            connected.sendall(data[:size])
            data = data[size:]
        connected.sendall(data)


def heard(connected: ssl.SSLSocket) -> bytes:
    """All that comes until the server hangs up, or within the connection's timeout."""
    found = b""
    with contextlib.suppress(TimeoutError, ConnectionError, ssl.SSLError):
        while len(found) < 10_000_000 and (part := connected.recv(65536)):
            found += part
    return found


def rude(server: Server, data: bytes, sizes: list[int]) -> None:
    """Send it, half close, and listen to the end."""
    with server.line("") as line:
        connected = line.open()
        dribbled(connected, data, sizes)
        server.alive()
        # It may answer, or wait for more; then we end our half, and it must end the other.
        connected.settimeout(QUIET)
        said = heard(connected)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connected, socket.SHUT_WR)
        connected.settimeout(PATIENCE)
        said += heard(connected)
    for answer in said.split(b"HTTP/1.1 ")[1:]:
        assert not answer.startswith(b"5") or answer.startswith((b"501", b"503")), answer[:500]
    server.asked += 1
    server.alive()


@pytest.mark.parametrize("data", RUDE, ids=lambda data: repr(data[:30]))
def test_what_is_no_request(server: Server, data: bytes) -> None:
    rude(server, data, [])


def test_pieces_of_any_size_and_place(server: Server) -> None:
    whole = st.sampled_from([*RUDE, b"POST" + _MAPS + _JSON + b"Content-Length: 2\r\n\r\n{}" + GET])
    sizes = st.lists(st.integers(1, 60), max_size=4)

    @settings(
        max_examples=examples(60), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(whole, st.integers(0, 400), st.binary(max_size=4), sizes)
    def search(data: bytes, at: int, put: bytes, sizes: list[int]) -> None:
        rude(server, data[:at] + put + data[at + len(put) // 2 :], sizes)

    search()


def test_what_is_no_http_is_refused_as_anything_else(server: Server) -> None:
    for data, code in ((b"nonsense\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431)):
        with server.line("") as line:
            line.open().sendall(data)
            refused = line.read("GET")
        assert refused.code == code
        keeps(Asked("GET", "/"), refused)


def test_what_follows_a_request_takes_no_answer_from_it(server: Server) -> None:
    """A request gets its answer whatever comes after it, and what comes after it no answer before that."""
    with server.line() as line:
        connected = line.open()
        connected.sendall(b"POST" + _MAPS + _JSON + b"Content-Length: 2\r\n\r\n{}nonsense\r\n\r\n")
        answer = line.read("POST")
        assert answer.code == 422 and b"name" in answer.body


def test_a_slow_body_holds_up_nobody(server: Server) -> None:
    with contextlib.ExitStack() as open_:
        for _ in range(40):
            line = open_.enter_context(server.line())
            line.open().sendall(b"POST" + _MAPS + _JSON + b"Content-Length: 1000000\r\n\r\n{")
        for _ in range(20):
            server.alive()
            assert server.administer("GET", "/api/v1/namespaces/central/configmaps").code == 200


def test_clients_that_leave_at_once_leave_nothing(server: Server) -> None:
    def leave(target: str, *, reset: bool) -> None:
        with server.line() as line:
            connected = line.open()
            connected.sendall(Asked("GET", target, line.headers).octets)
            if reset:
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    def many() -> int:
        for n in range(150):
            leave("/apis/roost.edge/v1/hosts?watch=true", reset=n % 2 == 0)
            leave("/openapi/v2", reset=n % 2 == 1)
            leave("/audit?follow=true", reset=n % 3 == 0)
            server.asked += 3
        server.alive()
        return server.memory

    many()
    before = many()
    assert many() - before < 16 * 1024 * 1024


def test_a_handshake_of_garbage(server: Server) -> None:
    def greet(data: bytes) -> None:
        with others_are_served(server), socket.create_connection(("127.0.0.1", server.port), 30) as plain:
            plain.sendall(data)
            plain.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while plain.recv(65536):
                    pass

    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500)
    many: tuple[Callable[[], bytes], ...] = (lambda: GET, lambda: hello, lambda: os.urandom(300), lambda: b"")
    for make in many * examples(5):
        greet(make())


def test_the_log_stays_clean(server: Server) -> None:
    logged(server)
