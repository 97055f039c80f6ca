"""What one resource was and how it came to be so, read from the history that is kept.

A change carries the resource before and after it, so the state at a revision is what the first later
change found, or, when none came later, what is there now: nothing is replayed. That reaches back to the
oldest change kept, and further for a resource that has not changed since.

A deleted resource has a history as long as its last change is kept; a name that was used again has the
changes of both, told apart by their uid.

Times lead to revisions: the state at a time is that after the last change recorded until then. Changes
from before schema 0002 have no time.

Revisions that a restored database has lost (`restoring`) name no state of this one: they are `Gone`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, func, select

from roost.model.codec import Raw
from roost.store.errors import FutureRevision, StoreError
from roost.store.schema import changes, resources
from roost.store.transaction import Transaction

RESTORES = "restores"
"""Property: the restores of this database, as JSON; see `Restored`."""
PATHS = 12
_BOOKKEEPING = frozenset({"managedFields", "resourceVersion", "generation"})
_STEPS = select(
    changes.c.revision,
    changes.c.type,
    changes.c.recorded_at,
    changes.c.origin,
    changes.c.data,
    changes.c.previous,
)


class Key(msgspec.Struct, frozen=True):
    """Which resource. With `uid` only that one of the resources that have had the name."""

    kind: str
    namespace: str
    name: str
    uid: str = ""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a resource. `before` is empty for ADDED; for DELETED `after` is the last state.

    `recorded_at` is in seconds since the epoch, 0 when it is not known.
    """

    revision: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    recorded_at: float
    origin: str
    after: Raw
    before: Raw

    @property
    def uid(self) -> str:
        return str(self.after["metadata"].get("uid", ""))


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """What history there is: changes after revision `after` up to `upto`; `since` is the time of the oldest,
    0 when it is not known. `whole`: nothing was ever dropped."""

    after: int
    upto: int
    since: float

    @property
    def whole(self) -> bool:
        return self.after == 0


