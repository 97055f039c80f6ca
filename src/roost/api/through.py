"""Answers calls that come over a link, by running the API in this process.

The caller was authenticated at the upper end and is put into the ASGI scope under a key that no socket
can set. The body of the answer streams through a queue of about QUEUED bytes: beyond it the application waits
until some is taken, so a slow link slows the watch down instead of filling memory. What the applications of
one link's calls still hold meanwhile is bounded over all of them (`outgoing`): the call that has gone longest
without being read is broken off, and that is logged. Closing the answer's body cancels the call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from urllib.parse import unquote

import structlog
from starlette.types import ASGIApp, Message, Scope

from roost.api.access import CALLER
from roost.api.outgoing import Outgoing
from roost.api.saying import said
from roost.link import exchange

QUEUED = 64 * 1024
MOST = 64 * 1024 * 1024
"""Bytes of answers that wait, of all calls together."""
HEAD_WITHIN = 60.0

_log = structlog.get_logger("roost.api")


def handler(app: ASGIApp) -> exchange.Handler:
    """A link's handler that asks `app`."""
    waiting = Outgoing[_Body](MOST)

    async def answer(request: exchange.Request) -> exchange.Response:
        return await _Call(app, request, _Body(waiting, request.caller.name)).respond()

    return answer


class _Body:
    """The answer's body: what the application sends, until it ends or is closed."""

    def __init__(self, waiting: Outgoing[_Body], client: str) -> None:
        self._waiting, self._client = waiting, client
        self._parts: deque[bytes | Exception | None] = deque()
        self._size = 0
        self._came, self._taken = asyncio.Event(), asyncio.Event()
        self.closed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.closed.is_set():
            raise StopAsyncIteration
        while not self._parts:
            self._came.clear()
            await self._came.wait()
        part = self._parts.popleft()
        if isinstance(part, bytes):
            self._size -= len(part)
            self._taken.set()
            return part
        self.closed.set()
        if part is None:
            raise StopAsyncIteration
        raise part

    async def put(self, part: bytes) -> None:
        """Add a part, and wait until little is left of it; nothing once closed."""
        if len(part) <= QUEUED:
            return await self._add(part)
        loop = asyncio.get_running_loop()
        for body in self._waiting.add(self, self._client, len(part), loop.time()):
            body.break_off()
        try:
            for at in range(0, len(part), QUEUED):
                await self._add(part[at : at + QUEUED])
                self._waiting.moved(self, loop.time())
        finally:
            self._waiting.remove(self)

    async def _add(self, part: bytes) -> None:
        if self.closed.is_set():
            return
        self._parts.append(part)
        self._size += len(part)
        self._came.set()
        while self._size > QUEUED and not self.closed.is_set():
            self._taken.clear()
            await self._taken.wait()

    def end(self, error: Exception | None = None) -> None:
        """There is no more; `error` says why when that is not the end of the answer."""
        self._parts.append(error)
        self._came.set()

    def break_off(self) -> None:
        """End a call whose answer is not read, for want of memory."""
        if said.first("call broken off"):
            _log.warning("call broken off", user=self._client, reason="its answer was not read")
        self._parts.clear()
        self._size = 0
        self.end(exchange.Unreachable("", "the answer was not read, and was broken off for want of memory"))
        if self.task is not None:
            self.task.cancel()

    async def aclose(self) -> None:
        """End the call early."""
        self.closed.set()
        self._taken.set()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])


class _Call:
    """One request in flight."""

    def __init__(self, app: ASGIApp, request: exchange.Request, body: _Body) -> None:
        self._app, self._request, self._body = app, request, body
        self._started: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._received = False

    async def respond(self) -> exchange.Response:
        """The response once its head is there; its body goes on streaming."""
        self._body.task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(HEAD_WITHIN):
                start = await self._started
        except BaseException:
            await self._body.aclose()
            raise
        headers = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in start["headers"]]
        return exchange.Response(start["status"], headers, self._body)

    async def _run(self) -> None:
        try:
            await self._app(_scope(self._request), self._receive, self._send)
        except Exception as error:
            if not self._started.done():
                self._started.set_exception(error)
            self._body.end(error)
        else:
            if not self._started.done():
                self._started.set_exception(RuntimeError("the application ended without an answer"))
            self._body.end()

    async def _receive(self) -> Message:
        if not self._received:
            self._received = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._body.closed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started.set_result(message)
        elif message.get("body"):
            await self._body.put(bytes(message["body"]))


def _scope(request: exchange.Request) -> Scope:
    path, _, query = request.path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "https",
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in request.headers],
        "client": None,
        "server": None,
        CALLER: request.caller,
    }
