"""Network ports of this network namespace: netlink for links and addresses, ethtool for what drives them.

The loopback device is no port. Everything else the kernel has as a network device is one, and its kind
tells which: ethernet, bridge, veth, vlan, bond and so on.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable

import msgspec

from roost.host.observe import ethtool, netlink, pci
from roost.host.observe.look import Look
from roost.host.observe.source import Source
from roost.host.observe.storage import PCI_ADDRESS
from roost.model.host import Port, Unknown

_MAXIMUM_PORTS = 1024
_MAXIMUM_ADDRESSES = 256


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """How the kernel is asked about network devices; replaced by tests."""

    links: Callable[[], list[netlink.Link]] = netlink.read_links
    addresses: Callable[[], list[netlink.Address]] = netlink.read_addresses
    driver: Callable[[str], ethtool.Driver] = ethtool.read_driver
    speed: Callable[[str], ethtool.Speed] = ethtool.read_speed


def observe_ports(source: Source, kernel: Kernel | None = None) -> tuple[list[Port], list[Unknown]]:
    """Every port, by name."""
    look = Look()
    kernel = kernel or Kernel()
    try:
        links = kernel.links()
    except (OSError, netlink.NetlinkError) as error:
        look.note("ports", error)
        return [], look.unknown
    try:
        addresses = kernel.addresses()
    except (OSError, netlink.NetlinkError) as error:
        look.note("ports.addresses", error)
        addresses = []
    by_index: dict[int, list[str]] = defaultdict(list)
    for address in addresses:
        by_index[address.index].append(address.address)
    names = {link.index: link.name for link in links}
    wanted = sorted((link for link in links if not link.loopback), key=lambda link: link.name)
    ports = [
        _port(look, source, kernel, link, by_index[link.index], names.get(link.master, ""))
        for link in look.bound(wanted, _MAXIMUM_PORTS, "ports")
    ]
    return ports, look.unknown


def port_signature() -> str:
    """Digest of links and addresses: differs when a port came, went or changed. Raises OSError."""
    links, addresses = netlink.read_links(), netlink.read_addresses()
    addresses.sort(key=lambda a: (a.index, a.address))
    return hashlib.sha256(msgspec.msgpack.encode((links, addresses))).hexdigest()


def _port(
    look: Look, source: Source, kernel: Kernel, link: netlink.Link, addresses: list[str], master: str
) -> Port:
    at = f"ports[{link.name}]"
    driver, speed = ethtool.Driver(), ethtool.Speed()
    try:
        driver = kernel.driver(link.name)
    except OSError as error:
        look.note(f"{at}.driver", error)
    try:
        # Without a link there is no speed, and some drivers then tell the last one.
        speed = kernel.speed(link.name) if link.carrier else speed
    except OSError as error:
        look.note(f"{at}.speed", error)
    address = driver.bus if PCI_ADDRESS.match(driver.bus) else ""
    return Port(
        name=link.name,
        kind=link.kind,
        mac=link.mac,
        addresses=look.bound(sorted(addresses), _MAXIMUM_ADDRESSES, f"{at}.addresses"),
        mtu=link.mtu,
        up=link.up,
        carrier=link.carrier,
        speed=speed.mbit,
        duplex=speed.duplex,
        driver=driver.name,
        driver_version=driver.version,
        firmware_version=driver.firmware,
        pci_address=address,
        numa_node=pci.numa_node(look, source, address, at) if address else -1,
        sriov=pci.sriov(look, source, address, at) if address else None,
        master=master,
    )
