"""The upper end of all links: one port, one session per node, and who is there.

Path /enrol is open to who has no certificate yet (see `gate`); path /link asks for a node's certificate that
is not over, path /renew for one that may be (see `renewal`). A new connection of a node replaces its old one,
which is ended first: the two must not take in one stream side by side. A node that says it returns at once
(renewal) is not reported as lost unless it stays away for LINGER seconds.

A certificate is checked when a node connects, its end by this cloud's clock; that it has begun is not asked,
for this cloud has issued it, if by a clock that ran ahead. A live link is not cut by the clock: losing time
must stop change, not service. To shut a node out, make `admit` refuse it and call `disconnect`.

Where a cloud has several processes, its register numbers the sessions of subclouds: see `register`.

Hosts inside this process attach over memory (`LocalDialer`); all else is the same for them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import cast

import msgspec
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response as HttpResponse

from roost.engine.allowance import Allowance
from roost.engine.clock import rest
from roost.link import door, gate, pki, renewal, rhythm, sockets
from roost.link.comparing import Pace
from roost.link.conduct import Conduct, What
from roost.link.errors import BadMessage, Flooded, LinkError, Refused, TookNothing
from roost.link.exchange import Handler, Request, Response, Unreachable
from roost.link.feed import Feed
from roost.link.flow import audience
from roost.link.lower import AUTHORITY_HEADER, RENEW_PATH, as_header
from roost.link.messages import Hello
from roost.link.node import Node
from roost.link.presence import Presence, Presences
from roost.link.register import Register
from roost.link.rhythm import Rhythm
from roost.link.session import Session, Timing
from roost.link.sockets import SocketConnection
from roost.link.watch import Watch
from roost.link.wire import Connection, Peer
from roost.model import time
from roost.store.errors import Overloaded, StoreError, Unavailable
from roost.store.links import Arrival
from roost.store.store import Store

log = structlog.get_logger(__name__)

LINK_PORT = 7444
LINGER = 5.0
REPLACE_WITHIN = 5.0
STOP_WITHIN = 5.0
CONNECTIONS = 25_000
CERTIFICATE_CHECK = 3600.0
DIALS_PAUSE = 60.0
FLOOD_PAUSE = 60.0
BROKEN_PAUSE = 10.0
REFUSED_KEPT = 10_000
NUMBER_AGAIN = 2.0

Admit = Callable[[Node], Awaitable[None]]
Takes = Callable[[Node], str]
"""Why links of a node are not taken here, though they may be elsewhere; empty when they are."""
Scope = Callable[[Node], AbstractContextManager[object]]
"""In what context a node's session runs."""
Welcome = Callable[[Node, Hello], Awaitable[int]]
"""Hears a node's hello; the epoch under which the node is owned here, 0 for none. Raises Refused."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a connected node has taken in its intent. `refused` is bounded."""

    in_step: bool
    acknowledged: int
    refused: dict[tuple[str, str, str], str]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator may set."""

    addresses: Sequence[tuple[str, int]] = (("", LINK_PORT),)
    """Where to listen; an empty host is every address of the machine."""
    server_names: Sequence[str] = ()
    node_lifetime: timedelta = pki.NODE_LIFETIME
    server_lifetime: timedelta = pki.SERVER_LIFETIME
    renewal_grace: timedelta = renewal.GRACE
    """For how long a node's certificate may be over and still open the door to a new one."""
    connections: int = CONNECTIONS
    enrolments_per_second: float = 2.0
    enrolments_burst: int = 50
    dials_per_second: float = 0.5
    """How often one node may dial; a node in good order pauses longer with each failure."""
    dials_burst: int = 30
    linger: float = LINGER


