"""Errand: work of a session that is done when there is some, and takes nothing while there is none.

A task that waits for work takes kilobytes; an errand at rest is a few references. Waking it says that there
may be something to do: its work is then done by one task, once more if it was woken meanwhile, never twice at
a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None]
"""Begins a task of the session; None when the session is over."""


class Errand:
    """`wake` it; what its work raises ends the session."""

    __slots__ = ("_spawn", "_task", "_wanted", "_work")

    def __init__(self, spawn: Spawn, work: Callable[[], Awaitable[None]]) -> None:
        self._spawn, self._work = spawn, work
        self._task: asyncio.Task[None] | None = None
        self._wanted = False

    def wake(self) -> None:
        """There may be something to do."""
        self._wanted = True
        if self._task is None:
            self._task = self._spawn(self._go())

    async def _go(self) -> None:
        try:
            while self._wanted:
                self._wanted = False
                await self._work()
        finally:
            self._task = None
