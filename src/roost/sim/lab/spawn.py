"""Starting one child through the launcher, reading what it writes, learning of its end.

A child leads a session and process group of its own, so that the terminal's Ctrl-C reaches only
the laboratory and the whole group can be ended with the child. It is waited for through a process
descriptor (pidfd), which names this very process and never one that got its number later. The
group is ended while the child is still unreaped: until then nobody else can have its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import Signals

import msgspec

from roost.sim.lab import enter
from roost.sim.lab.errors import LabError

_CHUNK = 65_536
_CHUNKS_AT_ONCE = 16


class Place(msgspec.Struct, frozen=True):
    """Where a child runs: a namespace's descriptor and the name the host goes by."""

    descriptor: int
    hostname: str


def launcher() -> list[str]:
    """The command of the launcher, without options."""
    return [sys.executable, "-I", "-S", enter.__file__]


def _command(argv: Sequence[str], place: Place | None, listening: Mapping[str, int]) -> list[str]:
    options = [f"--parent={os.getpid()}"]
    if place is not None:
        options += [f"--net=/proc/self/fd/{place.descriptor}", f"--hostname={place.hostname}"]
    if listening:
        options.append("--listen=" + ",".join(f"{name}={number}" for name, number in listening.items()))
    return [*launcher(), *options, "--", *argv]


class Child:
    """A running child. `ended` gives its exit code, negative for a signal."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: int, output: Callable[[bytes], None]) -> None:
        self._process = process
        self._output = output
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.pidfd_open(process.pid)
        self.pid = process.pid
        self.ended: asyncio.Future[int] = self._loop.create_future()
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pipe, self._read)
        self._loop.add_reader(self._descriptor, self._reap)

    def _read(self) -> None:
        for _ in range(_CHUNKS_AT_ONCE):
            try:
                data = os.read(self._pipe, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                self._loop.remove_reader(self._pipe)
                return
            self._output(data)

    def _reap(self) -> None:
        self._loop.remove_reader(self._descriptor)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self._read()
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        os.close(self._descriptor)
        if not self.ended.done():
            self.ended.set_result(code)

    def send(self, number: Signals) -> None:
        """Send a signal to the child alone; one that has ended does not mind."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def signal_group(self, number: Signals) -> None:
        """Send a signal to the child and to what it started in its group."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


def spawn(
    argv: Sequence[str],
    *,
    place: Place | None,
    environment: Mapping[str, str],
    directory: Path,
    output: Callable[[bytes], None],
    listening: Mapping[str, int],
) -> Child:
    """Start a child. `listening` are sockets it finds from descriptor 3 upwards, as systemd gives them."""
    # The kernel ends the child with the thread that made it: that must be the one that lives longest.
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are started from the main thread only")
    inherited = [*listening.values()] + ([place.descriptor] if place is not None else [])
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            _command(argv, place, listening),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            pass_fds=inherited,
            start_new_session=True,
        )
    except OSError as error:
        os.close(reading)
        raise LabError(
            f"cannot start {argv[0]}: {error.strerror}", "see that this machine has room"
        ) from error
    finally:
        os.close(writing)
    return Child(process, reading, output)
