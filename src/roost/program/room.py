"""Starting on a disk that is full, read-only or broken: it is waited for, with its reason said.

Ending would not help: whoever starts the process again meets the same disk, sooner or later gives it up, and
nobody is at the site. What a start can do without the disk is done meanwhile: a host puts the rules back that
were in force (`hold`). A first start is not waited with: there somebody looks, and nothing is there to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog

from roost.program import notify
from roost.program.home import StartError
from roost.store.errors import StoreError

T = TypeVar("T")

AGAIN = 5.0
_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_SQLITE = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
)
_PRIMARY = 0xFF

_log = structlog.get_logger("roost.program")


def is_of_the_disk(error: BaseException) -> bool:
    """Whether something failed for want of a disk that can be written."""
    for cause in _causes(error):
        code = getattr(getattr(cause, "orig", cause), "sqlite_errorcode", None)
        if code is not None and code & _PRIMARY in _SQLITE:
            return True
        if isinstance(cause, OSError) and cause.errno in _ERRNOS:
            return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


async def nothing() -> None:
    """What is done meanwhile where there is nothing to do."""


async def when_possible(
    work: Callable[[], Awaitable[T]], stop: asyncio.Event, meanwhile: Callable[[], Awaitable[None]] = nothing
) -> T:
    """Do `work`, again and again while the disk is what prevents it. Raises what else prevents it.

    Raises StartError when it is told to stop meanwhile.
    """
    while True:
        try:
            return await work()
        except (StoreError, OSError) as error:
            if not is_of_the_disk(error):
                raise
            reason = str(error)
        _log.error("the disk can't be used; waiting for it", reason=reason, retry_in=AGAIN)
        notify.tell(f"STATUS=waits for its disk: {reason}"[:300])
        await meanwhile()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN):
                await stop.wait()
        if stop.is_set():
            raise StartError("it was stopped while it waited for its disk", reason)
