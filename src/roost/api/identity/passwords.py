"""Hashing passwords: Argon2id in a few threads of its own, so that a flood of logins starves nothing else.

Parameters are those OWASP gives for 19 MiB (RFC 9106 leaves the choice to memory at hand): a hash takes
some tens of milliseconds and 19 MiB, with THREADS at once and WAITING in line. Hashes say their own
parameters, so they can be raised later. Passwords are judged by length alone (NIST SP 800-63B).
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from argon2 import PasswordHasher

T = TypeVar("T")
THREADS = 1
WAITING = 16
SHORTEST, LONGEST = 12, 256
MEMORY, PASSES, LANES = 19 * 1024, 2, 1
"""KiB, passes over them, lanes."""


class Busy(Exception):
    """More logins wait than are taken."""


def problem(password: object) -> str:
    """What is wrong with a password that somebody wants to set; empty when nothing."""
    if not isinstance(password, str):
        return "it must be text"
    if not SHORTEST <= len(normal(password)) <= LONGEST:
        return f"it must have from {SHORTEST} to {LONGEST} characters"
    return ""


def normal(password: str) -> str:
    """The one form of a text that keyboards give in several (NFKC)."""
    return unicodedata.normalize("NFKC", password)


class Hasher:
    """Hashes and compares, off the event loop."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The hash of a password; raises Busy."""
        return await self._run(lambda: _hasher().hash(normal(password)))

    async def matches(self, hash: str, password: str) -> bool:
        """Whether a password is the one of a hash. An empty hash takes as long, and never matches.
        Raises Busy."""
        return await self._run(lambda: _compare(hash, normal(password)))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING:
            raise Busy
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, "passwords")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1


def _compare(hash: str, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(hash or _nobodys(), password) and bool(hash)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY, parallelism=LANES)


@cache
def _nobodys() -> str:
    """The hash that is compared where there is none, so that the time tells nothing."""
    return _hasher().hash("a password that nobody has")
