"""Calls between the processes of one cloud: to the one that has the link of the node that is asked.

Both ends are of one cloud: the asker shows a certificate that only its authority issues, and only to itself
(`pki.PROCESS_URI`), so what it says of the user is believed, as on a link downwards. One connection to each
other process, dialled when it is needed, carries all calls; their number, sizes and deadlines are those of
calls through a link. The path begins with the node: `/subcloud/NAME/...`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from roost.link import messages, pki, sockets
from roost.link.calls import Calls
from roost.link.errors import BadMessage, LinkError
from roost.link.exchange import Caller, Request, Response, Unreachable
from roost.link.files import write_private
from roost.link.messages import Call, CallStart, Message
from roost.link.node import BadNode, Node, parse
from roost.link.wire import Connection

DIAL_WITHIN = 5.0
ANSWER_WITHIN = 35.0
"""Longer than what the process that is asked waits for the node: it has the better words."""
SEND_WITHIN = 30.0
IDLE = 300.0
"""Seconds after which a connection without calls is given up."""
CERTIFICATE_LIFETIME = timedelta(days=1)

log = structlog.get_logger(__name__)

CallNode = Callable[[Node, Request], Awaitable[Response]]


class _Line:
    """One connection with its calls, at either end."""

    def __init__(self, connection: Connection, handler: CallNode | None, *, first: int, peer: str) -> None:
        self._connection, self._call_node = connection, handler
        self.calls = Calls(
            self._send, self._answer if handler else None, first=first, peer=peer, caller=_caller
        )

    async def run(self) -> None:
        """Until the connection ends, or has been idle. Raises LinkError."""
        try:
            while True:
                try:
                    async with asyncio.timeout(IDLE):
                        frame = await self._connection.receive()
                except TimeoutError:
                    if self.calls.open:
                        continue
                    return
                message = messages.unpack(frame)
                if not isinstance(message, Call):
                    raise BadMessage("here are only calls")
                self.calls.take(message)
        finally:
            await self.calls.close("the connection to the other process ended")
            await self._connection.close()

    async def _send(self, message: Message) -> None:
        async with asyncio.timeout(SEND_WITHIN):
            await self._connection.send(messages.pack(message))

    async def _answer(self, request: Request) -> Response:
        if self._call_node is None:
            raise Unreachable("", "nothing answers calls here")
        kind, name, path = (*request.path.removeprefix("/").split("/", 2), "")[:3]
        try:
            node = parse(f"{kind}/{name}")
        except BadNode as error:
            raise Unreachable(request.path[:100], str(error)) from None
        whole = Request(
            method=request.method,
            path=f"/{path}",
            headers=request.headers,
            body=request.body,
            caller=request.caller,
        )
        return await self._call_node(node, whole)


def _caller(start: CallStart) -> Caller:
    extra = {key: list(values) for key, values in start.extra.items()}
    return Caller(start.caller, list(start.groups), start.uid, extra, start.by)


async def serve(connection: Connection, call_node: CallNode) -> None:
    """Answer another process of this cloud, until it has no more to ask."""
    try:
        await _Line(connection, call_node, first=2, peer="another process of this cloud").run()
    except LinkError as error:
        log.debug("link.between-ended", reason=str(error))


class Between:
    """The connections to other processes. `close` in the end."""

    def __init__(self, authority: pki.Authority, directory: Path, clock: Callable[[], datetime]) -> None:
        self._authority, self._file, self._clock = authority, directory / "process.pem", clock
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling: dict[str, asyncio.Lock] = {}

    async def call(self, process: str, where: str, node: Node, request: Request) -> Response:
        """Have a process ask a node whose link it has. Raises Unreachable."""
        forwarded = Request(
            method=request.method,
            path=f"/{node}{request.path}",
            headers=request.headers,
            body=request.body,
            caller=request.caller,
        )
        try:
            line = await self._line(process, where)
        except (LinkError, OSError) as error:
            raise Unreachable(
                str(node), f"its link is at {process} of this cloud, which can't be reached: {error}"
            ) from None
        try:
            return await line.calls.call(forwarded, answer_within=ANSWER_WITHIN)
        except Unreachable as error:
            raise Unreachable(str(node), error.reason) from None

    async def _line(self, process: str, where: str) -> _Line:
        async with self._dialling.setdefault(process, asyncio.Lock()):
            found = self._lines.get(process)
            if found is not None:
                return found
            context = self._context()
            connection = await sockets.connect(where, context, sockets.PROCESS_PATH, within=DIAL_WITHIN)
            line = self._lines[process] = _Line(connection, None, first=1, peer=process)
            task = asyncio.get_running_loop().create_task(self._run(process, line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return line

    async def _run(self, process: str, line: _Line) -> None:
        try:
            await line.run()
        except LinkError as error:
            log.debug("link.between-ended", process=process, reason=str(error))
        finally:
            if self._lines.get(process) is line:
                del self._lines[process]
                self._dialling.pop(process, None)

    def _context(self) -> ssl.SSLContext:
        issued = self._authority.issue_process(self._clock(), CERTIFICATE_LIFETIME)
        write_private(self._file, issued.key + issued.certificate)
        return sockets.verified_context(self._authority.certificate_pem.decode(), self._file)

    async def close(self) -> None:
        """End all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
