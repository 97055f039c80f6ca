"""Waits until the store's watch has come to a revision.

A reader thread may see a commit an instant before the event loop is told of it, so a client may come
back with a revision that the watch does not know yet: a short wait settles it. One that does not come
within the deadline is from another life of this store (a backup was put back): list anew.
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
    """Return once the store has come to `revision`; raises ApiError 410 when it does not in time."""
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
    raise ApiError(
        410,
        f"resourceVersion {revision} is ahead of this store, which is at {store.revision}; list anew",
        reason="Expired",
    )
