"""Whether the clock can be trusted: the kernel's own flag, its clock source, the time zone.

The kernel clears STA_UNSYNC when a time service steers the clock, and sets it again when the estimated
error outgrows what that service promised. That flag holds whichever service it is.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from roost.host.observe.look import Look
from roost.host.observe.source import Source
from roost.model.host import ClockState, Unknown

_UNSYNCHRONISED = 0x0040


class _Timex(ctypes.Structure):
    """Head of struct timex; the rest is room for what this does not look at."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("maximum_error", ctypes.c_long),
        ("estimated_error", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    ]


def observe_clock(
    source: Source, status: Callable[[], int] | None = None
) -> tuple[ClockState, list[Unknown]]:
    """The state of the clock."""
    look = Look()
    synchronised: bool | None = None
    try:
        synchronised = not (status or read_status)() & _UNSYNCHRONISED
    except (OSError, AttributeError) as error:
        look.note("clock.synchronised", error)
    base = source.sys / "devices/system/clocksource/clocksource0"
    clock = ClockState(
        synchronised=synchronised,
        source=look.text(base / "current_clocksource", "clock.source"),
        time_zone=_time_zone(look, source),
    )
    return clock, look.unknown


def read_status() -> int:
    """Status bits of the kernel's clock. Asks only, so it needs no privilege. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    state = _Timex()
    if library.adjtimex(ctypes.byref(state)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(state.status)


def _time_zone(look: Look, source: Source) -> str:
    """Name of the time zone: what /etc/localtime links to. Without that file it is UTC (localtime(5))."""
    path = source.etc / "localtime"
    if path.is_symlink():
        target = look.target(path, "clock.timeZone")
        _, mark, zone = target.partition("zoneinfo/")
        if not mark:
            look.note("clock.timeZone", f"{path} links to {target}, which is no time zone's name")
        return zone
    name = look.text(source.etc / "timezone", "clock.timeZone")
    if name or not path.exists():
        return name or "UTC"
    look.note("clock.timeZone", f"{path} is a copy, which does not tell the time zone's name")
    return ""
