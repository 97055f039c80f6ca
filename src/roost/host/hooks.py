"""Executables of a directory, each run with a deadline and bounded output. What people put beside Roost.

`HOME/health.d` holds health checks, `HOME/drain.d` what lets workloads leave. Each regular file that is not
hidden counts, in the order of their names. A file that can't be run is never passed over in silence: it
stands in the list with the reason, and counts as failed. So does one that others may write, since the
agent runs as root.

A run has no input, a small environment and a session of its own, and is killed when it is over with all
that it left behind (leftovers.py). Of its output only the end is kept, however much it writes. `timeout` from
coreutils stands between, where it is there: it ends the run even when the agent is killed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from roost.host.leftovers import kill_left, marked
from roost.model.health import LONGEST_LINE, CheckResult

HookKind = Literal["health", "drain"]

MOST_HOOKS = 64
_LONGEST_NAME = 200
_TAIL = 4096
_CHUNK = 65536
_LAST_WORDS = 1.0
"""Seconds for what was written before the end to be read."""
_AFTER_US = 5
"""Seconds after our own deadline at which `timeout` acts, in case that we are no more."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Hook(msgspec.Struct, frozen=True):
    """One executable; `problem` says why it can't be run, with the next step."""

    name: str
    path: Path = Path()
    problem: str = ""


class Hooks(Protocol):
    """The executables of a machine."""

    async def listed(self, kind: HookKind) -> Sequence[Hook]:
        """In the order in which they run. Never raises."""
        ...

    async def run(self, hook: Hook, seconds: float, environment: Mapping[str, str]) -> CheckResult:
        """Run one to its end or its deadline. Never raises; ends it when cancelled."""
        ...


class NoHooks:
    """A machine that has none."""

    async def listed(self, kind: HookKind) -> Sequence[Hook]:
        return ()

    async def run(self, hook: Hook, seconds: float, environment: Mapping[str, str]) -> CheckResult:
        return CheckResult(name=hook.name, state="failed", message="this machine runs no executables")


class DirectoryHooks:
    """Those in `health.d` and `drain.d` of a directory."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._timeout = shutil.which("timeout", path=_PATH)

    async def listed(self, kind: HookKind) -> Sequence[Hook]:
        return await asyncio.to_thread(list_hooks, self._home / f"{kind}.d")

    async def run(self, hook: Hook, seconds: float, environment: Mapping[str, str]) -> CheckResult:
        if hook.problem:
            return CheckResult(name=hook.name, state="failed", message=hook.problem[:LONGEST_LINE])
        command = [str(hook.path)]
        if self._timeout:
            command = [self._timeout, "-s", "KILL", f"{seconds + _AFTER_US:.0f}", *command]
        told = {"PATH": _PATH, "LANG": "C.UTF-8", **environment}
        return await run_command(hook.name, command, seconds, told)


def list_hooks(directory: Path) -> list[Hook]:
    """What a directory holds, by name; one that is not there holds nothing."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith("."))
        if directory.stat().st_mode & 0o022:
            return [Hook(directory.name, directory, _others(directory))]
    except FileNotFoundError:
        return []
    except OSError as error:
        problem = f"{directory} can't be read: {error.strerror}; mend its owner and mode"
        return [Hook(directory.name, directory, problem)]
    hooks = [hook for name in names if (hook := _hook(directory / name)) is not None]
    if len(hooks) <= MOST_HOOKS:
        return hooks
    more = f"{directory} holds {len(hooks)} files and at most {MOST_HOOKS} are run; join some of them"
    return [*hooks[: MOST_HOOKS - 1], Hook(directory.name, directory, more)]


def _hook(path: Path) -> Hook | None:
    """None for what is no file, as a directory with the libraries of the others."""
    if (name := shown_name(path.name)) != path.name:
        # What can't be written down is not run: nobody could tell which one it was.
        problem = "its name has characters that can't be shown, or is too long; rename it"
        return Hook(f"{name} (unfit name)", path, problem)
    try:
        found = path.stat()
    except OSError as error:
        return Hook(path.name, path, f"{path} can't be read: {error.strerror}; mend or remove it")
    if stat.S_ISDIR(found.st_mode):
        return None
    if not stat.S_ISREG(found.st_mode):
        return Hook(path.name, path, f"{path} is no regular file; remove it")
    if found.st_mode & 0o022:
        return Hook(path.name, path, _others(path))
    if found.st_uid not in (0, os.geteuid()):
        return Hook(path.name, path, f"{path} belongs to another user; chown it to the one that runs Roost")
    if not os.access(path, os.X_OK):
        return Hook(path.name, path, f"{path} is not executable; chmod 0755 it, or remove it")
    return Hook(path.name, path)


def shown_name(name: str) -> str:
    """A file's name as it can be stored and shown: the kernel takes any bytes for one."""
    text = os.fsencode(name).decode(errors="replace")
    return "".join(c if c.isprintable() else "?" for c in text)[:_LONGEST_NAME]


def _others(path: Path) -> str:
    return f"others may write {path}; chmod go-w it"


async def run_command(
    name: str, command: Sequence[str], seconds: float, environment: Mapping[str, str]
) -> CheckResult:
    """Run a command to its end or its deadline; what it left of its session is killed."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    # A pipe of our own: a child that outlives the command and holds it open must not hold us up.
    reading, writing = os.pipe2(os.O_CLOEXEC)
    environment = marked(environment)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
            env=environment,
            cwd="/",
        )
    except OSError as error:
        os.close(reading)
        message = f"it could not be started: {error.strerror}; mend its first line or its interpreter"
        return CheckResult(name=name, state="failed", message=message)
    finally:
        os.close(writing)
    tail = bytearray()
    reader = loop.create_task(_read(reading, tail))
    timed_out = False
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        timed_out = True
    finally:
        _kill(process.pid)
        # Killed: this ends at once, also when we are cancelled ourselves.
        ended = await asyncio.shield(_gone(process))
        await asyncio.shield(asyncio.to_thread(kill_left, environment))
        await asyncio.wait({reader}, timeout=_LAST_WORDS)
        reader.cancel()
    took = round(loop.time() - started, 3)
    said = last_line(bytes(tail))
    if timed_out or not ended:
        message = f"it had not ended after {seconds:g} seconds and was killed; {_said(said)}"
        return CheckResult(name=name, state="timed-out", message=message[:LONGEST_LINE], seconds=took)
    code = process.returncode
    if code == 0:
        return CheckResult(name=name, state="passed", message=said, seconds=took)
    how = f"exit code {code}" if code is not None and code > 0 else f"killed by signal {-(code or 0)}"
    return CheckResult(
        name=name, state="failed", message=f"{how}; {_said(said)}"[:LONGEST_LINE], seconds=took
    )


def last_line(output: bytes) -> str:
    """The last line that is not empty, as text that can be shown."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
    line = next((line for line in reversed(lines) if line), "")
    return "".join(c if c.isprintable() else " " for c in line)[:LONGEST_LINE]


def _said(line: str) -> str:
    return f"its last line: {line}" if line else "it wrote nothing"


async def _read(descriptor: int, tail: bytearray) -> None:
    """Read to the end and keep the last of it."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_CHUNK)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        while chunk := await reader.read(_CHUNK):
            tail += chunk
            del tail[:-_TAIL]
    finally:
        transport.close()


async def _gone(process: asyncio.subprocess.Process) -> bool:
    """Whether a killed process is gone in time; one in a state that can't be killed is left to the kernel."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS):
            await process.wait()
            return True
    return False


def _kill(session: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, signal.SIGKILL)
