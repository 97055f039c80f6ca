"""What the steps of lock, unlock and reboot wait for, and what ends them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from roost.cloud.certificates import CertificateController, Ends, faults
from roost.model import time
from roost.model.fault import Alarm
from roost.model.host import AgentState, Host, HostSpec, Reading
from roost.model.meta import Metadata
from roost.model.operation import Operation, OperationSpec
from roost.store.transaction import Transaction
from tests.cloud.site import Site, network, put_in_force, site
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD, world


async def newest(s: Site) -> tuple[str, str, str]:
    """State, step at work and message of the last operation."""
    operation = max(await s.store.every(Operation), key=lambda o: o.status.started_at)
    step = next((x.name for x in operation.status.steps if x.state in ("running", "failed")), "")
    return operation.status.state, step, operation.status.message


@on_fake_time
async def test_unlock_waits_for_monitors_that_find_nothing_critical() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join(readings=[])
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(10)
        assert await newest(s) == ("running", "test", "Waiting for the host's monitors.")
        await s.tell(
            readings=[Reading(monitor="memory", level="critical", message="memory is at 99 percent")]
        )
        await asyncio.sleep(10)
        state, step, message = await newest(s)
        assert (state, step) == ("running", "test") and "memory is at 99 percent" in message
        assert await s.state() == ("locked", "disabled", "intest")
        await s.tell(readings=[Reading(monitor="memory", level="major")])
        await asyncio.sleep(10)
        assert await s.state() == ("unlocked", "enabled", "available")


@on_fake_time
async def test_unlock_fails_when_the_configuration_can_not_be_put_in_force() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join()
        await asyncio.sleep(1)
        s.obeys.clear()
        await s.store.save(network("oam", "oam", "192.0.2.0/24"))
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(5)
        state, step, message = await newest(s)
        assert (state, step) == ("running", "configure") and "put configuration 2 in force" in message
        await put_in_force(s.store, "h", aspect="firewall", state="failed", message="nft said no")
        await asyncio.sleep(5)
        assert await newest(s) == (
            "failed",
            "configure",
            "The host could not put its firewall in force: nft said no",
        )
        assert (await s.state())[0] == "locked"


@on_fake_time
async def test_force_lock_asks_nothing_of_a_lost_host() -> None:
    async with site() as s:
        s.work()
        await s.unlocked()
        s.down("h")
        await asyncio.sleep(60)
        await s.specify(administrative_state="locked", force_lock=True)
        await asyncio.sleep(5)
        assert await s.state() == ("locked", "disabled", "offline")
        assert await s.alarms() == {"200.001": "warning"}
        names = [o.metadata.name for o in await s.store.every(Operation)]
        assert any(n.startswith("force-lock-h-") for n in names)


@on_fake_time
async def test_a_host_deleted_under_an_operation_ends_it() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(5)
        await s.store.transact(lambda tx: tx.remove("Host", CLOUD, "h"))
        await asyncio.sleep(5)
        assert await newest(s) == ("failed", "check", "host h is no longer there")


@on_fake_time
async def test_an_operation_ends_when_another_host_of_the_name_is_declared() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(5)

        def anew(tx: Transaction) -> None:
            tx.remove("Host", CLOUD, "h")
            metadata = Metadata(name="h", namespace=CLOUD)
            tx.save(Host(metadata=metadata, spec=HostSpec(administrative_state="unlocked")))

        await s.store.transact(anew)
        await asyncio.sleep(5)
        ends = {o.metadata.name: (o.status.state, o.status.message) for o in await s.store.every(Operation)}
        gone = "host h was deleted; another of its name is there now"
        assert ends["unlock-h-2-1"] == ("failed", gone)
        assert ends["unlock-h-1-1"][0] == "running"


@on_fake_time
async def test_a_reboot_waits_for_what_it_must_know_and_for_the_link() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join(agent=AgentState())
        await asyncio.sleep(1)
        spec = OperationSpec(action="reboot", host="h")
        await s.store.save(Operation(metadata=Metadata(name="again", namespace=CLOUD), spec=spec))
        await asyncio.sleep(5)
        state, step, message = await newest(s)
        assert (state, step) == ("running", "command") and "which start of the machine" in message
        s.obeys.clear()
        await s.tell(agent=AgentState(boot_id="boot-1"))
        await asyncio.sleep(5)
        assert (await newest(s))[2] == "Waiting for the host to go down and come back."
        s.down("h")
        await s.tell(agent=AgentState(boot_id="boot-2"))
        await asyncio.sleep(5)
        assert (await newest(s))[2] == "The host has started; waiting for its link."
        s.up("h")
        await asyncio.sleep(5)
        assert (await newest(s))[0] == "succeeded"


@on_fake_time
async def test_operations_go_on_after_a_restart_of_the_controllers() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.specify(administrative_state="unlocked")
        await asyncio.sleep(5)
        await s.stop()
        s.work("two")
        await asyncio.sleep(70)
        await s.join()
        await asyncio.sleep(10)
        assert await s.state() == ("unlocked", "enabled", "available")
        assert len(await s.store.every(Operation)) == 1, "the same operation went on"


@pytest.mark.parametrize(("days", "expected"), [(30, []), (13, ["500.200"]), (-1, ["500.210"])])
def test_a_clouds_own_certificates_are_watched(days: int, expected: list[str]) -> None:
    @on_fake_time
    async def look() -> None:
        async with world() as w:
            end = time.seconds(w.clock() + timedelta(days=days))
            ends = Ends(server=end, authority=time.seconds(w.clock() + timedelta(days=366)))
            w.start([CertificateController(CLOUD, lambda: ends)])
            await asyncio.sleep(2 * 3600)
            assert [a.status.alarm_id for a in await w.store.every(Alarm)] == expected

    look()


def test_an_authority_speaks_up_a_year_before_its_end_and_a_link_says_how_it_comes_back() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)

    def told(**days: float) -> list[tuple[str, str]]:
        far = {"server": 300.0, "authority": 3000.0, "link": 80.0} | days
        ends = {name: time.seconds(now + timedelta(days=left)) for name, left in far.items()}
        return [(f.alarm_id, f.reason) for f in faults(CLOUD, Ends(**ends), now)]

    assert told() == []
    assert [alarm for alarm, _ in told(authority=360.0)] == ["500.200"]
    assert [alarm for alarm, _ in told(authority=-1.0)] == ["500.210"]
    [(alarm, reason)] = told(link=-1.0)
    assert alarm == "500.210" and "renewed by itself when its holder comes back, until 2027-11-22" in reason
    [(_, reason)] = told(link=-366.0)
    assert "enrolled anew with a token" in reason
