"""The simulated loop: time that jumps, an order that repeats, nothing real, processes that die at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from roost.sim.deterministic.loop import (
    OutOfTime,
    Process,
    ProcessEnded,
    RealWorld,
    SimulatedLoop,
    Wedged,
    current_process,
)


def run(work: Callable[[], Awaitable[None]], *, deadline: float = 60.0) -> SimulatedLoop:
    """Run something on a loop of its own."""
    loop = SimulatedLoop(deadline=deadline)

    async def all_of_it() -> None:
        await work()

    try:
        loop.run_until_complete(all_of_it())
    finally:
        loop.dispose()
    return loop


def test_an_hour_takes_no_time_and_what_was_due_in_it_has_happened_in_order() -> None:
    happened: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        happened.append(name)

    async def work() -> None:
        began, now = time.monotonic(), asyncio.get_running_loop().time()
        tasks = [asyncio.create_task(sleeper(n, s)) for n, s in (("c", 3000), ("a", 1), ("b", 1))]
        await asyncio.sleep(3600)
        assert asyncio.get_running_loop().time() == now + 3600
        assert time.monotonic() - began < 30
        await asyncio.gather(*tasks)

    run(work)
    assert happened == ["a", "b", "c"]


def test_what_is_ready_runs_first_come_first_served() -> None:
    order: list[int] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        for number in range(20):
            loop.call_soon(order.append, number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(work)
    assert order == list(range(20))


def test_sets_of_tasks_are_ordered_by_their_numbers() -> None:
    orders: list[list[int]] = []

    async def work() -> None:
        async def one(number: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                orders[-1].append(number)

        orders.append([])
        with contextlib.suppress(ZeroDivisionError):
            try:
                async with asyncio.TaskGroup() as group:
                    for number in range(50):
                        group.create_task(one(number))
                    await asyncio.sleep(1)
                    raise ZeroDivisionError
            except* ZeroDivisionError:
                pass

    run(work)
    ballast = [object() for _ in range(10_000)]
    run(work)
    assert len(ballast) and orders[0] == orders[1] and sorted(orders[0]) == list(range(50))


@pytest.mark.parametrize(
    "ask",
    [
        lambda loop: loop.create_connection(asyncio.Protocol, "127.0.0.1", 1),
        lambda loop: loop.create_server(asyncio.Protocol, "127.0.0.1", 0),
        lambda loop: loop.getaddrinfo("localhost", 1),
        lambda loop: asyncio.create_subprocess_exec("true"),
        lambda loop: asyncio.to_thread(loop.add_reader, 0, print),
        lambda loop: asyncio.to_thread(loop.add_signal_handler, 1, print),
    ],
)
def test_nothing_real_is_to_be_had(ask: Callable[[asyncio.AbstractEventLoop], Awaitable[object]]) -> None:
    async def work() -> None:
        with pytest.raises(RealWorld, match="a simulation has nothing real"):
            await ask(asyncio.get_running_loop())

    run(work)


def test_what_would_go_to_a_thread_is_done_in_place() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(lambda: 7) == 7
        with ThreadPoolExecutor(1) as pool:
            assert await loop.run_in_executor(pool, lambda: 8) == 8
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    run(work)


def test_a_loop_that_turns_on_the_spot_is_a_wedge() -> None:
    async def work() -> None:
        while True:  # noqa: ASYNC110 - it is to turn
            await asyncio.sleep(0)

    with pytest.raises(Wedged, match="steps, and still at"):
        run(work)


def test_a_loop_that_moves_by_next_to_nothing_is_a_wedge() -> None:
    async def work() -> None:
        while True:  # noqa: ASYNC110 - it is to turn
            await asyncio.sleep(1e-9)

    with pytest.raises(Wedged):
        run(work)


def test_a_loop_that_waits_for_nothing_is_a_wedge_that_names_who_waits() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Wedged, match=r"nothing is left that could ever happen(.|\n)*all_of_it"):
        run(waits_for_ever)


def test_a_run_that_takes_too_long_ends() -> None:
    async def work() -> None:
        while True:  # noqa: ASYNC110 - it is to turn
            await asyncio.sleep(0.1)

    with pytest.raises(OutOfTime, match="of the wall clock"):
        run(work, deadline=0.05)


def test_errors_that_nobody_handles_are_kept() -> None:
    async def work() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    assert any("ZeroDivisionError" in problem for problem in run(work).problems)


# -- processes


def test_a_dead_process_does_nothing_more_at_whatever_await_it_was() -> None:
    """Killed at each of many moments: nothing that it had begun happens afterwards, no `finally` either."""

    async def life(did: list[str]) -> None:
        loop = asyncio.get_running_loop()

        async def child() -> None:
            try:
                while True:
                    did.append("child")
                    await asyncio.sleep(0.3)
            finally:
                did.append("finally of the child")

        loop.call_later(1.5, did.append, "timer")
        loop.create_future().add_done_callback(lambda _: did.append("callback"))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                async with asyncio.timeout(2.0):
                    while True:
                        did.append("life")
                        await asyncio.sleep(0.2)
        except BaseException:
            did.append("except")
            raise
        finally:
            did.append("finally")

    async def work(seconds: float) -> None:
        did: list[str] = []
        process = Process("one")
        process.begin(life(did))
        await asyncio.sleep(seconds)
        process.kill()
        before = list(did)
        await asyncio.sleep(10)
        assert did == before
        assert not process.alive

    for moment in range(25):
        run(lambda moment=moment: work(moment * 0.07))  # type: ignore[misc]


def test_a_dead_process_is_not_woken_by_the_living() -> None:
    did: list[str] = []

    async def waits(event: asyncio.Event, answer: asyncio.Future[int]) -> None:
        try:
            await event.wait()
            did.append("woken")
            await answer
        finally:
            did.append("over")

    async def work() -> None:
        event, answer = asyncio.Event(), asyncio.get_running_loop().create_future()
        process = Process("one")
        task = process.begin(waits(event, answer))
        await asyncio.sleep(1)
        process.kill()
        event.set()
        task.cancel()
        await asyncio.sleep(5)
        assert did == []

    run(work)
    assert did == []


def test_what_is_begun_within_a_process_is_of_it() -> None:
    async def work() -> None:
        process, seen = Process("one"), list[Process | None]()
        loop = asyncio.get_running_loop()

        async def outer() -> None:
            seen.append(current_process())
            await asyncio.create_task(inner())
            loop.call_later(1, lambda: seen.append(current_process()))

        async def inner() -> None:
            seen.append(current_process())

        process.begin(outer())
        process.call(lambda: seen.append(current_process()))
        await asyncio.sleep(2)
        assert seen == [process] * 4
        assert current_process() is None

    run(work)


def test_who_waits_outside_is_told_that_a_process_died() -> None:
    async def work() -> None:
        process = Process("one")
        assert await process.within(asyncio.sleep(1, "answer")) == "answer"
        with pytest.raises(ZeroDivisionError):
            await process.within(fails())
        asyncio.get_running_loop().call_later(1, process.kill)
        began = asyncio.get_running_loop().time()
        with pytest.raises(ProcessEnded, match="the process of one has ended"):
            await process.within(asyncio.sleep(60))
        assert asyncio.get_running_loop().time() == began + 1
        with pytest.raises(ProcessEnded):
            await process.within(asyncio.sleep(60))

    async def fails() -> None:
        raise ZeroDivisionError

    run(work)


def test_who_gives_up_outside_ends_what_he_asked_for_within() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def work() -> None:
        process = Process("one")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await process.within(slow())
        await asyncio.sleep(0.1)

    run(work)
    assert ended == ["cancelled"]
