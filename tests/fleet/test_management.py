"""What has a site told anew whether it is managed: a decision, and nothing that its link does."""

from __future__ import annotations

import asyncio

import msgspec

from roost.fleet.management import ManagementController
from roost.model.cloud import Subcloud
from roost.store.transaction import Transaction
from tests.fleet.centre import CENTRE, centre
from tests.support.clock import on_fake_time
from tests.support.stores import history


@on_fake_time
async def test_news_of_a_link_have_nobody_told_anew() -> None:
    async with centre() as c:
        await c.declare("harbor")

        def online(tx: Transaction) -> None:
            current = tx.load(Subcloud, "", "harbor")
            status = msgspec.structs.replace(current.status, availability="online")
            tx.report(msgspec.structs.replace(current, status=status))

        await c.store.transact(online)
        await c.manage("harbor", managed=False)
        await asyncio.sleep(1)
        controller = ManagementController(CENTRE)
        declared, linked, unmanaged = [c for c in await history(c.store) if c.kind == "Subcloud"]
        assert [*controller.concerned(declared)] == [*controller.concerned(unmanaged)] == [("", "harbor")]
        assert [*controller.concerned(linked)] == []
