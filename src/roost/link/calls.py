"""Calls through one link, in both directions: many at once, streamed, bounded, cancellable.

A call is CallStart, its request body in CallBody pieces, then back CallAnswer, CallBody pieces and
CallEnd. The asker grants credit as it reads: the answerer never has more than WINDOW bytes under way,
so a reader that stops holds nothing up but its own call. The lower end numbers its calls oddly, the
upper end evenly, so each side knows whose call a message speaks of.

Messages of calls that are over are ignored: they crossed the end on the way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import structlog

from roost.link.errors import SAID, BadMessage, LinkError
from roost.link.exchange import Caller, Handler, Request, Response, Unreachable
from roost.link.messages import (
    Call,
    CallAnswer,
    CallBody,
    CallCancel,
    CallCredit,
    CallEnd,
    CallStart,
    Message,
)

log = structlog.get_logger(__name__)

CONCURRENT = 64
BODY_LIMIT = 3 * 1024 * 1024
BODIES_LIMIT = 16 * 1024 * 1024
WINDOW = 256 * 1024
PIECE = 64 * 1024
HEADERS_LIMIT = 64 * 1024

Send = Callable[[Message], Awaitable[None]]


class _Asked:
    """A call of ours: what came back of it so far."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[CallAnswer] = asyncio.get_running_loop().create_future()
        self.pieces: deque[bytes] = deque()
        self.buffered = 0
        self.read = 0
        self.ended = False
        self.error = ""
        self.arrived = asyncio.Event()

    def end(self, error: str) -> None:
        self.ended, self.error = True, error
        if not self.answer.done():
            self.answer.set_exception(Unreachable("", error or "the call ended without an answer"))
            self.answer.exception()
        self.arrived.set()


class _Answering:
    """A call of the peer's: its request as far as it has come, then the task that answers."""

    def __init__(self, start: CallStart) -> None:
        self.start = start
        self.body = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.credit = WINDOW
        self.credited = asyncio.Event()


class _Body:
    """Body of a response as it comes through the link. Closing it early cancels the call."""

    def __init__(self, calls: Calls, number: int, asked: _Asked) -> None:
        self._calls, self._number, self._asked = calls, number, asked

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        asked = self._asked
        while not asked.pieces:
            if asked.ended:
                if asked.error:
                    raise Unreachable(self._calls.peer, asked.error)
                raise StopAsyncIteration
            asked.arrived.clear()
            await asked.arrived.wait()
        piece = asked.pieces.popleft()
        asked.buffered -= len(piece)
        asked.read += len(piece)
        if asked.read >= WINDOW // 2 and not asked.ended:
            credit, asked.read = asked.read, 0
            await self._calls.grant(self._number, credit)
        return piece

    async def aclose(self) -> None:
        self._calls.cancel(self._number)


