"""Intake: a peer's stream taken into the store, each batch and its cursor in one transaction.

The cursor is read again inside the transaction: if it is not where this session left it, another
session of the same stream was there, and this one ends without writing. So a batch that arrives
twice, or from a session that was believed dead, changes nothing. Where sessions are numbered
(`store.links`), only the newest takes anything in, and that is checked there, too.

What was refused is remembered beside the cursor (bounded). When what stood in the way is gone, and at
the start of each session, the sender is asked for it again: a conflict that people solved heals by
itself, and so does an entry that only a newer version could read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec
import structlog
from sqlalchemy import select

from roost.link.entries import Refuse
from roost.link.errors import BadMessage, TakenOver
from roost.link.flow import Copy, Direction, Drop, Nothing, Replace
from roost.link.messages import Entries, Entry, Key, RefusedEntry
from roost.model.registry import BY_KIND
from roost.store.errors import Overloaded, Unavailable
from roost.store.schema import resources
from roost.store.store import Store
from roost.store.transaction import HERE, Change, Transaction

log = structlog.get_logger(__name__)

REFUSED_KEPT = 1000
SNAPSHOT_KEYS = 500_000
PATIENCE = 30.0
TRY_AGAIN = 1.0
DRIFT_SHOWN = 20
KEY_SHOWN = 253
ENTRIES_LIMIT = 2000
TOO_MANY: Key = ("*", "", "")
"""Stands among the refused when not all of them could be remembered: everything is asked for then."""

T = TypeVar("T")
Drifted = list[tuple[str, Key]]
"""Resources that were not what the sender had told: `missing`, `different` or `extra`, and which."""

Step = tuple[str, Key]
"""How a resource changed here (ADDED, MODIFIED, DELETED), and which."""

DRIFT = {"ADDED": "missing", "MODIFIED": "different", "DELETED": "extra"}

OnDrift = Callable[[Transaction, Drifted], None]
OnOtherStore = Callable[[Transaction, list[Step]], None]
"""Told what differs here now that the sender goes on as another store, in the transaction that ends it."""


def tell_nobody(_tx: Transaction, _found: list[tuple[str, Key]]) -> None:
    """Where nobody wants to know of drift, or of other stores."""


def kinds_property(peer: str) -> str:
    """Where it is remembered which kinds this version knew when it took a peer's stream in."""
    return f"link-kinds:{peer}"


def refused_property(peer: str) -> str:
    """Where it is remembered what was refused of a peer's stream."""
    return f"link-refused:{peer}"


