"""Who waits long for a moment of the wall clock notices that somebody has set it."""

from __future__ import annotations

import asyncio

import pytest

from roost.engine.clock import LOOK, SET, LoopClock, rest
from tests.support.clock import START, on_fake_time

LONG = 3600.0


@pytest.mark.parametrize("step", [-86400.0, -SET - 5, SET + 5, 86400.0])
@on_fake_time
async def test_a_clock_that_is_set_ends_the_rest_soon(step: float) -> None:
    clock, loop = LoopClock(START), asyncio.get_running_loop()
    began = loop.time()
    resting = asyncio.create_task(rest(LONG, clock))
    await asyncio.sleep(100)
    assert not resting.done()
    clock.jump(step)
    await resting
    assert loop.time() - began <= 100 + LOOK + 1


@pytest.mark.parametrize("step", [0.0, -SET / 2, SET / 2])
@on_fake_time
async def test_a_clock_that_is_corrected_a_little_does_not(step: float) -> None:
    clock, loop = LoopClock(START), asyncio.get_running_loop()
    began = loop.time()
    resting = asyncio.create_task(rest(LONG, clock))
    await asyncio.sleep(100)
    clock.jump(step)
    await resting
    assert LONG <= loop.time() - began <= LONG + 1
