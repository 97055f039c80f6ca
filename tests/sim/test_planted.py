"""Each planted bug is found: by a plan that is kept beside, as short as shrinking made it.

`roost sim run --planted NAME` looks for one among seeds; what that took stands in docs/simulation.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.sim.deterministic.events import Plan
from roost.sim.deterministic.planted import BUGS
from tests.sim.workers import run, words

PLACE = Path(__file__).parent / "planted"
BROKEN: dict[str, str] = {
    "acknowledgement-dropped": "settled",
    "alarm-on-edge": "alarms follow from state",
    "answer-before-commit": "accepted writes stay",
    "copies-stay": "all agree",
    "cursor-in-memory": "cursors only rise",
    "delays-pile-up": "everything is bounded",
    "fencing-ignored": "all agree",
    "feed-from-now": "every operation ends",
    "log-number-twice": "log entries come once and in order",
    "lost-wake-up": "all agree",
    "readings-forgotten": "alarms follow from state",
    "restart-on-reconnect": "nothing restarts unasked",
    "sessions-pile-up": "everything is bounded",
    "snapshot-forgets-deletions": "all agree",
    "status-over-spec": "nothing restarts unasked",
    "step-not-repeated": "every operation ends",
    "unknown-is-well": "alarms follow from state",
}
"""The law that each bug breaks."""


def test_there_is_a_plan_for_each() -> None:
    assert BROKEN.keys() == BUGS.keys() == {path.stem for path in PLACE.glob("*.json")}


@pytest.mark.parametrize("name", BROKEN)
def test_a_planted_bug_is_found_and_its_plan_breaks_nothing_without_it(name: str) -> None:
    plan = Plan.decode((PLACE / f"{name}.json").read_bytes())
    found = run(plan, name)
    broken = {v.law for v in found.violations} | ({"the run ends"} if found.error else set())
    assert BROKEN[name] in broken, words(found)
    assert words(run(plan)) == []
