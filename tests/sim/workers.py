"""Runs of the simulation in processes of their own: hashes are fixed, and nothing else has run."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec

from roost.sim.deterministic.events import Plan
from roost.sim.deterministic.many import WORKER, Report


def run(what: int | Plan, *planted: str) -> Report:
    """Run a seed or a plan, perhaps with a planted bug."""
    asked = [what] if isinstance(what, int) else what
    done = subprocess.run(
        [sys.executable, "-c", WORKER, *planted],
        input=msgspec.json.encode(asked) + b"\n",
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=True,
        timeout=100,
    )
    return msgspec.json.decode(done.stdout, type=Report)


def words(found: Report) -> list[str]:
    """What a run broke, for people."""
    return [found.error] * bool(found.error) + [f"{v.at:.3f} {v.law}: {v.message}" for v in found.violations]
