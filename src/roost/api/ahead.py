"""The next page of a list, read while its reader takes the one before.

A token names the revision of all pages, so what the next one holds is known before anybody asks for it. Once
a client has gone on from one page to the next, the page after is read and made ready beside the sending of
this one, and waits for KEPT_SECONDS. Who looks at one page costs no other.

It is a guess, and holds nobody up: MOST pages of LARGEST bytes are held at once, the oldest goes first, and
one that failed or is gone is read when it is asked for. Who asks is let in before, by the same rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

import msgspec

from roost.api.snapshots import Continue

MOST = 8
LARGEST = 2 * 1024 * 1024
KEPT_SECONDS = 5.0


class Page(msgspec.Struct, frozen=True):
    """An answer, `zipped` or not, and where the list goes on; None at its end."""

    body: bytes
    zipped: bool
    then: Continue | None


class Ahead:
    """Pages of one server that may be asked for next."""

    def __init__(self) -> None:
        self._pages: dict[Hashable, asyncio.Task[Page]] = {}

    def begin(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, Page]]) -> None:
        """Have a page read that will be known by `key`."""
        while len(self._pages) >= MOST:
            self._drop(next(iter(self._pages)))
        self._drop(key)
        loop = asyncio.get_running_loop()
        # Of no request: what is bound to this one ends with it.
        task = loop.create_task(read(), context=contextvars.Context())
        self._pages[key] = task
        task.add_done_callback(lambda done: self._look(key, done))
        loop.call_later(KEPT_SECONDS, self._expire, key, task)

    async def take(self, key: Hashable) -> Page | None:
        """The page of a key, which it is given for once; None when it was not read ahead, or that failed."""
        task = self._pages.pop(key, None)
        if task is None:
            return None
        with contextlib.suppress(Exception):
            return await task
        return None

    def close(self) -> None:
        """Hold nothing any more."""
        while self._pages:
            self._drop(next(iter(self._pages)))

    def _look(self, key: Hashable, done: asyncio.Task[Page]) -> None:
        if done.cancelled():
            return
        if (done.exception() is not None or len(done.result().body) > LARGEST) and self._pages.get(
            key
        ) is done:
            del self._pages[key]

    def _expire(self, key: Hashable, task: asyncio.Task[Page]) -> None:
        if self._pages.get(key) is task:
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        task = self._pages.pop(key, None)
        if task is not None:
            task.cancel()