class _Slot:
    """The one session a node may have."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.session: Session | None = None
        self.done = asyncio.Event()


async def everyone(_: Node) -> None:
    """Admits every node with a certificate."""


def any_node(_: Node) -> str:
    """Where links of all nodes are taken."""
    return ""


def no_context(_: Node) -> AbstractContextManager[object]:
    """Where sessions run in no context of their own."""
    return nullcontext()


async def without_epoch(_node: Node, _hello: Hello) -> int:
    """Where nobody keeps epochs."""
    return 0


class UpperLink:
    """`start`, then nodes come; `stop` in the end. `listen` tells of each change of presence."""

    def __init__(
        self,
        store: Store,
        authority: pki.Authority,
        *,
        name: str,
        directory: Path,
        clock: Callable[[], datetime],
        settings: Settings | None = None,
        timing: Timing | None = None,
        inherited: Sequence[socket.socket] = (),
        admit: Admit = everyone,
        welcome: Welcome = without_epoch,
        redeem: gate.Redeem = gate.redeem,
        on_enrolled: gate.OnEnrolled = gate.nothing_more,
        handler: Handler | None = None,
        register: Register | None = None,
        takes: Takes = any_node,
        scope: Scope = no_context,
        answer_process: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        """`register` numbers sessions of subclouds, which several processes may take; `answer_process` serves
        connections of other processes of this cloud."""
        self.name, self.settings, self.timing = name, settings or Settings(), timing or Timing()
        self._store, self._authority, self._directory = store, authority, directory
        self._clock, self._inherited, self._admit, self._handler = clock, inherited, admit, handler
        self._welcome, self._register, self._takes, self._scope = welcome, register, takes, scope
        self._answer_process = answer_process
        self._gate = gate.Gate(
            store,
            authority,
            name=name,
            clock=clock,
            lifetime=self.settings.node_lifetime,
            redeem=redeem,
            on_enrolled=on_enrolled,
            allowance=Allowance(self.settings.enrolments_burst, self.settings.enrolments_per_second),
        )
        self._feed: Feed | None = None
        self._servers: list[Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots: dict[Node, _Slot] = {}
        self._presences = Presences(clock, self.settings.linger)
        if register is not None:
            self._presences.listen(lambda node, presence: self._note(register, node, presence))
        self._pace, self._watch = Pace(), Watch(lambda: store.trouble)
        self.conduct = Conduct(clock, asyncio.get_running_loop().time)
        self.door = door.Door()
        self._dials = Allowance(self.settings.dials_burst, self.settings.dials_per_second, most=CONNECTIONS)
        self._renewals = renewal.Renewals(
            store,
            authority,
            clock=clock,
            lifetime=self.settings.node_lifetime,
            grace=self.settings.renewal_grace,
            admit=admit,
        )
        self._replacing: set[Node] = set()
        self._refused: OrderedDict[Node, str] = OrderedDict()
        self._kept_out: OrderedDict[Node, float] = OrderedDict()
        self._open = 0
        self._stopping = False

    # -- life

    async def start(self) -> None:
        """Listen. Raises OSError when an address can't be had."""
        self._feed = Feed(self._store, audience)
        self._spawn(self._feed.run())
        if not self._inherited and not self.settings.addresses:
            # All nodes are of this process; a certificate would be shown to nobody.
            return
        context = sockets.server_context(self._authority.certificate_pem.decode(), self._server_file())
        if self._inherited:
            await self._listen(context, [door.listen(one) for one in self._inherited])
        else:
            for host, port in self.settings.addresses:
                await self._listen(context, door.bound(host, port))
        self._spawn(self._refresh(context))

    async def _listen(self, context: ssl.SSLContext, listening: list[socket.socket]) -> None:
        server = serve(
            self._serve, process_request=self._turned_away, open_timeout=door.ARRIVE_WITHIN, **sockets.OPTIONS
        )
        listener = door.Listener(self.door, listening, server, context, sockets.OPTIONS)

        async def listens() -> asyncio.Server:
            return cast(asyncio.Server, listener)

        server.create_server = listens
        self._servers.append(await server)

    async def _refresh(self, context: ssl.SSLContext) -> None:
        """Keep the server's certificate fresh; what fails now (a full disk) is tried again."""
        every = min(CERTIFICATE_CHECK, self.settings.server_lifetime.total_seconds() / 10)
        while True:
            await rest(every, self._clock)
            try:
                context.load_cert_chain(self._server_file())
            except (LinkError, OSError) as error:
                log.error("link.certificate-not-kept", reason=str(error), retry_in=every)

    async def stop(self) -> None:
        """Say goodbye to all, and end."""
        self._stopping = True
        for server in self._servers:
            server.close(close_connections=False)
        for slot in self._slots.values():
            if slot.session is not None:
                slot.session.end("the upper end stops")
        running = [slot.task for slot in self._slots.values()]
        if running:
            await asyncio.wait(running, timeout=STOP_WITHIN)
        self._presences.close()
        for task in [*running, *self._tasks]:
            task.cancel()
        await asyncio.gather(*running, *self._tasks, return_exceptions=True)
        for server in self._servers:
            server.close()
            await server.wait_closed()

    @property
    def ports(self) -> list[int]:
        """Ports that are listened on."""
        return [one.getsockname()[1] for server in self._servers for one in server.sockets]

    def _server_file(self) -> Path:
        return pki.server_file(
            self._authority,
            self._directory / "link.pem",
            self.settings.server_names,
            self._clock(),
            self.settings.server_lifetime,
        )

    # -- who is there

    def presence(self, node: Node) -> Presence:
        """Of any node. One not seen yet is absent since this object was made: give it time to dial."""
        return self._presences.of(node)

    def nodes(self) -> dict[Node, Presence]:
        """Every node seen since the start."""
        return self._presences.all()

    def progress(self, node: Node) -> Progress:
        """How far a node is; raises Unreachable when its link is down."""
        session = self._session(node)
        return Progress(
            in_step=session.outgoing.in_step,
            acknowledged=session.outgoing.acknowledged,
            refused=dict(session.outgoing.refused),
        )

    def heard(self, node: Node) -> float | None:
        """When a node's link last carried something, on the loop's clock; None while it is down."""
        slot = self._slots.get(node)
        return slot.session.heard if slot is not None and slot.session is not None else None

    async def probe(self, node: Node) -> None:
        """Have a node say something on its link, which `heard` tells. Raises Unreachable, ConnectionLost."""
        await self._session(node).probe()

    def listen(self, callback: Callable[[Node, Presence], None]) -> Callable[[], None]:
        """Call back at each change of presence; returns how to stop that."""
        return self._presences.listen(callback)

    async def call(self, node: Node, request: Request) -> Response:
        """Ask a node; raises Unreachable."""
        return await self._session(node).call(request)

    async def disconnect(self, node: Node, reason: str = "disconnected by the upper cloud") -> None:
        """End a node's session, if it has one."""
        slot = self._slots.get(node)
        if slot is not None:
            await self._replace(slot, reason)

    def forget(self, node: Node) -> None:
        """Remember nothing of a node that is gone for good."""
        if node not in self._slots:
            self._presences.forget(node)

    @property
    def takes_links(self) -> bool:
        """Whether links may come now."""
        return not self._stopping and self._feed is not None

    def attach_local(self, node: Node, connection: Connection) -> None:
        """Serve a node of this process over memory."""
        self._spawn(self._link(node, connection))

    def _rhythm(self, node: Node) -> Rhythm:
        """Hosts beat as fast as ever: how soon a failure of theirs is seen is promised."""
        usual = Rhythm(self.timing.heartbeat, self.timing.lost_after)
        return usual if node.kind == "host" else rhythm.chosen(len(self._slots), usual)

    def _session(self, node: Node) -> Session:
        slot = self._slots.get(node)
        if slot is None or slot.session is None:
            raise Unreachable(str(node), "its link is down")
        return slot.session

    # -- connections

    def _turned_away(self, websocket: ServerConnection, request: HttpRequest) -> HttpResponse | None:
        """What is said to who may not come in; None lets in."""
        if isinstance(websocket, door.Arriving):
            websocket.arrived()
        if self._stopping or self._open >= self.settings.connections:
            return websocket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "no room now, try again later\n")
        if request.path == sockets.ENROL_PATH:
            return None
        if request.path == sockets.PROCESS_PATH:
            return self._no_process(websocket)
        if request.path not in (sockets.LINK_PATH, sockets.RENEWAL_PATH):
            return websocket.respond(HTTPStatus.NOT_FOUND, "here are only /link and /enrol\n")
        peer = sockets.peer_of(websocket)
        if peer.node is None:
            return websocket.respond(
                HTTPStatus.FORBIDDEN, "a link needs the certificate of a node; enrol this one\n"
            )
        if request.path == sockets.LINK_PATH and (elsewhere := self._takes(peer.node)):
            return websocket.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{elsewhere}\n")
        now = asyncio.get_running_loop().time()
        kept_out = self._kept_out.get(peer.node, now) - now
        wait = self._dials.take(str(peer.node), now)
        if wait <= 0 < kept_out:
            return _later(websocket, kept_out)
        if wait > 0:
            self.door.mistrust(peer.address, now)
            self.conduct.complain(peer.node, "dials too often", f"from {peer.address}")
            return _later(websocket, max(wait, DIALS_PAUSE))
        if request.path == sockets.LINK_PATH and self._is_over(peer):
            return _ended(websocket)
        return None

    def _no_process(self, websocket: ServerConnection) -> HttpResponse | None:
        peer = sockets.peer_of(websocket)
        if self._answer_process is None or not peer.is_process or self._is_over(peer):
            return websocket.respond(HTTPStatus.FORBIDDEN, "this is for the cloud's own processes\n")
        return None

    def _is_over(self, peer: Peer) -> bool:
        return peer.certificate_expires_at is not None and self._clock() >= peer.certificate_expires_at

    async def _serve(self, websocket: ServerConnection) -> None:
        connection = SocketConnection(websocket)
        request = websocket.request
        self._open += 1
        try:
            if request is None or request.path == sockets.ENROL_PATH:
                await self._gate.serve(connection)
            elif request.path == sockets.PROCESS_PATH:
                await self._serve_process(connection)
            elif connection.peer.node is not None and request.path == sockets.RENEWAL_PATH:
                await self._renewals.serve(connection.peer.node, connection)
            elif connection.peer.node is not None:
                await self._link(connection.peer.node, connection)
        finally:
            self._open -= 1

    async def _serve_process(self, connection: Connection) -> None:
        task = asyncio.current_task()
        if task is None or self._answer_process is None:
            return
        # Ended with this upper end, in the middle of a call if need be.
        self._tasks.add(task)
        try:
            await self._answer_process(connection)
        finally:
            self._tasks.discard(task)

    async def _link(self, node: Node, connection: Connection) -> None:
        with self._scope(node):
            await self._link_within(node, connection)

    async def _link_within(self, node: Node, connection: Connection) -> None:
        task, feed = asyncio.current_task(), self._feed
        if task is None or feed is None:
            raise RuntimeError("start before nodes come")
        if node in self._replacing:
            log.debug("link.replaced-already", node=str(node))
            return
        while (old := self._slots.get(node)) is not None:
            log.info("link.replaced", node=str(node))
            self._replacing.add(node)
            try:
                await self._replace(old, "a new connection of this node took its place")
            finally:
                self._replacing.discard(node)
        slot = self._slots[node] = _Slot(task)
        session = Session(
            connection,
            self._store,
            feed,
            side="upper",
            node=node,
            name=self.name,
            timing=self.timing,
            clock=self._clock,
            handler=lambda request: self._answer(node, connection.peer, request),
            pace=self._pace,
            watch=self._watch,
            rhythm=lambda: self._rhythm(node),
            complain=lambda what, detail: self.conduct.complain(node, what, detail),
            on_trouble=lambda trouble: self._presences.troubled(node, trouble),
        )
        reason = "the link is down"
        try:
            await session.greet(lambda: self._let_in(node, connection.peer, session))
            self._refused.pop(node, None)
            slot.session = session
            self._presences.arrived(node, connection.peer, session.hello.version if session.hello else "")
            await session.run()
            reason = session.farewell.reason if session.farewell else "ended here"
        except Refused as refusal:
            reason = str(refusal)
            self._tell_refused(node, refusal)
            await session.abandon(refusal)
        except (BadMessage, TookNothing) as error:
            reason = str(error)
            what: What = "takes nothing" if isinstance(error, TookNothing) else "breaks the protocol"
            self.conduct.complain(node, what, reason)
            self._keep_out(node, BROKEN_PAUSE)
        except (LinkError, StoreError) as error:
            reason = str(error)
        except Exception:
            log.exception("link.failed", node=str(node))
            reason = "an unexpected error; the log of the upper cloud says more"
        finally:
            await self._gone(node, slot, session, reason)

    async def _let_in(self, node: Node, peer: Peer, session: Session) -> None:
        await self._admit(node)
        if session.hello is None:
            return
        session.epoch = await self._welcome(node, session.hello)
        if self._register is not None and node.kind == "subcloud":
            await self._number(self._register, node, peer, session)

    async def _number(self, register: Register, node: Node, peer: Peer, session: Session) -> None:
        """Have a session numbered. While the store can't be written the link stands all the same: what comes
        on it is not taken in before it has its number."""
        end = peer.certificate_expires_at
        arrival = Arrival(
            node=str(node),
            version=session.hello.version if session.hello else "",
            address=peer.address,
            certificate_expires_at=time.seconds(end) if end else "",
        )
        try:
            session.intake.session = await register.claim(arrival)
        except (Unavailable, Overloaded):
            session.intake.session = 0
            self._spawn(self._number_later(register, arrival, session))

    async def _number_later(self, register: Register, arrival: Arrival, session: Session) -> None:
        while not self._stopping:
            await asyncio.sleep(NUMBER_AGAIN)
            slot = self._slots.get(session.node)
            if slot is None or slot.session is not session:
                return
            try:
                session.intake.session = await register.claim(arrival)
                return
            except (Unavailable, Overloaded):
                continue

    def _note(self, register: Register, node: Node, presence: Presence) -> None:
        """Have the register know what became of a link that is here."""
        number = register.sessions.get(str(node))
        if number is None:
            return
        if not presence.connected:
            register.ended(str(node), number)
            return
        end = presence.certificate_expires_at
        register.told(
            str(node),
            number,
            certificate_expires_at=time.seconds(end) if end else "",
            trouble=presence.trouble,
        )

    def _tell_refused(self, node: Node, refusal: Refused) -> None:
        """In the log, once per change: who is refused dials again."""
        if isinstance(refusal, Flooded):
            self.conduct.complain(node, "floods", refusal.reason)
            self._keep_out(node, FLOOD_PAUSE)
        elif refusal.code == "identity":
            self.conduct.complain(node, "claims what is not its own", refusal.reason)
        reason, before = str(refusal), self._refused.pop(node, "")
        self._refused[node] = reason
        if len(self._refused) > REFUSED_KEPT:
            self._refused.popitem(last=False)
        if reason != before:
            log.warning("link.not-admitted", node=str(node), reason=reason)

    def _keep_out(self, node: Node, seconds: float) -> None:
        """Let a node in no more for a while: its budget would begin anew with each connection."""
        self._kept_out.pop(node, None)
        self._kept_out[node] = asyncio.get_running_loop().time() + seconds
        if len(self._kept_out) > REFUSED_KEPT:
            self._kept_out.popitem(last=False)

    async def _gone(self, node: Node, slot: _Slot, session: Session, reason: str) -> None:
        returning = session.farewell is not None and session.farewell.returning
        if self._slots.get(node) is slot:
            del self._slots[node]
        slot.done.set()
        if slot.session is None and self._register is not None and session.intake.session:
            # It was admitted, and was gone before anybody was told.
            self._register.ended(str(node), session.intake.session)
        if slot.session is not None and node not in self._slots:
            if returning and not self._stopping:
                self._presences.returning(node, reason)
            else:
                self._presences.left(node, reason)
        await session.abandon()

    async def _replace(self, slot: _Slot, reason: str) -> None:
        """End a session and wait until it is over: first in good order, then not."""
        if slot.session is not None:
            slot.session.end(reason)
        else:
            slot.task.cancel()
        try:
            async with asyncio.timeout(REPLACE_WITHIN):
                await slot.done.wait()
        except TimeoutError:
            slot.task.cancel()
            await slot.done.wait()

    # -- calls of nodes

    async def _answer(self, node: Node, peer: Peer, request: Request) -> Response:
        if request.path == RENEW_PATH and request.method == "POST":
            return await self._renew(node, peer, request.body)
        if self._handler is not None:
            return await self._handler(request)
        return _plain(404, b"nothing is served here\n")

    async def _renew(self, node: Node, peer: Peer, request: bytes) -> Response:
        """A fresh certificate for whom the link's own certificate already names."""
        try:
            certificate = await self._renewals.renew(node, peer.fingerprint, request)
        except renewal.TooOften as error:
            return _plain(429, f"{error}\n".encode())
        except pki.BadCertificate as error:
            return _plain(400, str(error).encode())
        except StoreError as error:
            return _plain(503, f"the upper cloud can't note it now: {error}\n".encode())
        self._presences.renewed(node, pki.expires_at(certificate))
        log.info("link.certificate-renewed", node=str(node))
        answer = _plain(200, certificate)
        answer.headers.append((AUTHORITY_HEADER, as_header(self._renewals.authority)))
        return answer

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _later(websocket: ServerConnection, seconds: float) -> HttpResponse:
    response = websocket.respond(
        HTTPStatus.TOO_MANY_REQUESTS, f"this node dials too often; again in {seconds:.0f} s\n"
    )
    response.headers["Retry-After"] = f"{seconds:.0f}"
    return response


def _ended(websocket: ServerConnection) -> HttpResponse:
    said = f"the certificate of this node has expired; a new one is to be had at {sockets.RENEWAL_PATH}\n"
    response = websocket.respond(HTTPStatus.FORBIDDEN, said)
    response.headers[sockets.ENDED_HEADER] = sockets.ENDED
    return response


async def _once(text: bytes) -> AsyncIterator[bytes]:
    yield text


def _plain(status: int, text: bytes) -> Response:
    return Response(status, [("content-type", "text/plain")], _once(text))
