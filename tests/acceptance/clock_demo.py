"""The demo with a wall clock for each process, moved through a file: `DIRECTORY/clock/PROCESS`.

    python -m tests.acceptance.clock_demo --directory DIRECTORY --port PORT

libfaketime is laid under every process; its file holds an offset, as `+1d`. Monotonic clocks are
left alone, as on a machine whose time is set.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from roost.cli.demo import commands, story
from roost.sim.lab import lab
from roost.sim.lab.ground import prepare
from roost.sim.lab.supervisor import Process

LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
)


def library() -> Path | None:
    """Where libfaketime is installed; None when it is not."""
    return next((path for path in map(Path, LIBRARIES) if path.exists()), None)


class ClockedLab(lab.Lab):
    """A laboratory whose processes each have a wall clock of their own."""

    def add(self, process: Process) -> None:
        clock = self.directory / "clock" / process.name
        clock.parent.mkdir(exist_ok=True)
        clock.write_text("+0\n")
        environment = {
            **process.environment,
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_CACHE_DURATION": "1",
            # Else every wait for the interpreter lock ends at once, and threads spin.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }
        super().add(msgspec.structs.replace(process, environment=environment))


def main() -> int:
    """Run it until Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    lab.Lab = ClockedLab  # type: ignore[misc]
    ground = prepare(options.directory)
    story.clear(ground.directory)
    return asyncio.run(commands._run(ground, options.port, str(options.directory)))


if __name__ == "__main__":
    sys.exit(main())
