"""Waits until the store's watch has come to a revision.

A reader thread may see a commit an instant before the event loop is told of it, so a client may come
back with a revision that the watch does not know yet: a short wait settles it. One that does not come
within the deadline is from another life of this store (a backup was put back): list anew.
"""

from __future__ import annotations

import asyncio

from roost.api.status import ApiError
from roost.store.store import Store

PATIENCE = 3.0


async def reach(store: Store, revision: int, patience: float = PATIENCE) -> None:
    """Return once the store has come to `revision`; raises ApiError 410 when it does not in time."""
    if revision <= store.revision:
        return
    try:
        async with asyncio.timeout(patience):
            async for batch in store.watch(store.revision):
                if batch.upto >= revision:
                    return
    except TimeoutError:
        pass
    raise ApiError(
        410,
        f"resourceVersion {revision} is ahead of this store, which is at {store.revision}; list anew",
        reason="Expired",
    )
