"""Static tokens from a file, in Kubernetes' form: `token,user,uid,"group1,group2"`, one a line.

The file is looked at when a token comes, at most once a second, and read again when it has changed; a
file that is gone or broken opens nothing, and the log says so once. What is kept is the SHA-256 of each
token, looked up by it: the comparison tells nothing of the tokens.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import structlog
from starlette.types import Scope

from roost.api.identity.bearer import bearer
from roost.link.exchange import Caller

LARGEST = 1024 * 1024
LOOK_EVERY = 1.0

_log = structlog.get_logger("roost.api.identity")


class BadTokenFile(ValueError):
    """The file can't be used: why, and the line."""


def parse(text: str) -> dict[bytes, Caller]:
    """Callers by the digests of their tokens; raises BadTokenFile."""
    found: dict[bytes, Caller] = {}
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        fields = [field.strip() for field in row]
        if not any(fields) or fields[0].startswith("#"):
            continue
        if len(fields) < 3 or not fields[0] or not fields[1]:
            raise BadTokenFile(f'line {number} is not token,user,uid[,"group1,group2"]')
        groups = [g.strip() for g in (fields[3].split(",") if len(fields) > 3 else []) if g.strip()]
        digest = _digest(fields[0])
        if digest in found:
            raise BadTokenFile(f"line {number} has a token that stands there twice")
        found[digest] = Caller(fields[1], groups, fields[2])
    return found


class TokenFile:
    """An authenticator for one file."""

    def __init__(self, path: Path, monotonic: Callable[[], float] | None = None) -> None:
        self._path, self._monotonic = path, monotonic
        self._looked_at = float("-inf")
        self._seen: tuple[int, int, int] | None = None
        self._callers: dict[bytes, Caller] = {}

    async def __call__(self, scope: Scope) -> Caller | None:
        """Who is known by a static token."""
        token = bearer(scope["headers"])
        if not token:
            return None
        now = self._monotonic() if self._monotonic else asyncio.get_running_loop().time()
        if now >= self._looked_at + LOOK_EVERY:
            self._looked_at = now
            await asyncio.to_thread(self._look)
        return self._callers.get(_digest(token))

    def _look(self) -> None:
        try:
            status = os.stat(self._path)  # noqa: PTH116
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen == self._seen:
                return
            self._seen = seen
            if status.st_size > LARGEST:
                raise BadTokenFile(f"it is larger than {LARGEST} bytes")
            self._callers = parse(self._path.read_text())
        except (OSError, ValueError) as error:
            if self._callers or self._seen is not None:
                _log.error("the token file opens nothing", path=str(self._path), reason=str(error))
            self._callers = {}
            if isinstance(error, OSError):
                self._seen = None
            return
        _log.info("token file read", path=str(self._path), tokens=len(self._callers))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("latin-1", "replace")).digest()
