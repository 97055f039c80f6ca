"""The only module that runs nft. It reads, checks, replaces and removes our one table.

Every change is one nft batch, which the kernel carries out as one transaction: either the whole new
table is in force or the former one is untouched, whenever this process or nft is killed. Input goes
through a pipe, never through arguments. Every run has a deadline; its output is bounded.

Errors say which command it was, what nft said, and what to do. `prefix` runs nft elsewhere, for
instance in a network namespace: ("ip", "netns", "exec", NAME).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Sequence

import msgspec

from roost.host.firewall.rules import FAMILY, TABLE, Json, installation

DEADLINE_SECONDS = 15.0
MAX_OUTPUT = 32 * 1024 * 1024
_SAID = 1500


class FirewallError(Exception):
    """nft could not do what was asked. `outcome_known` is False when it may or may not have done it."""

    outcome_known = True

    def __init__(self, command: Sequence[str], said: str, remedy: str) -> None:
        super().__init__(f"{' '.join(command)}: {said}; {remedy}")
        self.command, self.said, self.remedy = tuple(command), said, remedy


class NftMissing(FirewallError):
    """There is no nft on this host."""


class NftDenied(FirewallError):
    """The kernel denied us the right."""


class NftRefused(FirewallError):
    """nft or the kernel refused the rules, or the listing could not be understood."""


class NftTimeout(FirewallError):
    """nft did not end within the deadline and was killed."""

    outcome_known = False


class FirewallDriver:
    """Our table in one network namespace."""

    def __init__(
        self, prefix: Sequence[str] = (), *, nft: str = "nft", deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self._command = (*prefix, nft)
        self._deadline_seconds = deadline_seconds

    async def read(self) -> list[Json] | None:
        """What nft lists of our table; None when there is none. For planning.parse."""
        command = (*self._command, "-j", "list", "table", FAMILY, TABLE)
        code, output, said = await self._run(command, b"")
        if code != 0:
            if "Error: No such file or directory" in said and f"list table {FAMILY} {TABLE}" in said:
                return None
            raise _failure(command, code, said)
        try:
            return msgspec.json.decode(output, type=_Listing).nftables
        except msgspec.MsgspecError as error:
            raise NftRefused(
                command, f"its listing is not as expected: {error}", "check nft's version"
            ) from error

    async def check(self, commands: Sequence[Json] | None) -> None:
        """Let nft and the kernel judge the rules without a change. Raises NftRefused with what they say."""
        await self._batch(("-c",), commands)

    async def apply(self, commands: Sequence[Json]) -> None:
        """Replace our table by what `commands` make, in one transaction."""
        await self._batch((), commands)

    async def remove(self) -> None:
        """Remove our table and verify that it is gone."""
        await self._batch((), None)
        if await self.read() is not None:
            raise NftRefused(
                (*self._command, "-j", "-f", "-"),
                f"table {FAMILY} {TABLE} is back right after its removal",
                f"find out who else makes a table named {TABLE}",
            )

    async def _batch(self, options: Sequence[str], commands: Sequence[Json] | None) -> None:
        command = (*self._command, *options, "-j", "-f", "-")
        code, _, said = await self._run(command, msgspec.json.encode(installation(commands)))
        if code != 0:
            raise _failure(command, code, said)

    async def _run(self, command: Sequence[str], data: bytes) -> tuple[int, bytes, str]:
        try:
            with _held(data) as file:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=file,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env={**os.environ, "LC_ALL": "C"},
                    start_new_session=True,
                )
        except FileNotFoundError as error:
            raise _missing(command, str(error)) from error
        except PermissionError as error:
            raise _denied(command, str(error)) from error
        try:
            async with asyncio.timeout(self._deadline_seconds):
                output, said = await _listen(process)
        except TimeoutError as error:
            raise NftTimeout(
                command,
                f"no answer within {self._deadline_seconds:g} seconds",
                "it is asked again; look at the load of the host if this goes on",
            ) from error
        finally:
            if process.returncode is None:
                _kill(process)
                await process.wait()
        if len(output) > MAX_OUTPUT:
            raise NftRefused(command, f"it wrote more than {MAX_OUTPUT} bytes", f"look at table {TABLE}")
        return process.returncode or 0, output, said.decode(errors="replace").strip()


class _Listing(msgspec.Struct):
    nftables: list[Json]


@contextlib.contextmanager
def _held(data: bytes) -> Iterator[int]:
    """Data as a file in memory: nft opens /dev/stdin anew, and uvloop gives children sockets there."""
    descriptor = os.memfd_create("nft", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


async def _listen(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    """What nft writes; one that writes more than MAX_OUTPUT is killed."""
    if process.stdout is None or process.stderr is None:
        raise ValueError("nft is run with pipes")
    output, said = await asyncio.gather(_take(process, process.stdout), _take(process, process.stderr))
    await process.wait()
    return output, said


async def _take(process: asyncio.subprocess.Process, pipe: asyncio.StreamReader) -> bytes:
    taken = bytearray()
    while chunk := await pipe.read(65536):
        if len(taken) <= MAX_OUTPUT:
            taken += chunk
        elif process.returncode is None:
            _kill(process)
    return bytes(taken)


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill nft and what its prefix started: a child that lives on would hold our pipes open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _failure(command: Sequence[str], code: int, said: str) -> FirewallError:
    said = said[:_SAID] or f"ended with {code} and said nothing"
    if "Operation not permitted" in said or "Permission denied" in said:
        return _denied(command, said)
    if "exec of" in said and "No such file or directory" in said:
        return _missing(command, said)
    return NftRefused(command, said, "nothing was changed; correct the policy that the message speaks of")


def _missing(command: Sequence[str], said: str) -> NftMissing:
    return NftMissing(command, said, "install nftables")


def _denied(command: Sequence[str], said: str) -> NftDenied:
    return NftDenied(command, said, "run the agent with CAP_NET_ADMIN")
