"""A simulated site: a subcloud and its hosts, and its way to the central cloud, which can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import msgspec

from roost.host.agent import SAMPLE_SECONDS
from roost.link import identity
from roost.link.local import LocalDialer
from roost.link.lower import Dialer, TlsDialer
from roost.link.node import host as host_node
from roost.link.node import subcloud as subcloud_node
from roost.link.pki import NODE_LIFETIME, new_key, request
from roost.link.upper import UpperLink
from roost.model.host import Host, HostSpec
from roost.model.meta import Metadata
from roost.model.network import PlatformNetwork, PlatformNetworkSpec
from roost.sim.cloud import SimulatedCloud, World
from roost.sim.dialing import SeverableDialer
from roost.sim.host import SimulatedHost
from roost.sim.machine import SimulatedMachine
from roost.store.transaction import Transaction

OPENED_AT_ONCE = 4


class SitePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a site has. The same seed makes the same machines.

    With `memory` its way to the centre is memory instead of TLS; with `cut` that way begins cut.
    """

    hosts: int = 1
    seed: str = "fleet"
    memory: bool = False
    cut: bool = False
    sample_seconds: float = SAMPLE_SECONDS


class Above(msgspec.Struct, frozen=True, kw_only=True):
    """The central cloud as its sites see it: over TLS at an endpoint, or in this process."""

    name: str
    endpoint: str = ""
    link: UpperLink | None = None


class SimulatedSubcloud:
    """One site: `open` starts it, `close` ends it; `cut` and `mend` its way to the centre."""

    def __init__(self, number: int, world: World, above: Above, plan: SitePlan) -> None:
        self.number, self.name = number, site_name(number)
        self._world, self._above, self._plan = world, above, plan
        self.cloud = SimulatedCloud(world, self.name)
        self.way: SeverableDialer
        self.hosts: list[SimulatedHost] = []

    async def open(self) -> None:
        """Open its stores, declare what it has, start everything and dial."""
        await self.cloud.open()
        await self.cloud.store.transact(lambda tx: declare_site(tx, self.name, self.number, self._plan.hosts))
        self.way = SeverableDialer(await self._dialer())
        if self._plan.cut:
            self.way.cut()
        self.cloud.join(self.way, subcloud_node(self.name))
        self.cloud.start()
        for number in range(self._plan.hosts):
            host = self._host(number)
            await host.open()
            self.hosts.append(host)
            host.start()

    async def close(self) -> None:
        """End its hosts, then its cloud."""
        for host in self.hosts:
            await host.close()
        await self.cloud.close()

    def cut(self) -> None:
        """Cut the way to the centre, until `mend`."""
        self.way.cut()

    def mend(self) -> None:
        """Mend the way to the centre, and dial at once."""
        self.way.mend()
        if self.cloud.uplink is not None:
            self.cloud.uplink.dial_now()

    # -- inside

    def _host(self, number: int) -> SimulatedHost:
        name = host_name(number)
        machine = machine_of(self._plan.seed, self.number, number)
        way = SeverableDialer(LocalDialer(self.cloud.upper, host_node(self.name, name)))
        return SimulatedHost(
            self.name,
            name,
            machine,
            way,
            self._world.directory / f"{self.name}-hosts",
            clock=self._world.clock,
            timing=self._world.timing,
            probe=way.probe,
            sample_seconds=self._plan.sample_seconds,
        )

    async def _dialer(self) -> Dialer:
        node = subcloud_node(self.name)
        if self._above.link is not None:
            return LocalDialer(self._above.link, node)
        directory = self._world.directory / f"{self.name}-uplink"
        await asyncio.to_thread(self._enrol, directory)
        return TlsDialer(directory, clock=self._world.clock, dial_within=60.0)

    def _enrol(self, directory: Path) -> None:
        """Keep an identity as enrolment would; a hundred tokens would show nothing that one does not."""
        node, now, authority = subcloud_node(self.name), self._world.clock(), self._world.authority
        key = new_key()
        identity.save(
            directory,
            node=node,
            upper=self._above.name,
            endpoints=[self._above.endpoint],
            authority=authority.certificate_pem,
            key=key,
            certificate=authority.sign_node(request(key), node, now, NODE_LIFETIME),
            now=now,
        )


async def open_all(sites: Iterable[SimulatedSubcloud]) -> None:
    """Open sites, a few at a time."""
    turn = asyncio.Semaphore(OPENED_AT_ONCE)

    async def opened(site: SimulatedSubcloud) -> None:
        async with turn:
            await site.open()

    async with asyncio.TaskGroup() as group:
        for site in sites:
            group.create_task(opened(site))


def declare_site(tx: Transaction, name: str, number: int, hosts: int) -> None:
    """Declare what a site has: its networks, and its hosts unlocked."""
    for kind, subnet in (("oam", _subnet(number, 0)), ("mgmt", _subnet(number, 1))):
        spec = PlatformNetworkSpec(type=kind, subnets=[f"{subnet}.0/24"])  # type: ignore[arg-type]
        tx.save(PlatformNetwork(metadata=Metadata(name=kind, namespace=name), spec=spec))
    for host in range(hosts):
        metadata = Metadata(name=host_name(host), namespace=name)
        tx.save(Host(metadata=metadata, spec=HostSpec(administrative_state="unlocked")))


def machine_of(seed: str, site: int, number: int) -> SimulatedMachine:
    """The machine of one host of a site: the same for the same seed."""
    name = host_name(number)
    addresses = {f"eth{n}": f"{_subnet(site, n)}.{10 + number}/24" for n in range(2)}
    return SimulatedMachine(f"{seed}/{site_name(site)}/{name}", name, addresses)


def _subnet(site: int, third: int) -> str:
    """First three parts of an IPv4 network, different for each site and network (up to 32,000)."""
    return f"10.{site // 128}.{2 * (site % 128) + third}"


def site_name(number: int) -> str:
    """Name of a site."""
    return f"site-{number:04d}"


def host_name(number: int) -> str:
    """Two controllers, then workers."""
    return f"controller-{number}" if number < 2 else f"worker-{number - 2}"
