"""What was found once is looked for again, by the shortest plan that showed it or by a narrow test.

A plan stands in `stories/NAME.json`; what happened in it, and why, is told here. It breaks a law without the
mend (`unmended.py`), and none with it. What real disks, networks, clocks and certificates have shown stands
in a table of docs/simulation.md, each with the test that keeps it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from roost.sim.deterministic.events import Plan
from tests.sim.unmended import UNMENDED
from tests.sim.workers import run, run_unmended, words

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "simulation.md"
PLACE = Path(__file__).parent / "stories"
STORIES: dict[str, str] = {
    "a-host-declared-again": (
        "A host was locked, deleted, and declared again under its name; when it was to be locked again, what "
        "had been done to the former host counted as a try just made, and half a minute passed before "
        "anything was done, without a word why. An operation bears the uid of its host now."
    ),
    "a-host-declared-while-it-restarts": (
        "A host was told to restart, and its cloud lost power in the midst of a look at that; it was deleted "
        "and declared anew before the lease of that look had run out. The operation then waited a quarter of "
        "an hour for a restart that nobody had told the new host to make. It ends at once, and says why."
    ),
}


def test_each_story_has_its_plan() -> None:
    assert {path.stem for path in PLACE.glob("*.json")} == STORIES.keys() == UNMENDED.keys()


@pytest.mark.parametrize("name", STORIES)
def test_it_does_not_happen_again(name: str) -> None:
    plan = Plan.decode((PLACE / f"{name}.json").read_bytes())
    assert words(run(plan)) == [], STORIES[name]
    assert run_unmended(plan, name).broken, "without its mend nothing happens either: this tells of nothing"


def test_each_story_on_the_page_names_tests_that_there_are() -> None:
    """One row for each fault: what happened, why, and the last cell names what keeps it."""
    text = PAGE.read_text().partition("## What was found is kept\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    rows = [row for row in rows if not set("".join(row)) <= set(" -") and row[0].strip() != "What happened"]
    assert len(rows) >= 20 and {len(row) for row in rows} == {3}
    for happened, why, kept in rows:
        named = re.findall(r"`(tests/[^`]+\.py)::(\w+)`", kept)
        assert happened.strip() and why.strip() and named, kept
        for path, name in named:
            # Not by its syntax tree: making one fails now and then in Python 3.11, deep in a stack.
            there = re.findall(r"^ *(?:async def|def|class) (\w+)", (ROOT / path).read_text(), re.MULTILINE)
            assert name in there, f"{path} has no {name}"
    for name in re.findall(r"`([\w-]+)\.json`", text):
        assert name in STORIES
