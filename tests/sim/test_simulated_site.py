"""Simulated machines and small fleets on a fake clock, and whether the checker sees what is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from roost.engine.clock import LoopClock
from roost.host.machine import RestartFailed
from roost.model.fault import Alarm
from roost.model.host import Host
from roost.model.meta import Metadata
from roost.model.operation import Operation, OperationSpec
from roost.sim.checking import differences, unsettled
from roost.sim.fleet import NotSettled, SimulatedFleet
from roost.sim.inventory import inventory
from roost.sim.machine import Load, SimulatedMachine
from roost.sim.subcloud import SimulatedSubcloud, SitePlan
from roost.store.transaction import Transaction
from tests.support.clock import START, on_fake_time

IN_MEMORY = SitePlan(memory=True, hosts=2)


def fleet_of(count: int, directory: Path, plan: SitePlan = IN_MEMORY) -> SimulatedFleet:
    """A fleet in which nothing but the loop's own time passes."""
    return SimulatedFleet(directory, count, plan=plan, clock=LoopClock(START), inline=True)


async def settled(fleet: SimulatedFleet) -> None:
    """All online, in sync and alike."""

    async def agree() -> str:
        return await fleet.all_in_step() or "; ".join((await differences(fleet))[:10])

    await fleet.until(fleet.all_online, 120, "online")
    await fleet.until(fleet.all_in_sync, 120, "in sync")
    await fleet.until(agree, 120, "alike")


async def entities(site: SimulatedSubcloud, alarm_id: str) -> set[str]:
    alarms = await site.cloud.store.every(Alarm)
    return {a.status.entity for a in alarms if a.status.alarm_id == alarm_id}


def test_a_seed_makes_the_same_machine_again_and_another_seed_another() -> None:
    addresses = {"eth0": "10.0.0.10/24", "eth1": "10.0.1.10/24"}
    one = inventory("a", "controller-0", addresses)
    assert one == inventory("a", "controller-0", addresses)
    assert one != inventory("b", "controller-0", addresses)
    assert [p.addresses for p in one.ports] == [["10.0.0.10/24"], ["10.0.1.10/24"]]
    assert one.processors.threads == len(one.processors.logical)


async def test_a_restart_changes_the_boot_id_unless_it_is_refused() -> None:
    machine = SimulatedMachine("a", "controller-0", {})
    began: list[str] = []
    machine.when_restarted(lambda: began.append(machine.boot_id))
    first = machine.boot_id
    machine.refuses_restart = "its BMC does not answer"
    with pytest.raises(RestartFailed, match="BMC"):
        await machine.restart()
    assert (machine.boot_id, machine.restarts, began) == (first, 0, [])
    machine.refuses_restart = ""
    await machine.restart()
    assert machine.boot_id != first
    assert began == [machine.boot_id]


@on_fake_time
async def test_a_small_fleet_lives_six_hours_and_writes_nothing_in_it(tmp_path: Path) -> None:
    async with fleet_of(3, tmp_path) as fleet:
        await fleet.share_policy("base", ["22"])
        await settled(fleet)
        await asyncio.sleep(60)
        stores = [fleet.centre.store, *(s.cloud.store for s in fleet.sites)]
        before = [s.revision for s in stores]
        await asyncio.sleep(6 * 3600)
        assert [s.revision for s in stores] == before
        assert await unsettled(fleet.centre) == []


@on_fake_time
async def test_a_reboot_through_the_cloud_restarts_the_machine_once(tmp_path: Path) -> None:
    async with fleet_of(1, tmp_path) as fleet:
        await settled(fleet)
        site = fleet.sites[0]
        machine = site.hosts[1].machine
        boot = machine.boot_id
        reboot = Operation(
            metadata=Metadata(name="reboot-now", namespace=site.name),
            spec=OperationSpec(action="reboot", host="controller-1"),
        )
        await site.cloud.store.save(reboot)

        async def done() -> str:
            found = await site.cloud.store.load(Operation, site.name, "reboot-now")
            return "" if found.status.state == "succeeded" else found.status.message or "not begun"

        await fleet.until(done, 300, "the host has restarted")
        await settled(fleet)
        assert machine.restarts == 1
        host = await fleet.centre.store.load(Host, site.name, "controller-1")
        assert boot != host.status.agent.boot_id == machine.boot_id


@on_fake_time
async def test_an_aspect_that_fails_is_an_alarm_until_it_works(tmp_path: Path) -> None:
    async with fleet_of(2, tmp_path) as fleet:
        await settled(fleet)
        site = fleet.sites[0]
        site.hosts[0].machine.firewall.failure = "the kernel has no tables"
        await fleet.share_policy("base", ["22"])

        async def raised() -> str:
            return "" if await entities(site, "250.001") else "no alarm yet"

        await fleet.until(raised, 60, "the host can't put its configuration in force")
        with pytest.raises(NotSettled, match=site.name):
            await fleet.until(fleet.all_in_sync, 5, "in sync")
        site.hosts[0].machine.firewall.failure = ""
        await settled(fleet)
        assert await entities(site, "250.001") == set()


@on_fake_time
async def test_load_is_an_alarm_at_the_site_and_at_the_centre(tmp_path: Path) -> None:
    async with fleet_of(1, tmp_path) as fleet:
        await settled(fleet)
        site = fleet.sites[0]
        site.hosts[1].machine.load = Load(memory=97.0)

        async def at_centre() -> str:
            alarms = await fleet.centre.store.every(Alarm, site.name)
            return "" if any(a.status.alarm_id == "100.103" for a in alarms) else "no alarm yet"

        await fleet.until(at_centre, 60, "the centre knows")
        assert await entities(site, "100.103") == {"host=controller-1"}
        site.hosts[1].machine.load = Load()

        async def cleared() -> str:
            return ", ".join(await entities(site, "100.103"))

        await fleet.until(cleared, 60, "it is over")
        await settled(fleet)


@on_fake_time
async def test_the_checker_sees_what_was_tampered_with(tmp_path: Path) -> None:
    async with fleet_of(2, tmp_path, SitePlan(memory=True)) as fleet:
        await fleet.share_policy("base", ["22"])
        await settled(fleet)
        site = fleet.sites[1]
        site.cut()
        await fleet.until(fleet.all_online, 60, "cut")
        assert await differences(fleet) == [], "over links that are whole"

        def tamper(tx: Transaction) -> None:
            entries = tx.select("LogEntry", site.name)
            tx.drop("LogEntry", site.name, entries[0].name)
            host = tx.get("Host", site.name, "controller-0")
            status = {**host.raw["status"], "task": "another"}
            tx.copy({**msgspec.json.decode(host.data), "status": status}, host.origin)

        await fleet.centre.store.transact(tamper)
        found = await differences(fleet, through_cut=True)
        assert any("Host" in f and "differs" in f for f in found)
        assert any("LogEntry" in f and "missing" in f for f in found)

        def forget(tx: Transaction) -> None:
            tx.drop("LogEntry", site.name, tx.select("LogEntry", site.name, origin="")[0].name)
            for alarm in tx.select("Alarm", site.name):
                tx.drop("Alarm", site.name, alarm.name)

        await site.cloud.store.transact(forget)
        found = await differences(fleet)
        assert any("log entries were numbered" in f for f in found)
