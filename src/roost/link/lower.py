"""The lower end of a link: dial, run the session, dial again; keep the certificate fresh.

Dialling backs off exponentially with jitter, so that ten thousand sites that lost their centre at once
do not return at once. Each stage of it has a deadline: the name, the connection, TLS, the hello. An upper
end that refuses may say after how long it is worth to come again: that is come to in growing steps, up to an
hour, so that a node that was deleted there is no burden, and one deleted by mistake is back soon. A node
whose certificate is over, by the upper end's clock, asks for a new one at the door for that, and dials again.
Whatever goes wrong ends in a pause and another try, never in more than that. The store is the outbox: while
there is no link, nothing is kept here.

`state` is what people and the agent read: whether the link is up, since when, the last proof that
the way there and back is open (an echoed heartbeat, and when that heartbeat was sent), and the last
error in words with what to do about it.

A subcloud that moves to another upper cloud has its identity replaced `between` two sessions, and dials on.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import zlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec
import structlog

from roost.engine.clock import rest
from roost.link import identity, messages, sockets
from roost.link.comparing import Pace
from roost.link.errors import BadMessage, LinkError, Refused
from roost.link.exchange import Caller, Handler, Request, Response, Unreachable
from roost.link.feed import Feed, everyone
from roost.link.node import Node
from roost.link.session import Proof, Session, Timing
from roost.link.sockets import CannotConnect, SocketConnection
from roost.link.wire import Connection
from roost.model import chance
from roost.store.store import Store

log = structlog.get_logger(__name__)

RENEW_PATH = "/link/renew"
AUTHORITY_HEADER = "roost-authority"
RENEW_RETRY = 60.0
RENEW_WITHIN = 60.0
STEADY = 10.0
CALLS_MAY_FINISH = 30.0

Ask = Callable[[Request], Awaitable[Response]]
Between = Callable[[], Awaitable[None]]


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Pauses between attempts, in seconds: doubling from `first` to `cap`, each with full jitter."""

    first: float = 0.5
    cap: float = 30.0

    def pause(self, failures: int) -> float:
        """The pause after so many failures in a row, at least a quarter of its bound."""
        bound = min(self.cap, self.first * float(1 << min(failures - 1, 30)))
        return bound * chance.between(0.25, 1.0)


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """Pauses after refusals in a row, in seconds: doubling from `first` to what the upper end asks for.

    Each is shortened by chance, by up to a half.
    """

    first: float = 60.0
    cap: float = 3600.0

    def pause(self, refusals: int, asked: float) -> float:
        """The pause after so many refusals, of which the last asked for so many seconds."""
        bound = min(self.cap, asked, self.first * float(1 << min(refusals - 1, 30)))
        return bound * chance.between(0.5, 1.0)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The link as its lower end sees it. `error` is empty while it is up; else `next_dial` is near."""

    connected: bool
    since: datetime
    upper: str = ""
    upper_version: str = ""
    endpoint: str = ""
    error: str = ""
    proof: Proof | None = None
    certificate_expires_at: datetime | None = None
    next_dial: datetime | None = None


class Dialer(Protocol):
    """How the lower end gets a connection, and keeps the right to one."""

    async def dial(self) -> Connection:
        """A connection; raises LinkError."""

    def expires(self) -> datetime | None:
        """End of the certificate; None where there is none."""

    def renewal_due(self) -> datetime | None:
        """When the certificate should be renewed; None where there is none."""

    async def renew(self, ask: Ask, now: datetime) -> None:
        """Get a new certificate by a call through the link; raises LinkError, Unreachable."""


@runtime_checkable
class Owned(Protocol):
    """A dialer that knows under which epoch its node is owned (`rehoming`)."""

    def epoch(self) -> int:
        """That epoch; 0 where none was told."""

    def raise_epoch(self, epoch: int) -> None:
        """The owner says a higher one, which this node has forgotten."""


def in_turn(endpoints: Sequence[str], node: str) -> list[str]:
    """In which order a node dials: nodes begin at different ones, each always at its own.

    So the links of a cloud are spread over its processes, and a node finds the next one when its own is gone.
    """
    first = zlib.crc32(node.encode()) % len(endpoints) if endpoints else 0
    return [*endpoints[first:], *endpoints[:first]]


class TlsDialer:
    """Dials the endpoints of the identity kept in a directory, in turn."""

    def __init__(self, directory: Path, *, clock: Callable[[], datetime], dial_within: float = 10.0) -> None:
        self._directory, self._clock, self._within = directory, clock, dial_within
        self.identity = identity.load(directory)

    async def dial(self) -> SocketConnection:
        self.identity = identity.load(self._directory)
        problems = []
        for where in in_turn(self.identity.endpoints, self.identity.node):
            try:
                return await self._connect(where, sockets.LINK_PATH)
            except CannotConnect as error:
                if not error.expired:
                    problems.append(error)
                    continue
            try:
                await self._return(where)
                return await self._connect(where, sockets.LINK_PATH)
            except CannotConnect as error:
                problems.append(error)
        raise self._explained(problems)

    async def _connect(self, where: str, path: str) -> SocketConnection:
        ca = (self._directory / identity.AUTHORITY_FILE).read_text()
        context = sockets.verified_context(ca, self._directory / identity.NODE_FILE)
        return await sockets.connect(where, context, path, within=self._within)

    async def _return(self, where: str) -> None:
        """Have a certificate that is over renewed. Raises CannotConnect, Refused, LinkError."""
        from roost.link import pki

        key = pki.new_key()
        try:
            connection = await self._connect(where, sockets.RENEWAL_PATH)
        except CannotConnect as error:
            # An upper end of an earlier version knows no such door.
            raise CannotConnect(where, error.reason, expired=True, retry_after=error.retry_after) from None
        try:
            async with asyncio.timeout(RENEW_WITHIN):
                asked = messages.RenewalRequest(request=pki.request(key).decode())
                await connection.send(messages.pack(asked))
                answer = messages.unpack(await connection.receive())
        except TimeoutError:
            reason = f"no certificate came within {RENEW_WITHIN:g} s"
            raise CannotConnect(where, reason) from None
        finally:
            await sockets.close_quietly(connection)
        if isinstance(answer, messages.Refusal):
            raise Refused(answer.code, answer.reason, answer.remedy, retry_after=answer.retry_after)
        if not isinstance(answer, messages.Renewed):
            raise BadMessage("no certificate came")
        ended = self.identity.expires_at
        self._keep(key, answer.certificate.encode(), answer.authority.encode(), self._clock())
        log.info("link.renewed-after-its-end", node=self.identity.node, ended=ended)

    def _explained(self, problems: list[CannotConnect]) -> LinkError:
        later = min((problem.retry_after for problem in problems), default=0.0)
        if any(problem.expired for problem in problems):
            return Refused(
                "expired",
                f"the certificate of {self.identity.node} expired at {self.identity.expires_at}, "
                "and the upper cloud does not renew it: " + "; ".join(str(problem) for problem in problems),
                "check this machine's clock; if it is right, ask the upper cloud for a new enrolment "
                "token and enrol again",
                retry_after=later,
            )
        # One endpoint that may be tried again soon is enough to do so.
        return NoneReached("; ".join(str(problem) for problem in problems), later)

    def epoch(self) -> int:
        return self.identity.epoch

    def raise_epoch(self, epoch: int) -> None:
        self.identity = identity.note_epoch(self._directory, epoch=epoch)

    def expires(self) -> datetime | None:
        return self.identity.expires()

    def renewal_due(self) -> datetime | None:
        return self.identity.renewal_due()

    async def renew(self, ask: Ask, now: datetime) -> None:
        from roost.link import pki

        key = pki.new_key()
        async with asyncio.timeout(RENEW_WITHIN):
            response = await ask(_renewal(pki.request(key)))
            body = b"".join([piece async for piece in response.body])
        if response.status != 200:
            raise Refused("renew", body.decode("utf-8", "replace")[:500], "see the upper cloud's log")
        self._keep(key, body, _authority_of(response), now)

    def _keep(self, key: bytes, certificate: bytes, authority: bytes, now: datetime) -> None:
        """Put in place what was issued, and the CA's certificate if the upper cloud has renewed that."""
        from roost.link import pki

        pki.check_issued(certificate, key, self.identity.who())
        end = pki.expires_at(certificate)
        if end <= now < self.identity.expires():
            raise pki.BadCertificate(f"what came ended at {end:%Y-%m-%d}: look at the upper cloud's clock")
        old = (self._directory / identity.AUTHORITY_FILE).read_bytes()
        if authority in (b"", old):
            authority = b""
        else:
            try:
                pki.check_successor(old, authority)
            except pki.BadCertificate as error:
                log.warning("link.authority-not-taken", node=self.identity.node, reason=str(error))
                authority = b""
        self.identity = identity.replace_certificate(
            self._directory, key, certificate, now, authority=authority
        )
        for used in self._directory.glob("enrol-*.key"):
            used.unlink()


