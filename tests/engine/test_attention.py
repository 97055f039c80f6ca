"""A clock that does not run while nobody looks."""

from __future__ import annotations

import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import given

from roost.engine.attention import EVERY, MOST, Attention
from roost.engine.presence import PresenceBook
from tests.support.clock import on_fake_time


@given(steps=st.lists(st.floats(min_value=-5, max_value=100), max_size=50))
def test_of_a_pause_at_most_so_much_counts_and_it_never_goes_back(steps: list[float]) -> None:
    now = 0.0
    clock = Attention(lambda: now)
    told, expected = clock(), 0.0
    for step in steps:
        now += step
        expected += min(max(step, 0.0), MOST)
        after = clock()
        assert after >= told
        assert after == pytest.approx(expected)
        told = after
    assert clock.longest_pause == pytest.approx(max([0.0, *steps]))


@on_fake_time
async def test_it_keeps_time_while_it_is_looked_at() -> None:
    loop = asyncio.get_running_loop()
    clock = Attention(loop.time)
    looking = asyncio.create_task(clock.run())
    await asyncio.sleep(100)
    assert clock() == pytest.approx(100, abs=2 * EVERY)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


def test_a_host_is_not_lost_by_a_pause_of_its_cloud() -> None:
    now = 0.0
    clock = Attention(lambda: now)
    book = PresenceBook(clock)
    book.up("h")
    book.down("h")
    now += 0.5
    assert book("h").silent == pytest.approx(0.5)
    now += 3600
    assert book("h").silent == pytest.approx(0.5 + MOST)