class Calls:
    """All calls of one session. `first` is 1 at the lower end, 2 at the upper."""

    def __init__(
        self,
        send: Send,
        handler: Handler | None,
        *,
        first: int,
        peer: str,
        caller: Callable[[CallStart], Caller],
    ) -> None:
        self._send, self._handler, self._caller, self.peer = send, handler, caller, peer
        self._next = first
        self._asked: dict[int, _Asked] = {}
        self._answering: dict[int, _Answering] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = ""

    @property
    def open(self) -> int:
        """Calls under way in both directions."""
        return len(self._asked) + len(self._answering)

    def awaits(self, message: CallAnswer | CallBody | CallEnd) -> bool:
        """Whether a message belongs to a call that is under way."""
        return message.call in self._asked or message.call in self._answering

    # -- asking

    async def call(self, request: Request, *, answer_within: float) -> Response:
        """Ask the peer. Raises Unreachable; ValueError for a body over BODY_LIMIT."""
        if len(request.body) > BODY_LIMIT:
            raise ValueError(f"a body of {len(request.body)} bytes, a call carries {BODY_LIMIT}")
        if self._closed:
            raise Unreachable(self.peer, self._closed)
        if len(self._asked) >= CONCURRENT:
            raise Unreachable(self.peer, f"{CONCURRENT} calls are under way; try again in a second")
        number, self._next = self._next, self._next + 2
        asked = self._asked[number] = _Asked()
        try:
            async with asyncio.timeout(answer_within):
                await self._ask(number, request)
                answer = await asked.answer
        except TimeoutError:
            self.cancel(number)
            raise Unreachable(self.peer, f"no answer came within {answer_within:g} s") from None
        except LinkError as error:
            self.cancel(number)
            raise Unreachable(self.peer, str(error)) from None
        except Unreachable as error:
            self._asked.pop(number, None)
            raise Unreachable(self.peer, error.reason) from None
        except asyncio.CancelledError:
            self.cancel(number)
            raise
        return Response(answer.status, answer.headers, _Body(self, number, asked))

    async def _ask(self, number: int, request: Request) -> None:
        start = CallStart(
            call=number,
            method=request.method,
            path=request.path,
            headers=request.headers,
            caller=request.caller.name,
            groups=request.caller.groups,
            size=len(request.body),
            uid=request.caller.uid,
            extra=request.caller.extra,
            by=request.caller.by,
        )
        await self._send(start)
        for at in range(0, len(request.body), PIECE):
            await self._send(CallBody(call=number, data=request.body[at : at + PIECE]))

    def cancel(self, number: int) -> None:
        """End a call of ours early; nothing happens when it is over."""
        asked = self._asked.pop(number, None)
        if asked is None or asked.ended:
            return
        asked.end("the call was cancelled")
        if not self._closed:
            self._spawn(self._quietly(CallCancel(call=number)))

    async def grant(self, number: int, size: int) -> None:
        """Tell the answerer that so much was read."""
        await self._quietly(CallCredit(call=number, size=size))

    # -- what comes in

    def take(self, message: Call) -> None:
        """A message of the peer's. Raises BadMessage."""
        match message:
            case CallStart():
                self._begin(message)
            case CallBody():
                self._body(message)
            case CallAnswer():
                if sum(len(k) + len(v) for k, v in message.headers) > HEADERS_LIMIT:
                    raise BadMessage("the headers of an answer are too large")
                asked = self._asked.get(message.call)
                if asked and not asked.answer.done():
                    asked.answer.set_result(message)
            case CallEnd():
                asked = self._asked.pop(message.call, None)
                if asked:
                    asked.end(message.error[:SAID])
            case CallCancel():
                self._drop(message.call)
            case CallCredit():
                answering = self._answering.get(message.call)
                if answering:
                    answering.credit = min(WINDOW, answering.credit + message.size)
                    answering.credited.set()

    def _body(self, message: CallBody) -> None:
        asked, answering = self._asked.get(message.call), self._answering.get(message.call)
        if asked:
            if not message.data:
                return
            asked.buffered += len(message.data)
            if asked.buffered > WINDOW + PIECE:
                raise BadMessage("a call's body came without credit")
            asked.pieces.append(message.data)
            asked.arrived.set()
        elif answering and answering.task is None:
            answering.body += message.data
            if len(answering.body) > answering.start.size:
                raise BadMessage("a call's body is longer than was said")
            self._complete(answering)

    # -- answering

    def _begin(self, start: CallStart) -> None:
        if start.call in self._answering or start.call % 2 == self._next % 2:
            raise BadMessage(f"call {start.call} begins twice")
        if start.size < 0:
            raise BadMessage(f"a call of {start.size} bytes")
        pending = sum(a.start.size for a in self._answering.values())
        error = ""
        if self._handler is None:
            error = "nothing answers calls here"
        elif len(self._answering) >= CONCURRENT:
            error = f"{CONCURRENT} calls are under way; try again in a second"
        elif start.size > BODY_LIMIT:
            error = f"the request is too large: {start.size} bytes, the limit is {BODY_LIMIT}"
        elif pending + start.size > BODIES_LIMIT:
            error = "large requests are under way; try again in a second"
        elif _head(start) > HEADERS_LIMIT:
            error = "the request's headers are too large"
        if error:
            # Bounded like all the rest: who floods us with calls waits for these answers to go out.
            if len(self._tasks) < 4 * CONCURRENT:
                self._spawn(self._quietly(CallEnd(call=start.call, error=error)))
            return
        answering = self._answering[start.call] = _Answering(start)
        self._complete(answering)

    def _complete(self, answering: _Answering) -> None:
        if len(answering.body) == answering.start.size:
            answering.task = self._spawn(self._answer(answering))

    async def _answer(self, answering: _Answering) -> None:
        start, error = answering.start, ""
        try:
            assert self._handler is not None  # noqa: S101 - refused in _begin else
            request = Request(
                method=start.method,
                path=start.path,
                headers=start.headers,
                body=bytes(answering.body),
                caller=self._caller(start),
            )
            response = await self._handler(request)
            try:
                await self._stream(answering, response)
            finally:
                await response.aclose()
        except Unreachable as failure:
            error = str(failure)
        except LinkError:
            return
        except Exception:
            log.exception("link.call-failed", method=start.method, path=start.path.partition("?")[0])
            error = "the call failed there; its log says why"
        finally:
            self._answering.pop(start.call, None)
        await self._quietly(CallEnd(call=start.call, error=error))

    async def _stream(self, answering: _Answering, response: Response) -> None:
        call = answering.start.call
        await self._send(CallAnswer(call=call, status=response.status, headers=response.headers))
        async for chunk in response.body:
            for at in range(0, len(chunk), PIECE):
                piece = bytes(chunk[at : at + PIECE])
                while answering.credit <= 0:
                    answering.credited.clear()
                    await answering.credited.wait()
                answering.credit -= len(piece)
                await self._send(CallBody(call=call, data=piece))

    def _drop(self, call: int) -> None:
        answering = self._answering.pop(call, None)
        if answering and answering.task:
            answering.task.cancel()

    # -- ending

    async def close(self, reason: str) -> None:
        """End everything: who waits for an answer gets Unreachable."""
        self._closed = reason or "the link is down"
        for asked in list(self._asked.values()):
            asked.end(self._closed)
        self._asked.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _quietly(self, message: Message) -> None:
        """Send what is no loss when the link is going down: its end tells the other side as much."""
        try:
            await self._send(message)
        except LinkError:
            return


def _head(start: CallStart) -> int:
    """Characters of all of a call but its body."""
    said = [start.method, start.path, start.caller, start.uid, start.by, *start.groups]
    said += [part for header in start.headers for part in header]
    said += [part for name, values in start.extra.items() for part in (name, *values)]
    return sum(map(len, said))
