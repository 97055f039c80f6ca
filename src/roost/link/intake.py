"""Intake: a peer's stream taken into the store, each batch and its cursor in one transaction.

The cursor is read again inside the transaction: if it is not where this session left it, another
session of the same stream was there, and this one ends without writing. So a batch that arrives
twice, or from a session that was believed dead, changes nothing.

What was refused is remembered beside the cursor (bounded). When what stood in the way is gone, and at
the start of each session, the sender is asked for it again: a conflict that people solved heals by
itself, and so does an entry that only a newer version could read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec
from sqlalchemy import select

from roost.link.errors import BadMessage, TakenOver
from roost.link.flow import Copy, Direction, Drop, Nothing, Refuse, Replace
from roost.link.messages import Entries, Entry, Key, RefusedEntry
from roost.model.registry import BY_KIND
from roost.store.errors import Overloaded
from roost.store.schema import resources
from roost.store.store import Store
from roost.store.transaction import HERE, Change, Transaction

REFUSED_KEPT = 1000
SNAPSHOT_KEYS = 500_000
PATIENCE = 30.0
TOO_MANY: Key = ("*", "", "")
"""Stands among the refused when not all of them could be remembered: everything is asked for then."""

T = TypeVar("T")


def refused_property(peer: str) -> str:
    """Where it is remembered what was refused of a peer's stream."""
    return f"link-refused:{peer}"


class Intake:
    """One direction of one session, at the receiver. `load` first, then `take` in order."""

    def __init__(self, store: Store, direction: Direction, peer: str) -> None:
        self._store, self._direction, self._peer = store, direction, peer
        self._at: tuple[str, int] = ("", 0)
        self._number = 0
        self._seen: set[Key] | None = None
        self._property = refused_property(peer)
        self.refused: set[Key] = set()

    async def load(self) -> tuple[str, int]:
        """Identity of the store and revision to ask for; ("", 0) asks for everything."""

        def work(tx: Transaction) -> tuple[tuple[str, int], str]:
            return tx.cursor(self._peer), tx.property(self._property)

        self._at, remembered = await self._store.read(work)
        if remembered:
            self.refused = {(k, ns, n) for k, ns, n in msgspec.json.decode(remembered)}
        return ("", 0) if TOO_MANY in self.refused else self._at

    async def take(self, batch: Entries, store_id: str) -> list[RefusedEntry]:
        """Take a batch in; on return it is on disk. Raises BadMessage, TakenOver, StoreError."""
        if batch.number <= self._number:
            return []
        self._check(batch, store_id)
        last = batch.snapshot in ("none", "end")
        to = (store_id, batch.upto) if last else self._at
        refused = await self._transact(lambda tx: self._apply(tx, batch, to))
        self._number, self._at = batch.number, to
        if last:
            self._seen = None
        return refused

    def _check(self, batch: Entries, store_id: str) -> None:
        if not 0 <= batch.upto < 2**63:
            raise BadMessage(f"a batch up to {batch.upto}, which is no revision")
        if batch.number != self._number + 1:
            raise BadMessage(f"batch {batch.number} follows batch {self._number}")
        if batch.snapshot == "none":
            if self._seen is not None:
                raise BadMessage("the snapshot did not end")
            if self._at[0] != store_id or batch.upto < self._at[1]:
                raise BadMessage(f"a batch up to {batch.upto} follows {self._at[1]} of {self._at[0]!r}")
            return
        if batch.snapshot == "begin" or self._seen is None:
            if batch.snapshot == "middle":
                raise BadMessage("the snapshot has no beginning")
            self._seen = set()
        if len(self._seen) + len(batch.entries) > SNAPSHOT_KEYS:
            raise BadMessage(f"a snapshot of more than {SNAPSHOT_KEYS} resources")

    async def _transact(self, work: Callable[[Transaction], T]) -> T:
        """A store that has too much to do is waited for: the sender's window slows it down meanwhile."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await self._store.transact(work)
                except Overloaded:
                    await asyncio.sleep(0.25)

    # -- in the transaction

    def _apply(self, tx: Transaction, batch: Entries, to: tuple[str, int]) -> list[RefusedEntry]:
        if tx.cursor(self._peer) != self._at:
            raise TakenOver(self._peer)
        refused, taken = list[RefusedEntry](), set[Key]()
        for entry in batch.entries:
            reason = apply(tx, self._direction, entry)
            taken.add(entry.key)
            if reason:
                refused.append(
                    RefusedEntry(kind=entry.kind, namespace=entry.namespace, name=entry.name, reason=reason)
                )
        remembered = (self.refused - taken) | {r.key for r in refused}
        if self._seen is not None:
            self._seen |= taken
        if batch.snapshot == "end" and self._seen is not None:
            remembered &= self._seen
            for key in copies(tx, self._direction.origin) - self._seen:
                tx.drop(*key)
        if len(remembered) > REFUSED_KEPT:
            remembered = {*sorted(remembered)[:REFUSED_KEPT], TOO_MANY}
        if remembered != self.refused:
            tx.set_property(self._property, msgspec.json.encode(sorted(remembered)).decode())
        if to != self._at:
            tx.set_cursor(self._peer, *to)
        # Now, not after the commit: a later transaction may already take away what was in the way.
        self.refused = remembered
        return refused

    def unblocked(self, change: Change) -> Key | None:
        """The refused resource that this step of our own history makes way for."""
        key = (change.kind, change.namespace, change.name)
        gone = change.type == "DELETED" and change.origin == HERE
        return key if gone and key in self.refused else None


def apply(tx: Transaction, direction: Direction, entry: Entry) -> str:
    """Take one entry in; the reason when it was refused, else empty."""
    existing = tx.find(*entry.key) if entry.kind in BY_KIND else None
    match direction.decide(existing, entry):
        case Copy(raw, origin):
            tx.copy(raw, origin)
        case Replace(raw):
            tx.replace(raw)
        case Drop():
            tx.drop(*entry.key)
        case Refuse(reason):
            return reason
        case Nothing():
            pass
    return ""


def copies(tx: Transaction, origin: str) -> set[Key]:
    """Keys of all resources with this origin."""
    columns = (resources.c.kind, resources.c.namespace, resources.c.name)
    rows = tx.connection.execute(select(*columns).where(resources.c.origin == origin))
    return {(row[0], row[1], row[2]) for row in rows}
