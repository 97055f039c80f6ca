"""The cloud's counts, and where a policy is in force."""

from __future__ import annotations

import asyncio

import msgspec

from roost.model.cloud import AlarmCounts, Cloud, HostCounts
from roost.model.firewall import FirewallPolicy, FirewallRule, HostSelector
from roost.model.host import Reading
from roost.model.network import PlatformNetwork
from tests.cloud.site import Site, network, policy, put_in_force, site
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD

WEB = FirewallRule(action="allow", protocol="tcp", ports=["443"])


async def counts(s: Site) -> tuple[HostCounts, AlarmCounts]:
    status = (await s.store.load(Cloud, "", CLOUD)).status
    return status.hosts, status.alarms


async def ready(s: Site, name: str = "p") -> tuple[int, int, str, str]:
    status = (await s.store.load(FirewallPolicy, CLOUD, name)).status
    (condition,) = status.conditions
    return status.hosts, status.applied, condition.status, condition.reason


@on_fake_time
async def test_hosts_and_alarms_are_counted() -> None:
    async with site() as s:
        s.work()
        await s.unlocked("a")
        await s.unlocked("b")
        await s.declare("c")
        await asyncio.sleep(1)
        alarms = AlarmCounts(warning=1, blocking_updates=1)
        assert await counts(s) == (HostCounts(total=3, available=2, locked=1), alarms)
        assert (await s.store.load(Cloud, "", CLOUD)).status.version == "1"
        await s.tell("a", readings=[Reading(monitor="memory", level="critical")])
        s.down("b")
        await asyncio.sleep(60)
        assert await counts(s) == (
            HostCounts(total=3, degraded=1, locked=1, failed=1),
            AlarmCounts(critical=3, warning=1, blocking_updates=3),
        )
        s.up("b")
        await s.tell("a", readings=[])
        await s.store.transact(lambda tx: tx.remove("Host", CLOUD, "c"))
        await asyncio.sleep(1)
        assert await counts(s) == (HostCounts(total=2, available=2), AlarmCounts())
        revision = s.store.revision
        await asyncio.sleep(3600)
        assert s.store.revision == revision, "nothing happens, nothing is written"


@on_fake_time
async def test_a_policy_says_where_it_is_in_force() -> None:
    async with site() as s:
        s.work()
        await s.unlocked("a")
        await s.declare("b")
        await s.store.save(policy("p", WEB))
        await asyncio.sleep(1)
        assert await ready(s) == (0, 0, "True", "NoHosts")
        await s.store.save(network("oam0", "oam", "192.0.2.0/24"))
        await asyncio.sleep(1)
        assert await ready(s) == (1, 1, "True", "InForce")
        await s.join("b")
        await asyncio.sleep(1)
        assert await ready(s) == (2, 2, "True", "InForce")
        assert (await s.store.load(PlatformNetwork, CLOUD, "oam0")).status.hosts == 2

        s.obeys.discard("b")
        await s.store.save(policy("p", WEB, WEB))
        await asyncio.sleep(1)
        assert await ready(s) == (2, 1, "False", "NotInForce")
        changed = await s.store.load(FirewallPolicy, CLOUD, "p")
        assert changed.status.conditions[0].message == "Not in force on b."
        assert changed.status.observed_generation == changed.metadata.generation == 2
        await put_in_force(s.store, "b")
        await asyncio.sleep(1)
        assert await ready(s) == (2, 2, "True", "InForce")

        narrow = msgspec.structs.replace(changed.spec, hosts=HostSelector(personalities=["storage"]))
        await s.store.save(msgspec.structs.replace(changed, spec=narrow))
        s.obeys.add("b")
        await asyncio.sleep(1)
        assert await ready(s) == (0, 0, "True", "NoHosts")
