"""What the simulation has found once is run again: each story is the shortest plan that showed a fault.

A plan stands in `stories/NAME.json`; what happened in it, and why, is told here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.sim.deterministic.events import Plan
from tests.sim.workers import run, words

PLACE = Path(__file__).parent / "stories"
STORIES: dict[str, str] = {}


def test_each_story_has_its_plan() -> None:
    assert {path.stem for path in PLACE.glob("*.json")} == STORIES.keys()


@pytest.mark.parametrize("name", STORIES)
def test_it_does_not_happen_again(name: str) -> None:
    plan = Plan.decode((PLACE / f"{name}.json").read_bytes())
    found = run(plan)
    assert words(found) == [], STORIES[name]
