"""The link as it runs: enrolment, mutual TLS, renewal, reconnecting, calls; on loopback."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from roost.engine import credentials
from roost.link import identity, node, pki, sockets, token
from roost.link.enrolment import EnrolmentFailed, enrol
from roost.link.errors import Refused
from roost.link.exchange import Caller, Handler, Request, Response, Unreachable
from roost.link.files import write_private
from roost.link.local import LocalDialer
from roost.link.lower import Backoff, LowerLink, TlsDialer
from roost.link.node import Node
from roost.link.presence import Presence
from roost.link.session import Timing
from roost.link.sockets import CannotConnect, SocketConnection
from roost.link.upper import Settings, UpperLink
from roost.store.database import sqlite_url
from roost.store.store import Store
from tests.link.world import find, put, resource

HARBOR = node.subcloud("harbor")
TIMING = Timing(heartbeat=0.1, lost_after=3, hello_within=5, answer_within=5)
BACKOFF = Backoff(first=0.05, cap=0.2)


def clock() -> datetime:
    return datetime.now(UTC)


async def until(condition: Callable[[], Any], within: float = 20) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "did not come true in time"
        await asyncio.sleep(0.01)


async def arrives(store: Store, kind: str, namespace: str, name: str, within: float = 20) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while not await find(store, kind, namespace, name):
        assert asyncio.get_running_loop().time() < deadline, f"{kind} {name} did not arrive"
        await asyncio.sleep(0.01)


class Site:
    """A central cloud that listens, and lower ends that dial it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.authority = pki.Authority.open(path / "ca", "central", clock())
        self.stores: list[Store] = []
        self.lowers: list[LowerLink] = []
        self.uppers: list[UpperLink] = []
        self.upper: UpperLink
        self.store: Store

    async def open(self, name: str) -> Store:
        store = await Store.open(sqlite_url(self.path / f"{name}.db"))
        self.stores.append(store)
        return store

    async def start(self, port: int = 0, **options: Any) -> UpperLink:
        if not self.stores:
            self.store = await self.open("upper")
        lifetime = options.pop("node_lifetime", timedelta(days=90))
        settings = Settings(
            addresses=[("127.0.0.1", port)],
            node_lifetime=lifetime,
            linger=1.0,
            **{k: options.pop(k) for k in list(options) if k.startswith("enrolments")},
        )
        self.upper = UpperLink(
            self.store,
            options.pop("authority", self.authority),
            name="central",
            directory=self.path,
            clock=clock,
            settings=settings,
            timing=TIMING,
            **options,
        )
        await self.upper.start()
        self.uppers.append(self.upper)
        return self.upper

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.upper.ports[0]}"

    async def token(
        self, purpose: Any = "enrol-subcloud", subject: str = "harbor", hours: float = 1, **fields: Any
    ) -> str:
        secret = await self.store.transact(
            lambda tx: credentials.issue(tx, purpose, subject, timedelta(hours=hours))
        )
        what = {"endpoints": [self.endpoint], "ca": self.authority.pin, "secret": secret} | fields
        return token.encode(token.Token(**what))

    async def enrol(self, text: str, directory: str = "harbor", within: float = 10) -> identity.Identity:
        return await enrol(
            text, self.path / directory, facts={"version": "0.1.0"}, clock=clock, within=within
        )

    async def lower(self, directory: str = "harbor", handler: Handler | None = None) -> LowerLink:
        dialer = TlsDialer(self.path / directory, clock=clock)
        link = LowerLink(
            await self.open(directory + "-store"),
            dialer,
            node=dialer.identity.who(),
            clock=clock,
            handler=handler,
            timing=TIMING,
            backoff=BACKOFF,
        )
        self.lowers.append(link)
        link.start()
        return link

    async def joined(self, handler: Handler | None = None) -> LowerLink:
        await self.enrol(await self.token())
        link = await self.lower(handler=handler)
        await until(lambda: link.state.connected)
        return link

    async def close(self) -> None:
        for lower in self.lowers:
            await lower.stop()
        for upper in self.uppers:
            await upper.stop()
        for store in self.stores:
            await store.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.close()


# -- enrolment


