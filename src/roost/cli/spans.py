"""Spans and points of time as people write them at a command.

A time without a zone is meant in the zone that lists print times in, which is this machine's: what was
printed can be given back.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from datetime import time as clock

from roost.cli.problems import Misused

FORMS = "a span, as 90s, 30m, 2h, 1d12h, or a time, as 18:00, '2026-11-23 18:00:00' or 2026-11-23T18:00:00Z"
_SPAN = re.compile(r"^(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?$")
_DAY = timedelta(days=1)


def span(text: str) -> timedelta | None:
    """90s, 30m, 2h, 7d, 1d12h; None when the text is no span."""
    found = _SPAN.match(text)
    if not found or not text:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        return None


def after(option: str, text: str, now: datetime) -> datetime:
    """The point in time to come that an option names; of a time of day the next one. Raises Misused."""
    found = _moment(option, text, now)
    return found + _DAY if _is_time_of_day(text) and found <= now else found


def _moment(option: str, text: str, now: datetime) -> datetime:
    try:
        if _is_time_of_day(text):
            day: date = now.astimezone().date()
            return datetime.combine(day, clock.fromisoformat(text)).astimezone()
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.astimezone()
    except (ValueError, OverflowError) as error:
        raise Misused(f"{option} {text[:100]} is no time", f"write {FORMS}") from error


def _is_time_of_day(text: str) -> bool:
    return re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text) is not None


def before(option: str, text: str, now: datetime) -> datetime | None:
    """The point in time that an option means, be it a span before now, or of a time of day the last one; None
    when it is empty.

    Raises Misused.
    """
    if not text:
        return None
    ago = span(text)
    try:
        if ago is not None:
            return now - ago
        found = _moment(option, text, now)
        return found - _DAY if _is_time_of_day(text) and found > now else found
    except OverflowError as error:
        raise Misused(f"{option} {text} is too long ago", "write a shorter span") from error
