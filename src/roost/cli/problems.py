"""Why a command could not do what it was asked, and the exit code that says so.

Every problem is one sentence that names the thing and the reason, and mostly a second that names the
next step. `main.run` prints it to standard error and exits with its code.
"""

from __future__ import annotations

from typing import ClassVar

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
NOT_FOUND = 4
DENIED = 5
TIMED_OUT = 6
INTERRUPTED = 130


class Problem(Exception):
    """A command failed. `remedy` is the next step, empty when there is none to name."""

    code: ClassVar[int] = FAILED

    def __init__(self, reason: str, remedy: str = "", *, details: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason, self.remedy, self.details = reason, remedy, details


class Failed(Problem):
    """It was tried and did not succeed."""


class Refused(Problem):
    """The cloud does not allow it now."""


class Contested(Refused):
    """Others have set fields to something else than what is applied."""


class Misused(Problem):
    """The command line or a file given with it makes no sense."""

    code = USAGE


class Unreachable(Problem):
    """No answer from the cloud."""

    code = UNREACHABLE


class NotFound(Problem):
    """The thing asked for is not there."""

    code = NOT_FOUND


class Denied(Problem):
    """The cloud does not know us, or does not let us."""

    code = DENIED


class TimedOut(Problem):
    """What was waited for did not come in time; it may still come."""

    code = TIMED_OUT


class Expired(Problem):
    """A cursor is too old; list anew. Handled inside the room, never shown."""
