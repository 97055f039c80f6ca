"""Who is where: sites, hosts, ports and every address, computed and never chosen by hand.

    machine's own namespace            (nothing is made here)
    backbone   198.18.0.0/24   fd00:18::/64       a bridge: the wide-area network
      centre   198.18.0.100    fd00:18::100       the host of the central cloud
      SITE-router  198.18.0.N  fd00:18::N         N counts the sites from 1
        oam    10.N.0.0/24     fd00:N::/64        a bridge; .1 is the router, .2 the cloud's floating address
        mgmt   192.168.204.0/24 fd00:204::/64     a bridge without any address of the router's
          SITE-HOST                               hosts count from .11, the same number on both networks

The management network has the same addresses at every site, as sites made from one template do:
whatever mixes two sites up shows at once. Routers hide their site behind their own address and
know no other site.
"""

from __future__ import annotations

import re

import msgspec

from roost.model.cloud import SystemMode
from roost.model.host import Personality

BACKBONE = "backbone"
CENTRE = "centre"
CENTRE_NUMBER = 100
FIRST_HOST_NUMBER = 11
MAXIMUM_SITES = 16
MAXIMUM_HOSTS_PER_SITE = 64
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_MAXIMUM_SITE_NAME = 15  # also the name of the router's port on the backbone


class Host(msgspec.Struct, frozen=True):
    """One machine of a site."""

    name: str
    personalities: tuple[Personality, ...] = ("controller", "worker")


class Site(msgspec.Struct, frozen=True):
    """One subcloud: hosts behind one router."""

    name: str
    mode: SystemMode
    hosts: tuple[Host, ...]


class Topology(msgspec.Struct, frozen=True):
    """What the laboratory is to be. Refuses names and numbers it cannot give addresses to."""

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if len(self.sites) > MAXIMUM_SITES:
            raise ValueError(f"{len(self.sites)} sites: at most {MAXIMUM_SITES}")
        _unique("site", [site.name for site in self.sites])
        for site in self.sites:
            if len(site.name) > _MAXIMUM_SITE_NAME or site.name in {BACKBONE, CENTRE, "wan"}:
                raise ValueError(f"site {site.name}: reserved, or over {_MAXIMUM_SITE_NAME} characters")
            if not 1 <= len(site.hosts) <= MAXIMUM_HOSTS_PER_SITE:
                raise ValueError(f"site {site.name}: from 1 to {MAXIMUM_HOSTS_PER_SITE} hosts")
            _unique(f"host of {site.name}", [host.name for host in site.hosts])
        _unique("namespace", [node for site in self.sites for node in _nodes(site)])


class Port(msgspec.Struct, frozen=True):
    """A port of a host or router, with its addresses as ADDRESS/LENGTH, IPv4 first."""

    name: str
    mac: str
    addresses: tuple[str, ...]

    @property
    def ipv4(self) -> str:
        return self.addresses[0].partition("/")[0]

    @property
    def ipv6(self) -> str:
        return self.addresses[1].partition("/")[0]


class HostPlan(msgspec.Struct, frozen=True):
    """A host with its place. `name` is that of its namespace, `host` that within its cloud."""

    name: str
    site: str
    host: str
    personalities: tuple[Personality, ...]
    number: int
    oam: Port
    mgmt: Port


class SitePlan(msgspec.Struct, frozen=True):
    """A site with its addresses."""

    name: str
    mode: SystemMode
    number: int
    router: str
    wan: Port
    gateway: Port
    floating: tuple[str, ...]
    oam_subnets: tuple[str, ...]
    mgmt_subnets: tuple[str, ...]
    hosts: tuple[HostPlan, ...]


class Plan(msgspec.Struct, frozen=True):
    """The whole laboratory with every address."""

    centre: Port
    sites: tuple[SitePlan, ...]

    @property
    def hosts(self) -> tuple[HostPlan, ...]:
        return tuple(host for site in self.sites for host in site.hosts)

    @property
    def namespaces(self) -> tuple[str, ...]:
        routers = (site.router for site in self.sites)
        return (BACKBONE, CENTRE, *routers, *(host.name for host in self.hosts))

    def site(self, name: str) -> SitePlan:
        return next(site for site in self.sites if site.name == name)

    def host(self, name: str) -> HostPlan:
        return next(host for host in self.hosts if host.name == name)


def _nodes(site: Site) -> list[str]:
    return [f"{site.name}-router", *(f"{site.name}-{host.name}" for host in site.hosts)]


def _unique(what: str, names: list[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name) or len(name) > 63:
            raise ValueError(f"{what} {name!r}: small letters, digits and dashes, as `controller-0`")
        if names.count(name) > 1:
            raise ValueError(f"{what} {name} stands twice")


def _mac(site: int, network: int, number: int) -> str:
    """A locally administered address that tells where its port is."""
    return f"02:19:{site:02x}:{network:02x}:00:{number:02x}"


def _host(site: Site, number: int, index: int) -> HostPlan:
    host = site.hosts[index]
    last = FIRST_HOST_NUMBER + index
    return HostPlan(
        name=f"{site.name}-{host.name}",
        site=site.name,
        host=host.name,
        personalities=host.personalities,
        number=last,
        oam=Port("oam0", _mac(number, 1, last), (f"10.{number}.0.{last}/24", f"fd00:{number}::{last}/64")),
        mgmt=Port("mgmt0", _mac(number, 2, last), (f"192.168.204.{last}/24", f"fd00:204::{last}/64")),
    )


def _site(site: Site, number: int) -> SitePlan:
    return SitePlan(
        name=site.name,
        mode=site.mode,
        number=number,
        router=f"{site.name}-router",
        wan=Port("wan", _mac(number, 0, 1), (f"198.18.0.{number}/24", f"fd00:18::{number}/64")),
        gateway=Port("oam", _mac(number, 1, 1), (f"10.{number}.0.1/24", f"fd00:{number}::1/64")),
        floating=(f"10.{number}.0.2", f"fd00:{number}::2"),
        oam_subnets=(f"10.{number}.0.0/24", f"fd00:{number}::/64"),
        mgmt_subnets=("192.168.204.0/24", "fd00:204::/64"),
        hosts=tuple(_host(site, number, index) for index in range(len(site.hosts))),
    )


def plan(topology: Topology) -> Plan:
    """Give every site, host and port of the topology its place."""
    centre = Port(
        "wan0", _mac(0, 0, CENTRE_NUMBER), (f"198.18.0.{CENTRE_NUMBER}/24", f"fd00:18::{CENTRE_NUMBER}/64")
    )
    return Plan(centre, tuple(_site(site, number) for number, site in enumerate(topology.sites, start=1)))


DEMO = Topology(
    (
        Site("harbor", "simplex", (Host("controller-0"),)),
        Site("ridge", "duplex", (Host("controller-0"), Host("controller-1"))),
        Site(
            "valley",
            "standard",
            (
                Host("controller-0", ("controller",)),
                Host("controller-1", ("controller",)),
                Host("worker-0", ("worker",)),
            ),
        ),
    )
)
