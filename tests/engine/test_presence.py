"""Presence and certificates: silence on a clock nobody sets, ends told in time."""

from __future__ import annotations

from datetime import timedelta

import hypothesis.strategies as st
from hypothesis import given

from roost.engine.admission import Refused
from roost.engine.certificates import LONGEST_LOOK, WARN_SECONDS, certificate_due, certificate_faults
from roost.engine.presence import PresenceBook
from roost.model import time
from tests.support.clock import START


def test_a_book_of_presences() -> None:
    now = 100.0
    book = PresenceBook(lambda: now)
    now = 107.0
    assert (book("h").connected, book("h").met, book("h").silent) == (False, False, 7.0)
    book.up("h", version="1", certificate_expires_at="t")
    now = 120.0
    up = book("h")
    assert (up.connected, up.met, up.silent, up.version, up.certificate_expires_at) == (
        True,
        True,
        0.0,
        "1",
        "t",
    )
    book.down("h")
    now = 125.0
    book.down("h")
    now = 126.0
    down = book("h")
    assert (down.connected, down.met, down.silent, down.version) == (False, True, 6.0, "1")
    book.down("never")
    assert (book("never").met, book("never").silent) == (True, 0.0)
    book.forget("h")
    assert not book("h").met


def test_a_node_whose_process_is_gone_is_not_seen_to_be_lost() -> None:
    now = 100.0
    book = PresenceBook(lambda: now)
    book.up("s", version="1")
    now = 110.0
    book.lost_sight("s")
    now = 113.0
    away = book("s")
    assert (away.connected, away.met, away.silent) == (False, False, 3.0)
    book.down("s")
    now = 114.0
    assert (book("s").met, book("s").silent) == (True, 1.0)
    book.up("s", version="2")
    assert (book("s").connected, book("s").version) == (True, "2")


def end(seconds: float) -> str:
    return time.stamp(START + timedelta(seconds=seconds))


@given(milliseconds=st.integers(-(10**10), 10**10))
def test_a_certificates_alarm_follows_from_the_time_that_is_left(milliseconds: int) -> None:
    left = milliseconds / 1000  # ends are told to the millisecond
    faults = [(f.alarm_id, f.severity) for f in certificate_faults("host=h", end(left), START)]
    if left <= 0:
        assert faults == [("500.210", "critical")]
    elif left < WARN_SECONDS:
        assert faults == [("500.200", "major")]
    else:
        assert faults == []
    due = certificate_due(end(left), START)
    assert due is not None and 0 < due <= LONGEST_LOOK
    later = START + timedelta(seconds=due)
    if due < LONGEST_LOOK:
        assert [f.alarm_id for f in certificate_faults("host=h", end(left), later)] != [f for f, _ in faults]


def test_an_end_that_is_not_known_says_nothing() -> None:
    for unknown in ("", "soon", "2026-01-01"):
        assert certificate_faults("host=h", unknown, START) == []
        assert certificate_due(unknown, START) is None


def test_a_refusal_carries_its_parts() -> None:
    refused = Refused("it is unlocked", "lock it", field="spec.host")
    assert (refused.reason, refused.remedy, refused.field) == ("it is unlocked", "lock it", "spec.host")
    assert str(refused) == "it is unlocked; lock it"
