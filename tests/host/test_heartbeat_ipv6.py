"""Heartbeats from one network namespace to another where there are IPv6 addresses alone: from what the kernel
says of the ports, over real sockets, to what the observer judges. And hosts of one family in a cloud of two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from roost.cloud.configuration import ports_by_network
from roost.cloud.heartbeat_configuration import heartbeat_of, meeting
from roost.cloud.heartbeat_observer import Observer
from roost.engine.heartbeat import Registration, new_secret
from roost.host.heartbeat import Plan, Sender
from roost.host.observe.ports import observe_ports
from roost.host.observe.source import Source
from roost.model.heartbeat import Heartbeat, HeartbeatConfiguration
from roost.model.host import Host, HostStatus, Inventory
from roost.model.meta import Metadata
from roost.model.network import PlatformNetwork, PlatformNetworkSpec
from tests.support.namespaces import Namespace, World, namespaces

pytestmark = pytest.mark.namespaces

PORT = 7444
CLOUD, HOST = "cloud", "worker-0"
WITHIN = 20.0
SIXTH = PlatformNetwork(
    metadata=Metadata(name="mgmt0", namespace="harbor"),
    spec=PlatformNetworkSpec(type="mgmt", subnets=["fd00:40:1::/64"]),
)
BOTH = PlatformNetwork(
    metadata=SIXTH.metadata,
    spec=PlatformNetworkSpec(type="mgmt", subnets=["10.40.1.0/24", "fd00:40:1::/64"]),
)


class Pair:
    """A cloud's process and a host of it, each in a namespace. Sockets stay where their threads began."""

    def __init__(self, world: World) -> None:
        self._cloud, self._host = world[CLOUD], world[HOST]
        self.observer, self.sender = Observer(PORT), Sender()

    def seen(self, where: Namespace, name: str) -> Host:
        """A host with the ports that the kernel tells of."""
        ports, _ = where.call(lambda: observe_ports(Source()))
        return Host(
            metadata=Metadata(name=name, namespace="harbor"),
            status=HostStatus(inventory=Inventory(ports=ports)),
        )

    def told(self, network: PlatformNetwork) -> HeartbeatConfiguration:
        """Where the host is told to send its heartbeats."""
        place = meeting(self.seen(self._cloud, CLOUD), [network], BEAT, PORT)
        host = self.seen(self._host, HOST)
        told = heartbeat_of(host, ports_by_network(host, [network]), place)
        assert told is not None
        return told

    def begin(self, told: HeartbeatConfiguration) -> None:
        """Register, and send."""
        self._cloud.call(lambda: self.observer.start() or True)  # type: ignore[func-returns-value]
        secret, names = new_secret(), [n.network for n in told.networks]
        registration = Registration(
            secret=secret, period_milliseconds=told.period_milliseconds, networks=names
        )
        id_ = self.observer.register(HOST, registration).id
        plan = Plan(id=id_, secret=secret, configuration=told)
        self._host.call(lambda: self.sender.carry(plan) or True)  # type: ignore[func-returns-value]

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + WITHIN
        while not holds():
            assert time.monotonic() < end, f"{what}: {self.observer(HOST)}, {self.observer.counters}"
            time.sleep(0.02)

    def verdict(self) -> str:
        return self.observer(HOST).verdict

    def close(self) -> None:
        self.sender.stop()
        self.observer.stop()


BEAT = Heartbeat(period_milliseconds=100)


@pytest.fixture
def world() -> Iterator[World]:
    with namespaces(CLOUD, HOST) as made:
        yield made


@pytest.fixture
def pair(world: World) -> Iterator[Pair]:
    made = Pair(world)
    try:
        yield made
    finally:
        made.close()


def test_hosts_of_ipv6_alone_are_heard_fail_and_return(world: World, pair: Pair) -> None:
    world.join(CLOUD, "eth0", ["fd00:40:1::1/64"], HOST, "eth0", ["fd00:40:1::2/64"])
    told = pair.told(SIXTH)
    assert [(n.network, n.ports, n.targets) for n in told.networks] == [("mgmt0", ["eth0"], ["fd00:40:1::1"])]
    pair.begin(told)
    pair.until("it is heard", lambda: pair.verdict() == "alive")
    world[HOST].run("ip", "link", "set", "eth0", "down")
    pair.until("it has failed", lambda: pair.verdict() == "failed")
    # A port that goes down loses its addresses of IPv6, other than those of IPv4.
    world[HOST].run("ip", "link", "set", "eth0", "up")
    world[HOST].run("ip", "address", "replace", "fd00:40:1::2/64", "dev", "eth0", "nodad")
    pair.until("it is back", lambda: pair.verdict() == "alive")
    refused = pair.observer.counters
    assert (refused.malformed, refused.unknown, refused.forged, refused.repeated) == (0, 0, 0, 0)


@pytest.mark.parametrize("own", ["fd00:40:1::2/64", "10.40.1.2/24"], ids=["IPv6", "IPv4"])
@pytest.mark.parametrize("ports", [1, 2], ids=["one port", "two ports"])
def test_a_host_of_one_family_is_heard_by_a_cloud_of_both(
    world: World, pair: Pair, own: str, ports: int
) -> None:
    """The address that it has no way to must not keep it from the other: with two ports, neither is bound."""
    world.join(CLOUD, "eth0", ["10.40.1.1/24", "fd00:40:1::1/64"], HOST, "eth0", [own])
    if ports == 2:
        world.join(CLOUD, "eth1", [], HOST, "eth1", [own.replace("2/", "3/")])
    told = pair.told(BOTH)
    assert [(len(n.ports), n.targets) for n in told.networks] == [(ports, ["10.40.1.1", "fd00:40:1::1"])]
    pair.begin(told)
    pair.until("it is heard", lambda: pair.verdict() == "alive")
