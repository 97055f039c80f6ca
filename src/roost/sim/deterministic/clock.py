"""A wall clock of one node: the simulated time laid over a start, with what is wrong with it.

Wall clocks are set and drift; the loop's own time is the monotonic clock of all nodes, which nobody sets.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class NodeClock:
    """Tells the time of a node, which is `start` now; `monotonic` is the loop's time."""

    def __init__(self, monotonic: Callable[[], float], start: datetime = START) -> None:
        self._monotonic, self._origin, self._start = monotonic, monotonic(), start
        self._drifts_since, self._wrong, self._drift = self._origin, 0.0, 0.0

    def __call__(self) -> datetime:
        now = self._monotonic()
        return self._start + timedelta(seconds=now - self._origin + self._error(now))

    @property
    def wrong(self) -> float:
        """How many seconds it is ahead of the right time."""
        return self._error(self._monotonic())

    def _error(self, now: float) -> float:
        return self._wrong + (now - self._drifts_since) * self._drift

    def step(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._wrong += seconds

    def drift(self, ppm: float) -> None:
        """Let it gain so many millionths from now on."""
        now = self._monotonic()
        self._wrong, self._drifts_since, self._drift = self._error(now), now, ppm / 1e6

    def right(self) -> None:
        """Set it to the right time, where it stays."""
        self._wrong = self._drift = 0.0
