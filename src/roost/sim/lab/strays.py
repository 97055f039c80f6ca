"""Finding and ending whatever still belongs to a laboratory, and the guard that does so after a kill -9.

Every process of a laboratory carries a mark in its environment, the laboratory's directory and a
number of this one run, and hands it on to what it starts. The kernel ends the processes the
laboratory started itself when it dies; what those had started in turn, and shells opened in a host
from another terminal, are found by the mark.

The guard is a process of its own, started as a file like the launcher: it waits for the end of its
standard input, which the laboratory alone holds open, and then clears up. It does not carry the
mark, and ends only what carries that of its own run: another may have begun in the same directory.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

MARK = "ROOST_LAB"
_ROUNDS = 20


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
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(variable.startswith(mark) for variable in variables)


def _end(pid: int, mark: bytes) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Looked at again now that the descriptor holds this very process: the number may have changed hands.
        if not _is_marked(pid, mark):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def mark_of(directory: Path, run: str) -> str:
    """The mark of one run; with an empty run, the beginning of the marks of all runs in the directory."""
    return f"{directory}:{run}"


def end_strays(beginning: str) -> int:
    """Kill every process whose mark begins so, but this one and its ancestors; return how many there were."""
    mark = os.fsencode(f"{MARK}={beginning}")
    spared = _ancestors()
    ended = 0
    # Again until none is found: one may start another while it is being looked for.
    for _ in range(_ROUNDS):
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        found = [pid for pid in numbers if pid not in spared and _is_marked(pid, mark)]
        ended_now = sum(_end(pid, mark) for pid in found)
        ended += ended_now
        if not ended_now:
            break
    return ended


def guard(mark: str) -> None:
    """Wait until the laboratory is no more, then end what is left of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end_strays(mark)


if __name__ == "__main__":
    guard(sys.argv[1])
