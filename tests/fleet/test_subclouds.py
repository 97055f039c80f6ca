"""Subclouds as the centre sees them: availability, sync, one alarm for a lost site."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from roost.engine.admission import Refused, Request
from roost.fleet.admission import rules
from roost.fleet.subclouds import OFFLINE_AFTER, RETURN
from roost.model import time
from roost.model.cloud import SUBCLOUD, Subcloud, SubcloudSpec
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec
from roost.model.fleet import SubcloudSelector
from roost.model.meta import Metadata
from tests.fleet.centre import CENTRE, centre
from tests.support.clock import on_fake_time
from tests.support.stores import raw

LOST = [("280.001", "subcloud=harbor")]
DAY = 86400.0


@on_fake_time
async def test_from_declared_to_online_to_offline_and_back() -> None:
    async with centre() as c:
        c.work()
        await c.declare("harbor")
        await asyncio.sleep(600)
        status = await c.subcloud()
        assert (status.enrolled, status.availability, status.sync) == (False, "unknown", "unknown")
        assert (status.conditions[0].status, status.conditions[0].reason) == ("Unknown", "NotEnrolled")
        assert "roost subcloud token harbor" in status.conditions[0].message
        assert await c.alarms() == [], "what has not enrolled is not lost"

        c.up("harbor", namespace="", version="1.2", certificate_expires_at="")
        await asyncio.sleep(1)
        status = await c.subcloud()
        assert (status.enrolled, status.availability, status.sync) == (True, "online", "in-sync")
        assert status.version == "1.2"

        c.link("harbor", up=False)
        await asyncio.sleep(OFFLINE_AFTER - 1)
        assert (await c.subcloud()).availability == "online"
        await asyncio.sleep(2)
        status = await c.subcloud()
        assert (status.availability, status.sync, status.version) == ("offline", "in-sync", "1.2")
        assert (status.conditions[0].status, status.conditions[0].reason) == ("False", "LinkDown")
        assert await c.alarms() == LOST
        await asyncio.sleep(3600)
        assert await c.alarms() == LOST

        c.link("harbor", up=True)
        await asyncio.sleep(1)
        assert (await c.subcloud()).availability == "online"
        assert await c.alarms() == []
        assert [e for e, _ in await c.events()] == [
            "subcloud-availability",
            "subcloud-sync",
            "subcloud-enrolled",
            "alarm-set",
            "subcloud-availability",
            "alarm-clear",
            "subcloud-availability",
        ]


@on_fake_time
async def test_a_short_cut_changes_nothing() -> None:
    async with centre() as c:
        c.work()
        await c.declare("harbor")
        c.link("harbor", up=True)
        await asyncio.sleep(1)
        revision = c.store.revision
        for _ in range(4):
            c.link("harbor", up=False)
            await asyncio.sleep(OFFLINE_AFTER - 1)
            c.link("harbor", up=True)
            await asyncio.sleep(60)
        assert c.store.revision == revision


@on_fake_time
async def test_a_restart_raises_and_clears_nothing() -> None:
    async with centre() as c:
        c.work()
        for name in ("harbor", "ridge"):
            await c.declare(name)
            c.link(name, up=True)
        await asyncio.sleep(1)
        c.link("harbor", up=False)
        await asyncio.sleep(60)
        assert await c.alarms() == LOST
        revision = c.store.revision
        await c.stop()
        c.work()
        await asyncio.sleep(RETURN - 1)
        c.link("ridge", up=True)
        await asyncio.sleep(600)
        assert c.store.revision == revision
        await c.stop()
        c.work()
        await asyncio.sleep(RETURN + 1)
        assert await c.alarms() == [*LOST, ("280.001", "subcloud=ridge")], "ridge did not return"


@pytest.mark.parametrize("jump", [DAY, -DAY])
@on_fake_time
async def test_setting_the_clock_changes_nothing(jump: float) -> None:
    async with centre() as c:
        c.work()
        for name in ("harbor", "ridge"):
            await c.declare(name)
            c.link(name, up=True)
        await asyncio.sleep(1)
        c.link("harbor", up=False)
        await asyncio.sleep(60)
        revision = c.store.revision
        c.clock.jump(jump)
        await c.label("harbor", touched="1")
        await c.label("ridge", touched="1")
        await asyncio.sleep(600)
        assert await c.alarms() == LOST
        assert c.store.revision == revision + 2
        c.link("ridge", up=False)
        c.clock.jump(jump)
        await asyncio.sleep(OFFLINE_AFTER - 1)
        assert (await c.subcloud("ridge")).availability == "online"
        await asyncio.sleep(2)
        assert (await c.subcloud("ridge")).availability == "offline"


@on_fake_time
async def test_sync_follows_what_the_subcloud_says_of_its_copies() -> None:
    async with centre() as c:
        c.work()
        await c.declare("harbor")
        c.link("harbor", up=True)
        spec = FirewallPolicySpec(networks=["oam"], subclouds=SubcloudSelector())
        await c.store.save(FirewallPolicy(metadata=Metadata(name="p", namespace=CENTRE), spec=spec))
        await asyncio.sleep(1)
        status = await c.subcloud()
        assert (status.sync, status.out_of_sync) == ("out-of-sync", [f"FirewallPolicy/p.{CENTRE}"])
        await c.report("harbor", f"p.{CENTRE}", ready="True")
        await asyncio.sleep(1)
        status = await c.subcloud()
        assert (status.sync, status.out_of_sync) == ("in-sync", [])
        await c.report("harbor", f"p.{CENTRE}", ready="False")
        c.link("harbor", up=False)
        await asyncio.sleep(60)
        assert (await c.subcloud()).sync == "out-of-sync"
        await c.manage("harbor", managed=False)
        await asyncio.sleep(1)
        assert (await c.subcloud()).sync == "unknown"


@on_fake_time
async def test_a_link_certificate_near_its_end_is_an_alarm() -> None:
    async with centre() as c:
        c.work()
        await c.declare("harbor")
        end = time.seconds(c.clock() + timedelta(days=14, hours=2))
        c.up("harbor", namespace="", certificate_expires_at=end)
        await asyncio.sleep(3600)
        assert await c.alarms() == []
        await asyncio.sleep(2 * 3600)
        entity = "system.certificate.mode=link.uuid=subcloud=harbor"
        assert await c.alarms() == [("500.200", entity)]
        c.up("harbor", namespace="", certificate_expires_at=time.seconds(c.clock() + timedelta(days=90)))
        await asyncio.sleep(1)
        assert await c.alarms() == []


@on_fake_time
async def test_a_deleted_subcloud_has_no_alarm_and_an_alarm_taken_away_returns() -> None:
    async with centre() as c:
        c.work()
        await c.declare("harbor")
        c.link("harbor", up=True)
        await asyncio.sleep(1)
        c.link("harbor", up=False)
        await asyncio.sleep(60)
        await c.store.transact(lambda tx: tx.remove("Alarm", CENTRE, "subcloud.harbor.280.001"))
        await asyncio.sleep(1)
        assert await c.alarms() == LOST
        await c.store.transact(lambda tx: tx.remove("Subcloud", "", "harbor"))
        await asyncio.sleep(1)
        assert await c.alarms() == []


@on_fake_time
async def test_what_operators_may_not_do() -> None:
    async with centre() as c:
        (rule,) = rules(CENTRE)[SUBCLOUD.kind]

        def subcloud(name: str, state: str = "unmanaged") -> Subcloud:
            spec = SubcloudSpec(management_state=state)  # type: ignore[arg-type]
            return Subcloud(metadata=Metadata(name=name), spec=spec)

        async def ask(operation: str, old: Subcloud | None, new: Subcloud | None) -> None:
            request = Request(operation=operation, info=SUBCLOUD, user="ada", old=old, new=new)  # type: ignore[arg-type]
            await c.store.transact(lambda tx: rule(tx, request))

        await ask("create", None, subcloud("harbor"))
        await ask("delete", subcloud("harbor"), None)
        await ask("update", subcloud("harbor", "managed"), subcloud("harbor"))
        with pytest.raises(Refused) as taken:
            await ask("create", None, subcloud(CENTRE))
        assert taken.value.field == "metadata.name" and "another name" in taken.value.remedy
        with pytest.raises(Refused) as managed:
            await ask("delete", subcloud("harbor", "managed"), None)
        assert "roost subcloud unmanage harbor" in managed.value.remedy


@on_fake_time
async def test_a_mirrored_cloud_proves_enrolment() -> None:
    """After a restart the store remembers that the subcloud was there, though its link is down."""
    async with centre() as c:
        await c.declare("harbor")
        mirror = raw("Cloud", "harbor", "", status={"version": "1"}, metadata={"uid": "u"})
        await c.store.transact(lambda tx: tx.copy(mirror, "down:subcloud/harbor"))
        c.work()
        await asyncio.sleep(1)
        assert (await c.subcloud()).enrolled
        await asyncio.sleep(RETURN + 1)
        assert await c.alarms() == LOST
