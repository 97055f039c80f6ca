"""Pacing of looks whose cost grows with what there is to look at.

A controller that counts all hosts or compiles all policies can't do so at each of a thousand changes:
that is the square of their number. After a look at N things the next one comes EACH times N seconds
later at the earliest, LONGEST at most, however much has changed meanwhile: in a small cloud at once, in a
large one still at a bounded share of the time, if a look at one thing takes some microseconds. What a look
finds is the latest state, so nothing is missed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

EACH = 0.0005
LONGEST = 2.0
SHORTEST = 0.01
"""A shorter wait is none: a small cloud is looked at at once."""


class Pace:
    """When each of a few looks, told apart by name, is due again."""

    def __init__(self) -> None:
        self._due: dict[str, datetime] = {}

    def wait(self, look: str, now: datetime) -> float:
        """Seconds until the look is due; 0 when it is. A clock that was set back makes nobody wait."""
        due = self._due.get(look)
        left = (due - now).total_seconds() if due else 0.0
        return left if SHORTEST < left <= LONGEST else 0.0

    def looked(self, look: str, now: datetime, things: int) -> None:
        """A look at so many things was taken."""
        self._due[look] = now + timedelta(seconds=min(LONGEST, EACH * things))

    def forget(self, look: str) -> None:
        """There is nothing to look at any more."""
        self._due.pop(look, None)
