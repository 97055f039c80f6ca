"""Clearing up after a lower node that is declared no more: its link, what it sent, its tokens, its cursor
and what was refused of it.

What runs at the node is not touched: it goes on with the last intent it has. Resources go in bounded
transactions; what a restart interrupted is found again by what is left. A node that is declared again
meanwhile is spared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlalchemy import ColumnElement, select

from roost.engine.controller import Key
from roost.engine.credentials import Purpose, revoke
from roost.link.intake import kinds_property, refused_property
from roost.link.node import Node, subject
from roost.store import links
from roost.store.schema import resources
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

BATCH = 200


class DepartureController:
    """Clears up after nodes of one kind. Subclasses say which there were and what was theirs."""

    name = ""
    kind = ""
    """Kind of the resource that declares a node."""
    purpose: Purpose

    def __init__(self, namespace: str, disconnect: Callable[[str], None]) -> None:
        """`namespace` is that of the declarations; `disconnect` ends the link of a node, by name."""
        self._namespace, self._disconnect = namespace, disconnect

    def node(self, name: str) -> Node:
        """The node of a name."""
        raise TypeError(f"{type(self).__name__} names no nodes")

    def left_behind(self, tx: Transaction) -> set[str]:
        """Names of nodes of which anything is there, declared or not."""
        raise TypeError(f"{type(self).__name__} knows no nodes")

    def owned(self, name: str) -> ColumnElement[bool]:
        """Which resources go with a node."""
        return resources.c.origin == self.node(name).origin

    def finish(self, tx: Transaction, name: str) -> None:
        """What goes last, besides cursor and tokens."""

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == self.kind and change.namespace == self._namespace and change.type == "DELETED":
            yield (self._namespace, change.name)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        known = {s.name for s in tx.select(self.kind, self._namespace)}
        return [(self._namespace, n) for n in sorted(self.left_behind(tx) - known)]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        name = key[1]
        if await store.read(lambda tx: tx.find(self.kind, *key) is None):
            self._disconnect(name)
        left = await store.transact(lambda tx: self._empty(tx, name))
        return 0.0 if left == BATCH else None

    def _empty(self, tx: Transaction, name: str) -> int:
        """Drop a bounded number of resources; how many were dropped. Nothing if it is declared again."""
        if tx.find(self.kind, self._namespace, name):
            return 0
        query = select(resources.c.kind, resources.c.namespace, resources.c.name).where(self.owned(name))
        rows = tx.connection.execute(query.limit(BATCH)).all()
        for row in rows:
            tx.drop(*row)
        if len(rows) < BATCH:
            node = self.node(name)
            self.finish(tx, name)
            tx.drop_cursor(str(node))
            links.drop(tx, str(node))
            tx.drop_property(refused_property(str(node)))
            tx.drop_property(kinds_property(str(node)))
            revoke(tx, subject(node), self.purpose)
        return len(rows)
