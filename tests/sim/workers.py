"""Runs of the simulation in processes of their own: hashes are fixed, and nothing else has run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from roost.sim.deterministic.events import Plan
from roost.sim.deterministic.many import WORKER, Report


def run(what: int | Plan, *planted: str) -> Report:
    """Run a seed or a plan, perhaps with a planted bug."""
    asked = [what] if isinstance(what, int) else what
    return _report([sys.executable, "-c", WORKER, *planted], asked)


def run_unmended(plan: Plan, story: str) -> Report:
    """Run the plan of a story with its mend taken out again."""
    return _report([sys.executable, "-m", "tests.sim.unmended", story], plan)


def _report(command: list[str], asked: list[int] | Plan) -> Report:
    done = subprocess.run(
        command,
        input=msgspec.json.encode(asked) + b"\n",
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        cwd=Path(__file__).parents[2],
        check=True,
        timeout=100,
    )
    return msgspec.json.decode(done.stdout, type=Report)


def words(found: Report) -> list[str]:
    """What a run broke, for people."""
    return [found.error] * bool(found.error) + [f"{v.at:.3f} {v.law}: {v.message}" for v in found.violations]
