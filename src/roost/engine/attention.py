"""A clock that runs only while its process looks.

A process that was stopped, starved, or on a machine that was suspended has seen nothing meanwhile. Judging
others by that time would fail them for its own absence. So time is taken from looks at a clock, and of a
pause between two looks at most `MOST` seconds count.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

EVERY = 0.25
MOST = 1.0


class Attention:
    """Attentive seconds since it was made, called from any thread; `run` looks regularly."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._looked = monotonic()
        self._attentive = 0.0
        self._lock = threading.Lock()
        self.longest_pause = 0.0
        """The longest time without a look so far, in seconds."""

    def __call__(self) -> float:
        with self._lock:
            now = self._monotonic()
            pause = max(0.0, now - self._looked)
            self._looked = now
            self._attentive += min(pause, MOST)
            self.longest_pause = max(self.longest_pause, pause)
            return self._attentive

    async def run(self) -> None:
        """Look regularly, until cancelled."""
        while True:
            self()
            await asyncio.sleep(EVERY)
