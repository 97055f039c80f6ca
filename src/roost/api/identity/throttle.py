"""How often somebody may try a password: per origin, and per name at an origin, with a growing lockout. Pure.

An origin is the address that somebody comes from (`addresses`). Each has an allowance that refills with time,
and each name has one at each origin. Wrong passwords are counted for a name at an origin, whether there is
such a user or not: from FREE on, that name is locked there for a time that doubles with each further failure
up to LONGEST. So who guesses locks out himself, not the user, who comes from elsewhere.

Guesses that are spread over many origins are counted for the name as well: from FREE_OF_ALL on it is locked
everywhere in the same way, but where the right password was given within TRUSTED_FOR. A right password, or a
new one, clears the name.

All tables are bounded: the entry that was touched least recently goes, so a flood of names costs memory for
MOST of them and no more. Nothing here looks whether there is such a user. That a name is trusted at an origin
tells something only to who comes from the same address as the user, while the name is locked everywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from roost.engine.allowance import MOST, Allowance

FREE = 5
FREE_OF_ALL = 50
FIRST, LONGEST = 10.0, 3600.0
FORGOTTEN = 24 * 3600.0
TRUSTED_FOR = 30 * 24 * 3600.0
PER_NAME = (10.0, 10 / 60)
PER_ADDRESS = (30.0, 30 / 60)
"""How many at once, and how many a second after that."""

Key = TypeVar("Key", bound=Hashable)


class Throttled(Exception):
    """Too many tries; `wait` is how many seconds to wait."""

    def __init__(self, wait: float) -> None:
        super().__init__("too many tries")
        self.wait = wait


class Lockout(Generic[Key]):
    """Failures in a row of each key; from `free` on it is locked."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._failed: OrderedDict[Key, tuple[int, float]] = OrderedDict()

    def left(self, key: Key, now: float) -> float:
        """For how many seconds it is locked still."""
        count, at = self._failed.get(key, (0, 0.0))
        if count < self._free:
            return 0.0
        lock = min(LONGEST, FIRST * 2.0 ** min(count - self._free, 32))
        return max(0.0, at + lock - now)

    def failed(self, key: Key, now: float) -> None:
        """Once more."""
        count, at = self._failed.pop(key, (0, now))
        self._failed[key] = (1 if now - at > FORGOTTEN else count + 1, now)
        if len(self._failed) > MOST:
            self._failed.popitem(last=False)

    def clear(self, key: Key) -> None:
        """Forget its failures."""
        self._failed.pop(key, None)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._failed)


class Throttle:
    """Tries at one door. `now` is in seconds of a clock that never goes back; `origin` may be empty, for what
    does not come from an address: it is one origin like others then, without the allowance of an address."""

    def __init__(self) -> None:
        self._names, self._addresses = Allowance(*PER_NAME), Allowance(*PER_ADDRESS)
        self._here, self._everywhere = Lockout[tuple[str, str]](FREE), Lockout[str](FREE_OF_ALL)
        self._trusted: OrderedDict[tuple[str, str], float] = OrderedDict()

    def begin(self, name: str, origin: str, now: float) -> None:
        """Somebody tries; raises Throttled when he has to wait first."""
        wait = max(self.locked(name, origin, now), self._addresses.take(origin, now) if origin else 0.0)
        if wait <= 0:
            wait = self._names.take(f"{origin} {name}", now)
        if wait > 0:
            raise Throttled(wait)

    def locked(self, name: str, origin: str, now: float) -> float:
        """For how many seconds a name is locked still for who comes from there."""
        here = self._here.left((name, origin), now)
        since = self._trusted.get((name, origin))
        if since is not None and now - since <= TRUSTED_FOR:
            return here
        return max(here, self._everywhere.left(name, now))

    def failed(self, name: str, origin: str, now: float) -> None:
        """The password was wrong."""
        self._here.failed((name, origin), now)
        self._everywhere.failed(name, now)

    def succeeded(self, name: str, origin: str, now: float) -> None:
        """The password was right."""
        self._here.clear((name, origin))
        self._everywhere.clear(name)
        self._trusted.pop((name, origin), None)
        self._trusted[name, origin] = now
        if len(self._trusted) > MOST:
            self._trusted.popitem(last=False)

    def renewed(self, name: str) -> None:
        """The name has a new password: what went before counts no more, for it or against it."""
        self._everywhere.clear(name)
        for key in [key for key in self._here if key[0] == name]:
            self._here.clear(key)
        for key in [key for key in self._trusted if key[0] == name]:
            del self._trusted[key]
