"""The table of states: total, reachable, and the same in code and documentation."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from roost.cloud.states import (
    LATE,
    LOST,
    RETURN,
    TABLE,
    Contact,
    Health,
    Work,
    as_markdown,
    contact,
    contact_before,
    contact_due,
    contact_of,
    state,
)
from roost.engine.presence import Presence
from roost.model.host import AdministrativeState, HostStatus

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


@pytest.mark.parametrize(
    ("connected", "seconds", "expected"),
    [
        (True, 0.0, "present"),
        (True, 1e9, "present"),
        (False, 0.0, "present"),
        (False, LATE - 0.001, "present"),
        (False, LATE, "late"),
        (False, LOST - 0.001, "late"),
        (False, LOST, "lost"),
    ],
)
def test_contact_follows_from_silence(connected: bool, seconds: float, expected: str) -> None:  # noqa: FBT001
    assert contact(connected, seconds) == expected


BEFORE = {
    "present": HostStatus(
        administrative="unlocked", operational="enabled", availability="available", connected=True
    ),
    "late": HostStatus(administrative="unlocked", operational="enabled", availability="degraded"),
    "lost": HostStatus(administrative="unlocked", operational="disabled", availability="failed"),
}


@pytest.mark.parametrize("before", BEFORE)
def test_until_it_had_its_time_to_return_a_host_is_what_it_was(before: str) -> None:
    status = BEFORE[before]
    assert contact_before(status) == before
    assert contact_before(HostStatus()) == "lost", "a host that was never there"
    for silent in (0.0, LATE, LOST, RETURN - 0.1):
        presence = Presence(connected=False, silent=silent, met=False)
        assert contact_of(presence, status) == before
        due = contact_due(presence, contact_of(presence, status))
        assert due is None if before == "lost" else due is not None and 0 < due <= RETURN + 0.1
    assert contact_of(Presence(connected=False, silent=RETURN, met=False), status) == "lost"
    assert contact_of(Presence(connected=True), status) == "present"


def test_when_contact_is_looked_at_again_it_is_worse() -> None:
    presence = Presence(connected=False, silent=0.5)
    for expected in ("late", "lost"):
        due = contact_due(presence, contact(presence.connected, presence.silent))
        assert due is not None
        presence = Presence(connected=False, silent=presence.silent + due)
        assert contact(presence.connected, presence.silent) == expected
    assert contact_due(presence, "lost") is None
    assert contact_due(Presence(connected=True), "present") is None


def test_the_documentation_shows_this_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
    shown = page.partition("<!-- table -->\n")[2].partition("<!-- end of table -->")[0]
    assert shown.strip() == as_markdown().strip()
    for number in (LATE, LOST, RETURN):
        assert f"{number:.0f} seconds" in page