class Restored(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A restore: after revision `at` of the snapshot the database went on from `base`.

    Revisions between were, or may have been, given out by the database that was lost.
    """

    at: int
    base: int
    time: str
    snapshot_of: str
    taken_at: str = ""
    """When the snapshot was taken; restores by older versions did not keep that."""


class Gone(StoreError):
    """The past asked for is no longer kept. `oldest` is the first revision whose state can be told."""

    def __init__(self, wanted: str, oldest: int, since: float, reason: str) -> None:
        super().__init__(f"{wanted} is no longer kept: {reason}")
        self.wanted, self.oldest, self.since = wanted, oldest, since


class NotThen(StoreError):
    """The resource was not there at that revision. `last` is its change before, `next` the one after; 0:
    there was none."""

    def __init__(self, key: Key, revision: int, last: int, next: int) -> None:
        said = []
        if last:
            said.append(f"it was deleted at revision {last}")
        if next:
            said.append(f"it was created at revision {next}")
        where = f"{key.namespace}/{key.name}" if key.namespace else key.name
        uid = f" with uid {key.uid}" if key.uid else ""
        super().__init__(
            f"{key.kind} {where}{uid} was not there at revision {revision}: "
            + (" and ".join(said) or "no history that is kept knows of it")
        )
        self.key, self.revision, self.last, self.next = key, revision, last, next


def span(tx: Transaction) -> Span:
    """The history that is kept."""
    oldest = tx.connection.execute(select(func.min(changes.c.revision))).scalar()
    if oldest is None:
        return Span(after=tx.revision, upto=tx.revision, since=0.0)
    query = select(changes.c.recorded_at).where(changes.c.revision == oldest)
    return Span(after=oldest - 1, upto=tx.revision, since=tx.connection.execute(query).scalar_one())


def restores(tx: Transaction) -> list[Restored]:
    """The restores of this database, the oldest first."""
    said = tx.property(RESTORES)
    return msgspec.json.decode(said, type=list[Restored]) if said else []


def lost(found: list[Restored], revision: int) -> Restored | None:
    """The restore that lost this revision, if any."""
    return next((r for r in found if r.at < revision < r.base), None)


def steps(tx: Transaction, key: Key, *, before: int = 0, limit: int = 100) -> list[Step]:
    """Changes of a resource, the newest first, at most `limit`; `before` (0: now) is the revision to go on
    below."""
    query = _STEPS.where(_of(key)).order_by(changes.c.revision.desc())
    if before:
        query = query.where(changes.c.revision < before)
    if not key.uid:
        query = query.limit(limit)
    found: list[Step] = []
    for row in tx.connection.execute(query):
        step = _step(*row)
        if key.uid and step.uid != key.uid:
            continue
        found.append(step)
        if len(found) == limit:
            break
    return found


def revision_at(tx: Transaction, moment: float) -> int:
    """The revision that held at a time, in seconds since the epoch. Raises Gone."""
    query = select(func.max(changes.c.revision)).where(
        changes.c.recorded_at <= moment, changes.c.recorded_at > 0
    )
    found = tx.connection.execute(query).scalar()
    if found is not None:
        return int(found)
    kept = span(tx)
    query = select(func.min(changes.c.revision)).where(changes.c.recorded_at > 0)
    dated = tx.connection.execute(query).scalar()
    if kept.whole and dated == 1:
        return 0
    if dated is None and kept.after == tx.revision == 0:
        return 0
    first = select(func.min(changes.c.recorded_at)).where(changes.c.recorded_at > 0)
    since = tx.connection.execute(first).scalar() or 0.0
    raise Gone("that time", (dated or tx.revision + 1) - 1, since, "changes that are kept were made later")


def state_at(tx: Transaction, key: Key, revision: int) -> Raw:
    """A resource as it was once a revision was written, with the resourceVersion it had if that is known.

    Raises NotThen, Gone, FutureRevision.
    """
    if revision > tx.revision:
        raise FutureRevision(revision, tx.revision)
    gap = lost(restores(tx), revision)
    if gap is not None:
        raise Gone(
            f"revision {revision}",
            gap.base,
            0.0,
            f"the database was restored at {gap.time} and went on from revision {gap.base}",
        )
    newest = steps(tx, msgspec.structs.replace(key, uid=""), before=revision + 1, limit=1)
    last = steps(tx, key, before=revision + 1, limit=1) if key.uid else newest
    if last and last == newest and last[0].type != "DELETED":
        return _at(last[0].after, last[0].revision)
    if last:
        following = _next(tx, key, revision)
        born = following.revision if following and following.type == "ADDED" else 0
        raise NotThen(key, revision, last[0].revision, born)
    return _before_all(tx, key, revision)


def _before_all(tx: Transaction, key: Key, revision: int) -> Raw:
    """The state at a revision before all kept changes of the resource."""
    kept = span(tx)
    query = select(resources.c.data, resources.c.revision, resources.c.uid).where(
        resources.c.kind == key.kind,
        resources.c.namespace == key.namespace,
        resources.c.name == key.name,
    )
    row = tx.connection.execute(query).first()
    if row and row[1] <= revision and (not key.uid or row[2] == key.uid):
        return _at(msgspec.json.decode(row[0]), row[1])
    if revision < kept.after:
        raise Gone(
            f"revision {revision}", kept.after, kept.since, f"the oldest that can be told is {kept.after}"
        )
    following = _next(tx, key, revision)
    if following is None or following.type == "ADDED" or (key.uid and following.uid != key.uid):
        raise NotThen(key, revision, 0, following.revision if following else 0)
    # Which revision it had then is no longer known; none is better than a wrong one.
    return following.before


def _next(tx: Transaction, key: Key, revision: int) -> Step | None:
    """The first change of a resource after a revision."""
    query = _STEPS.where(_of(key), changes.c.revision > revision).order_by(changes.c.revision).limit(1)
    row = tx.connection.execute(query).first()
    return _step(*row) if row else None


def _of(key: Key) -> ColumnElement[bool]:
    return (
        (changes.c.kind == key.kind) & (changes.c.namespace == key.namespace) & (changes.c.name == key.name)
    )


def _step(
    revision: int,
    type: Literal["ADDED", "MODIFIED", "DELETED"],
    recorded_at: float,
    origin: str,
    data: str,
    previous: str,
) -> Step:
    after: Raw = msgspec.json.decode(data)
    before: Raw = msgspec.json.decode(previous) if previous else {}
    return Step(
        revision=revision, type=type, recorded_at=recorded_at, origin=origin, after=after, before=before
    )


def _at(raw: Raw, revision: int) -> Raw:
    return {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(revision)}}


# -- what a change changed


def changed_paths(before: Any, after: Any, *, most: int = PATHS) -> list[str]:
    """Dotted paths of fields that differ, bookkeeping left out; a last "..." says that there are more.

    Lists of named things (`name` or `type`) are compared by these, as `status.conditions[Ready]`; other
    lists as a whole.
    """
    found: list[str] = []
    for path in _differing(before, after, ""):
        if len(found) == most:
            return [*found, "..."]
        found.append(path)
    return found


def managers(before: Raw, after: Raw) -> list[str]:
    """Who made a change, from the managed fields that it renewed; empty where none are kept.

    Who only lost fields to another made no change: that leaves the time of the entry.
    """
    former = _managed(before)
    names = [
        str(entry.get("manager", ""))
        for entry in _managed(after)
        if not any(_no_more(entry, old) for old in former)
    ]
    return sorted({name for name in names if name})


def _no_more(entry: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether an entry is an old one, whole or with fewer fields."""
    rest = {**entry, "fieldsV1": None} == {**old, "fieldsV1": None}
    return rest and _within(entry.get("fieldsV1"), old.get("fieldsV1"))


def _within(fewer: Any, more: Any) -> bool:
    """Whether a set of fields (FieldsV1, a tree of names) is part of another."""
    if not isinstance(fewer, dict) or not isinstance(more, dict):
        return bool(fewer == more)
    return all(name in more and _within(inner, more[name]) for name, inner in fewer.items())


def _managed(raw: Raw) -> list[Mapping[str, Any]]:
    entries = raw.get("metadata", {}).get("managedFields") or []
    return [entry for entry in entries if isinstance(entry, dict)]


def _differing(before: Any, after: Any, at: str) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(n for n in after if n not in before)]:
            if at == "metadata" and name in _BOOKKEEPING:
                continue
            path = f"{at}.{name}" if at else name
            yield from _differing(before.get(name), after.get(name), path)
        return
    old, new = _by_name(before), _by_name(after)
    if old is not None and new is not None and (old or new):
        for name in [*old, *(n for n in new if n not in old)]:
            if old.get(name) != new.get(name):
                yield f"{at}[{name}]"
        return
    yield at


def _by_name(value: Any) -> dict[str, Any] | None:
    """Items of a list by their name; None when they have none, or share one."""
    if value is None:
        return {}
    if not isinstance(value, list):
        return None
    named: dict[str, Any] = {}
    for item in value:
        name = (item.get("name") or item.get("type")) if isinstance(item, dict) else None
        if not isinstance(name, str) or name in named:
            return None
        named[name] = item
    return named
