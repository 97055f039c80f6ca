"""The directory a laboratory stands on: one at a time, cleared of what a killed one left.

The lock is held by an open file: the kernel drops it with its holder, so a laboratory that was
killed never blocks the next. What it may have left are files, and processes of processes whose
death wish went unheard; those carry the directory in their environment and are found by it. They
are looked for before this process moves into a user namespace, from where it could not end them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from pathlib import Path

from roost.sim.lab.errors import LabError
from roost.sim.lab.namespaces import Rights, become_capable, require_programs

MARK = "ROOST_LAB"
CONTROL = "control.sock"
NOTIFY = "notify.sock"
_LOCK = "lock"
# A Unix socket's path has at most 107 bytes, the longest name in the directory is 13 with its slash.
_MAXIMUM_PATH = 94


class Ground:
    """A prepared directory, held by its lock. `release` lets it go."""

    def __init__(self, directory: Path, rights: Rights, lock: int) -> None:
        self.directory = directory
        self.rights = rights
        self._lock = lock

    def release(self) -> None:
        """Remove what only a running laboratory has, and let go of the lock."""
        if self._lock < 0:
            return
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
        end_strays(directory)
        _remove_sockets(directory)
        return Ground(directory, become_capable(), lock)
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


def _ancestors() -> set[int]:
    """This process and those it descends from: a laboratory may be started from inside another's host."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        # The name stands in parentheses and may hold any character: count from the last one.
        pid = int(stat.rpartition(")")[2].split()[1])
    return found


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def end_strays(directory: Path) -> int:
    """Kill every process that belongs to a laboratory of this directory; return how many there were."""
    mark = os.fsencode(f"{MARK}={directory}")
    spared = _ancestors()
    ended = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in spared or not _is_marked(int(entry.name), mark):
            continue
        try:
            descriptor = os.pidfd_open(int(entry.name))
        except OSError:
            continue
        try:
            # Looked at again through the descriptor's lifetime: the number may have changed hands.
            if _is_marked(int(entry.name), mark):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                ended += 1
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return ended
