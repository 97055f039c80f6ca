"""Points of time as people write them: what is printed can be given back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.cli.logs import _clock
from roost.cli.problems import Misused
from roost.cli.spans import after, before, span
from roost.model.time import stamp

NOW = datetime(2026, 11, 23, 13, 28, 21, tzinfo=UTC)


@pytest.fixture(autouse=True, params=["UTC", "Asia/Kolkata", "America/New_York"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_time_that_the_log_prints_is_taken() -> None:
    assert before("--since", _clock(stamp(NOW)), NOW) == NOW


def test_a_time_of_day_is_the_last_or_the_next_one() -> None:
    local = NOW.astimezone()
    earlier, later = local - timedelta(minutes=5), local + timedelta(minutes=5)
    assert before("--since", f"{earlier:%H:%M}", NOW) == earlier.replace(second=0)
    assert before("--since", f"{later:%H:%M}", NOW) == later.replace(second=0) - timedelta(days=1)
    assert after("--until", f"{later:%H:%M}", NOW) == later.replace(second=0)
    assert after("--until", f"{earlier:%H:%M}", NOW) == earlier.replace(second=0) + timedelta(days=1)


def test_a_day_begins_at_its_midnight_here() -> None:
    found = before("--since", "2026-11-20", NOW)
    assert found is not None and f"{found.astimezone():%Y-%m-%d %H:%M:%S}" == "2026-11-20 00:00:00"


@pytest.mark.parametrize("text", ["tomorrow", "2026", "25:00", "12:61", "12:", "0001-01-01x", "T"])
def test_what_is_no_time_says_what_is(text: str) -> None:
    for take in (before, after):
        with pytest.raises(Misused) as refused:
            take("--since", text, NOW)
        assert "is no time" in refused.value.reason and "18:00" in refused.value.remedy


@given(st.text(max_size=20))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    with contextlib.suppress(Misused):
        before("--since", text, NOW)


def test_spans_may_be_put_together() -> None:
    assert span("1d12h") == timedelta(hours=36) and span("2h30m10s") == timedelta(seconds=9010)
    assert span("90s") == timedelta(seconds=90)
    assert [span(t) for t in ("", "12", "12h1d", "-1h", "h")] == [None] * 5
