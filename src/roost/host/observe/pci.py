"""PCI: a device's place and virtual functions from /sys/bus/pci, and names from the pci.ids table.

/sys/bus/pci shows all devices in every namespace. The table is a package of the distribution; without it
devices have numbers and no names. It is read line by line and only what was asked for is kept.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from roost.host.observe.look import Look, describe
from roost.host.observe.source import Source
from roost.model.host import SriovCapability

_NO_NODE = -1
_MAXIMUM_LINES = 200_000
_VENDOR = re.compile(r"^([0-9a-f]{4})\s+(.+)$")
_DEVICE = re.compile(r"^\t([0-9a-f]{4})\s+(.+)$")
_CLASS = re.compile(r"^C ([0-9a-f]{2})\s+(.+)$")
_SUBCLASS = re.compile(r"^\t([0-9a-f]{2})\s+(.+)$")


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """Names by number: vendors `8086`, devices `8086:1572`, classes `02` and `0200`."""

    vendors: dict[str, str] = {}
    devices: dict[str, str] = {}
    classes: dict[str, str] = {}


def directory(source: Source, address: str) -> Path:
    """Where the kernel shows one PCI device."""
    return source.sys / "bus/pci/devices" / address


def numa_node(look: Look, source: Source, address: str, at: str) -> int:
    """NUMA node of a device; -1 when the firmware gives it none."""
    return look.number(directory(source, address) / "numa_node", f"{at}.numaNode", _NO_NODE)


def sriov(look: Look, source: Source, address: str, at: str) -> SriovCapability | None:
    """Virtual functions of a device; None when it can have none."""
    path = directory(source, address)
    total = look.number(path / "sriov_totalvfs", f"{at}.sriov")
    if total <= 0:
        return None
    return SriovCapability(
        total_functions=total, functions=look.number(path / "sriov_numvfs", f"{at}.sriov.functions")
    )


def read_names(look: Look, source: Source, devices: set[tuple[str, str]], classes: set[str]) -> Names:
    """Names of these (vendor, device) numbers and these six-digit classes."""
    path = source.misc / "pci.ids"
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return parse_names(lines, devices, classes)
    except FileNotFoundError:
        return Names()
    except OSError as error:
        look.note("devices.vendor", f"names of PCI devices: {describe(error)}")
        return Names()


def parse_names(lines: Iterable[str], devices: set[tuple[str, str]], classes: set[str]) -> Names:
    """Names from the lines of a pci.ids table."""
    names = Names(vendors={}, devices={}, classes={})
    vendors = {vendor for vendor, _ in devices}
    wanted_classes = {code[:2] for code in classes} | {code[:4] for code in classes}
    vendor = class_ = ""
    for line in itertools.islice(lines, _MAXIMUM_LINES):
        if match := _VENDOR.match(line):
            vendor, class_ = match[1], ""
            if vendor in vendors:
                names.vendors[vendor] = match[2].strip()
        elif match := _CLASS.match(line):
            vendor, class_ = "", match[1]
            if class_ in wanted_classes:
                names.classes[class_] = match[2].strip()
        elif vendor and (match := _DEVICE.match(line)) and (vendor, match[1]) in devices:
            names.devices[f"{vendor}:{match[1]}"] = match[2].strip()
        elif class_ and (match := _SUBCLASS.match(line)) and class_ + match[1] in wanted_classes:
            names.classes[class_ + match[1]] = match[2].strip()
    return names
