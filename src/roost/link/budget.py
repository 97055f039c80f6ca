"""How much one peer may send: some at once, and then so much a second. Pure; times are monotonic seconds.

Who sends more is held back: its connection is read no faster than its budget allows, so that the kernel
slows it down. Who goes on so for PATIENCE without a pause is found to flood.

What a peer sends because it was asked (batches within the window, bodies of our calls, acknowledgements) has
a budget of its own, that only holds back: a site that catches up after days is slow at worst.
"""

from __future__ import annotations

import msgspec

STRANGE = 3.0
"""Seconds after which it is told of who is held back."""

PATIENCE = 30.0


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """`burst` at once, and `per_second` after that."""

    burst: float
    per_second: float


UNBIDDEN = Rate(burst=2_000, per_second=200)
"""Messages that nobody asked for: heartbeats, calls that begin, questions, types of newer versions."""

UNBIDDEN_BYTES = Rate(burst=32 * 1024 * 1024, per_second=1024 * 1024)

ASKED = Rate(burst=20_000, per_second=4_000)
"""Messages that answer ours."""

ENTRIES = Rate(burst=50_000, per_second=2_000)
ENTRY_BYTES = Rate(burst=128 * 1024 * 1024, per_second=4 * 1024 * 1024)


class Budget:
    """One budget of one peer."""

    def __init__(self, *rates: Rate) -> None:
        """One rate for each amount that `charge` is given."""
        self._rates = rates
        self._left = [rate.burst for rate in rates]
        self._at: float | None = None
        self._short_since: float | None = None

    def charge(self, now: float, *amounts: float) -> float:
        """Spend; seconds to wait before more is taken, 0 while there is something left."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at, wait, full = now, 0.0, True
        for n, (rate, amount) in enumerate(zip(self._rates, amounts, strict=True)):
            left = min(rate.burst, self._left[n] + passed * rate.per_second) - amount
            self._left[n] = left
            wait = max(wait, -left / rate.per_second)
            full = full and left > rate.burst / 2
        if wait > 0 and self._short_since is None:
            self._short_since = now
        elif full:
            self._short_since = None
        return max(0.0, wait)

    def short_for(self, now: float) -> float:
        """For how long it has been spent, without a pause that filled half of it."""
        return 0.0 if self._short_since is None else now - self._short_since
