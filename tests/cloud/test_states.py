"""The table of states: total, reachable, and the same in code and documentation."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from roost.cloud.contact import LATE, LOST, RETURN, Contact
from roost.cloud.states import TABLE, Health, Work, as_markdown, state
from roost.model.host import AdministrativeState

ALL = list(product(get_args(AdministrativeState), get_args(Contact), get_args(Work), get_args(Health)))

EXPECTED = {
    ("locked", "present", "none"): ("disabled", "online"),
    ("locked", "present", "other"): ("disabled", "online"),
    ("locked", "present", "unlock"): ("disabled", "intest"),
    ("locked", "late", "*"): ("disabled", "offline"),
    ("locked", "lost", "*"): ("disabled", "offline"),
    ("unlocked", "late", "*"): ("enabled", "degraded"),
    ("unlocked", "lost", "*"): ("disabled", "failed"),
}


@pytest.mark.parametrize(("administrative", "touch", "work", "health"), ALL)
def test_every_combination_has_one_meaning(
    administrative: AdministrativeState, touch: Contact, work: Work, health: Health
) -> None:
    row = state(administrative, touch, work, health)
    expected = EXPECTED.get((administrative, touch, work)) or EXPECTED.get((administrative, touch, "*"))
    if expected is None:
        expected = ("enabled", "degraded" if health == "degraded" else "available")
    assert (row.operational, row.availability) == expected
    assert row.meaning.endswith(".")
    if administrative == "locked":
        assert row.operational == "disabled", "a locked host serves nothing"


def test_every_row_is_reached() -> None:
    assert {id(state(*combination)) for combination in ALL} == {id(row) for row in TABLE}


def test_the_documentation_shows_this_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
    shown = page.partition("<!-- table -->\n")[2].partition("<!-- end of table -->")[0]
    assert shown.strip() == as_markdown().strip()
    for number in (LATE, LOST, RETURN):
        assert f"{number:.0f} seconds" in page
