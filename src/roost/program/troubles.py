"""Finds out when a store that could not be written can be written again.

What failed is mostly tried again by who wanted it, but not always: a person's write that was refused may have
been the only one. So while a store is in trouble something small is written now and then.
"""

from __future__ import annotations

import asyncio
import contextlib

from roost.store.errors import Overloaded, Unavailable
from roost.store.store import Store

EVERY = 5.0


async def prove_writing(store: Store) -> None:
    """Look regularly, until cancelled."""
    while True:
        await asyncio.sleep(EVERY)
        if store.trouble:
            with contextlib.suppress(Unavailable, Overloaded):
                await store.prove()
