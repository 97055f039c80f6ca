"""How long `roost demo` takes until it is ready: a central cloud, three subclouds and their hosts, enrolled,
unlocked, with a shared policy in force."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.figures import RUNS, Row
from bench.process import free_port, roost, running, wait_for

READY_WITHIN = 120.0


def measure() -> list[Row]:
    """All rows of this module."""
    return [
        Row(
            room="demo",
            what="`roost demo`: from start to ready",
            unit="s",
            runs=[_once() for _ in range(RUNS)],
        )
    ]


def _once() -> float:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        log = root / "demo.log"
        command = roost("demo", "run", "--directory", str(root / "demo"), "--port", str(free_port()))
        began = time.monotonic()
        with running(command, log) as process:
            wait_for(lambda: "] ready" in log.read_text(), process, log, READY_WITHIN)
            return time.monotonic() - began
