"""How many requests a server works on at once, and what those beyond are told.

Reads and writes are counted apart, so that neither keeps the other out; watches and those who follow the
audit have their own bounds (`watching.MOST`, `audits.FOLLOWERS`). One client, known by its certificate or its
address, gets at most half of the reads, of the writes and of the watches, so that one that runs wild leaves
room for the others. What is beyond the bounds is answered at once with 429 and Retry-After, before anything
is read or checked: clients of Kubernetes wait and come back. The bounds are those of Kubernetes' own server
(400 reads and 200 writes in flight).

A request has its place only while it is worked on. While its body is still to come it has none: the place
is given back when the body is first asked for, and taken again when the last of it is there (then 429,
should all be taken meanwhile). So whoever sends slowly keeps no other out. A body that has grown beyond SMALL
before its end takes one of ARRIVING places, which bounds the memory of bodies on their way: SMALL for each
connection, and `bodies.LARGEST` for each of those places. However a request ends, it leaves no place taken.

Requests that come while the server stops are answered with 503, so that the client asks again elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roost.api.access import PEER
from roost.api.addresses import origin
from roost.api.status import ApiError
from roost.api.target import truth

READS = 400
WRITES = 200
LOGINS = 32
ARRIVING = 64
"""Bodies larger than SMALL that may be on their way at once."""
SMALL = 64 * 1024


class Gate:
    """Bounds one class of requests."""

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what = most, what
        self._inside = 0
        self._of = Counter[str]()

    @property
    def inside(self) -> int:
        """How many are let through at present."""
        return self._inside

    @contextmanager
    def passing(self, client: str) -> Iterator[None]:
        """While a request is worked on; raises ApiError 429 when there are too many."""
        if self._inside >= self._most or self._of[client] >= max(1, self._most // 2):
            raise self._refused()
        self._inside += 1
        self._of[client] += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]

    def _refused(self) -> ApiError:
        message = f"too many {self._what} are being worked on; try again in a second"
        return ApiError(429, message, details={"retryAfterSeconds": 1}, headers={"Retry-After": "1"})


class _Passage:
    """One request's way: what it holds of the gates, which changes while its body arrives."""

    def __init__(self, work: Gate | None, arriving: Gate, client: str) -> None:
        self._work, self._arriving, self._client = work, arriving, client
        self._held = ExitStack()
        self._size = 0
        self._over = False
        """Whether the body is there, the client gone, or the answer begun: nothing is given back any more."""

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through; raises ApiError 429."""

        async def received() -> Message:
            if self._over:
                return await receive()
            if not self._size:
                self._held.close()
            message = await receive()
            self._take(message)
            return message

        async def sent(message: Message) -> None:
            self._over = True
            await send(message)

        with self._held:
            self._begin()
            await app(scope, received, sent)

    def _begin(self) -> None:
        if self._work is not None:
            self._held.enter_context(self._work.passing(self._client))

    def _take(self, message: Message) -> None:
        """Part of the body has come, or the end of it, or of the client."""
        if self._over:
            return
        if message["type"] == "http.request" and message.get("more_body", False):
            before, self._size = self._size, self._size + len(message.get("body", b""))
            if before <= SMALL < self._size:
                self._held.enter_context(self._arriving.passing(self._client))
            return
        self._over = True
        self._held.close()
        if message["type"] == "http.request":
            self._begin()


class Gates:
    """An ASGI application that lets as many requests through to `app` as it can take."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.reads, self.writes = Gate(READS, "reads"), Gate(WRITES, "writes")
        self.logins = Gate(LOGINS, "logins")
        """Apart from the writes: these come from whoever has no credential."""
        self.arriving = Gate(ARRIVING, "large bodies")
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        try:
            if self.stopping:
                raise _stopping()
            passage = _Passage(self._gate_of(scope), self.arriving, client_of(scope))
            await passage.run(self._app, scope, receive, send)
        except ApiError as error:
            await error.response()(scope, receive, send)

    def _gate_of(self, scope: Scope) -> Gate | None:
        """The gate for a request; None for what is bounded elsewhere."""
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None if _stays(scope["query_string"]) else self.reads
        return self.logins if scope["path"].strip("/") == "login" else self.writes


def _stays(query: bytes) -> bool:
    """Whether a request asks for an answer that goes on."""
    if b"watch" not in query and b"follow" not in query and b"%" not in query:
        return False
    asked = QueryParams(query)
    return truth(asked, "watch") or truth(asked, "follow")


def _stopping() -> ApiError:
    headers = {"Retry-After": "1", "Connection": "close"}
    message = "this server is stopping; try again, another one or the next one will answer"
    return ApiError(503, message, details={"retryAfterSeconds": 1}, headers=headers)


def client_of(scope: Scope) -> str:
    """Who asks, as far as the connection tells; empty for what comes through a link."""
    peer: dict[str, Any] | None = scope.get(PEER)
    if peer:
        return f"certificate {peer.get('serialNumber', '')}"
    client = scope.get("client")
    return f"address {origin(client[0])}" if client else ""
