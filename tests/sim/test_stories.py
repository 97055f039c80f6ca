"""What the simulation has found once is run again: each story is the shortest plan that showed a fault.

A plan stands in `stories/NAME.json`; what happened in it, and why, is told here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.sim.deterministic.events import Plan
from tests.sim.workers import run, words

PLACE = Path(__file__).parent / "stories"
STORIES: dict[str, str] = {
    "a-host-declared-again": (
        "A host was locked, deleted, and declared again under its name; when it was to be locked again, what "
        "had been done to the former host counted as a try just made, and half a minute passed before "
        "anything was done, without a word why. An operation bears the uid of its host now."
    ),
    "restored-while-it-began": (
        "A site lost its power while it opened its store, and the store was then put back to a snapshot: "
        "the file that the dead process had open kept it from being replaced, and the restore ended with an "
        "error of the database in place of the words that somebody has it in use."
    ),
}


def test_each_story_has_its_plan() -> None:
    assert {path.stem for path in PLACE.glob("*.json")} == STORIES.keys()


@pytest.mark.parametrize("name", STORIES)
def test_it_does_not_happen_again(name: str) -> None:
    plan = Plan.decode((PLACE / f"{name}.json").read_bytes())
    found = run(plan)
    assert words(found) == [], STORIES[name]
