"""The socket of a running laboratory: one request a connection, one reply, a JSON line each.

The socket stands in the laboratory's directory, which only its owner may enter. Messages are
strict: an unknown verb, field or type is refused with its name. Lines, waits and the output of a
command have limits.

For a terminal inside a host `attach_command` gives a command to exec: the client's own process
then steps into the host through /proc, and keeps its terminal, its signals and its exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from roost.sim.lab.errors import LabError
from roost.sim.lab.ground import CONTROL
from roost.sim.lab.namespaces import user_namespace
from roost.sim.lab.network import Direction, Manner, Repair
from roost.sim.lab.spawn import launcher
from roost.sim.lab.strays import MARK
from roost.sim.lab.supervisor import ProcessStatus
from roost.sim.lab.uplink import Impairment

_MAXIMUM_REQUEST = 65_536
_MAXIMUM_REPLY = 4_194_304
_READ_SECONDS = 5.0
MAXIMUM_COMMAND_SECONDS = 60.0


class _Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="verb", forbid_unknown_fields=True):
    pass


class Status(_Request, frozen=True, tag="status"):
    """Everything there is to know."""


class Cut(_Request, frozen=True, tag="cut"):
    """Stop what passes a site's wide-area link, without a word or with resets."""

    site: str
    direction: Direction = "both"
    manner: Manner = "silent"


class Slow(_Request, frozen=True, tag="slow"):
    """Let a site's wide-area link be slow and lossy; replaces an earlier impairment."""

    site: str
    impairment: Impairment


class Mend(_Request, frozen=True, tag="mend"):
    """Let everything pass again, at full speed; or end only the cut, or only what slows."""

    site: str
    only: Repair = "all"


class Kill(_Request, frozen=True, tag="kill"):
    """End a process by SIGKILL; it is started again."""

    process: str


class Halt(_Request, frozen=True, tag="halt"):
    """End a process by SIGKILL and leave it dead until it is resumed."""

    process: str


class Pause(_Request, frozen=True, tag="pause"):
    """Stop a process where it stands."""

    process: str


class Resume(_Request, frozen=True, tag="resume"):
    """Let it go on, or start it when it rests, was halted or was given up."""

    process: str


class Execute(_Request, frozen=True, tag="exec"):
    """Run a command in a host and return what it wrote."""

    host: str
    argv: list[str]
    seconds: float = 10.0


class Stop(_Request, frozen=True, tag="stop"):
    """End the laboratory as Ctrl-C does."""


class _Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="reply", forbid_unknown_fields=True):
    pass


class Done(_Reply, frozen=True, tag="done"):
    """It was done; `text` says what."""

    text: str


class Refused(_Reply, frozen=True, tag="refused"):
    """It was not done."""

    reason: str
    remedy: str


class Finished(_Reply, frozen=True, tag="finished"):
    """A command ended. `code` is negative for a signal; `output` is standard output and error in one."""

    code: int
    output: str
    truncated: bool = False


class SiteStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A site and its link; `cut` and `slow` are empty while it is whole."""

    name: str
    mode: str
    router: str
    address: str
    cut: Direction | None = None
    slow: Impairment | None = None


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace: its holder's descriptor, and its addresses by port."""

    name: str
    site: str
    descriptor: int
    personalities: list[str] = []
    addresses: dict[str, list[str]] = {}


class LabStatus(_Reply, frozen=True, tag="status"):
    """The whole laboratory. `user_namespace` tells one user namespace from another."""

    pid: int
    mark: str
    rights: str
    user_namespace: int
    started: float
    sites: list[SiteStatus]
    nodes: list[NodeStatus]
    processes: list[ProcessStatus]


Request: TypeAlias = Status | Cut | Slow | Mend | Kill | Halt | Pause | Resume | Execute | Stop
Reply: TypeAlias = Done | Refused | Finished | LabStatus
Handler: TypeAlias = Callable[[Request], Awaitable[Reply]]

_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


class ControlServer:
    """Answers requests on the socket of a directory."""

    def __init__(self, directory: Path, handler: Handler) -> None:
        self._path = directory / CONTROL
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self._path, limit=_MAXIMUM_REQUEST)
        self._path.chmod(0o600)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            reply = await self._reply(reader)
            writer.write(msgspec.json.encode(reply) + b"\n")
            async with asyncio.timeout(_READ_SECONDS):
                await writer.drain()
        except (TimeoutError, OSError):
            return  # the client went away; it hears nothing, and nothing waits for it
        finally:
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader) -> Reply:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                line = await reader.readline()
            request = _requests.decode(line)
        except (ValueError, msgspec.DecodeError) as error:  # readline raises ValueError over the limit
            return Refused(
                reason=f"not a request: {error}", remedy="use the same version of roost on both sides"
            )
        try:
            return await self._handler(request)
        except LabError as error:
            return Refused(reason=error.reason, remedy=error.remedy)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._answering):
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._path.unlink()


async def call(directory: Path, request: Request, *, within: float = 15.0) -> Reply:
    """Ask the laboratory that runs from a directory; a refusal is raised as LabError."""
    path = directory / CONTROL
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_unix_connection(path, limit=_MAXIMUM_REPLY)
            try:
                writer.write(msgspec.json.encode(request) + b"\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise LabError(f"no demo runs from {directory}", "start it with `make demo`") from error
    except PermissionError as error:
        raise LabError(f"the demo in {directory} belongs to another user", "run this as that user") from error
    except TimeoutError as error:
        raise LabError(
            f"the demo in {directory} gave no answer in {within:g} s",
            "see whether it hangs, and start it again",
        ) from error
    except OSError as error:
        raise LabError(f"the demo in {directory} broke off: {error}", "start it with `make demo`") from error
    if not line:
        raise LabError(f"the demo in {directory} ended without an answer", "start it with `make demo`")
    try:
        reply = _replies.decode(line)
    except msgspec.DecodeError as error:
        raise LabError(
            f"the demo's answer is not understood: {error}", "use the same version of roost on both sides"
        ) from error
    if isinstance(reply, Refused):
        raise LabError(reply.reason, reply.remedy)
    return reply


async def status(directory: Path) -> LabStatus:
    """Everything about the laboratory that runs from a directory."""
    reply = await call(directory, Status())
    if not isinstance(reply, LabStatus):
        raise LabError(
            f"the demo in {directory} answered {type(reply).__name__} to status",
            "use the same version of roost on both sides",
        )
    return reply


async def attach_command(directory: Path, host: str, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` in a host of a running laboratory, for this process to exec."""
    lab = await status(directory)
    node = next((node for node in lab.nodes if node.name == host), None)
    if node is None:
        known = ", ".join(node.name for node in lab.nodes)
        raise LabError(f"there is no host or router named {host}", f"choose one of: {known}")
    options = [f"--net=/proc/{lab.pid}/fd/{node.descriptor}", f"--hostname={host}"]
    if user_namespace() != lab.user_namespace:
        options.insert(0, f"--user=/proc/{lab.pid}/ns/user")
    # Marked, so that the end of the laboratory is also the end of what was started in it.
    return [*launcher(), *options, "--", "env", f"{MARK}={lab.mark}", *argv]
