"""Processes under measurement: `roost up` and `roost agent` in temporary homes, and what the kernel says of
their memory and processor time."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

START_WITHIN = 60.0
STOP_WITHIN = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")


class DidNotStart(Exception):
    """A process ended, or did not come up in time."""


class Memory(msgspec.Struct, frozen=True):
    """Memory of a process in MiB: resident, and its share of what is resident."""

    resident: float
    proportional: float


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the end of the block; its output goes to a file."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = START_WITHIN
) -> None:
    """Wait until a process is ready; raises DidNotStart with the end of its output."""
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            told = log.read_text(errors="replace")[-2000:]
            raise DidNotStart(f"{process.args!r} did not become ready in {seconds:.0f} s:\n{told}")
        time.sleep(0.05)


def roost(*arguments: str) -> list[str]:
    """The command line of this checkout."""
    return [sys.executable, "-m", "roost.program", *arguments]


def memory(pid: int) -> Memory:
    """VmRSS, and Pss over all mappings."""
    status = Path(f"/proc/{pid}/status").read_text()
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return Memory(_field(status, "VmRSS:") / 1024, _field(rollup, "Pss:") / 1024)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _field(text: str, name: str) -> float:
    line = next(line for line in text.splitlines() if line.startswith(name))
    return float(line.split()[1])
