"""Chance: the system's, unless a simulation determines it."""

from __future__ import annotations

import random
import re
import uuid

import pytest

from roost.model import chance


def drawn() -> list[object]:
    """One of everything."""
    return [chance.uuid(), chance.digits(8), chance.secret(32), chance.between(2, 5), chance.pick("abc")]


def test_what_is_drawn_has_its_form() -> None:
    identity, digits, secret, number, letter = drawn()
    assert uuid.UUID(str(identity)).version == 4
    assert re.fullmatch("[0-9a-f]{16}", str(digits))
    assert re.fullmatch("[A-Za-z0-9_-]{43}", str(secret))
    assert isinstance(number, float) and 2 <= number <= 5
    assert str(letter) in "abc"


def test_nobody_foresees_it() -> None:
    random.seed(1)
    first = drawn()
    random.seed(1)
    assert first[:3] != drawn()[:3]


def test_a_seed_determines_it_within_and_only_there() -> None:
    with chance.seeded(random.Random(7)):
        one = drawn()
    with chance.seeded(random.Random(7)):
        assert drawn() == one
    assert drawn() != one


def test_it_is_the_systems_again_when_what_was_within_fails() -> None:
    with pytest.raises(ValueError, match="within"), chance.seeded(random.Random(7)):
        raise ValueError("within")
    with chance.seeded(random.Random(7)):
        first = chance.uuid()
    assert chance.uuid() != first
