"""When a process that ended is started again. Pure: the history goes in and comes out.

- Exit code 75 after readiness is a wish: the process wants to be started anew, as a machine that
  reboots. It is started at once and counts as a reboot, not as a restart.
- Any other end is followed by a start after a pause that doubles with each end in a row and is
  forgotten after a minute of good life.
- A process that ends before it was ready five times within a minute is given up: the fault will
  not go away by itself, and its log says more than another attempt.
"""

from __future__ import annotations

import signal

import msgspec

REBOOT = 75
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
GOOD_LIFE = 60.0
EARLY_ENDS = 5
WINDOW = 60.0


class History(msgspec.Struct, frozen=True):
    """What the decision remembers of a process's earlier lives."""

    restarts: int = 0
    reboots: int = 0
    in_a_row: int = 0
    early: tuple[float, ...] = ()


class End(msgspec.Struct, frozen=True):
    """How one life ended. `code` is negative for a signal; `lived` is in seconds."""

    code: int
    lived: float
    was_ready: bool


class Again(msgspec.Struct, frozen=True):
    """Start it again after a pause."""

    pause: float
    history: History


class GiveUp(msgspec.Struct, frozen=True):
    """Leave it dead until somebody asks for it."""

    history: History


def after_end(history: History, end: End, now: float) -> Again | GiveUp:
    """Decide what follows the end of a process."""
    if end.code == REBOOT and end.was_ready:
        return Again(0.0, History(history.restarts, history.reboots + 1))
    recent: tuple[float, ...] = ()
    if not end.was_ready:
        recent = (*(at for at in history.early if now - at < WINDOW), now)
    in_a_row = 1 if end.lived >= GOOD_LIFE else history.in_a_row + 1
    if len(recent) >= EARLY_ENDS:
        return GiveUp(History(history.restarts, history.reboots, in_a_row, recent))
    # The exponent is held down so that a long row of ends cannot make a number without end.
    pause = min(FIRST_PAUSE * 2 ** min(in_a_row - 1, 16), LONGEST_PAUSE)
    return Again(pause, History(history.restarts + 1, history.reboots, in_a_row, recent))


def describe(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        try:
            return f"ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"ended by signal {-code}"
    if code == REBOOT:
        return "asked to be started again"
    return f"ended with exit code {code}"
