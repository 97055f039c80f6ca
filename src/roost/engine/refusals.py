"""Pauses between tries of what rules refuse, and when to tell of it.

What is refused may be allowed a moment later, or never. A try costs a transaction and telling of it another,
so the pauses grow from FIRST to LONGEST, each twice the one before. A try in between (the thing has changed)
neither grows the pause nor is told of while the reason is the same; another reason is news, and begins anew.

LONGEST is half of the hour that an Event is kept: while something is refused, an Event says so.

Kept in memory, for the REMEMBERED newest: what is forgotten, as after a restart, begins anew.
"""

from __future__ import annotations

import msgspec

FIRST = 60.0
LONGEST = 1800.0
REMEMBERED = 4096


class Refusal(msgspec.Struct, frozen=True):
    """What was refused last: why, and when it is tried again after how long a pause, in seconds."""

    reason: str
    due: float
    pause: float


def following(known: Refusal | None, reason: str, now: float) -> Refusal:
    """The refusal after one more try that was refused; the one that is known when this is no news."""
    if known is None or known.reason != reason:
        return Refusal(reason, now + FIRST, FIRST)
    if now < known.due:
        return known
    pause = min(LONGEST, 2 * known.pause)
    return Refusal(reason, now + pause, pause)


class Refusals:
    """What is being refused, by identity."""

    def __init__(self) -> None:
        self._known: dict[str, Refusal] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, uid: str) -> Refusal | None:
        """What is known of one."""
        return self._known.get(uid)

    def put(self, uid: str, refusal: Refusal) -> None:
        """Remember one; past REMEMBERED the oldest is forgotten."""
        self._known.pop(uid, None)
        self._known[uid] = refusal
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def forget(self, uid: str) -> None:
        """It is refused no longer."""
        self._known.pop(uid, None)