def as_header(pem: str) -> str:
    """A certificate as the value of a header."""
    return base64.b64encode(pem.encode()).decode()


def _authority_of(response: Response) -> bytes:
    """The CA's certificate (PEM) that came with a response; earlier versions send none."""
    said = next((value for name, value in response.headers if name == AUTHORITY_HEADER), "")
    try:
        return base64.b64decode(said, validate=True)
    except (binascii.Error, ValueError):
        return b""


class NoneReached(LinkError):
    """No endpoint could be reached. `retry_after`: seconds that all of them ask for; else 0."""

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def _unexpected(error: Exception) -> str:
    return f"an unexpected error: {type(error).__name__}; the log says more"


def _asks_to_wait(error: Exception) -> float:
    return error.retry_after if isinstance(error, Refused | NoneReached) else 0.0


def _renewal(request: bytes) -> Request:
    return Request(method="POST", path=RENEW_PATH, headers=[], body=request, caller=Caller("roost:node", []))


class LowerLink:
    """One link upwards. `start`, then look at `state`; `stop` in the end."""

    def __init__(
        self,
        store: Store,
        dialer: Dialer,
        *,
        node: Node,
        clock: Callable[[], datetime],
        handler: Handler | None = None,
        timing: Timing | None = None,
        backoff: Backoff | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.node = node
        self._store, self._dialer, self._clock, self._handler = store, dialer, clock, handler
        self._timing, self._backoff = timing or Timing(), backoff or Backoff()
        self._patience = patience or Patience()
        self._asked_to_wait, self._refusals = 0.0, 0
        self._pace = Pace()
        self._feed: Feed | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._session: Session | None = None
        self._listeners: list[Callable[[State], None]] = []
        self._at_once = asyncio.Event()
        self._stopping = False
        self._returning = False
        self._between: list[tuple[Between, asyncio.Future[None]]] = []
        self.state = State(
            connected=False, since=clock(), error="not dialled yet", certificate_expires_at=dialer.expires()
        )

    def start(self) -> None:
        """Begin, or begin again after `stop`; needs a running loop and an open store."""
        self._stopping = False
        self._feed = Feed(self._store, everyone)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._feed.run(), name="link-feed"),
            loop.create_task(self._run(self._feed), name="link-lower"),
            loop.create_task(self._renew(), name="link-renewal"),
        ]

    async def stop(self) -> None:
        """Say goodbye and end."""
        self._stopping = True
        if self._session is not None:
            self._session.end("the lower end stops")
            await asyncio.wait(self._tasks[1:2], timeout=2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, done in self._between:
            if not done.done():
                done.set_exception(Unreachable("the upper cloud", "the link was stopped"))
        self._between = []

    def listen(self, callback: Callable[[State], None]) -> Callable[[], None]:
        """Call back at each change of state (each proof included); returns how to stop that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def dial_now(self) -> None:
        """End the pause before the next attempt."""
        self._at_once.set()

    async def between(self, reason: str, work: Between) -> None:
        """End the session in good order, do `work` while none is open, and dial again at once.

        The link must be running. Raises what `work` raises, and Unreachable when the link is stopped before.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._between.append((work, done))
        if self._session is not None:
            self._session.end(reason)
        self.dial_now()
        await done

    async def call(self, request: Request) -> Response:
        """Ask the upper cloud; raises Unreachable. It sees the node as the caller."""
        if self._session is None or not self.state.connected:
            raise Unreachable("the upper cloud", self.state.error or "the link is down")
        return await self._session.call(request)

    @property
    def in_step(self) -> bool:
        """Whether the upper end has acknowledged everything this store has for it."""
        return self._session is not None and self.state.connected and self._session.outgoing.in_step

    @property
    def refused(self) -> dict[tuple[str, str, str], str]:
        """What the upper end did not take in of this session's stream, and why (bounded)."""
        return dict(self._session.outgoing.refused) if self._session else {}

    # -- inside

    def _set(self, **changes: object) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)
        for listener in list(self._listeners):
            try:
                listener(self.state)
            except Exception:
                # A link that dials no more is lost for good; a listener hears of the next change.
                log.exception("link.listener-failed", node=str(self.node))

    async def _run(self, feed: Feed) -> None:
        failures, loop = 0, asyncio.get_running_loop()
        while not self._stopping:
            if self._between:
                await self._do_between()
                failures = self._refusals = 0
            began = loop.time()
            self._asked_to_wait = 0.0
            error = await self._once(feed)
            lasted = loop.time() - began if self.state.connected else 0.0
            if self.state.connected or error != self.state.error:
                log.info("link.down", node=str(self.node), reason=error)
            since = self._clock() if self.state.connected else self.state.since
            if self._returning or self._between:
                self._set(connected=False, since=since, error=error)
                self._returning, failures = False, 0
                continue
            failures = 1 if lasted > STEADY else failures + 1
            pause = self._next_pause(failures)
            next_dial = self._clock() + timedelta(seconds=pause)
            self._set(connected=False, since=since, error=error, next_dial=next_dial)
            await self._pause(pause)

    async def _do_between(self) -> None:
        """Do what waited for the end of the session."""
        waiting, self._between = self._between, []
        for work, done in waiting:
            try:
                await work()
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

    def _next_pause(self, failures: int) -> float:
        """Seconds until the next try: longer where the upper end asks for that."""
        self._refusals = self._refusals + 1 if self._asked_to_wait > 0 else 0
        pause = self._backoff.pause(failures)
        if self._refusals:
            pause = max(pause, self._patience.pause(self._refusals, self._asked_to_wait))
        return pause

    async def _pause(self, seconds: float) -> None:
        self._at_once.clear()
        if self._between:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._at_once.wait()
        except TimeoutError:
            return

    async def _once(self, feed: Feed) -> str:
        """One attempt and, when it succeeds, its session; why it ended."""
        try:
            connection = await self._dialer.dial()
        except (LinkError, OSError) as error:
            self._asked_to_wait = _asks_to_wait(error)
            return str(error)
        except Exception as error:
            # Whatever is wrong with an endpoint or a file: a link that dials no more is lost for good.
            log.exception("link.failed", node=str(self.node))
            return _unexpected(error)
        session = Session(
            connection,
            self._store,
            feed,
            side="lower",
            node=self.node,
            name="",
            timing=self._timing,
            clock=self._clock,
            handler=self._handler,
            on_proof=lambda proof: self._set(proof=proof),
            pace=self._pace,
        )
        owned = self._dialer if isinstance(self._dialer, Owned) else None
        session.epoch = owned.epoch() if owned is not None else 0
        try:
            hello = await session.greet()
            if owned is not None and hello.epoch > session.epoch:
                owned.raise_epoch(hello.epoch)
            self._session = session
            if self._between:
                session.end("it moves")
            self._set(
                connected=True,
                since=self._clock(),
                upper=hello.node,
                upper_version=hello.version,
                endpoint=connection.peer.address,
                error="",
                next_dial=None,
                certificate_expires_at=self._dialer.expires(),
            )
            log.info("link.up", node=str(self.node), upper=hello.node, endpoint=connection.peer.address)
            await session.run()
        except LinkError as error:
            self._asked_to_wait = _asks_to_wait(error)
            return str(error)
        except Exception as error:
            log.exception("link.failed", node=str(self.node))
            return _unexpected(error)
        finally:
            self._session = None
            await session.abandon()
        return session.farewell.reason if session.farewell else "ended here"

    async def _renew(self) -> None:
        """Renew the certificate when two thirds of its life are over; try again until it works."""
        while True:
            due = self._dialer.renewal_due()
            if due is None:
                return
            wait = (due - self._clock()).total_seconds()
            if wait > 0:
                await rest(min(wait, 3600.0), self._clock)
                continue
            if self._session is None or not self.state.connected or not await self._renewed(self._session):
                await asyncio.sleep(self._retry())
            elif self._is_due():
                # One of the two clocks is wrong: to renew again would give the same.
                await rest(3600.0, self._clock)

    def _is_due(self) -> bool:
        due = self._dialer.renewal_due()
        return due is not None and self._clock() >= due

    def _retry(self) -> float:
        """A tenth of what is left of the certificate's life, between 1 s and RENEW_RETRY."""
        expires = self._dialer.expires()
        left = (expires - self._clock()) / timedelta(seconds=10) if expires else RENEW_RETRY
        return max(1.0, min(RENEW_RETRY, left))

    async def _renewed(self, session: Session) -> bool:
        try:
            await self._dialer.renew(session.call, self._clock())
        except (LinkError, Unreachable, OSError) as error:
            reason = str(error) or f"no certificate came within {RENEW_WITHIN:g} s"
            log.warning("link.renewal-failed", node=str(self.node), reason=reason)
            return False
        self._set(certificate_expires_at=self._dialer.expires())
        log.info("link.renewed", node=str(self.node))
        # The new certificate is proven while the old one would still work. Calls may finish first.
        deadline = asyncio.get_running_loop().time() + CALLS_MAY_FINISH
        while session.calls.open and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        self._returning = True
        session.end("the certificate was renewed", returning=True)
        return True
