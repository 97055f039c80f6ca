"""Two hundred subclouds in one process, over TLS: cut, changed on both sides, mended, and all agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.link.exchange import Unreachable
from roost.model.cloud import CLOUD, Cloud
from roost.model.fault import Alarm
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec, FirewallRule
from roost.model.host import HOST, Host
from roost.model.meta import Metadata
from roost.sim.checking import differences, unsettled
from roost.sim.fleet import CENTRE, Condition, SimulatedFleet
from roost.sim.machine import Load
from roost.sim.subcloud import SimulatedSubcloud, SitePlan

SUBCLOUDS = 200
PATIENCE = 100.0


async def alarms_at_centre(fleet: SimulatedFleet, alarm_id: str) -> set[str]:
    """Entities in trouble, with their cloud."""
    alarms = await fleet.centre.store.every(Alarm)
    return {f"{a.metadata.namespace}/{a.status.entity}" for a in alarms if a.status.alarm_id == alarm_id}


async def mirrored_hosts(fleet: SimulatedFleet) -> set[tuple[str, str]]:
    """Hosts of subclouds that the centre shows as available, with an inventory."""
    return {
        (h.metadata.namespace, h.metadata.name)
        for h in await fleet.centre.store.every(Host)
        if h.status.availability == "available" and h.status.inventory is not None
    }


def agreement(fleet: SimulatedFleet) -> Condition:
    """The condition that all stores agree over links that are whole."""

    async def agree() -> str:
        return await fleet.all_in_step() or "; ".join((await differences(fleet))[:10])

    return agree


async def declare_locally(site: SimulatedSubcloud) -> None:
    """What an operator of a site does while it is cut off."""
    rule = FirewallRule(action="allow", protocol="udp", ports=["123"])
    local = FirewallPolicy(
        metadata=Metadata(name="local-time", namespace=site.name),
        spec=FirewallPolicySpec(networks=["mgmt"], rules=[rule]),
    )
    await site.cloud.store.save(local)


@pytest.mark.timeout(600)
async def test_two_hundred_subclouds_converge_after_a_cut_of_half(tmp_path: Path) -> None:
    async with SimulatedFleet(tmp_path, SUBCLOUDS, plan=SitePlan(sample_seconds=2.0)) as fleet:
        await all_come_online(fleet)
        cut = fleet.sites[::2]
        await half_are_cut(fleet, cut)
        await both_sides_change(fleet, cut)
        for site in cut:
            site.mend()
        await all_settle(fleet, cut)


async def all_come_online(fleet: SimulatedFleet) -> None:
    await fleet.until(fleet.all_online, PATIENCE, "every subcloud is online")
    await fleet.share_policy("base", ["22"])
    await fleet.until(fleet.all_in_sync, PATIENCE, "the shared policy is in force")

    async def hosts() -> str:
        wanted = {(s.name, h.node.name) for s in fleet.sites for h in s.hosts}
        return ", ".join(map(str, sorted(wanted - await mirrored_hosts(fleet))[:5]))

    await fleet.until(hosts, PATIENCE, "every host is available and mirrored")
    await fleet.until(agreement(fleet), PATIENCE, "all stores agree")
    for site in fleet.sites:
        firewall = site.hosts[0].machine.firewall.in_force
        assert firewall is not None and firewall.firewall is not None
        ports = [p for n in firewall.firewall.networks for r in n.rules for p in r.ports]
        assert "22" in ports, f"{site.name} has the rule that was declared at the centre"
    status, body = await fleet.centre.ask(
        fleet.sites[-1].name, f"/apis/roost.edge/v1/namespaces/{fleet.sites[-1].name}/hosts"
    )
    assert status == 200 and b"controller-0" in body


async def half_are_cut(fleet: SimulatedFleet, cut: list[SimulatedSubcloud]) -> None:
    for site in cut:
        site.cut()
    await fleet.until(fleet.all_online, PATIENCE, "half are offline")

    async def told() -> str:
        wanted = {f"{CENTRE}/subcloud={s.name}" for s in cut}
        found = await alarms_at_centre(fleet, "280.001")
        return ", ".join(sorted(wanted ^ found)[:5])

    await fleet.until(told, PATIENCE, "each lost site is one alarm, and no other")
    with pytest.raises(Unreachable):
        await fleet.centre.ask(cut[0].name, "/readyz")


async def both_sides_change(fleet: SimulatedFleet, cut: list[SimulatedSubcloud]) -> None:
    """The centre changes shared intent; cut sites run full of memory and declare things of their own."""
    await fleet.share_policy("base", ["22", "443"])
    await fleet.share_policy("extra", ["8443"])
    for site in cut:
        site.hosts[0].machine.load = Load(memory=97.0)
        await declare_locally(site)
    await fleet.until(fleet.all_in_sync, PATIENCE, "what is not cut is in sync")

    async def raised() -> str:
        late = []
        for site in cut:
            counts = (await site.cloud.store.load(Cloud, "", site.name)).status.alarms
            if not counts.critical:
                late.append(site.name)
        return ", ".join(late[:5])

    await fleet.until(raised, PATIENCE, "cut sites raise their alarms by themselves")
    assert not await alarms_at_centre(fleet, "100.103"), "nothing comes from sites that are cut"
    before = await fleet.centre.store.get(HOST.kind, cut[0].name, "controller-0")
    there = await cut[0].cloud.store.get(HOST.kind, cut[0].name, "controller-0")
    assert before.raw["status"]["availability"] == "available"
    assert there.raw["status"]["availability"] == "degraded"


async def all_settle(fleet: SimulatedFleet, cut: list[SimulatedSubcloud]) -> None:
    await fleet.until(fleet.all_online, PATIENCE, "every subcloud is back")
    await fleet.until(fleet.all_in_sync, PATIENCE, "the changed policies are in force everywhere")
    await fleet.until(agreement(fleet), PATIENCE, "all stores agree")
    assert await alarms_at_centre(fleet, "280.001") == set()
    assert await alarms_at_centre(fleet, "100.103") == {f"{s.name}/host=controller-0" for s in cut}
    for site in cut:
        told = await fleet.centre.store.get("FirewallPolicy", site.name, "local-time")
        assert told.origin == f"down:subcloud/{site.name}"
        assert (await fleet.centre.store.get(CLOUD.kind, "", site.name)).raw["status"]["upperConnected"]
    wrong = await unsettled(fleet.centre)
    for site in fleet.sites:
        wrong += await unsettled(site.cloud)
    assert not wrong, "alarms and counts are functions of state"
    assert not await differences(fleet), "and it stays so"