async def test_enrols_links_and_carries_both_streams(site: Site) -> None:
    await site.start()
    link = await site.joined()
    assert link.state.upper == "central"
    below = link._store
    await put(site.store, resource("FirewallPolicy", "harbor", "web", spec={"networks": ["oam"]}))
    await put(below, resource("Host", "harbor", "controller-0", spec={}))
    await arrives(below, "FirewallPolicy", "harbor", "web")
    await arrives(site.store, "Host", "harbor", "controller-0")
    presence = site.upper.presence(HARBOR)
    assert presence.connected and presence.version == "0.1.0"
    assert presence.certificate_expires_at == link.state.certificate_expires_at
    mode = (site.path / "harbor" / "node.pem").stat().st_mode & 0o777
    assert mode == 0o600


async def test_heartbeats_prove_the_way_there_and_back(site: Site) -> None:
    await site.start()
    link = await site.joined()
    before = clock()
    await until(lambda: link.state.proof and link.state.proof.sent_at >= before)
    assert link.state.proof and link.state.proof.proven_at >= link.state.proof.sent_at


async def test_a_wrong_pin_stops_enrolment_before_the_secret_is_said(site: Site) -> None:
    await site.start()
    text = await site.token(ca="0" * 64)
    with pytest.raises(EnrolmentFailed, match="its CA is another"):
        await site.enrol(text)
    credential = (await site.store.read(lambda tx: tx.select("Credential")))[0]
    assert credential.raw["spec"]["usedBy"] == ""


async def test_a_used_token_opens_for_the_same_key_only(site: Site) -> None:
    await site.start()
    text = await site.token()
    first = await site.enrol(text)
    again = await site.enrol(text)
    assert first.node == again.node == "subcloud/harbor"
    with pytest.raises(EnrolmentFailed, match="used by another machine"):
        await site.enrol(text, "elsewhere")


async def test_an_expired_token_opens_nothing(site: Site) -> None:
    await site.start()
    with pytest.raises(EnrolmentFailed, match="expired"):
        await site.enrol(await site.token(hours=-1))


async def test_a_host_enrols_under_the_name_its_token_has(site: Site) -> None:
    await site.start()
    found = await site.enrol(await site.token("enrol-host", "central/worker-0"))
    assert found.who() == node.host("central", "worker-0") and found.upper == "central"


async def test_secrets_stay_out_of_logs(site: Site) -> None:
    with structlog.testing.capture_logs() as logs:
        await site.start()
        text = await site.token()
        await site.enrol(text)
        with pytest.raises(EnrolmentFailed):
            await site.enrol(text, "elsewhere")
    secret = token.decode(text).secret.partition(".")[2]
    assert logs and secret not in str(logs) and text not in str(logs)


async def test_what_is_done_on_enrolment_is_in_the_transaction_of_the_token(site: Site) -> None:
    def refuse(tx: Any, who: Node, facts: dict[str, str]) -> None:
        assert (str(who), facts) == ("subcloud/harbor", {"version": "0.1.0"})
        raise Refused("unmanaged", "harbor is being removed", "declare it again")

    await site.start(on_enrolled=refuse)
    with pytest.raises(EnrolmentFailed, match="declare it again"):
        await site.enrol(await site.token())
    credential = (await site.store.read(lambda tx: tx.select("Credential")))[0]
    assert credential.raw["spec"]["usedBy"] == ""


async def test_enrolment_is_limited_by_address(site: Site) -> None:
    await site.start(enrolments_burst=2, enrolments_per_second=0.001)
    await site.enrol(await site.token())
    with pytest.raises(EnrolmentFailed, match="too many enrol now"):
        await site.enrol(await site.token(), "elsewhere", within=2)


# -- who may come in


async def test_a_node_without_certificate_gets_no_link(site: Site) -> None:
    await site.start()
    context = sockets.verified_context(site.authority.certificate_pem.decode())
    with pytest.raises(CannotConnect, match="needs the certificate of a node"):
        await sockets.connect(site.endpoint, context, sockets.LINK_PATH, within=5)
    with pytest.raises(CannotConnect, match="only /link and /enrol"):
        await sockets.connect(site.endpoint, context, "/other", within=5)


async def test_a_user_certificate_gets_no_link(site: Site) -> None:
    await site.start()
    issued = site.authority.issue_user("admin", ["roost:administrators"], clock(), timedelta(days=1))
    write_private(site.path / "admin.pem", issued.key + issued.certificate)
    context = sockets.verified_context(site.authority.certificate_pem.decode(), site.path / "admin.pem")
    with pytest.raises(CannotConnect, match="needs the certificate of a node"):
        await sockets.connect(site.endpoint, context, sockets.LINK_PATH, within=5)


