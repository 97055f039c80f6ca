"""Taking: the batches of a peer's stream, from when they were read until they are in the store.

What is kept meanwhile is bounded; with too much, nothing more is read. Each batch is acknowledged when it is
on disk, and not sooner than the peer's budget of entries allows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from roost.link.budget import ENTRIES, ENTRY_BYTES, Budget
from roost.link.conduct import What
from roost.link.errand import Errand, Spawn
from roost.link.errors import BadMessage
from roost.link.intake import Intake
from roost.link.messages import Acknowledge, Again, Entries, Key, Message
from roost.link.outgoing import WINDOW
from roost.store.transaction import Change

log = structlog.get_logger(__name__)

AGAIN_AT_ONCE = 1000
QUEUED_BYTES = 8 * 1024 * 1024
"""Of batches that wait to be taken in; one larger than that waits alone."""

CATCHING_UP = 600.0
"""Seconds for which a peer may be held back for its entries before that is strange."""


class Taking:
    """Of one session: `begin` when the peer's hello is known, then `put` what comes."""

    def __init__(
        self,
        intake: Intake,
        send: Callable[[Message], Awaitable[None]],
        *,
        spawn: Spawn,
        peer: str,
        acknowledge_within: float,
        complain: Callable[[What, str], None],
    ) -> None:
        self._intake, self._send, self._peer, self._complain = intake, send, peer, complain
        self._slowest = acknowledge_within / 2
        self._errand = Errand(spawn, self._work)
        self._entries = Budget(ENTRIES, ENTRY_BYTES)
        self._batches: deque[tuple[Entries, int]] | None = None
        self._bytes = 0
        self._drained: asyncio.Event | None = None
        self._store_id = ""
        self._asks_again = self._begun = False

    def begin(self, store_id: str, *, asks_again: bool) -> None:
        """The peer's store is this one; whether it knows what `Again` is."""
        self._store_id, self._asks_again = store_id, asks_again
        self._errand.wake()

    @property
    def waiting(self) -> int:
        """Batches that are not taken in yet."""
        return len(self._batches) if self._batches else 0

    async def put(self, batch: Entries, size: int) -> None:
        """Keep a batch of so many bytes until it is taken in. Raises BadMessage."""
        # The sender's window bounds this queue; repeated batches get room for as many again.
        if self.waiting >= 4 * WINDOW:
            raise BadMessage("more batches than the window allows")
        while self._batches and self._bytes + size > QUEUED_BYTES:
            self._drained = asyncio.Event()
            await self._drained.wait()
        if self._batches is None:
            self._batches = deque()
        self._batches.append((batch, size))
        self._bytes += size
        self._errand.wake()

    async def make_way(self, changes: list[Change]) -> None:
        """Our own history went on: ask again for what it no longer stands in the way of."""
        if self._intake.refused:
            await self._ask_again([k for k in map(self._intake.unblocked, changes) if k is not None])

    async def _work(self) -> None:
        if not self._begun:
            self._begun = True
            await self._ask_again([k for k in self._intake.refused if k[0] != "*"])
        while self._batches:
            batch, size = self._batches.popleft()
            await self._take(batch)
            self._bytes -= size
            if self._drained is not None:
                self._drained.set()
                self._drained = None
        self._batches = None

    async def _take(self, batch: Entries) -> None:
        now = asyncio.get_running_loop().time()
        wait = self._entries.charge(now, len(batch.entries), _unpacked(batch))
        if wait > 0:
            if self._entries.short_for(now) > CATCHING_UP:
                self._complain("floods", "it has sent more than a site that catches up, for minutes")
            await asyncio.sleep(min(wait, self._slowest))
        refused = await self._intake.take(batch, self._store_id)
        if self._intake.claims:
            self._complain("claims what is not its own", self._intake.claims[0])
        if refused:
            shown = [f"{r.kind} {r.namespace}/{r.name}: {r.reason}" for r in refused[:5]]
            log.warning("link.refused", peer=self._peer, count=len(refused), first=shown)
        await self._send(Acknowledge(number=batch.number, upto=batch.upto, refused=refused))

    async def _ask_again(self, keys: list[Key]) -> None:
        if keys and self._asks_again:
            await self._send(Again(keys=keys[:AGAIN_AT_ONCE]))


def _unpacked(batch: Entries) -> int:
    """Bytes of the entries of a batch."""
    return sum(len(entry.data) for entry in batch.entries)
