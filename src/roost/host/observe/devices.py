"""PCI devices that are no disk controllers. Those that are ports are taken out when all is put together.

Virtual functions are not listed one by one: the device they belong to counts them.
"""

from __future__ import annotations

from roost.host.observe import pci
from roost.host.observe.look import Look
from roost.host.observe.source import Source
from roost.model.host import PciDevice, Unknown

_MASS_STORAGE = "01"


def observe_devices(source: Source) -> tuple[list[PciDevice], list[Unknown]]:
    """Every physical PCI function but disk controllers."""
    look = Look()
    found = []
    for address in look.names(source.sys / "bus/pci/devices", "devices"):
        device = _device(look, source, address)
        is_function = look.target(pci.directory(source, address) / "physfn", f"devices[{address}]")
        if not is_function and not device.class_code.startswith(_MASS_STORAGE):
            found.append(device)
    names = pci.read_names(
        look, source, {(d.vendor_id, d.device_id) for d in found}, {d.class_code for d in found}
    )
    return [_named(device, names) for device in found], look.unknown


def _device(look: Look, source: Source, address: str) -> PciDevice:
    path, at = pci.directory(source, address), f"devices[{address}]"
    return PciDevice(
        address=address,
        class_code=_hexadecimal(look.text(path / "class", f"{at}.classCode")),
        vendor_id=_hexadecimal(look.text(path / "vendor", f"{at}.vendorId")),
        device_id=_hexadecimal(look.text(path / "device", f"{at}.deviceId")),
        driver=look.target(path / "driver", f"{at}.driver").rpartition("/")[2],
        numa_node=pci.numa_node(look, source, address, at),
        sriov=pci.sriov(look, source, address, at),
    )


def _named(device: PciDevice, names: pci.Names) -> PciDevice:
    code = device.class_code
    return PciDevice(
        address=device.address,
        class_code=code,
        class_name=names.classes.get(code[:4]) or names.classes.get(code[:2], ""),
        vendor_id=device.vendor_id,
        vendor=names.vendors.get(device.vendor_id, ""),
        device_id=device.device_id,
        device=names.devices.get(f"{device.vendor_id}:{device.device_id}", ""),
        driver=device.driver,
        numa_node=device.numa_node,
        sriov=device.sriov,
    )


def _hexadecimal(text: str) -> str:
    return text.removeprefix("0x").lower()
