"""The statements that every transaction runs, built once.

Building a statement of expressions costs SQLAlchemy more than SQLite needs to run it; with bound
parameters it is built at import and looked up afterwards. What is asked in many forms (`select` with
its filters) is built per form and kept.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    Float,
    Select,
    Text,
    bindparam,
    cast,
    delete,
    extract,
    func,
    insert,
    select,
    tuple_,
    update,
)

from roost.store.schema import changes, counters, cursors, leases, links, properties, resources

_KEY = (
    (resources.c.kind == bindparam("k"))
    & (resources.c.namespace == bindparam("ns"))
    & (resources.c.name == bindparam("n"))
)

FIND = select(resources).where(_KEY)
COUNT = select(func.count()).select_from(resources).where(resources.c.kind == bindparam("k"))
COUNT_IN = COUNT.where(resources.c.namespace == bindparam("ns"))
INSERT = insert(resources)
UPDATE = (
    update(resources)
    .where(_KEY)
    .values(
        {c.name: bindparam(c.name) for c in resources.c if c.name in ("uid", "revision", "origin", "data")}
    )
)
DELETE = delete(resources).where(_KEY)
RECORD = insert(changes)

_CLOCK = cast(extract("epoch", func.clock_timestamp()), Float)

READ_REVISION = select(counters.c.value).where(counters.c.name == "revision")
SET_REVISION = update(counters).where(counters.c.name == "revision").values(value=bindparam("to"))
"""The database is locked by then: SQLite puts writers in order when they begin."""

CHANNEL = "roost_changes"
BESIDE = "beside"
"""Notified when something was written that is no resource, and makes no revision."""
LOCK_REVISION = select(counters.c.value, _CLOCK).where(counters.c.name == "revision").with_for_update()
"""PostgreSQL: puts writers in order by the row's lock; tells the time there."""
TELL_REVISION = SET_REVISION.returning(func.pg_notify(CHANNEL, cast(bindparam("to"), Text)))
"""PostgreSQL: the same as SET_REVISION, and wakes all who listen once it is committed."""
READ_REVISION_AND_CLOCK = select(counters.c.value, _CLOCK).where(counters.c.name == "revision")
ADD_COUNTER = insert(counters)
COUNTER = select(counters.c.value).where(counters.c.name == bindparam("counter"))
SET_COUNTER = update(counters).where(counters.c.name == bindparam("counter")).values(value=bindparam("to"))

CURSOR = select(cursors.c.store_id, cursors.c.revision).where(cursors.c.peer == bindparam("of"))
SESSION = select(links.c.session).where(links.c.node == bindparam("of"))
MOVE_CURSOR = (
    update(cursors)
    .where(cursors.c.peer == bindparam("of"))
    .values(store_id=bindparam("to_store"), revision=bindparam("to_revision"))
)
ADD_CURSOR = insert(cursors)
LEASE = select(leases).where(leases.c.name == bindparam("of"))
PROPERTY = select(properties.c.value).where(properties.c.name == bindparam("of"))
CHANGE_PROPERTY = update(properties).where(properties.c.name == bindparam("of")).values(value=bindparam("to"))
ADD_PROPERTY = insert(properties)
HISTORY = (
    select(*(column for column in changes.c if column is not changes.c.recorded_at))
    .where(changes.c.revision > bindparam("after"))
    .order_by(changes.c.revision)
    .limit(bindparam("most"))
)


HOLDS = 4
"""Patterns that data may be looked through for at once."""
AMONG = 64
"""Namespaces, or names, that may be looked in at once."""


TEXTS = (resources.c.namespace, resources.c.name, resources.c.revision, resources.c.data)
"""What a list shows of a resource."""


@cache
def texts(filters: frozenset[str]) -> Select[Any]:
    """As `selection`, but TEXTS alone: for a driver the half of the work."""
    return _selected(TEXTS, filters)


@cache
def selection(filters: frozenset[str]) -> Select[Any]:
    """Resources of kind `k` in order, filtered by those parameters that are named.

    `ns` and `origin` are equal; `from` and `beyond` bound the names; `ns_after` and `n_after` are the key
    after which it goes on, within one namespace `n_after` alone; `most` limits it. Keys are compared as
    tuples, which both databases look up in the primary key; alternatives joined by OR would be sorted.

    `holds0` and so on are patterns that the data must be like. `among0` and so on, AMONG of them in order,
    are the namespaces it looks in, and `named0` and so on the names.

    `bytes` leaves out what comes after so many bytes of data, all but the first row past them. It is
    for drivers that fetch all that a statement gives; PostgreSQL knows a text's length without reading it.
    """
    return _selected(tuple(resources.c), filters)


def _selected(columns: tuple[Column[Any], ...], filters: frozenset[str]) -> Select[Any]:
    query = select(*columns).where(resources.c.kind == bindparam("k"))
    if "ns" in filters:
        query = query.where(resources.c.namespace == bindparam("ns"))
    if "origin" in filters:
        query = query.where(resources.c.origin == bindparam("origin"))
    if "from" in filters:
        query = query.where(resources.c.name >= bindparam("from"), resources.c.name < bindparam("beyond"))
    for n in range(HOLDS):
        if f"holds{n}" in filters:
            query = query.where(resources.c.data.like(bindparam(f"holds{n}")))
    for some, column in (("among", resources.c.namespace), ("named", resources.c.name)):
        if f"{some}0" in filters:
            values = [bindparam(f"{some}{n}", type_=column.type) for n in range(AMONG)]
            # The bounds keep a database that reads on in order from reading what is beyond.
            query = query.where(column.between(values[0], values[-1]), column.in_(values))
    if "n_after" in filters and "ns_after" not in filters:
        query = query.where(resources.c.name > bindparam("n_after"))
    if "ns_after" in filters:
        query = query.where(
            tuple_(resources.c.namespace, resources.c.name)
            > tuple_(bindparam("ns_after"), bindparam("n_after"))
        )
    query = query.order_by(resources.c.namespace, resources.c.name)
    if "most" in filters:
        query = query.limit(bindparam("most"))
    return _bounded(query, columns) if "bytes" in filters else query


def _bounded(query: Select[Any], columns: tuple[Column[Any], ...]) -> Select[Any]:
    """The rows of a selection whose forerunners have `bytes` of data at most; two in any case."""
    size, key = func.octet_length(resources.c.data), (resources.c.namespace, resources.c.name)
    # One window for both, or the rows would go through two.
    before = func.sum(size).over(order_by=key, rows=(None, 0)) - size
    place = func.row_number().over(order_by=key, rows=(None, 0))
    found = query.add_columns(before.label("before"), place.label("place")).subquery("found")
    kept = [found.c[column.name] for column in columns]
    return (
        select(*kept)
        .where((found.c.before <= bindparam("bytes")) | (found.c.place <= 2))
        .order_by(found.c.namespace, found.c.name)
    )
