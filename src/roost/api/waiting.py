"""Waits until the store's watch has come to a revision.

A reader thread may see a commit an instant before the event loop is told of it, so a client may come
back with a revision that the watch does not know yet: a short wait settles it. One that does not come
within the deadline is from another life of this store (a backup was put back). Then:

- get and list answer as Kubernetes does, with 504 and the cause ResourceVersionTooLarge, on which client-go
  lists without a revision. The answer tells retryAfterSeconds in its details but sets no Retry-After header:
  client-go would repeat the request ten times for it, in vain here, before it looks at the cause;
- watches answer 410: client-go lists then too (and is told the cause), and clients of other languages know
  only this answer as a reason to list anew, and would come back with the same revision for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

from roost.api.status import ApiError
from roost.store.store import Batch, Store
from roost.store.transaction import Change

PATIENCE = 3.0


class TooLarge(ApiError):
    """A revision that this store has not reached."""

    def __init__(self, revision: int, current: int) -> None:
        super().__init__(
            504,
            f"Too large resource version: {revision}, current: {current}; list without one",
            details={"retryAfterSeconds": 1},
            causes=[{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        )
        self.revision, self.current = revision, current

    def expired(self) -> ApiError:
        """The same for a watch."""
        message = (
            f"resourceVersion {self.revision} is ahead of this store, which is at {self.current}; list anew"
        )
        return ApiError(410, message, reason="Expired")


def follow(
    store: Store,
    after: int,
    wanted: Callable[[Change], bool] = lambda _: True,
    *,
    idle: float | None = None,
) -> AsyncGenerator[Batch, None]:
    """The store's watch, as the generator it is, so that it can be closed."""
    return cast("AsyncGenerator[Batch, None]", store.watch(after, wanted, idle=idle))


async def reach(store: Store, revision: int, patience: float = PATIENCE) -> None:
    """Return once the store has come to `revision`; raises TooLarge when it does not in time."""
    if revision <= store.revision:
        return
    try:
        async with asyncio.timeout(patience):
            async with aclosing(follow(store, store.revision)) as batches:
                async for batch in batches:
                    if batch.upto >= revision:
                        return
    except TimeoutError:
        pass
    raise TooLarge(revision, store.revision)
