"""How often something may happen: some at once, and then so many a second, for each key. Pure.

The table is bounded: the key that was used least recently goes, so a flood of keys costs memory for so many
and no more.
"""

from __future__ import annotations

from collections import OrderedDict

MOST = 10_000


class Allowance:
    """`burst` at once and `rate` a second after that, for each key. `now` is in seconds."""

    def __init__(self, burst: float, rate: float, *, most: int | None = None) -> None:
        self._burst, self._rate, self._most = burst, rate, most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """Seconds to wait; 0 when one was taken."""
        left, at = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - at) * self._rate)
        taken = left >= 1
        self._left[key] = (left - 1 if taken else left, now)
        if len(self._left) > (self._most or MOST):
            self._left.popitem(last=False)
        return 0.0 if taken else (1 - left) / self._rate
