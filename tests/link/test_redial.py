"""The lower end dials on, whatever is wrong at the other: each stage has its deadline and says what it was.

Real sockets; what the network swallows is a listening socket whose queue is full."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from roost.link import identity, pki
from roost.link.dialing import NotReached, open_socket, resolve
from roost.link.lower import Backoff, LowerLink, Patience, TlsDialer
from tests.link.test_tls import BACKOFF, HARBOR, TIMING, Site, clock, until

WITHIN = 60.0


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def swallowing() -> Iterator[int]:
    """A port on which a SYN is not answered: the queue of the socket that listens there is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port: int = listening.getsockname()[1]
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        yield port
        for one in waiting:
            one.close()


async def dialling(site: Site, endpoint: str, *more: str, dial_within: float = 1.0) -> LowerLink:
    """A lower end whose endpoints are these."""
    directory = site.path / "harbor"
    known = identity.load(directory)
    identity.save(
        directory,
        node=HARBOR,
        upper="central",
        endpoints=[endpoint, *more],
        authority=(directory / identity.AUTHORITY_FILE).read_bytes(),
        key=_part(directory, "KEY"),
        certificate=_part(directory, "CERTIFICATE"),
        now=clock(),
    )
    assert known.node == str(HARBOR)
    link = LowerLink(
        await site.open("redialling"),
        TlsDialer(directory, clock=clock, dial_within=dial_within),
        node=HARBOR,
        clock=clock,
        timing=TIMING,
        backoff=BACKOFF,
    )
    site.lowers.append(link)
    link.start()
    return link


def _part(directory: Path, what: str) -> bytes:
    pem = (directory / identity.NODE_FILE).read_bytes()
    at = pem.index(b"-----BEGIN CERTIFICATE-----")
    return pem[:at] if what == "KEY" else pem[at:]


async def goes_on(link: LowerLink, reason: str) -> None:
    """It says why, when it dials next, and dials again."""
    await until(lambda: reason in link.state.error, WITHIN)
    assert link.state.next_dial is not None and not link.state.connected
    planned = link.state.next_dial
    await until(lambda: link.state.next_dial is not None and link.state.next_dial > planned, WITHIN)
    assert not any(task.done() for task in link._tasks[1:2])


async def test_a_connection_that_is_swallowed(site: Site, swallowing: int) -> None:
    await site.start()
    await site.enrol(await site.token())
    link = await dialling(site, f"127.0.0.1:{swallowing}")
    await goes_on(link, "no connection within 0.5 s: what is sent there is not answered")


async def test_an_endpoint_that_says_nothing(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = await dialling(site, f"127.0.0.1:{silent.getsockname()[1]}")
        await goes_on(link, "it took the connection, and said nothing to the end of 1 s")
        await link.stop()


async def test_an_endpoint_with_a_stranger_s_certificate(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    strange = Site(site.path / "strange")
    strange.path.mkdir(exist_ok=True)
    strange.authority = pki.Authority.open(strange.path / "ca", "central", clock())
    try:
        upper = await strange.start()
        link = await dialling(site, f"127.0.0.1:{upper.ports[0]}", dial_within=10)
        await goes_on(link, "no certificate of the cloud this node was enrolled with")
    finally:
        await strange.close()


async def test_an_endpoint_that_is_no_link(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello\n" * 100)
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    async with server:
        link = await dialling(site, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await goes_on(link, "127.0.0.1")
        await link.stop()


async def test_a_swallowing_endpoint_does_not_hide_the_next(site: Site, swallowing: int) -> None:
    await site.start()
    await site.enrol(await site.token())
    link = await dialling(site, f"127.0.0.1:{swallowing}", site.endpoint, dial_within=2)
    await until(lambda: link.state.connected, WITHIN)


async def test_a_name_that_hangs_holds_up_nothing_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    release, real, began = threading.Event(), socket.getaddrinfo, 0

    def hanging(host: Any, *given: Any, **named: Any) -> Any:
        nonlocal began
        if host == "centre.example" and not named.get("flags", 0) & socket.AI_NUMERICHOST:
            began += 1
            release.wait(WITHIN)
        return real("127.0.0.1" if host == "centre.example" and release.is_set() else host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    await site.start()
    await site.enrol(await site.token())
    port = site.upper.ports[0]
    link = await dialling(site, f"centre.example:{port}", dial_within=0.4)
    await goes_on(link, "its name was not resolved within 0.2 s: no name server answers")
    assert began == 1, "a look-up that hangs is not begun again"
    # The threads that everybody shares are free.
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 20) == 7
    release.set()
    await until(lambda: link.state.connected, WITHIN)


async def test_names_are_looked_up_and_bad_ones_said_so() -> None:
    assert ("127.0.0.1", 7) in [address for _, address in await resolve("localhost", 7, within=WITHIN)]
    for name in ("no-such-name.invalid", "a..b", "x" * 300):
        with pytest.raises(NotReached, match="can't be resolved"):
            await resolve(name, 7, within=WITHIN)


async def test_the_second_address_of_a_name_is_tried(
    swallowing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.3", 0)) as listening:
        found = [("127.0.0.1", swallowing), ("127.0.0.3", listening.getsockname()[1])]
        infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: infos)
        connected = await open_socket("centre.example", 7, within=4)
        assert connected.getpeername() == found[1]
        connected.close()


async def test_a_listener_that_fails_stops_no_dialling(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    link = await site.lower()

    def failing(state: Any) -> None:
        raise ValueError("a fault of its own")

    link.listen(failing)
    await until(lambda: link.state.connected, WITHIN)
    await site.upper.disconnect(HARBOR)
    await until(lambda: not link.state.connected, WITHIN)
    await until(lambda: link.state.connected, WITHIN)


def test_pauses_grow_to_their_bound_and_differ() -> None:
    backoff, patience = Backoff(first=0.5, cap=30), Patience()
    for failures in range(1, 80):
        bound = min(30, 0.5 * 2 ** min(failures - 1, 20))
        pauses = {backoff.pause(failures) for _ in range(50)}
        assert all(bound / 4 <= pause <= bound for pause in pauses) and len(pauses) > 10
        asked = min(3600, 60 * 2 ** min(failures - 1, 20))
        assert all(asked / 2 <= patience.pause(failures, 3600) <= asked for _ in range(50))
        assert patience.pause(failures, 5.0) <= 5.0 and patience.pause(failures, 1e9) <= 3600
