"""The life of hosts, end to end: a real store, the cloud's controllers, fake time, agents that answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from roost.cloud.contact import LATE, LOST, RETURN
from roost.model import time
from roost.model.configuration import HOST_CONFIGURATION, HostConfiguration
from roost.model.fault import Alarm
from roost.model.host import HOST, AgentState, InterfaceAssignment, Reading
from roost.model.meta import Metadata
from roost.model.operation import Operation, OperationSpec
from roost.store.transaction import Transaction
from tests.cloud.site import WELL, Site, network, put_in_force, site
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD

DAY = 86400.0


@on_fake_time
async def test_from_declared_to_serving_to_lost_and_back() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await asyncio.sleep(1)
        assert await s.state() == ("locked", "disabled", "offline")
        await asyncio.sleep(100)
        assert await s.state() == ("locked", "disabled", "offline")
        assert await s.alarms() == {"200.001": "warning"}, "nothing is late that was never there"

        await s.join()
        await asyncio.sleep(1)
        assert await s.state() == ("locked", "disabled", "online")

        s.obeys.clear()
        await s.specify(administrative_state="unlocked", location="attic")
        await s.store.save(network("oam", "oam", "192.0.2.0/24"))
        await asyncio.sleep(5)
        assert await s.state() == ("locked", "disabled", "intest")
        assert (await s.host()).task == "unlock: configure"
        s.obeys.add("h")
        await put_in_force(s.store, "h")
        await asyncio.sleep(5)
        assert await s.state() == ("unlocked", "enabled", "available")
        assert await s.alarms() == {}
        assert (await s.host()).task == ""

        s.down("h")
        await asyncio.sleep(LATE - 0.5)
        assert await s.state() == ("unlocked", "enabled", "available")
        await asyncio.sleep(1)
        assert await s.state() == ("unlocked", "enabled", "degraded")
        assert await s.alarms() == {"200.005": "major"}
        await asyncio.sleep(LOST - LATE)
        assert await s.state() == ("unlocked", "disabled", "failed")
        assert await s.alarms() == {"200.005": "critical", "200.004": "critical"}
        s.up("h")
        await asyncio.sleep(1)
        assert await s.state() == ("unlocked", "enabled", "available")
        assert await s.alarms() == {}
        told = [(event, alarm) for event, alarm, _ in await s.events() if alarm]
        assert told == [
            ("alarm-set", "200.001"),
            ("alarm-clear", "200.001"),
            ("alarm-set", "200.005"),
            ("alarm-set", "200.005"),
            ("alarm-set", "200.004"),
            ("alarm-clear", "200.004"),
            ("alarm-clear", "200.005"),
        ]
        moves = [text for event, _, text in await s.events() if event == "host-availability"]
        assert moves == [
            "h was offline and is online.",
            "h was online and is intest.",
            "h was intest and is available.",
            "h was available and is degraded.",
            "h was degraded and is failed.",
            "h was failed and is available.",
        ]


@on_fake_time
async def test_a_short_cut_changes_nothing() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        revision = s.store.revision
        for _ in range(5):
            s.down("h")
            await asyncio.sleep(LATE - 0.5)
            s.up("h")
            await asyncio.sleep(20)
        assert s.store.revision == revision


@on_fake_time
async def test_a_restart_changes_nothing_for_hosts_that_are_there_and_hosts_that_are_lost() -> None:
    async with site() as s:
        s.work()
        await s.unlocked("here")
        await s.unlocked("gone")
        await s.declare("never")
        s.down("gone")
        await asyncio.sleep(60)
        alarms, states = await s.alarms(), [await s.state(n) for n in ("here", "gone", "never")]
        assert states[1] == ("unlocked", "disabled", "failed")
        revision = s.store.revision
        for _ in range(3):
            await s.stop()
            await asyncio.sleep(30)
            s.work()
            await asyncio.sleep(RETURN - 5)
            s.up("here")
            await asyncio.sleep(300)
            assert [await s.state(n) for n in ("here", "gone", "never")] == states
            assert await s.alarms() == alarms
        assert s.store.revision == revision, "a restart wrote something"


@on_fake_time
async def test_a_host_that_does_not_return_after_a_restart_is_lost() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        await s.stop()
        s.work()
        await asyncio.sleep(RETURN + 1)
        assert await s.state() == ("unlocked", "disabled", "failed")
        assert await s.alarms() == {"200.005": "critical", "200.004": "critical"}


@on_fake_time
async def test_a_host_found_again_after_a_restart_has_its_alarms_cleared() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        s.down("h")
        await asyncio.sleep(60)
        await s.stop()
        s.work()
        await asyncio.sleep(5)
        s.up("h")
        await asyncio.sleep(2)
        assert await s.state() == ("unlocked", "enabled", "available")
        assert await s.alarms() == {}


@pytest.mark.parametrize("jump", [DAY, -DAY])
@on_fake_time
async def test_setting_the_clock_neither_loses_nor_invents_alarms(jump: float) -> None:
    async with site() as s:
        s.work()
        await s.unlocked("here")
        await s.unlocked("gone")
        s.down("gone")
        await asyncio.sleep(60)
        alarms, events = await s.alarms(), await s.events()
        for _ in range(3):
            s.clock.jump(jump)
            await s.tell("here", inventory_observed_at=time.stamp(s.clock()))
            await s.tell("gone", inventory_observed_at=time.stamp(s.clock()))
            await asyncio.sleep(300)
            assert await s.alarms() == alarms
            assert await s.state("here") == ("unlocked", "enabled", "available")
            assert await s.state("gone") == ("unlocked", "disabled", "failed")
        assert await s.events() == events
        s.down("here")
        s.clock.jump(jump)
        await asyncio.sleep(LATE - 1)
        assert await s.state("here") == ("unlocked", "enabled", "available"), "a jump is no silence"
        await asyncio.sleep(LOST)
        assert await s.state("here") == ("unlocked", "disabled", "failed"), "a jump does not hide silence"


@on_fake_time
async def test_readings_raise_and_clear_and_unknown_does_neither() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        await s.store.save(network("mgmt", "mgmt", "198.51.100.0/24"))
        await s.specify(interfaces=[InterfaceAssignment(port="eth1", networks=["mgmt"])])

        def readings(processor: str, memory: str, disk: str, port: str) -> list[Reading]:
            return [
                Reading(monitor="processor", level=processor),  # type: ignore[arg-type]
                Reading(monitor="memory", level=memory),  # type: ignore[arg-type]
                Reading(monitor="filesystem", instance="/var", level=disk),  # type: ignore[arg-type]
                Reading(monitor="port", instance="eth1", level=port),  # type: ignore[arg-type]
                Reading(monitor="port", instance="eth9", level="major"),
            ]

        await s.tell(readings=readings("critical", "major", "minor", "major"))
        await asyncio.sleep(60)
        assert await s.alarms() == {"100.101": "critical", "100.103": "major", "100.108": "major"}
        assert (await s.state())[2] == "degraded"
        await s.tell(readings=readings("unknown", "normal", "unknown", "unknown"))
        await asyncio.sleep(1)
        assert await s.alarms() == {"100.101": "critical", "100.108": "major"}
        stale = {a.status.alarm_id: bool(a.status.stale_since) for a in await s.store.every(Alarm)}
        assert stale == {"100.101": True, "100.108": True}
        await s.tell(readings=readings("unknown", "unknown", "unknown", "unknown"))
        await asyncio.sleep(1)
        assert set(await s.alarms()) == {"100.101", "100.108"}, "unknown does not raise"
        await s.tell(readings=WELL)
        await asyncio.sleep(1)
        assert await s.alarms() == {}
        assert (await s.state())[2] == "available"


@on_fake_time
async def test_a_lost_hosts_readings_are_stale_and_kept() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        await s.tell(readings=[Reading(monitor="memory", level="major")])
        await asyncio.sleep(1)
        s.down("h")
        await asyncio.sleep(60)
        assert await s.alarms() == {"100.103": "major", "200.005": "critical", "200.004": "critical"}
        s.up("h")
        await s.tell(readings=WELL)
        await asyncio.sleep(1)
        assert await s.alarms() == {}


@on_fake_time
async def test_a_network_that_changes_its_type_changes_the_alarm_of_its_port() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        await s.store.save(network("net", "mgmt", "192.0.2.0/24"))
        await s.tell(readings=[Reading(monitor="port", instance="eth0", level="major")])
        await asyncio.sleep(1)
        assert await s.alarms() == {"100.108": "major"}
        current = await s.store.load(type(network("net", "oam", "192.0.2.0/24")), CLOUD, "net")
        await s.store.save(msgspec.structs.replace(current, spec=network("net", "oam", "192.0.2.0/24").spec))
        await asyncio.sleep(1)
        assert await s.alarms() == {"100.106": "major"}


@on_fake_time
async def test_a_configuration_is_late_only_while_its_host_answers() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        s.obeys.clear()
        await s.reconfigure(7)
        await asyncio.sleep(29)
        assert await s.alarms() == {}
        await asyncio.sleep(2)
        assert await s.alarms() == {"250.001": "major"}
        await put_in_force(s.store, "h")
        await asyncio.sleep(1)
        assert await s.alarms() == {}

        s.down("h")
        await asyncio.sleep(60)
        await s.reconfigure(8)
        await asyncio.sleep(600)
        assert "250.001" not in await s.alarms(), "a host that is lost can't put anything in force"
        s.up("h")
        await asyncio.sleep(29)
        assert await s.alarms() == {}, "it has just come back"
        await asyncio.sleep(2)
        assert await s.alarms() == {"250.001": "major"}
        s.down("h")
        await asyncio.sleep(60)
        stale = {a.status.alarm_id: bool(a.status.stale_since) for a in await s.store.every(Alarm)}
        assert stale == {"250.001": True, "200.004": False, "200.005": False}


@pytest.mark.parametrize("jump", [DAY, -DAY])
@on_fake_time
async def test_setting_the_clock_does_not_hide_a_late_configuration(jump: float) -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        s.obeys.clear()
        await s.reconfigure(7)
        await asyncio.sleep(5)
        s.clock.jump(jump)
        await asyncio.sleep(120)
        assert await s.alarms() == {"250.001": "major"}
        await put_in_force(s.store, "h")
        await asyncio.sleep(1)
        assert await s.alarms() == {}


@on_fake_time
async def test_what_could_not_be_put_in_force_is_told_at_once() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        s.obeys.clear()
        await s.store.save(network("oam", "oam", "192.0.2.0/24"))
        await asyncio.sleep(1)
        await put_in_force(
            s.store, "h", aspect="firewall", state="rolled-back", message="the link did not return"
        )
        await asyncio.sleep(1)
        (alarm,) = await s.store.every(Alarm)
        assert (alarm.status.alarm_id, alarm.status.severity) == ("250.001", "major")
        assert alarm.status.reason == "firewall rolled-back: the link did not return"


@on_fake_time
async def test_certificates_speak_up_in_time() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        end = time.seconds(s.clock() + timedelta(days=14, hours=6))
        await s.tell(agent=AgentState(boot_id="boot-1", certificate_expires_at=end))
        await asyncio.sleep(5 * 3600)
        assert await s.alarms() == {}
        # A little more: the hourly look is due at this very instant.
        await asyncio.sleep(2 * 3600 + 1)
        assert await s.alarms() == {"500.200": "major"}
        s.clock.jump(14 * DAY)
        await asyncio.sleep(3700)
        assert await s.alarms() == {"500.210": "critical"}
        renewed = time.seconds(s.clock() + timedelta(days=90))
        await s.tell(agent=AgentState(boot_id="boot-1", certificate_expires_at=renewed))
        await asyncio.sleep(1)
        assert await s.alarms() == {}


@on_fake_time
async def test_a_wish_taken_back_stops_what_was_begun() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await asyncio.sleep(1)
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(5)
        assert (await s.host()).task == "unlock: check"
        await s.specify(administrative_state="locked")
        await asyncio.sleep(5)
        await s.join()
        await asyncio.sleep(600)
        assert await s.state() == ("locked", "disabled", "online")
        (operation,) = await s.store.every(Operation)
        assert operation.status.state == "failed" and "now wants h locked" in operation.status.message
        assert not [e for e in await s.events() if e[0] == "host-unlocked"], "it was never in service"


@on_fake_time
async def test_lock_and_unlock_toggled_quickly_ends_as_last_wanted() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        for wish in ("locked", "unlocked", "locked", "unlocked", "locked"):
            await s.specify(administrative_state=wish)
            await asyncio.sleep(0.3)
        await asyncio.sleep(60)
        assert await s.state() == ("locked", "disabled", "online")
        for wish in ("unlocked", "locked", "unlocked"):
            await s.specify(administrative_state=wish)
        await asyncio.sleep(120)
        assert await s.state() == ("unlocked", "enabled", "available")
        assert await s.alarms() == {}


@on_fake_time
async def test_an_unlock_that_fails_is_tried_again_by_itself() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(310)
        status = await s.host()
        (condition,) = [c for c in status.conditions if c.type == "Settled"]
        assert condition.reason == "OperationFailed" and "does not answer" in condition.message
        await s.join()
        await asyncio.sleep(40)
        assert await s.state() == ("unlocked", "enabled", "available")
        names = [o.metadata.name for o in await s.store.every(Operation)]
        assert [n.rsplit("-", 1)[1] for n in names] == ["1", "2"]


async def reboot(s: Site, name: str = "again") -> None:
    spec = OperationSpec(action="reboot", host="h")
    await s.store.save(Operation(metadata=Metadata(name=name, namespace=CLOUD), spec=spec))


@on_fake_time
async def test_a_reboot_restarts_the_host_once() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join()
        await asyncio.sleep(1)
        await reboot(s)
        await asyncio.sleep(30)
        operation = await s.store.load(Operation, CLOUD, "again")
        assert operation.status.state == "succeeded"
        assert s.boots["h"] == 2
        await reboot(s, "third")
        await asyncio.sleep(30)
        assert s.boots["h"] == 3


@on_fake_time
async def test_a_reboot_whose_record_was_lost_does_not_restart_the_host_twice() -> None:
    """The command went out and was obeyed, then the process died before it wrote that the step is done."""
    async with site() as s:
        s.work()
        await s.declare()
        await s.join()
        await asyncio.sleep(1)
        s.obeys.clear()
        await reboot(s)
        await asyncio.sleep(3)
        operation = await s.store.load(Operation, CLOUD, "again")
        assert [x.state for x in operation.status.steps] == ["succeeded", "succeeded", "running"]
        await s.stop()

        def forget(tx: object) -> None:
            tx.wrote = True  # type: ignore[attr-defined]
            tx.connection.exec_driver_sql(  # type: ignore[attr-defined]
                "UPDATE steps SET state = 'pending', holder = '', lease_until = 0 WHERE number = 1"
            )

        await s.store.transact(forget)
        s.boots["h"] = 2
        s.work("two")
        await s.join()
        await asyncio.sleep(120)
        assert s.boots["h"] == 2
        assert (await s.store.load(Operation, CLOUD, "again")).status.state == "succeeded"


@on_fake_time
async def test_a_restart_is_not_waited_for_at_a_host_that_was_never_told() -> None:
    """The host was deleted and declared anew while nobody looked at the operation."""
    async with site() as s:
        s.work()
        await s.declare()
        await s.join()
        await asyncio.sleep(1)
        s.obeys.clear()
        await reboot(s)
        await asyncio.sleep(3)
        await s.stop()

        def replace(tx: Transaction) -> None:
            for kind in (HOST_CONFIGURATION.kind, HOST.kind):
                tx.drop(kind, CLOUD, "h")

        await s.store.transact(replace)
        await s.declare()
        s.work("two")
        await s.join()
        await asyncio.sleep(120)
        status = (await s.store.load(Operation, CLOUD, "again")).status
        assert status.state == "failed" and "declared anew" in status.message


@on_fake_time
async def test_the_wish_may_change_while_a_reboot_runs() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join()
        await asyncio.sleep(1)
        await reboot(s)
        await asyncio.sleep(2)
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(60)
        assert s.boots["h"] == 2
        assert await s.state() == ("unlocked", "enabled", "available")


@on_fake_time
async def test_a_host_that_is_deleted_leaves_nothing_behind() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join()
        await asyncio.sleep(10)
        assert await s.alarms() == {"200.001": "warning"}
        assert len(await s.store.every(HostConfiguration)) == 1
        await s.store.transact(lambda tx: tx.remove("Host", CLOUD, "h"))
        await asyncio.sleep(10)
        assert await s.alarms() == {}
        assert await s.store.every(HostConfiguration) == []


@on_fake_time
async def test_a_host_declared_again_lives_again() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        await s.specify(administrative_state="locked")
        await asyncio.sleep(10)
        await s.store.transact(lambda tx: tx.remove("Host", CLOUD, "h"))
        await asyncio.sleep(2)
        await s.declare()
        await s.join()
        await asyncio.sleep(1)
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(120)
        assert await s.state() == ("unlocked", "enabled", "available")


@on_fake_time
async def test_an_alarm_removed_by_hand_comes_back_while_its_cause_is_there() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join()
        await asyncio.sleep(1)
        await s.store.transact(lambda tx: tx.remove("Alarm", CLOUD, "host.h.200.001"))
        await asyncio.sleep(1)
        assert await s.alarms() == {"200.001": "warning"}