async def test_a_certificate_of_another_authority_gets_no_link(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    other = pki.Authority.create("other", clock())
    key = pki.new_key()
    forged = other.sign_node(pki.request(key), HARBOR, clock(), timedelta(days=1))
    identity.replace_certificate(site.path / "harbor", key, forged, clock())
    link = await site.lower()
    await until(lambda: link.state.error not in ("", "not dialled yet"))
    assert not link.state.connected
    assert not site.upper.presence(HARBOR).connected


async def test_an_upper_end_of_another_authority_is_not_trusted(site: Site) -> None:
    first = await site.start()
    await site.enrol(await site.token())
    port = first.ports[0]
    await first.stop()
    await site.start(port, authority=pki.Authority.create("impostor", clock()))
    link = await site.lower()
    await until(lambda: "no certificate of the cloud" in link.state.error)


async def test_a_node_that_is_no_longer_known_is_told_so(site: Site) -> None:
    known = True

    async def admit(who: Node) -> None:
        if not known:
            raise Refused("unknown", f"{who} is not known here", "enrol it again")

    await site.start(admit=admit)
    link = await site.joined()
    known = False
    await site.upper.disconnect(HARBOR)
    await until(lambda: "is not known here; enrol it again" in link.state.error)
    assert not site.upper.presence(HARBOR).connected


async def test_a_second_connection_of_a_node_takes_the_place_of_the_first(site: Site) -> None:
    await site.start()
    first = await site.joined()
    changes: list[tuple[Node, Presence]] = []
    site.upper.listen(lambda who, presence: changes.append((who, presence)))
    first._backoff = Backoff(first=60, cap=60)
    site.lowers.append(
        second := LowerLink(
            await site.open("second"),
            TlsDialer(site.path / "harbor", clock=clock),
            node=HARBOR,
            clock=clock,
            timing=TIMING,
        )
    )
    second.start()
    await until(lambda: second.state.connected and not first.state.connected)
    assert first.state.error == "a new connection of this node took its place"
    assert site.upper.presence(HARBOR).connected


# -- certificates


async def test_the_certificate_is_renewed_by_itself_and_the_new_one_works(site: Site) -> None:
    await site.start(node_lifetime=timedelta(seconds=6))
    link = await site.joined()
    first = link.state.certificate_expires_at
    pem = (site.path / "harbor" / "node.pem").read_bytes()
    absences: list[Presence] = []
    site.upper.listen(lambda _, presence: absences.append(presence) if not presence.connected else None)
    await until(lambda: link.state.connected and link.state.certificate_expires_at != first)
    await until(lambda: site.upper.presence(HARBOR).certificate_expires_at != first)
    assert (site.path / "harbor" / "node.pem").read_bytes() != pem
    await until(lambda: link.state.connected)
    assert absences == []
    assert not list((site.path / "harbor").glob("enrol-*.key"))


async def test_an_expired_certificate_is_named_with_its_remedy(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    key = pki.new_key()
    old = site.authority.sign_node(pki.request(key), HARBOR, clock(), timedelta(seconds=-5))
    identity.replace_certificate(site.path / "harbor", key, old, clock())
    link = await site.lower()
    await until(lambda: "new enrolment token" in link.state.error)
    assert "expired at" in link.state.error
    await link.stop()
    await site.enrol(await site.token())
    link = LowerLink(
        site.stores[-1],
        TlsDialer(site.path / "harbor", clock=clock),
        node=HARBOR,
        clock=clock,
        timing=TIMING,
    )
    site.lowers.append(link)
    link.start()
    await until(lambda: link.state.connected)


# -- reconnecting


async def test_links_return_when_the_upper_end_restarts(site: Site) -> None:
    first = await site.start()
    link = await site.joined()
    port = first.ports[0]
    await first.stop()
    await until(lambda: not link.state.connected)
    await until(lambda: "refused" in link.state.error)
    await put(link._store, resource("Host", "harbor", "controller-0", spec={}))
    await site.start(port)
    await until(lambda: link.state.connected and link.in_step)
    assert await find(site.store, "Host", "harbor", "controller-0")


async def test_dialling_goes_on_whatever_went_wrong_with_a_try(site: Site) -> None:
    await site.start()
    await site.enrol(await site.token())
    tries = 0

    class Faulty(TlsDialer):
        async def dial(self) -> SocketConnection:
            nonlocal tries
            tries += 1
            if tries == 1:
                # As for a name with an empty label.
                raise UnicodeError("label empty or too long")
            return await super().dial()

    link = LowerLink(
        await site.open("harbor-store"),
        Faulty(site.path / "harbor", clock=clock),
        node=HARBOR,
        clock=clock,
        timing=TIMING,
        backoff=BACKOFF,
    )
    site.lowers.append(link)
    link.start()
    await until(lambda: "unexpected" in link.state.error)
    await until(lambda: link.state.connected)


async def test_a_host_in_the_process_links_over_memory(site: Site) -> None:
    upper = await site.start()
    who = node.host("central", "controller-0")
    below = await site.open("host")
    link = LowerLink(below, LocalDialer(upper, who), node=who, clock=clock, timing=TIMING, backoff=BACKOFF)
    site.lowers.append(link)
    link.start()
    await put(site.store, resource("Host", "central", "controller-0", spec={}))
    await arrives(below, "Host", "central", "controller-0")
    assert upper.presence(who).connected


# -- calls


def ask(path: str = "/api", body: bytes = b"") -> Request:
    caller = Caller("ada", ["roost:readers"])
    return Request(method="GET", path=path, headers=[("accept", "*/*")], body=body, caller=caller)


async def read(response: Response) -> bytes:
    return b"".join([piece async for piece in response.body])


async def test_calls_carry_caller_and_bodies_of_any_size_both_ways(site: Site) -> None:
    async def echo(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield f"{request.method} {request.path} {request.caller.name} ".encode()
            yield request.body

        return Response(201, [("x-headers", str(request.headers))], body())

    await site.start(handler=echo)
    link = await site.joined(echo)
    large = os.urandom(2_500_000)
    response = await site.upper.call(HARBOR, ask("/big?x=1", large))
    assert response.status == 201 and response.headers == [("x-headers", "[('accept', '*/*')]")]
    assert await read(response) == b"GET /big?x=1 ada " + large
    # Upwards the node can only speak for itself, whatever it says.
    response = await link.call(ask("/x"))
    assert await read(response) == b"GET /x roost:subcloud/harbor "
    with pytest.raises(ValueError, match="bytes"):
        await site.upper.call(HARBOR, ask(body=bytes(4 * 1024 * 1024)))
    answers = await asyncio.gather(*(site.upper.call(HARBOR, ask(f"/{n}")) for n in range(60)))
    bodies = await asyncio.gather(*(read(answer) for answer in answers))
    assert bodies == [f"GET /{n} ada ".encode() for n in range(60)]


class Endless:
    """A handler whose answer never ends, and that knows how far it got and whether it was ended."""

    def __init__(self) -> None:
        self.sent, self.ended = 0, asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        return Response(200, [], self._body())

    async def _body(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.sent += 100_000
                yield bytes(100_000)
        finally:
            self.ended.set()


async def test_a_reader_that_stops_holds_only_its_own_call_up(site: Site) -> None:
    endless = Endless()
    await site.start()
    link = await site.joined(endless)
    response = await site.upper.call(HARBOR, ask())
    await anext(response.body)
    proof = link.state.proof
    await until(lambda: link.state.proof != proof)
    assert endless.sent <= 1_000_000
    await response.aclose()
    async with asyncio.timeout(10):
        await endless.ended.wait()


async def test_a_call_that_nobody_waits_for_is_cancelled_there(site: Site) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(request: Request) -> Response:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    await site.start()
    await site.joined(hang)
    waiting = asyncio.create_task(site.upper.call(HARBOR, ask()))
    async with asyncio.timeout(10):
        await started.wait()
        waiting.cancel()
        await cancelled.wait()


async def test_calls_fail_clearly(site: Site) -> None:
    async def broken(request: Request) -> Response:
        if request.path == "/hang":
            await asyncio.Event().wait()
        raise RuntimeError("a secret of the implementation")

    await site.start()
    with pytest.raises(Unreachable, match="its link is down"):
        await site.upper.call(HARBOR, ask())
    link = await site.joined(broken)
    with pytest.raises(Unreachable, match="the call failed there"):
        await site.upper.call(HARBOR, ask())
    hanging = asyncio.create_task(site.upper.call(HARBOR, ask("/hang")))
    await until(lambda: site.upper._slots[HARBOR].session.calls.open == 1)  # type: ignore[union-attr]
    await link.stop()
    with pytest.raises(Unreachable):
        await hanging
    with pytest.raises(Unreachable):
        await link.call(ask())
