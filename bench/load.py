"""Load from wrk, which costs a few microseconds a request, so that what is measured is the server.

wrk keeps each connection busy with one request at a time and checks no certificate. A run in which any
request failed raises `Failed`: a rate of errors is no rate.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from bench.client import Access

_SCRIPT = Path(__file__).with_name("load.lua")
_SPARE = 60.0


class Failed(Exception):
    """wrk is not there, or requests were refused."""


class Load(msgspec.Struct, frozen=True):
    """What a run gave: `requests` in `microseconds`; `median` and `tail` (99th percentile) likewise."""

    requests: int
    microseconds: int
    failed: int
    median: int
    tail: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests * 1e6 / self.microseconds


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; see load.lua for `names` and the marks in `body`."""

    path: str
    method: str = "GET"
    names: int = 0
    content: str = "application/json"
    body: str = ""


def run(where: Access, work: Work, *, connections: int, seconds: float) -> Load:
    """Keep so many connections busy for so long; raises Failed."""
    program = shutil.which("wrk")
    if program is None:
        raise Failed("there is no wrk: install Debian's package wrk")
    # A thread for each connection when the script must know whose answer it has.
    threads = connections if "@REVISION@" in work.body else 1
    with tempfile.NamedTemporaryFile("w", suffix=".json") as body:
        body.write(work.body)
        body.flush()
        command = [
            program,
            f"-t{threads}",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout=60s",
        ]
        command += ["-s", str(_SCRIPT), f"https://{where.host}:{where.port}", "--"]
        command += [work.method, work.path, str(work.names), work.content, body.name if work.body else ""]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds + _SPARE,
            check=False,
            env={**os.environ, "BENCH_TOKEN": where.token},
        )
    try:
        found = msgspec.json.decode(done.stdout.splitlines()[-1], type=Load)
    except (IndexError, msgspec.MsgspecError) as error:
        raise Failed(f"{work.method} {work.path}: {done.stdout}{done.stderr}") from error
    if found.failed or not found.requests:
        raise Failed(f"{work.method} {work.path}: {found.failed} of {found.requests} failed")
    return found
