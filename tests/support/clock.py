"""Time that tests drive: an event loop whose clock moves only when nothing else is left to do.

Sleeping an hour on it takes no time, and everything that was due within that hour has happened, in
order. With a store that runs `inline` nothing happens outside the loop, so runs repeat exactly.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

import looptime

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

P = ParamSpec("P")
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop with fake time."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(work)


def _new_loop() -> asyncio.AbstractEventLoop:
    loop = looptime.new_event_loop()
    # Fake time moves in microseconds; a timer that lies closer must not be waited for for ever.
    loop._clock_resolution = 1e-6  # type: ignore[attr-defined]
    return loop


def on_fake_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make an async test run on fake time."""

    @functools.wraps(test)
    def ran(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return ran


async def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds, on whatever clock the loop has; fails after so many seconds."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - any fact can be asked for, not only events
            await asyncio.sleep(0.005)
