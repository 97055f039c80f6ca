"""Wall clocks. Loops sleep with asyncio; decisions are handed `now`.

`LoopClock` moves with the event loop's own time, so that a test or a simulation which drives the loop drives
the wall clock too. `rest` is for who waits long for a moment of the wall clock, which may be set meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

LOOK = 30.0
SET = 60.0
"""A wall clock that moved by so many seconds more or less than time passed was set."""


class LoopClock:
    """The event loop's time laid over a start; `jump` moves it as a clock step would."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._origin: float | None = None

    def __call__(self) -> datetime:
        try:
            elapsed = asyncio.get_running_loop().time()
        except RuntimeError:
            return self._start
        if self._origin is None:
            self._origin = elapsed
        return self._start + timedelta(seconds=elapsed - self._origin)

    def jump(self, seconds: float) -> None:
        """Step the wall clock without letting loop time pass."""
        self._start += timedelta(seconds=seconds)


async def rest(seconds: float, clock: Callable[[], datetime]) -> None:
    """Sleep for so many seconds; less when the wall clock is set meanwhile, which is seen within LOOK."""
    loop = asyncio.get_running_loop()
    begun, since = clock(), loop.time()
    while (left := seconds - (loop.time() - since)) > 0:
        await asyncio.sleep(min(left, LOOK))
        passed = loop.time() - since
        if abs((clock() - begun).total_seconds() - passed) > SET:
            return
