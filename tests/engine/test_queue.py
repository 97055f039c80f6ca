"""The work queue: one in flight per key, nothing lost, nothing doubled, backoff bounded and jittered."""

from __future__ import annotations

import asyncio
import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from roost.engine import queue as queue_module
from roost.engine.queue import FIRST_DELAY, LONGEST_DELAY, Full, WorkQueue
from tests.support.clock import on_fake_time, run

KEYS = st.sampled_from("abc")
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("add"), KEYS, st.just(0.0)),
        st.tuples(st.just("later"), KEYS, st.floats(0.0, 30.0)),
        st.tuples(st.just("pass"), st.just(""), st.floats(0.01, 20.0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(moves=MOVES, seed=st.integers(0, 2**32), workers=st.integers(1, 4))
def test_every_wish_is_followed_by_work_that_saw_it(
    moves: list[tuple[str, str, float]], seed: int, workers: int
) -> None:
    """Work takes random times and fails at random; after it settles, no key's last wish is unanswered."""

    async def main() -> None:
        loop, source = asyncio.get_running_loop(), random.Random(seed)
        queue: WorkQueue[str] = WorkQueue(between=random.Random(seed).uniform)
        wished: dict[str, float] = {}
        answered: dict[str, float] = {}
        in_flight: set[str] = set()

        async def work() -> None:
            while True:
                key = await queue.take()
                assert key not in in_flight, "a key is worked on twice at once"
                in_flight.add(key)
                began = loop.time()
                await asyncio.sleep(source.choice([0.0, 0.5, 7.0]))
                in_flight.discard(key)
                if source.random() < 0.3:
                    delay = queue.retry(key)
                    assert 0 < delay <= LONGEST_DELAY
                else:
                    answered[key] = began
                    queue.done(key)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        for move, key, number in moves:
            if move == "pass":
                await asyncio.sleep(number)
            elif move == "add":
                wished[key] = loop.time()
                queue.add(key)
            else:
                wished[key] = max(wished.get(key, 0.0), loop.time())
                queue.add_after(key, number)
        await asyncio.sleep(3600)
        assert len(queue) == 0 and not in_flight
        assert set(answered) == set(wished)
        for key, moment in wished.items():
            assert answered[key] >= moment, f"{key} was not worked on after it was last asked for"
        for task in tasks:
            task.cancel()

    run(main())


@on_fake_time
async def test_a_key_is_coalesced_while_it_waits_and_given_once_more_when_changed_in_work() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(5):
        queue.add("a")
    assert await queue.take() == "a"
    assert len(queue) == 0
    for _ in range(5):
        queue.add("a")
    assert len(queue) == 0, "it is not given out while it is worked on"
    queue.done("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert len(queue) == 0


@on_fake_time
async def test_the_earliest_of_several_delays_counts() -> None:
    loop = asyncio.get_running_loop()
    queue: WorkQueue[str] = WorkQueue()
    start = loop.time()
    for delay in (50.0, 20.0, 30.0):
        queue.add_after("a", delay)
    assert await queue.take() == "a"
    assert loop.time() - start == pytest.approx(20.0, abs=0.01)
    queue.done("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await queue.take()


@on_fake_time
async def test_backoff_grows_to_a_bound_with_jitter_and_ends_with_success() -> None:
    queue: WorkQueue[str] = WorkQueue(between=random.Random(1).uniform)
    delays = []
    for _ in range(14):
        queue.add("a")
        await queue.take()
        delays.append(queue.retry("a"))
    for n, delay in enumerate(delays):
        whole = min(LONGEST_DELAY, FIRST_DELAY * 2**n)
        assert whole / 2 <= delay <= whole
    assert len({d / (FIRST_DELAY * 2**n) for n, d in enumerate(delays[:8])}) == 8, "no jitter"
    await queue.take()
    queue.done("a")
    queue.add("a")
    await queue.take()
    assert queue.retry("a") <= FIRST_DELAY


@on_fake_time
async def test_a_failing_key_holds_up_no_other() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("bad")
    await queue.take()
    for _ in range(8):
        queue.retry("bad")
        queue.add("bad")
        await queue.take()
    queue.retry("bad")
    queue.add("good")
    assert await queue.take() == "good"


@on_fake_time
async def test_past_its_limit_an_add_is_refused() -> None:
    queue: WorkQueue[int] = WorkQueue(limit=3)
    for key in (1, 2):
        queue.add(key)
    queue.add_after(3, 5.0)
    with pytest.raises(Full):
        queue.add(4)
    queue.add(1)
    queue.add(3)
    assert [await queue.take() for _ in range(3)] == [1, 2, 3]
    queue.add(1)
    queue.add(4)
    queue.done(1)
    assert len(queue) == 2


@on_fake_time
async def test_many_far_delays_brought_forward_keep_memory_bounded() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(5_000):
        queue.add("a")
        assert await queue.take() == "a"
        queue.done("a", 3600.0)
    assert len(queue) == 1
    assert len(queue._later) <= 100


def test_the_limits_are_those_documented() -> None:
    assert (queue_module.LIMIT, queue_module.LONGEST_DELAY) == (100_000, 60.0)
