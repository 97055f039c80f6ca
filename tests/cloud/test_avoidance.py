"""Many hosts silent at once: one event, nobody is failed, until it is over or its time is."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from roost.cloud.avoidance import SETTLING, Event, Silence, avoid
from roost.model.heartbeat import FailureAvoidance

LIMITS = FailureAvoidance(hosts=3, window_seconds=5, timeout_seconds=120, dead_office_seconds=1000)


def step(previous: Event | None, now: float, **silent: float) -> Event | None:
    return avoid(previous, Silence(silent), LIMITS, now)


@pytest.mark.parametrize(
    ("silent", "hosts"),
    [
        ({}, set()),
        ({"a": 1.0, "b": 1.0}, set()),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, {"a", "b", "c"}),
        ({"a": 6.0, "b": 3.0, "c": 1.0}, {"a", "b", "c"}),
        ({"a": 7.0, "b": 3.0, "c": 1.0}, set()),
        # One that has been silent for long is not of the event; one that follows is.
        ({"old": 500.0, "a": 3.0, "b": 2.0, "c": 1.0}, {"a", "b", "c"}),
        ({"a": 60.0, "b": 60.0, "c": 60.0, "later": 1.0}, {"a", "b", "c", "later"}),
        ({"a": 121.0, "b": 121.0, "c": 121.0}, set()),
    ],
)
def test_so_many_silences_that_begin_together_are_an_event(silent: dict[str, float], hosts: set[str]) -> None:
    event = step(None, 1000.0, **silent)
    assert (set(event.hosts) if event else set()) == hosts


def test_an_event_has_a_deadline_that_nothing_moves() -> None:
    event = step(None, 1000.0, a=2.0, b=1.0, c=1.0)
    assert event is not None and event.deadline == 998.0 + 120
    for now in (1010.0, 1060.0, 1117.0):
        event = step(event, now, a=now - 998, b=now - 999, c=now - 999)
        assert event is not None and event.deadline == 1118.0
    assert step(event, 1119.0, a=121.0, b=120.0, c=120.0) is None


def test_the_last_to_return_have_a_little_longer() -> None:
    event = step(None, 1000.0, a=1.0, b=1.0, c=1.0)
    event = step(event, 1020.0, a=21.0, b=21.0, c=21.0)
    event = step(event, 1021.0, c=22.0)
    assert event is not None and event.hosts == {"c"}
    event = step(event, 1020.0 + SETTLING - 0.1, c=29.9 + 1)
    assert event is not None
    assert step(event, 1020.0 + SETTLING + 0.1, c=31.1) is None
    assert step(event, 1022.0) is None, "all have returned"


def test_zero_switches_it_off() -> None:
    silence = Silence(dict.fromkeys("abcdef", 1.0), frozenset("abcdef"), 10.0)
    assert avoid(None, silence, FailureAvoidance(hosts=0), 1000.0) is None


@pytest.mark.parametrize(
    ("absent", "up", "left"),
    [
        ("ab", 60.0, None),
        ("abc", 60.0, 940.0),
        ("abc", 999.0, 1.0),
        ("abc", 1000.0, None),
        ("abc", 1e9, None),
    ],
)
def test_a_site_that_is_powered_up_has_its_time(absent: str, up: float, left: float | None) -> None:
    event = avoid(None, Silence({}, frozenset(absent), up), LIMITS, 50.0)
    assert (event.deadline - 50.0 if event else None) == left
    if event is not None:
        assert event.reason == "DeadOffice" and event.hosts == set(absent)
        again = avoid(event, Silence({}, frozenset(absent), up + 0.5), LIMITS, 50.5)
        assert again is not None and again.deadline == event.deadline


SILENT = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(min_value=0.6, max_value=300.0), max_size=8)


@given(looks=st.lists(st.tuples(st.floats(min_value=0.05, max_value=30.0), SILENT), max_size=30))
def test_nobody_is_held_who_is_not_silent_nor_for_ever(looks: list[tuple[float, dict[str, float]]]) -> None:
    now, event = 1000.0, None
    for passed, silent in looks:
        now += passed
        event = avoid(event, Silence(silent), LIMITS, now)
        if event is not None:
            assert event.hosts and event.hosts <= set(silent)
            assert now < event.deadline <= now + LIMITS.timeout_seconds


@given(silent=SILENT)
def test_two_are_never_an_event_of_three(silent: dict[str, float]) -> None:
    if len(silent) < 3:
        assert avoid(None, Silence(silent), LIMITS, 1000.0) is None
