"""Pauses between refused tries grow to their bound, and only news is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.engine import events, refusals
from roost.engine.refusals import FIRST, LONGEST, Refusal, Refusals, following


@pytest.mark.parametrize(
    ("known", "reason", "now", "after"),
    [
        (None, "a", 10.0, Refusal("a", 10.0 + FIRST, FIRST)),
        (Refusal("a", 100.0, FIRST), "a", 99.0, Refusal("a", 100.0, FIRST)),
        (Refusal("a", 100.0, FIRST), "a", 100.0, Refusal("a", 100.0 + 2 * FIRST, 2 * FIRST)),
        (Refusal("a", 100.0, LONGEST), "a", 100.0, Refusal("a", 100.0 + LONGEST, LONGEST)),
        (Refusal("a", 100.0, LONGEST), "b", 50.0, Refusal("b", 50.0 + FIRST, FIRST)),
    ],
)
def test_what_follows(known: Refusal | None, reason: str, now: float, after: Refusal) -> None:
    assert following(known, reason, now) == after


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 4000)), max_size=30))
def test_it_is_always_due_within_the_bound(tries: list[tuple[str, float]]) -> None:
    known, now = None, 0.0
    for reason, later in tries:
        now += later
        after = following(known, reason, now)
        assert (after is known) == (known is not None and known.reason == reason and now < known.due)
        assert now < after.due <= now + LONGEST and FIRST <= after.pause <= LONGEST
        known = after


def test_the_bound_keeps_its_event_alive() -> None:
    assert 2 * LONGEST <= events.LIFE


def test_only_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "REMEMBERED", 2)
    known, refusal = Refusals(), Refusal("a", 1.0, FIRST)
    for uid in ("1", "2", "1", "3"):
        known.put(uid, refusal)
    assert len(known) == 2 and known.get("2") is None and known.get("1") == refusal
    known.forget("1")
    known.forget("unknown")
    assert len(known) == 1
