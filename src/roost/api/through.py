"""Answers calls that come over a link, by running the API in this process.

The caller was authenticated at the upper end and is put into the ASGI scope under a key that no socket
can set. The body of the answer streams through a small bounded queue, so a slow link slows the
watch down instead of filling memory; closing the answer's body cancels the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

from roost.api.access import CALLER
from roost.link import exchange

QUEUED = 8
HEAD_WITHIN = 60.0


def handler(app: ASGIApp) -> exchange.Handler:
    """A link's handler that asks `app`."""

    async def answer(request: exchange.Request) -> exchange.Response:
        return await _Call(app, request).respond()

    return answer


class _Body:
    """The answer's body: what the application sends, until it ends or is closed."""

    def __init__(self) -> None:
        self._parts: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(QUEUED)
        self.closed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.closed.is_set():
            raise StopAsyncIteration
        part = await self._parts.get()
        if isinstance(part, bytes):
            return part
        self.closed.set()
        if part is None:
            raise StopAsyncIteration
        raise part

    async def put(self, part: bytes | Exception | None) -> None:
        """Add a part, an error, or None for the end; nothing once closed."""
        if not self.closed.is_set():
            await self._parts.put(part)

    async def aclose(self) -> None:
        """End the call early."""
        self.closed.set()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])


class _Call:
    """One request in flight."""

    def __init__(self, app: ASGIApp, request: exchange.Request) -> None:
        self._app, self._request = app, request
        self._started: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._body = _Body()
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
            await self._body.put(error)
        else:
            if not self._started.done():
                self._started.set_exception(RuntimeError("the application ended without an answer"))
            await self._body.put(None)

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
            await self._body.put(message["body"])


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
