"""Points in time as the API writes them: RFC 3339, UTC, `Z`.

Metadata has seconds, as the Kubernetes API conventions want; everything else milliseconds. Whatever is
written in a transaction has one time, so the last ones are put into words once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def seconds(now: datetime) -> str:
    """2026-11-23T04:05:06Z"""
    return _seconds(now)


def stamp(now: datetime) -> str:
    """2026-11-23T04:05:06.789Z"""
    return _stamp(now)


def parse(text: str) -> datetime:
    """The point in time; raises ValueError when `text` is not RFC 3339."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment


@lru_cache(16)
def _seconds(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(16)
def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
