"""The table of states: total, reachable, and the same in code and documentation."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from roost.cloud.contact import LATE, LOST, RETURN, Contact
from roost.cloud.states import TABLE, Facts, Health, Work, as_markdown, state
from roost.model.health import ExaminationState
from roost.model.host import AdministrativeState

ALL = [
    Facts(administrative=a, contact=c, work=w, checks=e, health=h)
    for a, c, w, e, h in product(
        get_args(AdministrativeState),
        get_args(Contact),
        get_args(Work),
        get_args(ExaminationState),
        get_args(Health),
    )
]


def expected(facts: Facts) -> tuple[str, str]:
    """The rules told once more, otherwise than by a table."""
    if facts.administrative == "locked":
        if facts.contact != "present":
            return "disabled", "offline"
        return "disabled", "intest" if facts.work == "unlock" else "online"
    if facts.contact == "lost" or facts.checks == "failed":
        return "disabled", "failed"
    if facts.checks in ("asked", "running"):
        return "disabled", "intest"
    degraded = facts.contact == "late" or facts.health == "degraded"
    return "enabled", "degraded" if degraded else "available"


@pytest.mark.parametrize("facts", ALL, ids=str)
def test_every_combination_has_one_meaning(facts: Facts) -> None:
    row = state(facts)
    assert (row.operational, row.availability) == expected(facts)
    assert row.meaning.endswith(".")


def test_every_row_is_reached() -> None:
    assert {id(state(facts)) for facts in ALL} == {id(row) for row in TABLE}


def test_the_documentation_shows_this_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
    shown = page.partition("<!-- table -->\n")[2].partition("<!-- end of table -->")[0]
    assert shown.strip() == as_markdown().strip()
    for number in (LATE, LOST, RETURN):
        assert f"{number:.0f} seconds" in page
