"""How often lower ends beat, by how many links there are, and what silence that allows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from roost.link import rhythm
from roost.link.rhythm import BEATS, LONGEST, Rhythm

USUAL = Rhythm(1.0, 4.0)


@pytest.mark.parametrize(
    "links, every, silence",
    [
        (0, 1.0, 4.0),
        (1, 1.0, 4.0),
        (300, 1.0, 4.0),
        (1000, 3.3, 7.45),
        (3000, 10.0, 17.5),
        (10_000, 33.3, 52.45),
        (18_000, 60.0, 92.5),
        (50_000, 60.0, 92.5),
    ],
)
def test_many_links_beat_more_seldom(links: int, every: float, silence: float) -> None:
    found = rhythm.chosen(links, USUAL)
    assert found.every == pytest.approx(every)
    assert found.silence == pytest.approx(silence)


@given(some.integers(0, 10**6), some.floats(0.01, 30), some.floats(1, 10))
def test_silence_lasts_longer_than_it_takes_to_the_next_beat(
    links: int, every: float, patience: float
) -> None:
    usual = Rhythm(every, every * patience)
    found = rhythm.chosen(links, usual)
    assert usual.every <= found.every <= max(LONGEST, usual.every)
    assert found.silence >= found.every
    assert found.silence >= usual.silence
    assert links / found.every <= BEATS * 1.2 or found.every in (usual.every, LONGEST) or links < BEATS


@given(some.floats())
def test_a_lower_end_is_slowed_within_bounds_whatever_it_is_told(every: float) -> None:
    found = rhythm.told(USUAL, every)
    assert USUAL.every <= found.every <= LONGEST
    assert math.isfinite(found.silence)


def test_a_lower_end_that_is_slower_by_itself_is_not_hurried() -> None:
    slow = Rhythm(5.0, 15.0)
    assert rhythm.told(slow, 1.0) == slow
