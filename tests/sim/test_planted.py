"""Each planted bug is found with a seed that is known to find it."""

from __future__ import annotations

import pytest

from roost.sim.deterministic.planted import BUGS
from tests.sim.workers import run, words

FOUND_BY: dict[str, tuple[int, str]] = {}
"""A seed by bug, and the law that it breaks then."""


def test_there_is_a_seed_for_each() -> None:
    assert FOUND_BY.keys() == BUGS.keys()


@pytest.mark.parametrize("name", FOUND_BY)
def test_a_planted_bug_is_found(name: str) -> None:
    seed, law = FOUND_BY[name]
    found = run(seed, name)
    broken = {v.law for v in found.violations} | ({"the run ends"} if found.error else set())
    assert law in broken, words(found)
