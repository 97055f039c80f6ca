"""The health of hosts in their cloud: in test, failed, recovered so often, degraded, back after silence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roost.cloud.examination import ASKED_SECONDS, EXAMINATION_SECONDS
from roost.cloud.recovery import LONGEST_PAUSE, STEADY_SECONDS
from roost.model import time
from roost.model.configuration import HostConfiguration
from roost.model.fault import Alarm
from roost.model.health import CheckReport, CheckResult, RecoveryCount, RecoveryPolicy
from roost.model.host import AgentState, Reading
from roost.model.meta import Condition
from roost.model.operation import Operation
from tests.cloud.site import Site, site
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD

KNOWS: dict[str, Any] = {"health": CheckReport(), "drain": CheckReport()}
SERVES = ("unlocked", "enabled", "available")
BAD = CheckResult(name="50-raid", state="failed", message="exit code 2; its last line: md0 is degraded")


async def told(s: Site, type: str) -> Condition:
    return next(c for c in (await s.host()).conditions if c.type == type)


async def count(s: Site, cause: str = "health") -> RecoveryCount | None:
    return next((c for c in (await s.host()).recovery.counts if c.cause == cause), None)


async def reboot(s: Site, gone: float = 30.0) -> None:
    """The machine restarts by itself."""
    s.down("h")
    s.boots["h"] += 1
    await asyncio.sleep(gone)
    await s.join(**KNOWS)


async def configuration(s: Site) -> HostConfiguration:
    return await s.store.load(HostConfiguration, CLOUD, "h")


@on_fake_time
async def test_an_unlock_waits_for_the_checks_and_says_which_one_it_waits_for() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join(**KNOWS)
        s.ill["h"] = CheckResult(name="50-raid", state="running")
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(10)
        assert await s.state() == ("locked", "disabled", "intest")
        (operation,) = await s.store.every(Operation)
        assert operation.status.message == "Waiting for the host's checks: 0 of 1 have passed; 50-raid runs"
        assert [x.name for x in operation.status.steps] == ["check", "configure", "test", "enable"]
        del s.ill["h"]
        await s.tell(health=CheckReport())
        await s.look()
        await asyncio.sleep(5)
        assert await s.state() == SERVES
        assert (await told(s, "Healthy")).reason == "ChecksPassed"
        assert (await s.host()).fit_boot == "boot-1"


@on_fake_time
async def test_an_unlock_whose_check_fails_names_it_and_is_given_up_after_so_many_tries() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join(**KNOWS)
        s.ill["h"] = BAD
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(10)
        (operation,) = await s.store.every(Operation)
        assert operation.status.state == "failed"
        assert "50-raid failed: exit code 2; its last line: md0 is degraded" in operation.status.message
        await asyncio.sleep(6 * 3600)
        assert len(await s.store.every(Operation)) == 5 == len(s.looks)
        assert (await told(s, "Settled")).reason == "RecoveryOff"
        assert (await s.alarms())["200.004"] == "critical"
        revision = s.store.revision
        await asyncio.sleep(24 * 3600)
        assert s.store.revision == revision, "it rests until people look"
        s.ill.clear()
        await s.specify(recovery_round=1)
        await asyncio.sleep(10)
        assert await s.state() == SERVES and await s.alarms() == {}


@on_fake_time
async def test_an_old_verdict_is_not_taken_for_a_new_one() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join(**KNOWS)
        s.obeys.clear()
        await s.tell(health=CheckReport(request="unlock-h-1-1", boot_id="boot-1", state="passed"))
        await s.specify(administrative_state="unlocked")
        s.obeys.clear()
        await asyncio.sleep(60)
        assert (await s.state())[0] == "locked", "neither the request nor the start is the one asked for"
        request = (await configuration(s)).spec.health
        if request is not None:
            await s.tell(health=CheckReport(request=request.id, boot_id="boot-0", state="passed"))
            await asyncio.sleep(20)
            assert (await s.state())[0] == "locked", "this is of another start"


@on_fake_time
async def test_a_return_in_the_same_start_is_graceful() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        looks, boots = len(s.looks), dict(s.boots)
        s.down("h")
        await asyncio.sleep(600)
        assert await s.state() == ("unlocked", "disabled", "failed")
        assert (await told(s, "Healthy")).reason == "NotHeard"
        s.up("h")
        await s.look()
        await asyncio.sleep(1)
        assert await s.state() == SERVES and await s.alarms() == {}
        assert len(s.looks) == looks + 1, "its health is looked at again"
        assert s.boots == boots and not (await configuration(s)).spec.reboot_from
        beats = await count(s, "heartbeat")
        assert beats is not None and beats.tries == 1
        moves = [text for event, _, text in await s.events() if event == "host-availability"]
        assert moves[-1] in ("h was failed and is available.", "h was intest and is available.")


@on_fake_time
async def test_a_return_serves_again_while_it_is_looked_at_but_not_before_its_first_word() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        s.obeys.clear()
        s.down("h")
        await asyncio.sleep(60)
        s.up("h")
        await asyncio.sleep(5)
        assert await s.state() == ("unlocked", "disabled", "intest"), "what is known may be of another start"
        request = (await configuration(s)).spec.health
        assert request is not None and request.id.startswith("silence-")
        await s.tell(health=CheckReport(request=request.id, boot_id="boot-1", state="running"))
        await asyncio.sleep(1)
        assert await s.state() == SERVES, "nothing was restarted: it serves while it is looked at"
        assert (await told(s, "Healthy")).reason == "LookedAtAgain"
        ill = CheckReport(request=request.id, boot_id="boot-1", state="failed", checks=[BAD])
        await s.tell(health=ill)
        await asyncio.sleep(1)
        assert await s.state() == ("unlocked", "enabled", "degraded"), "a host that serves is not taken out"
        assert await s.alarms() == {"200.201": "major"}


@pytest.mark.parametrize("gone", [2.0, 6.0, 60.0])
@on_fake_time
async def test_a_return_after_a_restart_goes_through_the_test(gone: float) -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        s.ill["h"] = CheckResult(name="50-raid", state="running")
        await reboot(s, gone)
        await asyncio.sleep(1)
        assert await s.state() == ("unlocked", "disabled", "intest")
        assert (await s.host()).task == "in test: 50-raid"
        condition = await told(s, "Healthy")
        assert condition.reason == "InTest" and "50-raid" in condition.message
        await asyncio.sleep(60)
        assert (await s.state())[2] == "intest"
        del s.ill["h"]
        await s.tell(health=CheckReport())
        await s.look()
        await asyncio.sleep(1)
        assert await s.state() == SERVES and await s.alarms() == {}


@on_fake_time
async def test_checks_that_never_end_have_failed_and_an_end_mends_it() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        s.ill["h"] = CheckResult(name="50-raid", state="running")
        await s.specify(recovery=RecoveryPolicy(tries=0))
        await reboot(s)
        await asyncio.sleep(EXAMINATION_SECONDS + 5)
        assert await s.state() == ("unlocked", "disabled", "failed")
        condition = await told(s, "Healthy")
        assert "did not end in time, it is at 50-raid" in condition.message
        assert "recovery is off after 0 tries" in condition.message
        assert set(await s.alarms()) == {"200.004", "200.201"}
        del s.ill["h"]
        await s.tell(health=CheckReport())
        await s.look()
        await asyncio.sleep(1)
        assert await s.state() == SERVES and await s.alarms() == {}


@on_fake_time
async def test_an_agent_that_does_not_begin_has_failed() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        s.obeys.clear()
        s.down("h")
        await asyncio.sleep(60)
        s.up("h")
        await asyncio.sleep(ASKED_SECONDS + 2)
        assert await s.state() == ("unlocked", "disabled", "failed")
        assert "it has not begun" in (await told(s, "Healthy")).message


@on_fake_time
async def test_a_failed_host_is_recovered_so_often_and_then_stays_failed() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        s.ill["h"] = BAD
        await reboot(s)
        await asyncio.sleep(5)
        assert await s.state() == ("unlocked", "disabled", "failed")
        first = await count(s)
        assert first is not None and (first.tries, first.limit, bool(first.next_at)) == (0, 3, True)
        (alarm,) = [a for a in await s.store.every(Alarm) if a.status.alarm_id == "200.004"]
        assert "50-raid failed: exit code 2" in alarm.status.reason
        assert "goes on at" in alarm.status.reason and "try 1 of 3" in alarm.status.reason
        looks = len(s.looks)
        await asyncio.sleep(3600)
        last = await count(s)
        assert last is not None and (last.tries, last.off, last.restarts) == (3, True, 0)
        assert len(s.looks) == looks + 3
        assert s.boots["h"] == 2, "nobody allowed restarts"
        (alarm,) = [a for a in await s.store.every(Alarm) if a.status.alarm_id == "200.004"]
        assert "Automatic recovery is off after 3 tries" in alarm.status.reason
        assert "roost host recover h" in alarm.status.reason
        revision = s.store.revision
        await asyncio.sleep(24 * 3600)
        assert s.store.revision == revision and len(s.looks) == looks + 3

        await s.specify(recovery_round=1)
        await asyncio.sleep(2)
        assert len(s.looks) == looks + 4, "people asked for it: at once"
        s.ill.clear()
        await asyncio.sleep(200)
        assert await s.state() == SERVES and await s.alarms() == {}
        assert await count(s) is not None
        await asyncio.sleep(STEADY_SECONDS + 1)
        assert await count(s) is None, "after a time of health all tries are there again"


@on_fake_time
async def test_a_restart_loop_is_impossible_also_when_controllers_restart() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        await s.specify(recovery=RecoveryPolicy(tries=2, restarts=2))
        s.ill["h"] = BAD
        await reboot(s)
        for _ in range(200):
            await asyncio.sleep(67)
            await s.stop()
            s.work()
            if s.boots["h"] > 1:
                s.up("h")
            await s.look()
        await asyncio.sleep(4 * LONGEST_PAUSE)
        assert s.boots["h"] == 2 + 2, "its own restart, and the two that are allowed"
        last = await count(s)
        assert last is not None and (last.tries, last.restarts, last.off) == (2, 2, True)
        assert await s.state() == ("unlocked", "disabled", "failed")
        restarts = [e for e in await s.events() if e[0] == "host-recovery-restart"]
        assert len(restarts) == 2


@on_fake_time
async def test_a_host_that_serves_is_never_restarted_whatever_its_checks_say() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        await s.specify(recovery=RecoveryPolicy(tries=1, restarts=5))
        s.ill["h"] = BAD
        s.down("h")
        await asyncio.sleep(60)
        s.up("h")
        await s.look()
        await asyncio.sleep(1)
        assert await s.state() == ("unlocked", "enabled", "degraded")
        looks = len(s.looks)
        await asyncio.sleep(24 * 3600)
        assert s.boots["h"] == 1 and await s.state() == ("unlocked", "enabled", "degraded")
        assert 40 < len(s.looks) - looks < 60, "it is looked at again with the longest pause"
        s.ill.clear()
        await asyncio.sleep(LONGEST_PAUSE + 5)
        assert await s.state() == SERVES and await s.alarms() == {}


@on_fake_time
async def test_the_cause_of_a_failure_has_its_own_count_and_alarm() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        s.ill["h"] = CheckResult(name="configuration", state="failed", message="firewall rolled-back")
        await reboot(s)
        await asyncio.sleep(5)
        assert set(await s.alarms()) == {"200.011", "200.201"}
        made = await count(s, "configuration")
        assert made is not None and await count(s, "health") is None


@on_fake_time
async def test_reasons_to_be_degraded_add_up() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        assert (await s.host()).degraded == []
        memory = Reading(monitor="memory", level="critical", message="memory use is 95 percent")
        disk = Reading(monitor="filesystem", instance="/var", level="critical", message="/var is full")
        for readings, names in (
            ([memory], ["MemoryUse"]),
            ([memory, disk], ["FileSystemUse", "MemoryUse"]),
            ([disk], ["FileSystemUse"]),
        ):
            await s.tell(readings=readings)
            await asyncio.sleep(1)
            status = await s.host()
            assert status.availability == "degraded"
            assert [r.reason for r in status.degraded] == names
            alarms = {a.metadata.name for a in await s.store.every(Alarm)}
            assert {r.alarm for r in status.degraded} <= alarms and all(r.message for r in status.degraded)
        s.down("h")
        await asyncio.sleep(5)
        reasons = [r.reason for r in (await s.host()).degraded]
        assert reasons == ["HeartbeatMissing"], "what can't be observed now is not held against it"
        s.up("h")
        await s.tell(readings=[Reading(monitor="memory", level="normal")])
        await asyncio.sleep(1)
        assert (await s.host()).degraded == [] and await s.state() == SERVES


@on_fake_time
async def test_an_agent_without_checks_serves_as_before_and_one_that_learns_them_goes_on_serving() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        s.down("h")
        await asyncio.sleep(60)
        s.up("h")
        await asyncio.sleep(1)
        assert await s.state() == SERVES and s.looks == []
        states = set()
        await s.tell(agent=AgentState(boot_id="boot-1", version="2"), **KNOWS)
        for _ in range(20):
            await asyncio.sleep(0.1)
            states.add(await s.state())
        assert states == {SERVES} and s.looks == ["first"]


@on_fake_time
async def test_a_lock_waits_for_workloads_and_gives_up_in_time() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        s.staying["h"] = "3 pods are left"
        await s.specify(administrative_state="locked", drain_seconds=120)
        await asyncio.sleep(60)
        assert await s.state() == SERVES, "it serves until all has left"
        lock = max(await s.store.every(Operation), key=lambda o: o.status.started_at)
        assert lock.status.steps[0].state == "running"
        assert "50-move: 3 pods are left" in lock.status.message and "--force h" in lock.status.message
        await asyncio.sleep(65)
        lock = await s.store.load(Operation, CLOUD, lock.metadata.name)
        assert lock.status.state == "failed" and "gave up after 120 seconds" in lock.status.message
        await asyncio.sleep(1)
        assert (await configuration(s)).spec.drain is None, "nobody wants it any more"
        del s.staying["h"]
        await asyncio.sleep(60)
        assert (await s.state())[0] == "locked", "the next try finds that all has left"
        assert (await configuration(s)).spec.drain is None


@on_fake_time
async def test_a_lock_by_force_overtakes_one_that_waits() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        s.staying["h"] = "a pod"
        await s.specify(administrative_state="locked")
        await asyncio.sleep(30)
        assert await s.state() == SERVES
        await s.specify(force_lock=True)
        await asyncio.sleep(5)
        assert (await s.state())[0] == "locked"
        await asyncio.sleep(1)
        assert (await configuration(s)).spec.drain is None


@on_fake_time
async def test_a_lock_of_a_host_that_is_lost_meanwhile_does_not_wait_for_it() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        s.staying["h"] = "a pod"
        await s.specify(administrative_state="locked")
        await asyncio.sleep(10)
        s.down("h")
        await asyncio.sleep(15)
        assert await s.state() == ("locked", "disabled", "offline")


@on_fake_time
async def test_the_deadline_of_a_lock_that_waits_is_shown() -> None:
    async with site() as s:
        s.work()
        await s.unlocked(**KNOWS)
        s.staying["h"] = "a pod"
        await s.specify(administrative_state="locked", drain_seconds=100)
        await asyncio.sleep(5)
        lock = max(await s.store.every(Operation), key=lambda o: o.status.started_at)
        step = lock.status.steps[0]
        waits = (time.parse(step.deadline) - time.parse(step.started_at)).total_seconds()
        assert 99 <= waits <= 101
