"""What the resources in a range of keys were at an earlier revision, read from the history that is kept.

The first change of a key after the revision carries what was there before it, so nothing is replayed, and
only the history of the keys in the range is looked at. An answer is bounded by bytes: past them it covers a
shorter range, and says which.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, func, select, tuple_

from roost.store import history
from roost.store.errors import Compacted, FutureRevision
from roost.store.schema import changes
from roost.store.transaction import Stored, Transaction

Key = tuple[str, str]
"""Namespace and name."""


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of a kind: in a namespace (all: ""), of a name (all: ""), beyond `after`, as far as `upto`."""

    kind: str
    namespace: str = ""
    name: str = ""
    after: Key | None = None
    upto: Key | None = None


class Former(msgspec.Struct, frozen=True):
    """By key what each resource that has changed since was, None where there was none. `upto`: how far."""

    resources: dict[Key, Stored | None]
    upto: Key | None


def read(tx: Transaction, within: Range, revision: int, size: int) -> Former:
    """What those that have changed since `revision` were then, together about `size` bytes at most.

    `upto` is nearer than that of the range when they would be more; one that is larger is given alone.
    Raises Compacted and FutureRevision.
    """
    _check_kept(tx, revision)
    first = (
        select(func.min(changes.c.revision))
        .where(changes.c.revision > revision, *_conditions(within))
        .group_by(changes.c.namespace, changes.c.name)
    )
    lengths = select(changes.c.namespace, changes.c.name, func.length(changes.c.previous))
    last = _fitting(tx, lengths.where(changes.c.revision.in_(first)), size)
    columns = (changes.c[n] for n in ("namespace", "name", "type", "origin", "previous", "revision"))
    query = select(*columns).where(changes.c.revision.in_(first))
    if last is not None:
        query = query.where(last >= _KEY)
    found = {
        (namespace, name): None
        if type == "ADDED"
        else Stored(within.kind, namespace, name, "", changed - 1, origin, previous)
        for namespace, name, type, origin, previous, changed in tx.connection.execute(query)
    }
    return Former(found, within.upto if last is None else last)


def _check_kept(tx: Transaction, revision: int) -> None:
    if revision > tx.revision:
        raise FutureRevision(revision, tx.revision)
    gap = history.lost(history.restores(tx), revision)
    if gap is not None:
        raise Compacted(revision, gap.base)
    oldest = tx.connection.execute(select(func.min(changes.c.revision))).scalar()
    if oldest is None or oldest > revision + 1:
        raise Compacted(revision, (oldest or tx.revision + 1) - 1)


_KEY = tuple_(changes.c.namespace, changes.c.name)


def _conditions(within: Range) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [changes.c.kind == within.kind]
    if within.namespace:
        found.append(changes.c.namespace == within.namespace)
    if within.name:
        found.append(changes.c.name == within.name)
    if within.after is not None:
        found.append(within.after < _KEY)
    if within.upto is not None:
        found.append(within.upto >= _KEY)
    return found


def _fitting(tx: Transaction, lengths: Select[Any], size: int) -> Key | None:
    """The last key of those that fit into a size together, the first one in any case; None when all do."""
    last: Key | None = None
    for namespace, name, length in tx.connection.execute(
        lengths.order_by(changes.c.namespace, changes.c.name)
    ):
        size -= length
        if size < 0 and last is not None:
            return last
        last = (namespace, name)
    return None
