"""Spans and points of time as people write them at a command."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from roost.cli.problems import Misused
from roost.model import time

_SPAN = re.compile(r"^(\d{1,9})([smhd])$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def span(text: str) -> timedelta | None:
    """90s, 30m, 2h, 7d; None when the text is no span."""
    found = _SPAN.match(text)
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
    except OverflowError:
        return None


def moment(option: str, text: str) -> datetime:
    """The point in time that an option names. Raises Misused."""
    try:
        return time.parse(text)
    except ValueError as error:
        raise Misused(
            f"{option} {text}: {error}", "write a span, as 90s, 30m, 2h, 7d, or a time with its zone"
        ) from error


def before(option: str, text: str, now: datetime) -> datetime | None:
    """The point in time that an option means, be it a span before now; None when it is empty.

    Raises Misused.
    """
    if not text:
        return None
    ago = span(text)
    try:
        return moment(option, text) if ago is None else now - ago
    except OverflowError as error:
        raise Misused(f"{option} {text} is too long ago", "write a shorter span") from error