class Intake:
    """One direction of one session, at the receiver. `load` first, then `take` in order."""

    def __init__(
        self,
        store: Store,
        direction: Direction,
        peer: str,
        on_drift: OnDrift = tell_nobody,
        on_other_store: OnOtherStore = tell_nobody,
    ) -> None:
        self._store, self._direction, self._peer = store, direction, peer
        self._on_drift, self._on_other_store = on_drift, on_other_store
        self._differs: list[Step] = []
        self._at: tuple[str, int] = ("", 0)
        self._number = 0
        self._seen: set[Key] | None = None
        self._property = refused_property(peer)
        self._kinds = ",".join(sorted(direction.kinds))
        self._known = ""
        self._anew = False
        self.session: int | None = None
        """The number under which it was admitted; 0 while that could not be written; None: not numbered."""
        self.refused: set[Key] = set()
        self.claims: list[str] = []
        """Why entries of the last batch were refused that say what is another's to say."""
        self._suspects: set[Key] = set()
        self.unchanged: set[Key] = set()
        """Of those that were suspected and came again, the ones that were already as they came."""

    @property
    def number(self) -> int:
        """The last batch of this session that was taken in."""
        return self._number

    def suspect(self, keys: list[Key]) -> None:
        """These seem to have drifted and were asked for again: tell what comes of it."""
        self._suspects, self.unchanged = set(keys), set()

    async def load(self) -> tuple[str, int]:
        """Identity of the store and revision to ask for; ("", 0) asks for everything."""

        def work(tx: Transaction) -> tuple[tuple[str, int], str, str]:
            peer = self._peer
            return tx.cursor(peer), tx.property(self._property), tx.property(kinds_property(peer))

        self._at, remembered, self._known = await self._store.read(work)
        # A sender tells nothing of kinds that the receiver does not know: after an upgrade it is asked.
        self._anew = bool(self._known) and not set(self._kinds.split(",")) <= set(self._known.split(","))
        if remembered:
            self.refused = {(k, ns, n) for k, ns, n in msgspec.json.decode(remembered)}
        return ("", 0) if self._anew or TOO_MANY in self.refused else self._at

    async def take(self, batch: Entries, store_id: str) -> list[RefusedEntry]:
        """Take a batch in; on return it is on disk. Raises BadMessage, TakenOver, StoreError."""
        if batch.number <= self._number:
            return []
        self._check(batch, store_id)
        last = batch.snapshot in ("none", "end")
        to = (store_id, batch.upto) if last else self._at
        if self._seen is not None and not self._seen:
            self._differs = []
        drifted, claims, differs = Drifted(), list[str](), list[Step]()
        other = batch.snapshot != "none" and self._at[0] not in ("", store_id)
        refused = await self._transact(
            lambda tx: self._apply(tx, batch, to, drifted, claims, differs if other else None)
        )
        self.claims = claims
        self._differs += differs
        self._number, self._at = batch.number, to
        if batch.snapshot == "end" or not self._anew:
            self._known, self._anew = self._kinds, False
        if self._suspects:
            came = {entry.key for entry in batch.entries} & self._suspects
            self._suspects -= came
            self.unchanged |= came - {key for _, key in drifted}
        if drifted:
            shown = [f"{how} {'/'.join(key)}" for how, key in drifted[:DRIFT_SHOWN]]
            log.warning("link.drift-repaired", peer=self._peer, count=len(drifted), objects=shown)
        if last:
            self._seen, self._differs = None, []
        return refused

    def _check(self, batch: Entries, store_id: str) -> None:
        if len(batch.entries) > ENTRIES_LIMIT:
            raise BadMessage(f"a batch of {len(batch.entries)} entries, the limit is {ENTRIES_LIMIT}")
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
        """A store that has too much to do is waited for: the sender's window slows it down meanwhile.

        So is one that can't be written, as long as that takes: a full disk must not end the link, on which
        heartbeats say why nothing is taken in.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            try:
                return await self._store.transact(work)
            except Overloaded:
                if loop.time() > until:
                    raise
                await asyncio.sleep(0.25)
            except Unavailable as error:
                if not error.known or self._store.is_closed:
                    raise
                until = loop.time() + PATIENCE
                await asyncio.sleep(TRY_AGAIN)

    # -- in the transaction

    def _apply(
        self,
        tx: Transaction,
        batch: Entries,
        to: tuple[str, int],
        drifted: Drifted,
        claims: list[str],
        differs: list[Step] | None,
    ) -> list[RefusedEntry]:
        self._check_turn(tx)
        drifted.clear()
        claims.clear()
        began = len(tx.changes)
        refused, taken = list[RefusedEntry](), set[Key]()
        for entry in batch.entries:
            before = len(tx.changes)
            refusal = apply(tx, self._direction, entry)
            if entry.key in self._suspects and len(tx.changes) > before:
                drifted.append((DRIFT[tx.changes[-1].type], entry.key))
            taken.add(entry.key)
            if refusal:
                kind, namespace, name = (part[:KEY_SHOWN] for part in entry.key)
                refused.append(RefusedEntry(kind=kind, namespace=namespace, name=name, reason=refusal.reason))
                if refusal.claim:
                    claims.append(refusal.reason)
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
        if differs is not None:
            differs[:] = _steps(tx.changes[began:])
            if batch.snapshot == "end" and (all_of_them := self._differs + differs):
                self._on_other_store(tx, all_of_them)
        if drifted:
            self._on_drift(tx, drifted)
        if self._known != self._kinds and (batch.snapshot == "end" or not self._anew):
            tx.set_property(kinds_property(self._peer), self._kinds)
        # Now, not after the commit: a later transaction may already take away what was in the way.
        self.refused = remembered
        return refused

    def _check_turn(self, tx: Transaction) -> None:
        """That it is this session's turn. Raises TakenOver; Unavailable while that is not known."""
        if self.session is None:
            cursor = tx.cursor(self._peer)
        else:
            cursor, newest = tx.stand(self._peer)
            if self.session == 0:
                raise Unavailable("this session was admitted while the store could not note it")
            if newest != self.session:
                raise TakenOver(self._peer)
        if cursor != self._at:
            raise TakenOver(self._peer)

    def unblocked(self, change: Change) -> Key | None:
        """The refused resource that this step of our own history makes way for."""
        key = (change.kind, change.namespace, change.name)
        gone = change.type == "DELETED" and change.origin == HERE
        return key if gone and key in self.refused else None


def _steps(changes: list[Change]) -> list[Step]:
    """What became of each resource. One that went and came is another of the same name: changed."""
    found: dict[Key, str] = {}
    for change in changes:
        key = (change.kind, change.namespace, change.name)
        found[key] = "MODIFIED" if found.get(key) == "DELETED" else change.type
    return [(how, key) for key, how in found.items()]


def apply(tx: Transaction, direction: Direction, entry: Entry) -> Refuse | None:
    """Take one entry in, unless it is refused."""
    existing = tx.find(*entry.key) if entry.kind in BY_KIND else None
    match direction.decide(existing, entry):
        case Copy(raw, origin):
            tx.copy(raw, origin)
        case Replace(raw):
            tx.replace(raw)
        case Drop():
            tx.drop(*entry.key)
        case Refuse() as refusal:
            return refusal
        case Nothing():
            pass
    return None


def copies(tx: Transaction, origin: str) -> set[Key]:
    """Keys of all resources with this origin."""
    columns = (resources.c.kind, resources.c.namespace, resources.c.name)
    rows = tx.connection.execute(select(*columns).where(resources.c.origin == origin))
    return {(row[0], row[1], row[2]) for row in rows}
