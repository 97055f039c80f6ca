"""A subcloud that has moved away is neither lost nor late here, and what it had told goes."""

from __future__ import annotations

import asyncio

import msgspec

from roost.engine.admission import Request
from roost.fleet.admission import rules
from roost.fleet.rehoming import BATCH
from roost.fleet.subclouds import OFFLINE_AFTER
from roost.link import rehoming
from roost.link.errors import Refused
from roost.link.intake import refused_property
from roost.link.messages import Hello
from roost.link.node import subcloud
from roost.model.cloud import SUBCLOUD, Cloud, Subcloud, SubcloudStatus
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec
from roost.model.fleet import SubcloudSelector
from roost.model.meta import Metadata
from roost.store.transaction import Transaction
from tests.fleet.centre import CENTRE, Centre, centre
from tests.support.clock import on_fake_time
from tests.support.stores import raw

HARBOR = subcloud("harbor")


def _hello(epoch: int, moved_to: str = "") -> Hello:
    return Hello(
        protocol_min=1,
        protocol_max=1,
        version="1",
        node="subcloud/harbor",
        store_id="s",
        taken_store_id="",
        taken_revision=0,
        epoch=epoch,
        moved_to=moved_to,
    )


async def _say(c: Centre, epoch: int, moved_to: str = "") -> str:
    """What the centre answers a hello, in words; empty when it lets the subcloud in."""
    try:
        await rehoming.welcome(c.store, HARBOR, _hello(epoch, moved_to))
    except Refused as refusal:
        return refusal.reason
    return ""


async def _linked(c: Centre, hosts: int = 3) -> None:
    """A subcloud that has enrolled, is online, and has told of its hosts."""
    await c.declare("harbor")
    policy = FirewallPolicySpec(networks=["oam"], subclouds=SubcloudSelector())
    await c.store.save(FirewallPolicy(metadata=Metadata(name="base", namespace=CENTRE), spec=policy))

    def work(tx: Transaction) -> None:
        rehoming.grant(tx, HARBOR, 0)
        for n in range(hosts):
            tx.copy(raw("Host", f"h{n:03}", "harbor", metadata={"uid": f"u{n}"}), HARBOR.origin)
        tx.copy(raw("Cloud", "harbor", "", metadata={"uid": "c"}), HARBOR.origin)
        tx.set_cursor(str(HARBOR), "store", 7)
        tx.set_property(refused_property(str(HARBOR)), "[]")

    await c.store.transact(work)
    c.link("harbor", up=True)
    await asyncio.sleep(1)


def _conditions(status: SubcloudStatus) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in status.conditions}


@on_fake_time
async def test_one_that_moves_is_not_lost_and_comes_back() -> None:
    async with centre() as c:
        c.work()
        await _linked(c, hosts=BATCH * 2 + 1)
        status = await c.subcloud()
        assert (status.epoch, status.availability) == (1, "online")
        assert _conditions(status)["Owned"] == ("True", "Owner")

        c.link("harbor", up=False)
        await asyncio.sleep(OFFLINE_AFTER + 1)
        assert await c.alarms() == [("280.001", "subcloud=harbor")]
        assert "has moved to west at epoch 2" in await _say(c, 2, "west")
        await asyncio.sleep(2)
        status = await c.subcloud()
        assert (status.epoch, status.moved_to, status.enrolled) == (2, "west", False)
        assert (status.availability, status.sync, status.out_of_sync) == ("unknown", "unknown", [])
        found = _conditions(status)
        assert found["Owned"] == ("False", "MovedAway")
        assert {found["Online"], found["InSync"]} == {("Unknown", "MovedAway")}
        assert await c.alarms() == [], "what is elsewhere is not lost here"
        left = await c.store.read(
            lambda tx: (tx.count("Host", "harbor"), tx.cursor(str(HARBOR)), tx.find("Cloud", "", "harbor"))
        )
        assert left == (0, ("", 0), None), "what it had told goes, and will be asked for anew"
        copies = [p.metadata.name for p in await c.store.every(FirewallPolicy, "harbor")]
        assert copies == ["base.central"], "what is shared with it waits"
        moved = [text for event, text in await c.events() if event == "subcloud-moved"]
        assert moved == ["harbor moved to west at epoch 2."]
        revision = c.store.revision
        assert "has moved to west" in await _say(c, 1), "an identity from an old backup"
        await asyncio.sleep(3600)
        assert c.store.revision == revision

        await c.store.transact(lambda tx: rehoming.grant(tx, HARBOR, 2))
        assert await _say(c, 3) == ""
        c.link("harbor", up=True)
        await asyncio.sleep(1)
        status = await c.subcloud()
        assert (status.epoch, status.moved_to, status.availability) == (3, "", "online")
        assert _conditions(status)["Owned"] == ("True", "Owner")


@on_fake_time
async def test_what_is_left_of_moved_ones_goes_after_a_restart_and_others_are_spared() -> None:
    async with centre() as c:
        c.work()
        await _linked(c)
        await c.stop()
        await _say(c, 2, "west")
        await c.declare("ridge")
        await c.store.transact(
            lambda tx: tx.copy(raw("Host", "h1", "ridge", metadata={"uid": "r"}), "down:subcloud/ridge")
        )
        c.work()
        await asyncio.sleep(3)
        counted = await c.store.read(lambda tx: (tx.count("Host", "harbor"), tx.count("Host", "ridge")))
        assert counted == (0, 1)
        assert [cloud.metadata.name for cloud in await c.store.every(Cloud)] == []


@on_fake_time
async def test_one_that_has_moved_may_be_deleted_while_it_is_managed() -> None:
    async with centre() as c:
        await c.declare("harbor")
        current = await c.store.load(Subcloud, "", "harbor")
        away = msgspec.structs.replace(current, status=SubcloudStatus(epoch=2, moved_to="west"))
        request = Request(operation="delete", info=SUBCLOUD, user="eve", old=away, new=None)
        for rule in rules(CENTRE)[SUBCLOUD.kind]:
            await c.store.read(lambda tx, rule=rule: rule(tx, request))  # type: ignore[misc]
