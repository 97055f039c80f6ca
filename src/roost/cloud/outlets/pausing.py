"""What becomes of an attempt that failed: tried again, and when; halted; or the message passed over. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from roost.model import chance

FIRST_PAUSE = 1.0
LONGEST_ASKED = 3600.0
"""Seconds that a receiver's own word on when to come again is honoured for at most."""

Answer = Literal["accepted", "again", "halted", "unwanted"]


class Failed(Exception):
    """An attempt that failed; what it sent is tried again after a pause.

    `halted`: it will go on failing until somebody acts, so the pause is the longest at once. `retry_after`
    is what the receiver asks for, in seconds. `doubtful`: it may have arrived all the same.
    """

    def __init__(
        self,
        reason: str,
        remedy: str,
        *,
        retry_after: float = 0.0,
        halted: bool = False,
        doubtful: bool = False,
        code: str = "Unreachable",
    ) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy, self.code = reason, remedy, code
        self.retry_after, self.halted, self.doubtful = retry_after, halted, doubtful


class Unwanted(Exception):
    """The receiver will not have these messages, and never will."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def pause(
    attempt: int,
    longest: float,
    failure: Failed,
    between: Callable[[float, float], float] = chance.between,
) -> float:
    """Seconds to wait after the `attempt`-th failure in a row (from 1): doubled each time up to `longest`,
    less up to half by chance so that many do not come at once; never less than the receiver asks for."""
    ceiling = longest if failure.halted else min(longest, FIRST_PAUSE * 2.0 ** min(attempt - 1, 30))
    jittered = ceiling * between(0.5, 1.0)
    return max(jittered, min(failure.retry_after, LONGEST_ASKED))


def judged(status: int) -> Answer:
    """What an HTTP status means for what was sent.

    408, 425, 429 and 5xx pass: again. 400, 413 and 422 speak of the message: it is passed over, once it is
    known which of a batch it is. Anything else (a redirect, 401, 403, 404 ...) would be said of every
    message: nothing is passed over, sending halts until somebody acts.
    """
    if 200 <= status < 300:
        return "accepted"
    if status in (408, 425, 429) or status >= 500:
        return "again"
    return "unwanted" if status in (400, 413, 422) else "halted"


def retry_after(header: str, now: datetime) -> float:
    """Seconds that a Retry-After header (RFC 9110, 10.2.3) asks for; 0 when it says nothing useful."""
    text = header.strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return 0.0
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())
