"""Look-ups of single resources that come at the same time go to the database together.

One look-up on PostgreSQL costs a thread and a round trip, which is far more than what the database does for
it. So while one batch is on its way, what is sought meanwhile waits for the next: under load many share a
trip, and a single one never waits. A batch begins after all that is in it was asked for, so each look-up sees
what was acknowledged before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from roost.store import statements
from roost.store.errors import Unavailable
from roost.store.session import Row, Session

AT_ONCE = 64
"""Look-ups in one batch; what waits is bounded by who may ask at all."""

Keys = dict[str, str]
Rows = list[Row | None]
Run = Callable[[Callable[[Session], Rows]], Coroutine[Any, Any, Rows]]
"""Runs work on a session in a thread; raises ReadFailed."""


class Seeker:
    """Looks resources up for all who ask, a batch at a time. Lives on one event loop."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._sought: deque[tuple[Keys, asyncio.Future[Row | None]]] = deque()
        self._batch: asyncio.Task[Rows] | None = None

    async def find(self, values: Keys) -> Row | None:
        """The row with this key, or None when there is none; raises ReadFailed, Unavailable."""
        future: asyncio.Future[Row | None] = asyncio.get_running_loop().create_future()
        self._sought.append((values, future))
        if self._batch is None:
            self._begin()
        return await future

    def _begin(self) -> None:
        asked = [self._sought.popleft() for _ in range(min(AT_ONCE, len(self._sought)))]
        many = [values for values, _ in asked]
        self._batch = asyncio.ensure_future(self._run(lambda s: s.first_of_each(statements.FIND, many)))
        self._batch.add_done_callback(lambda done: self._found([future for _, future in asked], done))

    def _found(self, futures: Sequence[asyncio.Future[Row | None]], done: asyncio.Task[Rows]) -> None:
        self._batch = None
        error = Unavailable("the store is closing") if done.cancelled() else done.exception()
        for n, future in enumerate(futures):
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result()[n])
        if self._sought:
            self._begin()
