"""What hosts are told of their heartbeats, and that no policy drops them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from roost.cloud.configuration import PlatformPorts, compile_host
from roost.cloud.controllers import controllers
from roost.cloud.heartbeat_configuration import heartbeat_of, meeting
from roost.model.cloud import Cloud, CloudSpec
from roost.model.configuration import HostConfiguration
from roost.model.heartbeat import Heartbeat
from roost.model.host import Host, HostStatus, Inventory, Personality, Port
from roost.model.meta import Metadata
from tests.cloud.site import network, policy, site
from tests.support.clock import on_fake_time
from tests.support.stores import CLOUD

MGMT = network("mgmt0", "mgmt", "198.51.100.0/24", "2001:db8:1::/64")
CLUSTER = network("cluster0", "cluster-host", "192.0.2.0/24")
PORTS = PlatformPorts(links=(7444,), heartbeat=7444, host="controller-0")
SETTINGS = Heartbeat(period_milliseconds=200)


def host(name: str, *addresses: str, personalities: tuple[Personality, ...] = ("worker",)) -> Host:
    made = Host(metadata=Metadata(name=name, namespace=CLOUD))
    ports = [Port(name=f"eth{n}", addresses=[a]) for n, a in enumerate(addresses)]
    return msgspec.structs.replace(
        made,
        spec=msgspec.structs.replace(made.spec, personalities=list(personalities)),
        status=HostStatus(inventory=Inventory(ports=ports)),
    )


HERE = host(
    "controller-0", "198.51.100.1/24", "198.51.100.2/24", "192.0.2.1/24", personalities=("controller",)
)


def test_beats_go_to_the_first_address_of_the_active_process_on_each_shared_network() -> None:
    met = meeting(HERE, [MGMT, CLUSTER], SETTINGS, 7444)
    told = heartbeat_of(host("w"), {"mgmt0": ["eth1"], "oam0": ["eth9"]}, met)
    assert told is not None
    assert (told.period_milliseconds, told.port) == (200, 7444)
    assert [(n.network, n.ports, n.targets) for n in told.networks] == [("mgmt0", ["eth1"], ["198.51.100.1"])]


def test_each_family_has_its_address() -> None:
    here = host("controller-0", "2001:db8:1::1/64", "198.51.100.1/24")
    met = meeting(here, [MGMT], SETTINGS, 7444)
    assert met is not None and met.addresses == {"mgmt0": ("198.51.100.1", "2001:db8:1::1")}


@pytest.mark.parametrize(
    ("here", "port", "subject", "ports"),
    [
        (None, 7444, host("w"), {"mgmt0": ["eth0"]}),
        (HERE, 0, host("w"), {"mgmt0": ["eth0"]}),
        (Host(metadata=Metadata(name="controller-0")), 7444, host("w"), {"mgmt0": ["eth0"]}),
        (HERE, 7444, HERE, {"mgmt0": ["eth0"]}),
        (HERE, 7444, host("w"), {}),
        (HERE, 7444, host("w"), {"oam0": ["eth0"]}),
    ],
)
def test_without_a_network_in_common_there_is_no_heartbeat(
    here: Host | None, port: int, subject: Host, ports: dict[str, list[str]]
) -> None:
    assert heartbeat_of(subject, ports, meeting(here, [MGMT, CLUSTER], SETTINGS, port)) is None


@pytest.mark.parametrize("personality", ["controller", "worker"])
def test_the_platform_lets_heartbeats_pass_before_any_policy(personality: Personality) -> None:
    subject = host("w", "198.51.100.9/24", personalities=(personality,))
    closed = policy("closed", networks=("mgmt",), default_egress="deny")
    firewall = compile_host(subject, [MGMT], [closed], PORTS).firewall
    assert firewall is not None
    beats = [r for r in firewall.networks[0].rules if r.protocol == "udp"]
    directions = [r.direction for r in beats]
    assert directions == (["egress", "ingress"] if personality == "controller" else ["egress"])
    for rule in beats:
        assert (rule.action, rule.ports) == ("allow", ["7444"])
        assert rule.peers == MGMT.spec.subnets, "nobody beyond the platform's networks"


@on_fake_time
async def test_all_hosts_follow_the_controller_and_the_period() -> None:
    async with site() as s:
        presence = lambda name: s.presence(name)  # noqa: E731 - the book changes with a restart
        s.start(controllers(CLOUD, "1", presence, PORTS, "one", {}).values())
        await s.store.save(MGMT)
        for name, address in (("controller-0", "198.51.100.1/24"), ("w", "198.51.100.9/24")):
            await s.declare(name)
            await s.join(name, inventory=Inventory(ports=[Port(name="eth0", addresses=[address])]))
        await asyncio.sleep(3)

        async def told(name: str) -> tuple[int, list[str]] | None:
            beats = (await s.store.load(HostConfiguration, CLOUD, name)).spec.heartbeat
            return (beats.period_milliseconds, beats.networks[0].targets) if beats else None

        assert await told("w") == (100, ["198.51.100.1"])
        assert await told("controller-0") is None
        moved = Inventory(ports=[Port(name="eth0", addresses=["198.51.100.77/24"])])
        await s.tell("controller-0", inventory=moved)
        await asyncio.sleep(3)
        assert await told("w") == (100, ["198.51.100.77"])
        cloud = await s.store.load(Cloud, "", CLOUD)
        spec = CloudSpec(heartbeat=Heartbeat(period_milliseconds=1000))
        await s.store.save(msgspec.structs.replace(cloud, spec=spec))
        await asyncio.sleep(3)
        assert await told("w") == (1000, ["198.51.100.77"])
