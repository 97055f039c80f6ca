"""A deleted host is forgotten: what it sent, its token, its cursor; a declared one is not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from roost.engine.credentials import issue
from roost.link.intake import refused_property
from roost.model.access import Credential
from roost.store.transaction import Transaction
from tests.cloud.site import Site, site
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD, raw


async def furnish(s: Site, name: str) -> None:
    def work(tx: Transaction) -> None:
        for n in range(5):
            entry = raw("LogEntry", f"{name}-{n}", status={"text": "x"}, metadata={"uid": f"{name}{n}"})
            tx.copy(entry, f"down:host/{CLOUD}/{name}")
        tx.set_cursor(f"host/{CLOUD}/{name}", "store", 7)
        tx.set_property(refused_property(f"host/{CLOUD}/{name}"), "[]")
        issue(tx, "enrol-host", f"{CLOUD}/{name}", timedelta(hours=1))

    await s.store.transact(work)


async def left(s: Site, name: str) -> tuple[int, bool, int]:
    def work(tx: Transaction) -> tuple[int, bool, int]:
        entries = tx.select("LogEntry", CLOUD, origin=f"down:host/{CLOUD}/{name}")
        tokens = [c for c in tx.every(Credential) if c.spec.subject == f"{CLOUD}/{name}"]
        peer = f"host/{CLOUD}/{name}"
        remembered = tx.cursor(peer) != ("", 0) or bool(tx.property(refused_property(peer)))
        return len(entries), remembered, len(tokens)

    return await s.store.read(work)


@on_fake_time
async def test_a_deleted_host_is_forgotten_and_others_are_not() -> None:
    async with site() as s:
        s.work()
        for name in ("h", "h-2"):
            await s.declare(name)
            await furnish(s, name)
        await asyncio.sleep(1)
        await s.store.transact(lambda tx: tx.remove("Host", CLOUD, "h"))
        await asyncio.sleep(5)
        assert await left(s, "h") == (0, False, 0)
        assert await left(s, "h-2") == (5, True, 1)


@on_fake_time
async def test_a_host_deleted_while_nobody_looked_is_found_by_its_cursor() -> None:
    async with site() as s:
        await s.declare()
        await furnish(s, "h")
        await furnish(s, "gone")
        s.work()
        await asyncio.sleep(5)
        assert await left(s, "gone") == (0, False, 0)
        assert await left(s, "h") == (5, True, 1)
