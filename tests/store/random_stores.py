"""Random lives of a store: the same steps for the same seed, on any database."""

from __future__ import annotations

import random
from typing import Any

from roost.model.codec import Raw
from roost.store import leases
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.stores import raw

NAMES = [f"h-{n}" for n in range(6)]
Model = dict[int, dict[str, Raw]]
"""What hosts there were after each revision."""


async def live(store: Store, seed: int, steps: int = 60) -> Model:
    """Create, change and delete hosts; what there was after each revision."""
    chance = random.Random(seed)
    after: Model = {store.revision: await hosts(store)}
    for _ in range(steps):
        name = chance.choice(NAMES)
        await store.transact(lambda tx, n=name: _step(tx, chance, n))  # type: ignore[misc]
        after[store.revision] = await hosts(store)
    await store.transact(lambda tx: leases.acquire(tx, "controllers", f"n-{seed}", 30))
    await store.transact(lambda tx: tx.set_cursor(f"peer-{seed}", "store-\u00e6", seed))
    await store.transact(lambda tx: tx.set_property("word", "two\nlines \u201cquoted\u201d"))
    return after


async def hosts(store: Store) -> dict[str, Raw]:
    return {s.name: s.raw for s in await store.read(lambda tx: tx.select("Host"))}


def _step(tx: Transaction, chance: random.Random, name: str) -> None:
    spec: dict[str, Any] = {"location": chance.choice(["", "rack 4", "\u00d8st", 'a "b"\n- c: 1\n'])}
    found = tx.find("Host", "harbor", name)
    if found is None:
        tx.create(raw("Host", name, spec=spec))
    elif chance.random() < 0.25:
        tx.remove("Host", "harbor", name)
    else:
        labels = {chance.choice("abc"): chance.choice("xyz")}
        body = {**found.raw, "spec": spec}
        tx.replace({**body, "metadata": {**found.raw["metadata"], "labels": labels}})
