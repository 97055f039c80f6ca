"""What processes hold of the machine: memory, descriptors, room on the disk. Read from the kernel."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.running import Demo

MEMORY_MIB, DESCRIPTORS, STORE_MIB = 60.0, 40, 160.0
"""How much more memory and descriptors a process may hold after a storm than before, and what a home may
take on the disk: the history of a store is kept to 64 MiB of text."""


class Held(NamedTuple):
    """By one process: MiB of memory, open descriptors, MiB of its home (0 for the laboratory itself)."""

    memory: float
    descriptors: int
    disk: float


def held(demo: Demo) -> dict[str, Held]:
    """By each process of the demo, and by the laboratory that keeps them."""
    pids = {name: one["pid"] for name, one in demo.processes().items()}
    found = {name: _of(pid, demo.directory / name) for name, pid in pids.items()}
    return {**found, "laboratory": _of(demo.status()["pid"], None)}


def _of(pid: int, home: Path | None) -> Held:
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20
    size = 0
    for file in home.rglob("*") if home else ():
        with contextlib.suppress(OSError):
            size += file.stat().st_blocks * 512 if file.is_file() else 0
    return Held(resident, len(list(Path(f"/proc/{pid}/fd").iterdir())), size / 2**20)


def excess(before: dict[str, Held], after: dict[str, Held]) -> list[str]:
    """What grew beyond its bound."""
    found = []
    for name, now in after.items():
        was = before[name]
        if now.memory > was.memory + MEMORY_MIB:
            found.append(f"{name} holds {now.memory:.0f} MiB, {was.memory:.0f} before")
        if now.descriptors > was.descriptors + DESCRIPTORS:
            found.append(f"{name} holds {now.descriptors} descriptors, {was.descriptors} before")
        if now.disk > STORE_MIB:
            found.append(f"the home of {name} takes {now.disk:.0f} MiB")
    return found


def table(before: dict[str, Held], after: dict[str, Held]) -> list[str]:
    """For people."""
    return [
        f"{name:22} {was.memory:.0f} -> {now.memory:.0f} MiB, {was.descriptors} -> {now.descriptors} "
        f"descriptors, {was.disk:.1f} -> {now.disk:.1f} MiB on the disk"
        for name, was in before.items()
        for now in (after[name],)
    ]
