"""Each planted bug is found with a seed that is known to find it."""

from __future__ import annotations

import pytest

from roost.sim.deterministic.planted import BUGS
from tests.sim.workers import run, words

FOUND_BY: dict[str, tuple[int, str]] = {
    "acknowledgement-dropped": (430, "settled"),
    "alarm-on-edge": (279, "alarms follow from state"),
    "answer-before-commit": (176, "accepted writes stay"),
    "copies-stay": (438, "all agree"),
    "cursor-in-memory": (68, "cursors only rise"),
    "delays-pile-up": (259, "everything is bounded"),
    "fencing-ignored": (162, "all agree"),
    "feed-from-now": (100, "every operation ends"),
    "log-number-twice": (485, "log entries come once and in order"),
    "lost-wake-up": (169, "all agree"),
    "readings-forgotten": (152, "alarms follow from state"),
    "restart-on-reconnect": (228, "nothing restarts unasked"),
    "sessions-pile-up": (162, "everything is bounded"),
    "snapshot-forgets-deletions": (224, "all agree"),
    "status-over-spec": (281, "nothing restarts unasked"),
    "step-not-repeated": (100, "every operation ends"),
    "unknown-is-well": (260, "alarms follow from state"),
}
"""A seed by bug, and the law that it breaks then."""


def test_there_is_a_seed_for_each() -> None:
    assert FOUND_BY.keys() == BUGS.keys()


@pytest.mark.parametrize("name", FOUND_BY)
def test_a_planted_bug_is_found(name: str) -> None:
    seed, law = FOUND_BY[name]
    found = run(seed, name)
    broken = {v.law for v in found.violations} | ({"the run ends"} if found.error else set())
    assert law in broken, words(found)
