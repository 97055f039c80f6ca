"""Trees by the hundred, in which everything breaks: no law may be broken with any seed.

Two workers run the first SEEDS seeds; ROOST_SIM_SEEDS asks for another number.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from roost.cli.problems import Misused, NotFound
from roost.cli.simulating import run as command
from roost.sim.deterministic.events import Plan
from roost.sim.deterministic.many import hunt
from roost.sim.deterministic.plans import plan
from tests.sim.workers import run, words

SEEDS = int(os.environ.get("ROOST_SIM_SEEDS", "2000"))
WORKERS = 2
SHOWN = 10


@pytest.mark.timeout(3600)
def test_no_seed_breaks_a_law(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with closing(hunt(range(SEEDS), WORKERS)) as reports:
        found = {r.seed: words(r) for r in reports}
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\n{len(found)} seeds in {seconds:.0f} s: {len(found) / seconds:.2f} a second")
    assert sorted(found) == list(range(SEEDS))
    broken = {seed: said for seed, said in sorted(found.items()) if said}
    assert list(broken.items())[:SHOWN] == []


@pytest.mark.parametrize("seed", [3, 24])
def test_the_same_plan_gives_the_same_run_in_another_process(seed: int) -> None:
    one, other, read = run(seed), run(seed), run(Plan.decode(plan(seed).encode()))
    assert one.digest == other.digest == read.digest != ""
    assert one.violations == other.violations
    assert run(seed + 1).digest != one.digest


def _children() -> set[str]:
    """Processes that this one started; tests before may have left some running, a database among them."""
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}


def test_a_hunt_that_is_left_ends_its_workers() -> None:
    before = _children()
    with closing(hunt(range(100), WORKERS)) as reports:
        next(reports)
        assert len(_children() - before) == WORKERS
    assert _children() - before == set()


def test_a_failure_is_shrunk_and_kept_in_a_file_that_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    code = command(seeds=4, workers=2, planted="delays-pile-up", keep=tmp_path, shrink=20.0)
    assert code == 1
    kept = next(tmp_path.glob("*.json"))
    said = capsys.readouterr().out
    assert f"Run it again: roost sim run --plan {kept} --planted delays-pile-up" in said
    assert "everything is bounded" in said
    small = Plan.decode(kept.read_bytes())
    assert len(small.events) <= len(plan(small.seed).events)
    assert command(plan=kept, planted="delays-pile-up", shrink=0.0) == 1
    assert command(plan=kept, output="json") == 0


def test_what_makes_no_sense_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    with pytest.raises(Misused, match="say what to run"):
        command()
    with pytest.raises(Misused, match="no bug named"):
        command(seed=1, planted="nothing")
    with pytest.raises(NotFound):
        command(plan=tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(Misused, match="is no plan"):
        command(plan=tmp_path / "bad.json")
