"""A unit of work on the store: reads and writes that happen wholly or not at all.

A transaction runs in the store's writer thread, so what it reads can't change before it commits:
read, decide, write needs no retries. Work handed to `Store.transact` is a plain function of a
`Transaction`; it does no other I/O, for it may share its database transaction with others.

Invariants kept here, whoever writes:
- each change gets the next revision, without gaps; a write that changes nothing makes no change;
- uid and creationTimestamp never change; generation counts changes of spec, and the mark for deletion;
- a resource with finalizers is marked for deletion, and goes when the last finalizer does.

Writes are held back and sent together (`pending`); a transaction sees its own all the same. Before a
selection they are sent only if some could be among what is selected. A savepoint is only made for a unit that
shares its database transaction with others (`batch`) and has something to undo there.

`origin` says where a resource's home is: "" here, "up" at the upper cloud, "down:NODE" below.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import Connection

from roost.model import chance, time
from roost.model.audit import Record
from roost.model.codec import Raw, decode, overlay, read
from roost.model.meta import Resource
from roost.model.registry import BY_TYPE
from roost.store import encoding, statements
from roost.store.batch import Batch as Batch
from roost.store.batch import Refused as Refused
from roost.store.errors import AlreadyExists, Conflict, NotFound
from roost.store.pending import Key, Pending
from roost.store.remembered import Remembered
from roost.store.session import Row, Session

HERE = ""
UP = "up"

R = TypeVar("R", bound=Resource)
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
_decode = msgspec.json.decode


class Stored:
    """A resource as the store has it. `raw` carries the revision as metadata.resourceVersion."""

    def __init__(
        self, kind: str, namespace: str, name: str, uid: str, revision: int, origin: str, data: str
    ) -> None:
        self.kind, self.namespace, self.name, self.uid = kind, namespace, name, uid
        self.revision, self.origin, self.data = revision, origin, data

    @cached_property
    def raw(self) -> Raw:
        """The object; do not change it in place."""
        raw: Raw = _decode(self.data)
        raw["metadata"]["resourceVersion"] = str(self.revision)
        return raw

    @property
    def encoded(self) -> bytes:
        """The same object as JSON, made without decoding it."""
        return encoding.with_revision(self.kind, self.data, self.revision)

    def typed(self, kind: type[R]) -> R:
        """The object as its struct."""
        if "raw" in self.__dict__:
            return decode(kind, self.raw)
        return read(kind, self.data, str(self.revision))

    def require(self, *, uid: str = "", revision: str = "") -> None:
        """Raise Conflict when it is not the one that a writer speaks of; empty stands for any."""
        if uid and uid != self.uid:
            raise Conflict(self.kind, self.namespace, self.name, f"uid {uid}", f"uid {self.uid}")
        if revision and revision != str(self.revision):
            expected, actual = f"revision {revision}", f"revision {self.revision}"
            raise Conflict(self.kind, self.namespace, self.name, expected, actual)


class Change(msgspec.Struct, frozen=True):
    """One step of the store's history. `previous` is empty for ADDED."""

    revision: int
    type: ChangeType
    kind: str
    namespace: str
    name: str
    origin: str
    data: str
    previous: str = ""

    def stored(self) -> Stored:
        """The resource after (for DELETED: before) the change, at this revision."""
        uid = str(_decode(self.data)["metadata"].get("uid", ""))
        return Stored(self.kind, self.namespace, self.name, uid, self.revision, self.origin, self.data)

    @property
    def encoded(self) -> bytes:
        """The object after (for DELETED: before) the change as JSON, at this revision; not decoded."""
        return encoding.with_revision(self.kind, self.data, self.revision)

    def before(self) -> Raw:
        """The object before the change; empty for ADDED."""
        return _decode(self.previous) if self.previous else {}


