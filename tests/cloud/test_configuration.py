"""What is compiled for a host, and that it follows hosts, networks and policies."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from roost.cloud.configuration import ConfigurationController, PlatformPorts, compile_host, ports_by_network
from roost.cloud.overview import OverviewController
from roost.model.cloud import Subcloud
from roost.model.configuration import HostConfiguration, HostConfigurationSpec, NetworkFirewall
from roost.model.firewall import FirewallPolicy, FirewallRule, HostSelector, selects
from roost.model.fleet import SubcloudSelector
from roost.model.host import (
    Host,
    HostSpec,
    HostStatus,
    InterfaceAssignment,
    Inventory,
    Port,
    Threshold,
    Thresholds,
)
from roost.model.meta import Metadata
from roost.model.monitoring import (
    LevelSettings,
    MonitoringProfile,
    MonitoringProfileSpec,
    ThresholdSettings,
)
from tests.cloud.site import PORTS, network, policy, site
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD, history

CONTROLLERS = (ConfigurationController(CLOUD, PORTS), OverviewController(CLOUD, "1"))

OAM, MGMT = (
    network("oam0", "oam", "192.0.2.0/24", "2001:db8::/64"),
    network("mgmt0", "mgmt", "198.51.100.0/24"),
)
NONE = PlatformPorts()
WEB = FirewallRule(action="allow", protocol="tcp", ports=["443"])
DNS = FirewallRule(action="allow", protocol="udp", ports=["53"])


def host(*ports: Port, interfaces: list[InterfaceAssignment] | None = None, **spec: Any) -> Host:
    return Host(
        metadata=Metadata(name="h", namespace=CLOUD, labels={"rack": "1"}),
        spec=HostSpec(interfaces=interfaces or [], **spec),
        status=HostStatus(inventory=Inventory(ports=list(ports))),
    )


def port(name: str, *addresses: str) -> Port:
    return Port(name=name, addresses=list(addresses))


def assigned(name: str, *networks: str) -> InterfaceAssignment:
    return InterfaceAssignment(port=name, networks=list(networks))


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (host(), {}),
        (host(port("eth0", "192.0.2.7/24")), {"oam0": ["eth0"]}),
        (host(port("eth0", "2001:db8::7/64")), {"oam0": ["eth0"]}),
        (host(port("eth0", "203.0.113.1/24")), {}),
        (host(port("eth0", "fe80::1/64", "198.51.100.9/24")), {"mgmt0": ["eth0"]}),
        (host(port("b", "192.0.2.7/24"), port("a", "192.0.2.8/24")), {"oam0": ["a", "b"]}),
        (host(port("a", "192.0.2.7/24", "198.51.100.7/24")), {"oam0": ["a"], "mgmt0": ["a"]}),
        # What is assigned counts, whatever the addresses say; even for ports that are not there yet.
        (host(port("a", "192.0.2.7/24"), interfaces=[assigned("a", "mgmt0")]), {"mgmt0": ["a"]}),
        (host(port("a", "192.0.2.7/24"), interfaces=[assigned("a")]), {}),
        (host(interfaces=[assigned("a", "mgmt0", "oam0")]), {"mgmt0": ["a"], "oam0": ["a"]}),
        (host(interfaces=[assigned("a", "unheard-of")]), {}),
        (Host(metadata=Metadata(name="h")), {}),
    ],
)
def test_ports_are_found_by_assignment_and_by_address(subject: Host, expected: dict[str, list[str]]) -> None:
    assert ports_by_network(subject, [OAM, MGMT]) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (HostSelector(), True),
        (HostSelector(personalities=["worker"]), True),
        (HostSelector(personalities=["storage"]), False),
        (HostSelector(personalities=["storage", "controller"]), True),
        (HostSelector(labels={"rack": "1"}), True),
        (HostSelector(labels={"rack": "1", "row": "2"}), False),
        (HostSelector(personalities=["worker"], labels={"rack": "2"}), False),
    ],
)
def test_selectors_ask_for_all_of_their_conditions(selector: HostSelector, expected: bool) -> None:  # noqa: FBT001
    assert selects(selector, host()) is expected


def compiled(
    *policies: FirewallPolicy, subject: Host | None = None, ports: PlatformPorts = NONE
) -> dict[str, NetworkFirewall]:
    subject = subject or host(port("eth0", "192.0.2.7/24"), port("eth1", "198.51.100.7/24"))
    spec = compile_host(subject, [OAM, MGMT], list(policies), ports)
    return {f.network: f for f in spec.firewall.networks} if spec.firewall else {}


def test_without_policies_nothing_is_filtered() -> None:
    spec = compile_host(host(port("eth0", "192.0.2.7/24")), [OAM, MGMT], [], PORTS)
    assert spec == HostConfigurationSpec(platform_ports=["eth0"])


def test_policies_come_in_order_and_then_by_name() -> None:
    first, second = policy("z", WEB, order=1), policy("a", DNS, order=2)
    assert compiled(second, first)["oam0"].rules == [WEB, DNS]
    assert compiled(policy("b", DNS), policy("a", WEB))["oam0"].rules == [WEB, DNS]


def test_the_stricter_default_holds() -> None:
    lax = policy("lax", default_ingress="allow")
    strict = policy("strict", default_egress="deny")
    assert [(f.default_ingress, f.default_egress) for f in compiled(lax).values()] == [("allow", "allow")]
    assert [(f.default_ingress, f.default_egress) for f in compiled(lax, strict).values()] == [
        ("deny", "deny")
    ]


def test_a_policy_reaches_the_networks_and_hosts_it_means() -> None:
    assert set(compiled(policy("p", networks=("oam", "mgmt")))) == {"oam0", "mgmt0"}
    assert set(compiled(policy("p", networks=("storage",)))) == set()
    assert set(compiled(policy("p", hosts=HostSelector(personalities=["storage"])))) == set()
    assert set(compiled(policy("p", subclouds=SubcloudSelector()))) == set(), "it is meant for others"
    assert compiled(policy("p"))["oam0"].ports == ["eth0"]


def test_the_sources_are_told_with_their_generations() -> None:
    used, unused = policy("used"), policy("unused", networks=("storage",))
    used = msgspec.structs.replace(used, metadata=msgspec.structs.replace(used.metadata, generation=7))
    spec = compile_host(host(port("eth0", "192.0.2.7/24")), [OAM], [used, unused], NONE)
    assert spec.sources == {"used": 7}


def test_no_policy_cuts_the_links_of_the_platform() -> None:
    everything = FirewallRule(action="deny")
    out = FirewallRule(action="deny", direction="egress")
    shut = policy("shut", everything, out, default_egress="deny", order=0)
    rules = compiled(shut, ports=PORTS)["oam0"].rules
    assert rules[2:] == [everything, out]
    links, dialled = rules[:2]
    assert (links.action, links.direction, links.ports, links.peers) == (
        "allow",
        "ingress",
        ["8443"],
        ["192.0.2.0/24", "2001:db8::/64"],
    )
    assert (dialled.action, dialled.direction, dialled.ports, dialled.peers) == (
        "allow",
        "egress",
        ["8443", "9443"],
        [],
    )
    worker = host(port("eth0", "192.0.2.7/24"), personalities=["worker"])
    rules = compiled(shut, subject=worker, ports=PORTS)["oam0"].rules
    assert [r.direction for r in rules[:-2]] == ["egress"], "a worker takes no links, but dials"


async def configuration(store: Any, name: str = "h") -> HostConfiguration:
    found: HostConfiguration = await store.load(HostConfiguration, CLOUD, name)
    return found


@on_fake_time
async def test_the_configuration_follows_what_it_is_compiled_from() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.declare("g")
        await s.join()
        await asyncio.sleep(1)
        assert (await configuration(s.store)).spec.firewall is None
        await s.store.save(OAM)
        await s.store.save(policy("p", WEB))
        await asyncio.sleep(1)
        first = await configuration(s.store)
        assert first.spec.firewall is not None and first.spec.sources == {"p": 1}
        assert WEB in first.spec.firewall.networks[0].rules
        assert (await configuration(s.store, "g")).spec.firewall is None

        revision = s.store.revision
        changed = await s.store.load(FirewallPolicy, CLOUD, "p")
        labelled = msgspec.structs.replace(changed.metadata, labels={"a": "b"})
        await s.store.save(msgspec.structs.replace(changed, metadata=labelled))
        await asyncio.sleep(1)
        assert s.store.revision == revision + 1, "a label is no intent"

        await s.store.save(policy("p", DNS))
        await asyncio.sleep(1)
        second = await configuration(s.store)
        assert second.metadata.generation == first.metadata.generation + 1
        assert second.spec.sources == {"p": 2}
        assert second.status.applied_generation == second.metadata.generation

        await s.specify(thresholds=Thresholds(hysteresis=9))
        await asyncio.sleep(1)
        assert (await configuration(s.store)).spec.thresholds.hysteresis == 9

        await s.store.transact(lambda tx: tx.remove("FirewallPolicy", CLOUD, "p"))
        await asyncio.sleep(1)
        assert (await configuration(s.store)).spec.firewall is None
        await s.store.transact(lambda tx: tx.remove("PlatformNetwork", CLOUD, "oam0"))
        await asyncio.sleep(1)
        assert (await configuration(s.store)).spec.platform_ports == []

        await s.store.transact(lambda tx: tx.remove("HostConfiguration", CLOUD, "g"))
        await asyncio.sleep(1)
        assert (await configuration(s.store, "g")).metadata.generation == 1, "it is made again"
        await s.store.transact(lambda tx: tx.remove("Host", CLOUD, "g"))
        await asyncio.sleep(1)
        assert [c.metadata.name for c in await s.store.every(HostConfiguration)] == ["h"]


@on_fake_time
async def test_hosts_removed_while_nobody_looked_lose_their_configuration() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await asyncio.sleep(1)
        await s.stop()
        await s.store.transact(lambda tx: tx.remove("Host", CLOUD, "h"))
        s.work()
        await asyncio.sleep(1)
        assert await s.store.every(HostConfiguration) == []


@on_fake_time
async def test_a_command_to_restart_outlives_compiling() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await asyncio.sleep(1)
        current = await configuration(s.store)
        spec = msgspec.structs.replace(current.spec, reboot_from="boot-9")
        await s.store.save(msgspec.structs.replace(current, spec=spec))
        await s.reconfigure(5)
        await asyncio.sleep(1)
        assert (await configuration(s.store)).spec.reboot_from == "boot-9"


@on_fake_time
async def test_a_cloud_with_subclouds_takes_links_from_anywhere() -> None:
    """Subclouds dial from beyond the networks of their centre; no policy may cut off a fleet."""

    async def peers(s: Any) -> list[str]:
        spec = (await configuration(s.store)).spec
        assert spec.firewall is not None
        return list(spec.firewall.networks[0].rules[0].peers)

    async with site() as s:
        s.work()
        await s.declare()
        await s.join()
        await s.store.save(OAM)
        await s.store.save(policy("p", WEB))
        await asyncio.sleep(1)
        assert await peers(s) == OAM.spec.subnets
        await s.store.save(Subcloud(metadata=Metadata(name="ridge")))
        await asyncio.sleep(1)
        assert await peers(s) == []
        await s.store.transact(lambda tx: tx.remove("Subcloud", "", "ridge"))
        await asyncio.sleep(1)
        assert await peers(s) == OAM.spec.subnets


@on_fake_time
async def test_policies_for_subclouds_have_no_host_looked_at() -> None:
    async with site() as s:
        await s.declare()
        await s.join()
        await s.store.save(OAM)
        revision = s.store.revision
        await s.store.save(policy("p", WEB, subclouds=SubcloudSelector()))
        await s.store.save(policy("p", WEB, subclouds=SubcloudSelector(names=["ridge"])))
        await s.store.save(policy("p", WEB))
        await s.store.save(policy("p", WEB, subclouds=SubcloudSelector()))
        await s.store.transact(lambda tx: tx.drop("FirewallPolicy", CLOUD, "p"))
        changes = [c for c in await history(s.store, revision) if c.kind == "FirewallPolicy"]
        found = [[*c.concerned(change)] for change in changes for c in CONTROLLERS]
        assert found[:4] == [[], [], [], []] and all(found[4:8]) and found[8:] == [[], []]


@on_fake_time
async def test_a_policy_that_is_for_subclouds_no_more_is_for_the_hosts_here() -> None:
    async with site() as s:
        s.work()
        await s.declare()
        await s.join()
        await s.store.save(OAM)
        await s.store.save(policy("p", WEB, subclouds=SubcloudSelector()))
        await asyncio.sleep(3)
        assert (await configuration(s.store)).spec.firewall is None
        await s.store.save(policy("p", WEB))
        await asyncio.sleep(3)
        assert (await configuration(s.store)).spec.firewall is not None
        await s.store.save(policy("p", WEB, subclouds=SubcloudSelector()))
        await asyncio.sleep(3)
        assert (await configuration(s.store)).spec.firewall is None


@on_fake_time
async def test_a_profile_reaches_the_hosts_it_selects_and_leaves_them_again() -> None:
    async with site() as s:
        s.work()
        await s.declare("a")
        await s.declare("b", thresholds=Thresholds(hysteresis=9))
        levels = ThresholdSettings(memory=LevelSettings(major=60), hysteresis=5, raise_after=4)
        spec = MonitoringProfileSpec(hosts=["a", "b"], thresholds=levels)
        await s.store.save(MonitoringProfile(metadata=Metadata(name="tight", namespace=CLOUD), spec=spec))
        await asyncio.sleep(1)
        told = {c.metadata.name: c.spec for c in await s.store.every(HostConfiguration, CLOUD)}
        assert told["a"].thresholds == Thresholds(
            memory=Threshold(major=60, critical=90), hysteresis=5, raise_after=4
        )
        assert told["b"].thresholds.hysteresis == 9, "the host's own word counts"
        assert told["a"].sources == {"monitoringprofile/tight": 1}
        await s.store.transact(lambda tx: tx.remove("MonitoringProfile", CLOUD, "tight"))
        await asyncio.sleep(1)
        found = await s.store.load(HostConfiguration, CLOUD, "a")
        assert (found.spec.thresholds, found.spec.sources) == (Thresholds(), {})
