"""What follows from heartbeats that come and don't: tables, and properties on random histories."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from roost.cloud.heartbeat import (
    LINK_FRESH,
    NOT_WATCHED,
    Arrivals,
    NetworkHeartbeat,
    NetworkState,
    Thresholds,
    judge_host,
    judge_network,
    thresholds_of,
)
from roost.model.heartbeat import Heartbeat, heartbeat_problems

THRESHOLDS = Thresholds(4, 6, 10)
PERIOD = 0.1
SOAK = 1.0


def beating(until: float, *, since: float = 0.0, looking: float = 0.0) -> Arrivals:
    """A network on which a beat came each period, from `since` to `until`."""
    arrivals = Arrivals("mgmt0", PERIOD, since)
    beats = int((until - since) / PERIOD + 1e-6)
    for n in range(beats + 1):
        arrivals.take(since + n * PERIOD, n + 1, THRESHOLDS, looking)
    return arrivals


@pytest.mark.parametrize(
    ("silent", "state", "beats"),
    [
        (0.0, "well", True),
        (0.39, "well", True),
        (0.4, "minor", True),
        (0.59, "minor", True),
        (0.6, "degraded", False),
        (0.99, "degraded", False),
        (1.0, "failed", False),
        (1e6, "failed", False),
    ],
)
def test_missed_beats_make_the_state(silent: float, state: str, beats: bool) -> None:  # noqa: FBT001
    judged = judge_network(beating(20.0), 0.0, THRESHOLDS, 20.0 + silent)
    assert (judged.state, judged.beats) == (state, beats)


def test_one_that_has_never_beaten_has_its_time_from_its_registration() -> None:
    arrivals = Arrivals("mgmt0", PERIOD, 5.0)
    assert judge_network(arrivals, 0.0, THRESHOLDS, 5.9).state == "unknown"
    assert judge_network(arrivals, 0.0, THRESHOLDS, 6.0).state == "failed"


def test_after_a_gap_it_is_well_only_when_beats_have_come_for_as_long_as_a_failure_takes() -> None:
    arrivals = beating(20.0)
    states: list[NetworkState] = []
    for n in range(12):
        at = 25.0 + n * PERIOD
        arrivals.take(at, 1000 + n, THRESHOLDS, 0.0)
        states.append(judge_network(arrivals, 0.0, THRESHOLDS, at).state)
    assert states == ["unknown"] * 10 + ["well"] * 2


def test_single_lost_beats_change_nothing() -> None:
    arrivals = Arrivals("mgmt0", PERIOD, 0.0)
    for n in range(300):
        at = n * PERIOD
        if n % 4 == 0:  # three of four are lost
            arrivals.take(at, n + 1, THRESHOLDS, 0.0)
        if at > 2 * SOAK:
            assert judge_network(arrivals, 0.0, THRESHOLDS, at).state == "well"


def test_time_in_which_nobody_looked_is_not_silence() -> None:
    arrivals = beating(20.0)
    resumed = 50.0
    assert judge_network(arrivals, resumed, THRESHOLDS, 50.0).state == "unknown"
    assert judge_network(arrivals, resumed, THRESHOLDS, 50.9).state == "unknown"
    assert judge_network(arrivals, resumed, THRESHOLDS, 51.0).state == "failed"
    arrivals.take(50.05, 1000, THRESHOLDS, resumed)
    judged = judge_network(arrivals, resumed, THRESHOLDS, 50.06)
    assert (judged.state, judged.beats) == ("unknown", True)


@pytest.mark.parametrize("sequence", [0, 1, 200, 201])
def test_repetitions_are_no_beats(sequence: int) -> None:
    arrivals = beating(20.0)
    assert arrivals.sequence == 201
    assert not arrivals.take(25.0, sequence, THRESHOLDS, 0.0)
    assert judge_network(arrivals, 0.0, THRESHOLDS, 25.0).state == "failed"


def network(state: NetworkState, silent: float) -> NetworkHeartbeat:
    return NetworkHeartbeat("n", state, int(silent / PERIOD), silent, beats=silent < 0.6)


WELL, DEGRADED, FAILED = network("well", 0.0), network("degraded", 0.7), network("failed", 1.2)
UNKNOWN = NetworkHeartbeat("n", "unknown", 1, 0.1)


@pytest.mark.parametrize(
    ("networks", "link_heard", "verdict"),
    [
        ([], 100.0, "none"),
        ([WELL], None, "alive"),
        ([WELL, FAILED], None, "alive"),
        ([FAILED, FAILED], None, "failed"),
        ([FAILED, DEGRADED], None, "suspect"),
        ([DEGRADED], None, "suspect"),
        ([UNKNOWN], None, "unknown"),
        ([UNKNOWN, FAILED], None, "unknown"),
        # What the link carried before the beats stopped proves nothing; what it carried after does.
        ([FAILED], 98.7, "failed"),
        ([FAILED], 99.3, "failed"),
        ([FAILED], 99.5, "alive"),
        ([DEGRADED], 99.95, "alive"),
        ([network("failed", 60.0)], 100.0 - LINK_FRESH - 0.1, "failed"),
        ([network("failed", 60.0)], 100.0 - LINK_FRESH + 0.1, "alive"),
    ],
)
def test_the_verdict_on_a_host(
    networks: list[NetworkHeartbeat], link_heard: float | None, verdict: str
) -> None:
    assert judge_host(networks, link_heard, 0.6, 100.0).verdict == verdict


def test_no_networks_are_not_watched() -> None:
    assert judge_host([], None, 0.6, 100.0) == NOT_WATCHED


HISTORIES = st.lists(st.floats(min_value=0.001, max_value=3.0), min_size=1, max_size=60)
RANK = {"unknown": -1, "well": 0, "minor": 1, "degraded": 2, "failed": 3}


@given(
    gaps=HISTORIES, after=st.floats(min_value=0.0, max_value=5.0), paused=st.none() | st.floats(0.0, 150.0)
)
def test_nothing_is_failed_that_beat_within_the_threshold(
    gaps: list[float], after: float, paused: float | None
) -> None:
    looking = paused or 0.0
    arrivals, at = Arrivals("n", PERIOD, 0.0), 0.0
    for n, gap in enumerate(gaps):
        at += gap
        arrivals.take(at, n + 1, THRESHOLDS, looking)
    now = max(at, looking) + after
    judged = judge_network(arrivals, looking, THRESHOLDS, now)
    silent = now - max(at, looking)
    assert judged.silent == pytest.approx(silent)
    if silent < 1.0 - 1e-6:
        assert judged.state != "failed"
    if silent > 1.0 + 1e-6:
        assert judged.state == "failed"
    if judged.state in ("degraded", "failed") and at >= looking:
        assert silent >= 0.6 - 1e-6


@given(gaps=HISTORIES)
def test_silence_only_makes_it_worse(gaps: list[float]) -> None:
    arrivals, at = Arrivals("n", PERIOD, 0.0), 0.0
    for n, gap in enumerate(gaps):
        at += gap
        arrivals.take(at, n + 1, THRESHOLDS, 0.0)
    states = [judge_network(arrivals, 0.0, THRESHOLDS, at + n * 0.05).state for n in range(60)]
    ranks = [RANK[s] for s in states]
    assert ranks == sorted(ranks)
    assert ranks[-1] == RANK["failed"]


@pytest.mark.parametrize(
    ("heartbeat", "fields"),
    [
        (Heartbeat(), []),
        (Heartbeat(minor_after=7), ["spec.heartbeat.minorAfter"]),
        (Heartbeat(failed_after=7), ["spec.heartbeat.failedAfter"]),
        (Heartbeat(minor_after=9, degraded_after=8, failed_after=9), 2),
    ],
)
def test_thresholds_must_grow(heartbeat: Heartbeat, fields: list[str] | int) -> None:
    problems = heartbeat_problems(heartbeat)
    if isinstance(fields, int):
        assert len(problems) == fields
    else:
        assert [p.field for p in problems] == fields
    assert all(p.remedy for p in problems)


def test_the_default_fails_a_host_within_a_second() -> None:
    heartbeat = Heartbeat()
    assert thresholds_of(heartbeat) == Thresholds()
    assert thresholds_of(heartbeat).failed * heartbeat.period_milliseconds == 900
