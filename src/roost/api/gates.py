"""How many requests a server works on at once, and what those beyond are told.

Reads and writes are counted apart, so that neither keeps the other out; watches and those who follow the
audit have their own bounds (`watching.MOST`, `audits.FOLLOWERS`). One client, known by its certificate or its
address, gets at most half of the reads, of the writes and of the watches, so that one that runs wild leaves
room for the others. What is beyond the bounds is answered at once with 429 and Retry-After, before anything
is read or checked: clients of Kubernetes wait and come back. The bounds are those of Kubernetes' own server
(400 reads and 200 writes in flight).

Requests that come while the server stops are answered with 503, so that the client asks again elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from roost.api.access import PEER
from roost.api.status import ApiError
from roost.api.target import truth

READS = 400
WRITES = 200
LOGINS = 32


class Gate:
    """Bounds one class of requests."""

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what = most, what
        self._inside = 0
        self._of = Counter[str]()

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


class Gates:
    """An ASGI application that lets as many requests through to `app` as it can take."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._reads, self._writes = Gate(READS, "reads"), Gate(WRITES, "writes")
        # Whoever has no credential may wait with his body here alone.
        self._logins = Gate(LOGINS, "logins")
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        try:
            if self.stopping:
                raise _stopping()
            if scope["method"] in ("GET", "HEAD", "OPTIONS"):
                if _stays(scope["query_string"]):
                    return await self._app(scope, receive, send)
                gate = self._reads
            else:
                gate = self._logins if scope["path"].strip("/") == "login" else self._writes
            with gate.passing(client_of(scope)):
                await self._app(scope, receive, send)
        except ApiError as error:
            await error.response()(scope, receive, send)


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
    return f"address {client[0]}" if client else ""