class Transaction(Remembered):
    """What a unit of work sees. Made by the store only."""

    def __init__(self, batch: Batch, revision: int, now: datetime) -> None:
        self.revision = revision
        self.now = now
        self.changes: list[Change] = []
        self.records: list[Record] = []
        self.wrote = False
        self._batch = batch
        self._session = batch.session
        self._pending = Pending()
        self._marked = False

    # -- the unit among others

    def keep(self) -> None:
        """The work is done: its writes are the batch's."""
        if self._marked:
            self._session.command("RELEASE SAVEPOINT unit")
        self._batch.pending.merge(self._pending)
        self._batch.wrote = self._batch.wrote or self.wrote
        if self._batch.pending.full:
            self._batch.send()

    def undo(self) -> None:
        """The work failed: it has not happened."""
        self._pending.clear()
        if self._marked:
            self._session.command("ROLLBACK TO SAVEPOINT unit")
            self._session.command("RELEASE SAVEPOINT unit")
            self._batch.forget()
        elif self._batch.alone:
            self._batch.spoilt = True

    def _mark(self) -> None:
        """Make a savepoint before the unit's first own statement, so that it alone can be undone."""
        if self._batch.alone or self._marked:
            return
        # What others have written before must not be undone with this unit.
        self._batch.send()
        self._session.command("SAVEPOINT unit")
        self._marked = True

    def settle(self) -> None:
        """Have the database know all that was written so far."""
        self._mark()
        self._batch.send()
        self._batch.forget()
        self._pending.send(self._session)

    def _settle_for(self, kind: str, namespace: str | None, prefix: str = "") -> None:
        """Have the database know what was written so far, if that could be among what is selected."""
        if any(p.concerns(kind, namespace, prefix) for p in (self._pending, self._batch.pending)):
            self.settle()

    def _number(self, counter: str) -> int | None:
        for pending in (self._pending, self._batch.pending):
            if counter in pending.counters:
                return pending.counters[counter]
        return self._batch.number(counter)

    @property
    def connection(self) -> Connection:
        """A SQLAlchemy connection in this transaction, for statements of others."""
        self.settle()
        return self._session.alchemy

    def lease(self, name: str) -> Row | None:
        """A lease's row, in the table's order; None when there is none. Read once for units of a batch.

        Nothing has to be sent before: leases are written at once, by `connection`.
        """
        return self._batch.lease(name)

    # -- reading

    def find(self, kind: str, namespace: str, name: str) -> Stored | None:
        """The resource, or None when it is not there."""
        key = (kind, namespace, name)
        for pending in (self._pending, self._batch.pending):
            if key in pending.rows:
                waits = pending.rows[key]
                return Stored(**waits) if waits else None
        row = self._batch.find(key)
        return Stored(*row) if row else None

    def get(self, kind: str, namespace: str, name: str) -> Stored:
        """The resource; raises NotFound."""
        stored = self.find(kind, namespace, name)
        if stored is None:
            raise NotFound(kind, namespace, name)
        return stored

    def select(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        origin: str | None = None,
        prefix: str = "",
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Stored]:
        """Resources of a kind in the order of namespace and name; `after` is the last key already seen.

        `prefix` is how names begin; it is looked up, not scanned for.
        """
        if _beyond(namespace, after):
            return []
        values: dict[str, Any] = {"k": kind, **_place(namespace, after)}
        if origin is not None:
            values["origin"] = origin
        if prefix:
            values |= {"from": prefix, "beyond": prefix[:-1] + chr(ord(prefix[-1]) + 1)}
        if limit is not None:
            values["most"] = limit
        self._settle_for(kind, namespace, prefix)
        return [Stored(*row) for row in self._batch.select(values)]

    def portion(
        self,
        kind: str,
        namespace: str | None,
        after: tuple[str, str] | None,
        *,
        limit: int,
        size: int,
        narrowed: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[list[Stored], bool]:
        """As `select`, of `size` bytes of data at most, or a single larger one; and whether it was cut.

        What is beyond is not fetched, so memory is bounded whatever the sizes of resources. Nor are uid and
        origin, which are empty: no list shows them. `narrowed` are further filters of `statements.selection`.
        """
        if _beyond(namespace, after):
            return [], False
        values: dict[str, Any] = {"k": kind, "most": limit, **_place(namespace, after), **narrowed}
        if not self._session.is_sqlite:
            values["bytes"] = size
        query = statements.texts(frozenset(values))
        self._settle_for(kind, namespace)
        found, left = list[Stored](), size
        with closing(self._session.each(query, values)) as rows:
            for place, name, revision, data in rows:
                left -= encoding.octets(data)
                if left < 0 and found:
                    return found, True
                found.append(Stored(kind, place, name, "", revision, "", data))
        return found, len(found) == limit

    def history(self, after: int, limit: int) -> list[Change]:
        """Changes after a revision, in order."""
        self.settle()
        return read_changes(self._session, after, limit)

    def count(self, kind: str, namespace: str | None = None) -> int:
        """How many resources of a kind there are."""
        self._settle_for(kind, namespace)
        if namespace is None:
            return int(self._session.one(statements.COUNT, {"k": kind})[0])
        return int(self._session.one(statements.COUNT_IN, {"k": kind, "ns": namespace})[0])

    def load(self, kind: type[R], namespace: str, name: str) -> R:
        """The resource as its struct; raises NotFound."""
        return self.get(BY_TYPE[kind].kind, namespace, name).typed(kind)

    def seek(self, kind: type[R], namespace: str, name: str) -> R | None:
        """The resource as its struct, or None when it is not there."""
        stored = self.find(BY_TYPE[kind].kind, namespace, name)
        return stored.typed(kind) if stored else None

    def every(self, kind: type[R], namespace: str | None = None) -> list[R]:
        """All resources of a kind as structs."""
        return [s.typed(kind) for s in self.select(BY_TYPE[kind].kind, namespace)]

    # -- writing

    def create(self, raw: Raw, origin: str = HERE) -> Stored:
        """Add a resource whose home is here; raises AlreadyExists."""
        kind, namespace, name = _key(raw)
        if self.find(kind, namespace, name):
            raise AlreadyExists(kind, namespace, name)
        meta = dict(raw["metadata"])
        meta["uid"] = chance.uuid()
        meta["creationTimestamp"] = time.seconds(self.now)
        meta["generation"] = 1
        meta.pop("deletionTimestamp", None)
        return self._write("ADDED", {**raw, "metadata": meta}, origin, None)

    def replace(self, raw: Raw, *, expected: str = "") -> Stored:
        """Change a resource; `expected` is a resourceVersion that must still hold.

        Raises NotFound and Conflict. Nothing is written when nothing changes. One that is marked for deletion
        goes with its last finalizer: it is answered as it would have been, at the revision it had.
        """
        kind, namespace, name = _key(raw)
        current = self.get(kind, namespace, name)
        old, meta = current.raw["metadata"], dict(raw["metadata"])
        current.require(uid=meta.get("uid", ""), revision=expected)
        for fixed in ("uid", "creationTimestamp", "deletionTimestamp"):
            meta.pop(fixed, None)
            if fixed in old:
                meta[fixed] = old[fixed]
        changed = raw.get("spec") != current.raw.get("spec")
        meta["generation"] = old.get("generation", 1) + (1 if changed else 0)
        new = {**raw, "metadata": meta}
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self._remove(current)
            last = encoding.text(encoding.ordered(new))
            return Stored(kind, namespace, name, current.uid, current.revision, current.origin, last)
        return self._write("MODIFIED", new, current.origin, current)

    def remove(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        expected_uid: str = "",
        expected: str = "",
        finalizers: list[str] | None = None,
    ) -> Stored:
        """Delete a resource, or mark it for deletion while it has finalizers. Raises NotFound, Conflict.

        `finalizers` take the place of its own, in the same change.
        """
        current = self.get(kind, namespace, name)
        current.require(uid=expected_uid, revision=expected)
        meta = current.raw["metadata"]
        held = meta.get("finalizers", []) if finalizers is None else finalizers
        if not held:
            return self._remove(current)
        meta = {**meta, "finalizers": held}
        if not meta.get("deletionTimestamp"):
            meta["deletionTimestamp"] = time.seconds(self.now)
            meta["generation"] = meta.get("generation", 1) + 1
        return self._write("MODIFIED", {**current.raw, "metadata": meta}, current.origin, current)

    def save(self, resource: R) -> R:
        """Create or change a resource given as a struct; fields this version does not know are kept."""
        info = BY_TYPE[type(resource)]
        current = self.find(info.kind, resource.metadata.namespace, resource.metadata.name)
        if current is None:
            return self.create(overlay({}, resource)).typed(type(resource))
        return self.replace(overlay(current.raw, resource)).typed(type(resource))

    def report(self, resource: R) -> R:
        """Change the status of a resource given as a struct, and nothing else; raises NotFound.

        Spec and metadata stay to the letter, wherever the resource has its home.
        """
        info, meta = BY_TYPE[type(resource)], resource.metadata
        current = self.get(info.kind, meta.namespace, meta.name)
        status = overlay(current.raw, resource).get("status", {})
        new = {**current.raw, "status": status}
        return self._write("MODIFIED", new, current.origin, current).typed(type(resource))

    def renumber(self, kind: str, namespace: str, name: str, generation: int) -> Stored:
        """Let a resource go on from a greater generation; raises NotFound, ValueError."""
        current = self.get(kind, namespace, name)
        meta = current.raw["metadata"]
        if generation < meta.get("generation", 1):
            raise ValueError(f"generation {generation} of {kind} {name} was given out already")
        raw = {**current.raw, "metadata": {**meta, "generation": generation}}
        return self._write("MODIFIED", raw, current.origin, current)

    def copy(self, raw: Raw, origin: str) -> Stored:
        """Put a resource whose home is elsewhere, metadata as its home gave it.

        Another one of the same name takes its place: who follows sees the one go and the other come.
        """
        current = self.find(*_key(raw))
        if current is not None and current.uid != str(raw["metadata"].get("uid", "")):
            self._remove(current)
            current = None
        if current is None:
            return self._write("ADDED", raw, origin, None)
        return self._write("MODIFIED", raw, origin, current)

    def drop(self, kind: str, namespace: str, name: str) -> None:
        """Take away a copy whose home has removed it; nothing happens when it is not there."""
        current = self.find(kind, namespace, name)
        if current:
            self._remove(current)

    # -- audit

    def audit(self, record: Record) -> None:
        """Have a record written with this transaction, when it is: see `store.audit`."""
        self.wrote = True
        self.records.append(record)

    # -- inside

    def _write(self, type: ChangeType, raw: Raw, origin: str, current: Stored | None) -> Stored:
        kind, namespace, name = _key(raw)
        new = encoding.ordered(raw)
        data = encoding.text(new)
        if current is not None and current.origin == origin and (current.data == data or _same(current, new)):
            return current
        uid = str(new["metadata"].get("uid", ""))
        previous = current.data if current else ""
        change = self._change(type, (kind, namespace, name), origin, data, previous)
        row = {"kind": kind, "namespace": namespace, "name": name, "uid": uid, "revision": change.revision}
        row |= {"origin": origin, "data": data}
        self._record(change, row)
        return Stored(kind, namespace, name, uid, change.revision, origin, data)

    def _remove(self, current: Stored) -> Stored:
        key = (current.kind, current.namespace, current.name)
        change = self._change("DELETED", key, current.origin, current.data, current.data)
        self._record(change, None)
        return Stored(*key, current.uid, change.revision, current.origin, current.data)

    def _change(self, type: ChangeType, key: Key, origin: str, data: str, previous: str) -> Change:
        self.wrote = True
        self.revision += 1
        change = Change(self.revision, type, *key, origin, data, previous)
        self.changes.append(change)
        return change

    def _record(self, change: Change, row: dict[str, Any] | None) -> None:
        values = {name: getattr(change, name) for name in Change.__struct_fields__}
        values["recorded_at"] = self.now.timestamp()
        key = (change.kind, change.namespace, change.name)
        self._pending.put(key, row, values, there=change.type != "ADDED")
        if self._pending.full:
            self.settle()


def read_changes(session: Session, after: int, limit: int) -> list[Change]:
    """Changes after a revision, in order."""
    return [Change(*row) for row in session.all(statements.HISTORY, {"after": after, "most": limit})]


def _beyond(namespace: str | None, after: tuple[str, str] | None) -> bool:
    """Whether a namespace has no key after one."""
    return namespace is not None and after is not None and after[0] > namespace


def _place(namespace: str | None, after: tuple[str, str] | None) -> dict[str, str]:
    """Where a selection begins, as `statements.selection` names it."""
    if namespace is None:
        return {"ns_after": after[0], "n_after": after[1]} if after else {}
    return {"ns": namespace, "n_after": after[1]} if after and after[0] == namespace else {"ns": namespace}


def _key(raw: Raw) -> Key:
    meta: dict[str, Any] = raw["metadata"]
    return raw["kind"], meta.get("namespace", ""), meta["name"]


def _same(current: Stored, raw: Raw) -> bool:
    """Whether two objects are equal, whatever the order of their keys."""
    other: Raw = _decode(current.data)
    return other == raw
