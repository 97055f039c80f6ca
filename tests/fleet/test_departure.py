"""Clearing up after a deleted subcloud: bounded, resumed after a restart, and never a declared one."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from roost.engine.credentials import issue
from roost.fleet.departure import SubcloudDepartureController
from roost.link import departure
from roost.model.access import Credential
from roost.store.transaction import Change, Transaction
from tests.fleet.centre import CENTRE, Centre, centre
from tests.support.clock import on_fake_time
from tests.support.stores import history, raw

ORIGIN = "down:subcloud/harbor"


async def furnish(c: Centre, name: str = "harbor", rows: int = 30) -> None:
    """What a subcloud leaves at the centre: a mirror, copies, a cursor, tokens."""

    def work(tx: Transaction) -> None:
        for n in range(rows):
            tx.copy(raw("Host", f"h{n:03}", name, metadata={"uid": f"u{n}", "finalizers": ["x"]}), ORIGIN)
        tx.create(raw("PlatformNetwork", "oam", name, spec={"type": "oam", "subnets": ["192.0.2.0/24"]}))
        tx.copy(raw("Cloud", name, "", metadata={"uid": "c"}), ORIGIN)
        tx.set_cursor(f"subcloud/{name}", "store", 7)
        issue(tx, "enrol-subcloud", name, timedelta(hours=1))

    await c.store.transact(work)


async def left(c: Centre, name: str = "harbor") -> tuple[int, int, int, bool]:
    """Resources in the namespace, mirrored clouds, tokens, whether there is a cursor."""

    def work(tx: Transaction) -> tuple[int, int, int, bool]:
        rows = tx.count("Host", name) + tx.count("PlatformNetwork", name)
        clouds = 1 if tx.find("Cloud", "", name) else 0
        tokens = len([x for x in tx.every(Credential) if x.spec.subject == name])
        return rows, clouds, tokens, tx.cursor(f"subcloud/{name}") != ("", 0)

    return await c.store.read(work)


@on_fake_time
async def test_everything_of_a_deleted_subcloud_goes_and_nothing_of_others() -> None:
    async with centre() as c:
        c.work()
        await c.declare("harbor")
        await c.declare("ridge")
        await furnish(c)
        await furnish(c, "ridge", 5)
        await asyncio.sleep(1)
        await c.store.transact(lambda tx: tx.remove("Subcloud", "", "harbor"))
        await asyncio.sleep(5)
        assert await left(c) == (0, 0, 0, False)
        assert await left(c, "ridge") == (6, 1, 1, True)
        assert set(c.disconnected) == {"harbor"}


@pytest.mark.parametrize("rows", [0, 9, 10, 11, 35])
@on_fake_time
async def test_it_goes_in_bounded_transactions_and_goes_on_after_a_restart(rows: int) -> None:
    async with centre() as c:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(departure, "BATCH", 10)
            await furnish(c, rows=rows)
            controller = SubcloudDepartureController(CENTRE, c.disconnected.append)
            start = c.store.revision
            transactions = 0
            while keys := await c.store.read(lambda tx: list(controller.all_keys(tx))):
                # As after a restart each time: only the store says that there is more to do.
                assert keys == [("", "harbor")]
                before = c.store.revision
                await controller.reconcile(c.store, keys[0])
                transactions += 1
                assert c.store.revision - before <= 10 + 2
                assert transactions < 10
            assert await left(c) == (0, 0, 0, False)
            kinds = Counter(x.kind for x in await history(c.store, start))
            assert kinds == Counter(["Host"] * rows + ["PlatformNetwork", "Cloud", "Credential"])


@on_fake_time
async def test_a_crash_before_the_last_of_it_leaves_nothing_for_ever() -> None:
    """The namespace is empty, the mirrored cloud, cursor and tokens are still there."""
    async with centre() as c:
        await furnish(c, rows=0)
        await c.store.transact(lambda tx: tx.drop("PlatformNetwork", "harbor", "oam"))
        c.work()
        await asyncio.sleep(5)
        assert await left(c) == (0, 0, 0, False)


@on_fake_time
async def test_a_subcloud_declared_again_is_not_emptied_nor_cut_off() -> None:
    async with centre() as c:
        await c.declare("harbor")
        await furnish(c)
        c.disconnected.clear()
        controller = SubcloudDepartureController(CENTRE, c.disconnected.append)
        deleted = Change(1, "DELETED", "Subcloud", "", "harbor", "", '{"metadata": {}}')
        (key,) = controller.concerned(deleted)
        assert await controller.reconcile(c.store, key) is None
        assert await left(c) == (31, 1, 1, True)
        assert c.disconnected == []
        c.work()
        await asyncio.sleep(5)
        assert await left(c) == (31, 1, 1, True)


@on_fake_time
async def test_the_centre_itself_never_leaves() -> None:
    async with centre() as c:
        await c.store.transact(lambda tx: tx.create(raw("Cloud", CENTRE, "")))
        await c.store.transact(lambda tx: tx.create(raw("Host", "h", CENTRE)))
        controller = SubcloudDepartureController(CENTRE, c.disconnected.append)
        assert await c.store.read(lambda tx: list(controller.all_keys(tx))) == []
        assert await controller.reconcile(c.store, ("", "nobody")) is None
        assert await c.store.read(lambda tx: tx.count("Host", CENTRE)) == 1
