"""Keeps the link upwards as the cloud's operator wants it: dialled, or given up for good.

It follows `spec.standsAlone` of the Cloud. The order matters: the link ends first, then what it brought
becomes the cloud's own. A process that dies between the two does the rest at its next start.
"""

from __future__ import annotations

import asyncio

import structlog

from roost.cloud.leaving import stands_alone, take_over
from roost.link.lower import LowerLink
from roost.model.cloud import CLOUD
from roost.store.errors import Compacted, FutureRevision, Overloaded, Unavailable
from roost.store.store import Store

AGAIN = 1.0
_log = structlog.get_logger("roost.program")


async def keep_link(store: Store, cloud: str, link: LowerLink | None) -> None:
    """Until cancelled. `link` is not started yet; None when this cloud has never joined another."""
    dialling = False
    while True:
        try:
            revision, alone = await store.read(lambda tx: (tx.revision, stands_alone(tx, cloud)))
            if alone:
                if link is not None and dialling:
                    await link.stop()
                    dialling = False
                taken = await store.transact(lambda tx: take_over(tx, cloud))
                if taken:
                    _log.info("the cloud stands alone", cloud=cloud, kept=taken)
            elif link is not None and not dialling:
                link.start()
                dialling = True
            await _changed(store, cloud, revision, alone=alone)
        except (Unavailable, Overloaded, Compacted, FutureRevision) as error:
            _log.warning("the store failed, looking again in a second", reason=str(error))
            await asyncio.sleep(AGAIN)


async def _changed(store: Store, cloud: str, revision: int, *, alone: bool) -> None:
    """Until the operator wants it otherwise."""
    async for batch in store.watch(revision):
        for change in batch.changes:
            if (
                change.kind == CLOUD.kind
                and change.name == cloud
                and await store.read(lambda tx: stands_alone(tx, cloud)) != alone
            ):
                return
    # The store is closed: wait to be cancelled rather than spin.
    await asyncio.Event().wait()
