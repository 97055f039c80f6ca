"""A wall clock that moves with the event loop's own time, so that a test or a simulation which drives the
loop drives the wall clock too. Loops sleep with asyncio; decisions are handed `now`.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta


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
