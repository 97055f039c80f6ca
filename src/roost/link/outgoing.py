"""Outgoing: one direction of one session, at the sender. A cursor over the store's revisions.

Where the receiver's cursor can't be continued (another store, history compacted, or ahead of this
store), everything is sent as a snapshot in bounded batches; then, and else, changes are sent as they
come. At most WINDOW batches are unacknowledged; a sender that is behind joins changes of the same
resource, so a slow receiver gets the latest state rather than all states.

A snapshot lists the keys at one revision, then reads page by page: a page may be newer than that
revision, never older, and the changes after it follow, so the end state is the same.

Revisions that concern nobody at the other end are not sent one by one; the cursor is moved past them
now and then, so that a quiet link need not begin anew when history is compacted.

Nothing runs while there is nothing to send: `wake` says that there may be something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal

import structlog
from sqlalchemy import select

from roost.link.entries import ENTRY_LIMIT
from roost.link.errand import Errand, Spawn
from roost.link.errors import SAID, BadMessage, TookNothing
from roost.link.feed import Feed
from roost.link.flow import Direction, coalesced
from roost.link.messages import Acknowledge, Entries, Entry, Key, Message
from roost.store.errors import Compacted, FutureRevision
from roost.store.schema import resources
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

log = structlog.get_logger(__name__)

BATCH_ENTRIES = 200
BATCH_BYTES = 1024 * 1024
WINDOW = 4
AGAIN_KEYS = 1000
REFUSED_SHOWN = 100
ADVANCE_EVERY = 60.0
ADVANCE_BEHIND = 1000

Part = Literal["none", "begin", "middle", "end"]
Dated = tuple[int, Entry]


class Outgoing:
    """`begin` when the peer's hello is known; give it acknowledgements and requests as they come."""

    def __init__(
        self,
        feed: Feed,
        audience: str,
        direction: Direction,
        send: Callable[[Message], Awaitable[None]],
        *,
        spawn: Spawn,
        acknowledge_within: float,
        on_changes: Callable[[list[Change]], Awaitable[None]],
        has_reason: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store: Store = feed.store
        self._feed, self._direction = feed, direction
        self._subscription = feed.subscribe(audience, self.wake)
        self._send, self._acknowledge_within, self._on_changes = send, acknowledge_within, on_changes
        self._has_reason = has_reason
        self._errand = Errand(spawn, self._work)
        self._begun = False
        self._number = 0
        self._unacknowledged: list[tuple[int, int, list[Key]]] = []
        self._room: asyncio.Event | None = None
        """While somebody waits for room in the window."""
        self._again: dict[Key, None] = {}
        self._next, self._position = -1, -1
        self._snapshot_going = False
        self._sent, self._advanced = 0, 0.0
        self.acknowledged = 0
        self.refused: dict[Key, str] = {}

    @property
    def number(self) -> int:
        """The last batch of this session that was sent."""
        return self._number

    @property
    def awaits(self) -> bool:
        """Whether a batch is not yet acknowledged."""
        return bool(self._unacknowledged)

    @property
    def in_step(self) -> bool:
        """Whether the receiver has everything this store has for it (but for what it refused)."""
        if self._position < 0 or self._unacknowledged or self._again or self._snapshot_going:
            return False
        return not self._subscription.waiting(self._position)

    def acknowledge(self, message: Acknowledge) -> None:
        """The receiver has batches up to this one."""
        if message.number > self._number:
            raise BadMessage(f"batch {message.number} is acknowledged, the last sent is {self._number}")
        while self._unacknowledged and self._unacknowledged[0][0] <= message.number:
            _, upto, keys = self._unacknowledged.pop(0)
            self.acknowledged = max(self.acknowledged, upto)
            for key in keys:
                self.refused.pop(key, None)
        for entry in message.refused:
            if len(self.refused) < REFUSED_SHOWN or entry.key in self.refused:
                self.refused[entry.key] = entry.reason[:SAID]
        if self._room is not None:
            self._room.set()

    def again(self, keys: list[Key]) -> None:
        """The receiver asks for these resources once more."""
        for key in keys[: AGAIN_KEYS - len(self._again)]:
            self._again[key] = None
        self.wake()

    def begin(self, taken_store_id: str, taken_revision: int) -> None:
        """Send what comes after what the peer has taken in.

        What fails ends the session: ConnectionLost, and TookNothing when acknowledgements stay away.
        """
        position = taken_revision if taken_store_id == self._store.identity else -1
        if position > self._store.revision:
            position = -1
        self.acknowledged = self._sent = max(position, 0)
        self._next, self._begun = position, True
        self.wake()

    def close(self) -> None:
        """Hear of changes no more."""
        self._begun = False
        self._feed.unsubscribe(self._subscription)

    def wake(self) -> None:
        """There may be something to send."""
        if self._begun:
            self._errand.wake()

    def look(self, now: float) -> None:
        """Called now and then: move the peer's cursor past what is not for it, if that is far."""
        if now - self._advanced >= ADVANCE_EVERY:
            self._advanced = now
            if self._subscription.fed - self._sent >= ADVANCE_BEHIND:
                self.wake()

    async def _work(self) -> None:
        while True:
            try:
                if self._next < 0:
                    self._next = await self._snapshot()
                waiting = self._subscription.waiting(self._next)
                if not waiting:
                    # What else has come until now is for others.
                    self._next = max(self._next, self._subscription.fed)
                self._position = self._next
                if self._again:
                    await self._send_again(self._position)
                    continue
                if not waiting and self._position - self._sent < ADVANCE_BEHIND:
                    return
                self._next = await self._continue(self._position)
                if not waiting:
                    return
            except (Compacted, FutureRevision):
                self._next = -1

    async def _continue(self, position: int) -> int:
        """Send what comes next after `position`; the new position."""
        batch = await self._subscription.take(position)
        offered = ((c.revision, self._direction.offer(c)) for c in batch.changes)
        entries = coalesced([(revision, entry) for revision, entry in offered if entry is not None])
        behind = batch.upto - self._sent >= ADVANCE_BEHIND and not self._subscription.waiting(batch.upto)
        if entries or (behind and not self._unacknowledged):
            await self._batches(entries, batch.upto, snapshot=False)
        self._position = batch.upto
        await self._on_changes(batch.changes)
        return batch.upto

    async def _send_again(self, position: int) -> None:
        keys = list(self._again)

        def work(tx: Transaction) -> list[Entry]:
            return [self._now(tx, key) for key in keys]

        entries = await self._store.read(work)
        await self._batches([(position, entry) for entry in entries], position, snapshot=False)
        for key in keys:
            self._again.pop(key, None)

    def _now(self, tx: Transaction, key: Key) -> Entry:
        stored = tx.find(*key)
        entry = self._direction.current(stored) if stored else None
        return entry or Entry(type="deleted", kind=key[0], namespace=key[1], name=key[2])

    # -- snapshot

    async def _snapshot(self) -> int:
        """Send everything; the revision at which it was everything."""
        self._snapshot_going = True
        revision, keys = await self._store.read(self._keys)
        log.info("link.snapshot", resources=len(keys), revision=revision, to=self._subscription.audience)
        pages = [keys[n : n + BATCH_ENTRIES] for n in range(0, len(keys), BATCH_ENTRIES)]
        part: Part = "begin"
        for page in pages:
            await self._batches(await self._page(page), 0, snapshot=True, part=part)
            part = "middle"
        await self._transmit([], revision, "end")
        self._snapshot_going = False
        return revision

    def _keys(self, tx: Transaction) -> tuple[int, list[Key]]:
        namespace, name = self._direction.scope
        query = select(resources.c.kind, resources.c.namespace, resources.c.name)
        query = query.where(resources.c.kind.in_(self._direction.kinds))
        if namespace is not None:
            query = query.where(resources.c.namespace == namespace)
        if name is not None:
            query = query.where(resources.c.name == name)
        # In the order of their last change: log entries of one source stay in order.
        rows = tx.connection.execute(query.order_by(resources.c.revision))
        return tx.revision, [(row[0], row[1], row[2]) for row in rows]

    async def _page(self, keys: list[Key]) -> list[Dated]:
        def work(tx: Transaction) -> list[Dated]:
            found = (tx.find(*key) for key in keys)
            offered = ((s.revision, self._direction.current(s)) for s in found if s is not None)
            return [(revision, entry) for revision, entry in offered if entry is not None]

        return await self._store.read(work)

    # -- batches

    async def _batches(
        self, entries: list[Dated], upto: int, *, snapshot: bool, part: Part = "begin"
    ) -> None:
        """Send entries in bounded batches; the last one carries `upto`."""
        chunks = list(_chunks(entries)) or [[]]
        for n, chunk in enumerate(chunks):
            if snapshot:
                await self._transmit(chunk, 0, part)
                part = "middle"
                continue
            reached = upto if n == len(chunks) - 1 else max(self._sent, chunk[-1][0])
            await self._transmit(chunk, reached, "none")

    async def _transmit(self, chunk: list[Dated], upto: int, part: Part) -> None:
        await self._wait_for_room()
        self._number += 1
        entries = [entry for _, entry in chunk]
        self._unacknowledged.append((self._number, upto, [entry.key for entry in entries]))
        await self._send(Entries(number=self._number, entries=entries, upto=upto, snapshot=part))
        if part in ("none", "end"):
            self._sent = upto

    async def _wait_for_room(self) -> None:
        while len(self._unacknowledged) >= WINDOW:
            self._room = asyncio.Event()
            try:
                async with asyncio.timeout(self._acknowledge_within):
                    await self._room.wait()
            except TimeoutError:
                if self._has_reason():
                    continue
                # It was heard meanwhile, or the session would have ended before.
                raise TookNothing(f"no acknowledgement came within {self._acknowledge_within:g} s") from None
            finally:
                self._room = None


def _chunks(entries: list[Dated]) -> Iterator[list[Dated]]:
    """Bounded runs of entries. One that is too large for any frame is left out, and said so."""
    chunk, size = list[Dated](), 0
    for revision, entry in entries:
        if len(entry.data) > ENTRY_LIMIT:
            log.error("link.too-large", kind=entry.kind, name=entry.name, bytes=len(entry.data))
            continue
        if chunk and (len(chunk) >= BATCH_ENTRIES or size + len(entry.data) > BATCH_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((revision, entry))
        size += len(entry.data)
    if chunk:
        yield chunk
