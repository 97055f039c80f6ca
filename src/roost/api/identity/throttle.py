"""How often somebody may try a password: per name and per address, with a lockout that grows. Pure.

Each name and each address has an allowance that refills with time. Wrong passwords are counted for each
name, whether there is such a user or not: from FREE on, the name is locked for a time that doubles with
each further failure up to LONGEST. A right password clears the name. Both tables are bounded: the entry
that was touched least recently goes, so a flood of names costs memory for MOST of them and no more.
"""

from __future__ import annotations

from collections import OrderedDict

from roost.api.allowance import MOST, Allowance

FREE = 5
FIRST, LONGEST = 10.0, 3600.0
FORGOTTEN = 24 * 3600.0
PER_NAME = (10.0, 10 / 60)
PER_ADDRESS = (30.0, 30 / 60)
"""How many at once, and how many a second after that."""


class Throttled(Exception):
    """Too many tries; `wait` is how many seconds to wait."""

    def __init__(self, wait: float) -> None:
        super().__init__("too many tries")
        self.wait = wait


class Throttle:
    """Tries at one door. `now` is in seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._names, self._addresses = Allowance(*PER_NAME), Allowance(*PER_ADDRESS)
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def begin(self, name: str, address: str, now: float) -> None:
        """Somebody tries; raises Throttled when he has to wait first."""
        wait = max(self.locked(name, now), self._addresses.take(address, now) if address else 0.0)
        if wait <= 0:
            wait = self._names.take(name, now)
        if wait > 0:
            raise Throttled(wait)

    def locked(self, name: str, now: float) -> float:
        """For how many seconds a name is locked still."""
        count, at = self._failed.get(name, (0, 0.0))
        if count < FREE:
            return 0.0
        lock = min(LONGEST, FIRST * 2.0 ** min(count - FREE, 32))
        return max(0.0, at + lock - now)

    def failed(self, name: str, now: float) -> None:
        """The password was wrong."""
        count, at = self._failed.pop(name, (0, now))
        self._failed[name] = (1 if now - at > FORGOTTEN else count + 1, now)
        if len(self._failed) > MOST:
            self._failed.popitem(last=False)

    def succeeded(self, name: str) -> None:
        """The password was right."""
        self._failed.pop(name, None)
