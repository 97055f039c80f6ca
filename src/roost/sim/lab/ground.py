"""The directory a laboratory stands on: one at a time, cleared of what a killed one left.

The lock is held by an open file: the kernel drops it with its holder, so a laboratory that was
killed never blocks the next. Strays of an earlier one (see `strays`) are looked for before this
process moves into a user namespace, from where it could not end them, and a guard is left to look
for those of this one should it be killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import subprocess
import sys
from pathlib import Path

from roost.sim.lab import strays
from roost.sim.lab.errors import LabError
from roost.sim.lab.namespaces import Rights, become_capable, require_programs

CONTROL = "control.sock"
NOTIFY = "notify.sock"
_LOCK = "lock"
# A Unix socket's path has at most 107 bytes, the longest name in the directory is 13 with its slash.
_MAXIMUM_PATH = 94
_GUARD_SECONDS = 10.0


class Ground:
    """A prepared directory, held by its lock. `mark` is for the environment of all that runs on it."""

    def __init__(
        self, directory: Path, rights: Rights, mark: str, lock: int, guard: subprocess.Popen[bytes]
    ) -> None:
        self.directory = directory
        self.rights = rights
        self.mark = mark
        self._lock = lock
        self._guard = guard

    def release(self) -> None:
        """End what is left, remove what only a running laboratory has, and let go of the lock."""
        if self._lock < 0:
            return
        # At the end of its input the guard clears up and ends; that takes it milliseconds.
        try:
            self._guard.communicate(timeout=_GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        _remove_sockets(self.directory)
        with contextlib.suppress(OSError):
            (self.directory / _LOCK).unlink()
        os.close(self._lock)
        self._lock = -1


def prepare(directory: Path) -> Ground:
    """Take the directory and get the rights to make namespaces. To be called before any thread is started."""
    directory = directory.absolute()
    if len(os.fsencode(directory)) > _MAXIMUM_PATH:
        raise LabError(
            f"the path {directory} is too long for sockets in it (over {_MAXIMUM_PATH} bytes)",
            "choose a directory nearer to the root",
        )
    require_programs(["ip", "nft"])
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = directory.resolve()
        lock = _take_lock(directory)
    except PermissionError as error:
        raise LabError(
            f"no right to write in {directory} ({error.strerror})",
            "it may belong to root from an earlier start: remove it with `sudo rm -r`, or choose another",
        ) from error
    try:
        strays.end_strays(strays.mark_of(directory, ""))
        _remove_sockets(directory)
        rights = become_capable()
        mark = strays.mark_of(directory, secrets.token_hex(8))
        return Ground(directory, rights, mark, lock, _start_guard(mark))
    except BaseException:
        os.close(lock)
        raise


def _take_lock(directory: Path) -> int:
    path = directory / _LOCK
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise LabError(
                f"a demo runs from {directory} already, as process {holder}",
                "stop it first with Ctrl-C where it runs, or with `roost demo stop`",
            ) from None
        # The holder before may have removed the file between the open and the lock.
        if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
            return lock
        os.close(lock)


def _remove_sockets(directory: Path) -> None:
    for name in (CONTROL, NOTIFY):
        with contextlib.suppress(OSError):
            (directory / name).unlink()


def _start_guard(mark: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", strays.__file__, mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise LabError(
            f"cannot start the guard: {error.strerror}", "see that this machine has room"
        ) from error
