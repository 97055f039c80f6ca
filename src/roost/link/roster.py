"""Roster: where all links of lower nodes are, as the active process reads it from the store.

A number says how far the changes of links were read (`store.links`); a notification or a write of this
process wakes, and every LOOK_EVERY seconds it is looked at anyway where there are other processes. As often,
processes whose leases have ended are found, and their links marked in one statement.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

from roost.store import links
from roost.store.errors import Overloaded, Unavailable
from roost.store.links import Link, Process
from roost.store.store import Store
from roost.store.transaction import Transaction

LOOK_EVERY = 2.0
GATHER = 0.02
"""Seconds for which what is written at about the same time is waited for, to be read together."""

log = structlog.get_logger(__name__)


class Roster:
    """`run` until cancelled. `changed` is told of each link that has changed, and whether it was so already
    when this roster began to read."""

    def __init__(self, store: Store, changed: Callable[[Link, bool], None]) -> None:
        self._store, self._changed = store, changed
        self._at, self._begun = 0, False
        self._swept: float | None = None
        self._where: dict[str, str] = {}
        self._woken = asyncio.Event()
        self.processes: list[Process] = []

    @property
    def counts(self) -> Counter[str]:
        """How many links each process has."""
        return Counter(self._where.values())

    async def run(self) -> None:
        """Read what changes, until cancelled."""
        stop = self._store.listen_beside(self._woken.set)
        every = LOOK_EVERY if self._store.is_shared else None
        try:
            while True:
                self._woken.clear()
                try:
                    await self.look()
                except (Unavailable, Overloaded) as error:
                    log.debug("link.roster-not-read", reason=str(error))
                    await asyncio.sleep(LOOK_EVERY)
                    continue
                try:
                    async with asyncio.timeout(every):
                        await self._woken.wait()
                    await asyncio.sleep(GATHER)
                except TimeoutError:
                    continue
        finally:
            stop()

    async def look(self) -> None:
        """Read what has changed since the last look. Raises Unavailable, Overloaded."""
        now = asyncio.get_running_loop().time()
        if self._swept is None or now - self._swept >= LOOK_EVERY:
            await self._sweep()
            self._swept = now
        at = self._at
        found, self.processes = await self._store.read(lambda tx: (links.since(tx, at), links.processes(tx)))
        first, self._begun = not self._begun, True
        for link in found:
            self._at = max(self._at, link.changed)
            if link.state == "up":
                self._where[link.node] = link.process
            else:
                self._where.pop(link.node, None)
            self._changed(link, first)

    async def _sweep(self) -> None:
        at = set(self._where.values())
        if await self._store.read(lambda tx: links.ended(tx, at)):
            gone, count = await self._store.transact(lambda tx: _bury(tx, at))
            if gone:
                log.warning("link.process-gone", processes=gone, links=count)

    def forget(self, node: str) -> None:
        """A node is declared no more."""
        self._where.pop(node, None)


def _bury(tx: Transaction, at: set[str]) -> tuple[list[str], int]:
    gone = links.ended(tx, at)
    return gone, links.bury(tx, gone) if gone else 0
