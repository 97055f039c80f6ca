"""Processes that a run left behind: killed, however far they went from where they were started.

A process can leave its group and its session, but not the environment that it was started with, unless it
replaces that on purpose. So each run has a mark of its own in its environment (`marked`), and whatever
carries it is killed when the run is over (`kill_left`). An id of a group or session may be another's by then.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

MARK = "ROOST_RUN"
ROUNDS = 5
"""Looks until none is found: what forks faster than it is killed is left to the operator."""
_PROC = Path("/proc")


def marked(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment with a mark that no other run has."""
    return {**environment, MARK: secrets.token_hex(16)}


def kill_left(environment: Mapping[str, str]) -> int:
    """Kill what has the mark of this environment; how many those were. Blocking: reads all of /proc."""
    mark = f"{MARK}={environment[MARK]}".encode()
    killed = 0
    for _ in range(ROUNDS):
        found = 0
        for process in _processes():
            if _carries(process, mark):
                found += _kill(process)
        killed += found
        if not found:
            break
    return killed


def _processes() -> Iterator[int]:
    own = os.getpid()
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and int(entry.name) != own:
            yield int(entry.name)


def _carries(process: int, mark: bytes) -> bool:
    # That of one that is dead, and waits for its parent, is empty.
    try:
        return mark in (_PROC / str(process) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _kill(process: int) -> int:
    try:
        os.kill(process, signal.SIGKILL)
    except OSError:
        return 0
    return 1
