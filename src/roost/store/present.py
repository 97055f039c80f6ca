"""Questions about the resources that are there now, beyond what a transaction answers by name and by kind."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, tuple_

from roost.store.schema import resources
from roost.store.transaction import Transaction


def count_after(tx: Transaction, kinds: Sequence[str], namespace: str, after: tuple[str, str]) -> int:
    """How many resources of some kinds lie beyond a key, in a namespace (all: "")."""
    query = (
        select(func.count())
        .select_from(resources)
        .where(resources.c.kind.in_(kinds), tuple_(resources.c.namespace, resources.c.name) > after)
    )
    if namespace:
        query = query.where(resources.c.namespace == namespace)
    return tx.connection.execute(query).scalar_one()


def is_somewhere(tx: Transaction, kind: str, uid: str) -> bool:
    """Whether a resource of a kind has this identity, wherever it lies. Reads all of the kind."""
    query = select(resources.c.uid).where(resources.c.kind == kind, resources.c.uid == uid).limit(1)
    return tx.connection.execute(query).first() is not None
