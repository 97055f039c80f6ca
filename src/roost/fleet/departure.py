"""Clearing up after a subcloud that was deleted here: its copies, its mirror, its tokens, its cursor.

What runs at the site is not touched: it goes on alone. The namespace is emptied in bounded
transactions, found again after a restart by looking for namespaces and mirrored clouds without a
Subcloud; the last of these transactions takes the rest away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlalchemy import select

from roost.engine.controller import Key
from roost.engine.credentials import revoke
from roost.model.cloud import CLOUD, SUBCLOUD
from roost.store.schema import resources
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

BATCH = 200


class DepartureController:
    """Empties the namespaces of deleted subclouds."""

    name = "departure"

    def __init__(self, cloud: str, disconnect: Callable[[str], None]) -> None:
        self._cloud, self._disconnect = cloud, disconnect

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == SUBCLOUD.kind and change.type == "DELETED":
            yield ("", change.name)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        namespaces = tx.connection.execute(select(resources.c.namespace).distinct()).scalars()
        mirrored = [s.name for s in tx.select(CLOUD.kind)]
        known = {s.name for s in tx.select(SUBCLOUD.kind)} | {self._cloud, ""}
        return [("", n) for n in sorted({*namespaces, *mirrored} - known)]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        name = key[1]
        if await store.read(lambda tx: tx.find(SUBCLOUD.kind, "", name) is None):
            self._disconnect(name)
        left = await store.transact(lambda tx: self._empty(tx, name))
        return 0.0 if left == BATCH else None

    def _empty(self, tx: Transaction, name: str) -> int:
        """Drop a bounded number of resources; how many were dropped. Nothing if it is declared again."""
        if tx.find(SUBCLOUD.kind, "", name) or name == self._cloud:
            return 0
        query = select(resources.c.kind, resources.c.name).where(resources.c.namespace == name)
        rows = tx.connection.execute(query.limit(BATCH)).all()
        for kind, resource in rows:
            tx.drop(kind, name, resource)
        if len(rows) < BATCH:
            tx.drop(CLOUD.kind, "", name)
            tx.drop_cursor(f"down:subcloud/{name}")
            revoke(tx, name, "enrol-subcloud")
        return len(rows)
