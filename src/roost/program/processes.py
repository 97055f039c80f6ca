"""Tells in a Cloud which processes it has: their roles, their links, which of them is active.

The active process writes it, as its roster knows them; every TELL_EVERY seconds at most, and only what has
changed. A cloud that is one process has none to tell of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
import structlog

from roost.link.roster import Roster
from roost.model import time
from roost.model.cloud import Cloud, CloudProcess
from roost.store.errors import Overloaded, Unavailable
from roost.store.links import Process
from roost.store.store import Store
from roost.store.transaction import Transaction

TELL_EVERY = 2.0
MOST = 64

_log = structlog.get_logger("roost.program")


def listed(processes: Sequence[Process], links: Mapping[str, int], active: str) -> list[CloudProcess]:
    """The processes as people see them, the longest there first. Pure."""
    ordered = sorted(processes, key=lambda one: (one.since, one.name))[:MOST]
    return [
        CloudProcess(
            name=one.name,
            roles=one.roles,
            active=one.name == active,
            links=links.get(one.name, 0),
            address=one.links,
            since=time.seconds(datetime.fromtimestamp(one.since, UTC)),
            version=one.version,
        )
        for one in ordered
    ]


async def tell(store: Store, cloud: str, roster: Roster, active: str) -> None:
    """Keep the list in the Cloud, until cancelled."""
    told: list[CloudProcess] | None = None
    while True:
        wanted = listed(roster.processes, roster.counts, active) if store.is_shared else []
        if wanted != told:
            try:
                await store.transact(lambda tx: _write(tx, cloud, wanted))  # noqa: B023 - awaited here
                told = wanted
            except (Unavailable, Overloaded) as error:
                _log.debug("the processes could not be told", reason=str(error))
        await asyncio.sleep(TELL_EVERY)


def _write(tx: Transaction, name: str, processes: list[CloudProcess]) -> None:
    cloud = tx.load(Cloud, "", name)
    if cloud.status.processes != processes:
        tx.report(
            msgspec.structs.replace(cloud, status=msgspec.structs.replace(cloud.status, processes=processes))
        )
