"""Reading files so that "not present" and "could not look" stay apart.

A `Look` lasts for one observer. Its methods return the value, or the field's empty value; when that is
because something could not be read, the path and the reason are noted in `unknown`. The rule:

- the file does not exist, or its device went away: not present, nothing is noted;
- anything else that keeps it from being read or understood (permission, I/O error, not text, not a
  number): noted as unknown. Nothing is ever guessed in its place.

Files are read up to a bound; lists are cut to a bound, and the cut is noted too.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Literal, TypeVar

from roost.model.host import Unknown

T = TypeVar("T")

MAXIMUM_UNKNOWN = 256
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO}
_REASON_LENGTH = 512
_READ_LIMIT = 1 << 16
_RANGE = re.compile(r"^(\d{1,7})(?:-(\d{1,7}))?$")
_WIDEST_LIST = 1 << 16


class CannotTell(Exception):
    """A value could not be read; the message says why, for people."""


class Look:
    """Reads for one observer and notes what could not be read."""

    def __init__(self) -> None:
        self.unknown: list[Unknown] = []

    def note(self, at: str, reason: object) -> None:
        """Note that `at`, a dotted path of the inventory, is unknown, and why."""
        self.unknown.append(unknown(at, reason))

    def text(
        self, path: Path, at: str, limit: int = _READ_LIMIT, errors: Literal["strict", "replace"] = "strict"
    ) -> str:
        """Content of a file without surrounding space; "" when it is not present or unknown.

        With errors="replace" bytes that are no text become U+FFFD, otherwise all of it is unknown.
        """
        try:
            with path.open("rb") as file:
                return file.read(limit).decode("utf-8", errors).strip(" \t\r\n\0")
        except UnicodeDecodeError:
            self.note(at, f"{path} is not text")
        except OSError as error:
            if error.errno not in _ABSENT:
                self.note(at, error)
        return ""

    def whole(self, path: Path, at: str, limit: int, errors: Literal["strict", "replace"] = "strict") -> str:
        """As `text`, and noted when the file is longer than `limit` bytes."""
        content = self.text(path, at, limit + 1, errors)
        if len(content.encode()) > limit:
            self.note(at, f"{path} is longer than the {limit} bytes that are read of it")
        return content

    def number(self, path: Path, at: str, default: int = 0, base: int = 10) -> int:
        """Number in a file; `default` when it is not present or unknown."""
        content = self.text(path, at)
        if not content:
            return default
        try:
            return int(content, base)
        except ValueError:
            self.note(at, f"{path} holds {content[:40]!r}, which is no number")
            return default

    def numbers(self, path: Path, at: str) -> list[int]:
        """Numbers of a kernel list such as `0-3,8`; empty when it is not present or unknown."""
        content = self.text(path, at)
        try:
            return ranges(content)
        except ValueError as error:
            self.note(at, f"{path}: {error}")
            return []

    def names(self, path: Path, at: str) -> list[str]:
        """Sorted names in a directory; empty when it is not present or unknown."""
        try:
            return sorted(entry.name for entry in path.iterdir())
        except OSError as error:
            if error.errno not in _ABSENT:
                self.note(at, error)
            return []

    def target(self, path: Path, at: str) -> str:
        """What a symbolic link points to; "" when it is not present or unknown."""
        try:
            return str(path.readlink())
        except OSError as error:
            if error.errno not in _ABSENT:
                self.note(at, error)
            return ""

    def bound(self, items: list[T], limit: int, at: str) -> list[T]:
        """The first `limit` items; that some were left out is noted."""
        if len(items) > limit:
            self.note(at, f"{len(items) - limit} more are not listed, the limit is {limit}")
        return items[:limit]


def unknown(at: str, reason: object) -> Unknown:
    """An `Unknown` whose reason names the error and fits its field."""
    text = describe(reason) if isinstance(reason, BaseException) else str(reason)
    return Unknown(path=at, reason=text[:_REASON_LENGTH])


def describe(error: BaseException) -> str:
    """An error as a sentence for people. The type is named where the message alone would be too little."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, CannotTell):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def ranges(text: str) -> list[int]:
    """Numbers of a kernel list such as `0-3,8`. Raises ValueError when it is none."""
    found: list[int] = []
    for piece in text.split(","):
        if not piece.strip():
            continue
        match = _RANGE.match(piece.strip())
        if match is None:
            raise ValueError(f"{text[:40]!r} is no list of numbers")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= _WIDEST_LIST:
            raise ValueError(f"{text[:40]!r} is no list of numbers")
        found.extend(range(first, last + 1))
    return found


def settle(unknowns: list[Unknown]) -> list[Unknown]:
    """Sorted, each once, and bounded; the last entry then says how many were left out."""
    each = sorted(set(unknowns), key=lambda u: (u.path, u.reason))
    if len(each) <= MAXIMUM_UNKNOWN:
        return each
    kept = each[: MAXIMUM_UNKNOWN - 1]
    return [*kept, unknown("unknown", f"{len(each) - len(kept)} more are not listed")]
