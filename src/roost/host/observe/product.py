"""What the machine is, from the DMI tables as the kernel shows them.

A machine without DMI (many ARM boards, small virtual machines) has no product: that is no error. Some
fields are readable by root only: those are unknown to others. Firmware makers fill unused fields with a
handful of phrases; such a field is not present.
"""

from __future__ import annotations

from roost.host.observe.look import Look
from roost.host.observe.source import Source
from roost.model.host import Product, Unknown

_FIELDS = {
    "vendor": "sys_vendor",
    "name": "product_name",
    "version": "product_version",
    "serial": "product_serial",
    "uuid": "product_uuid",
    "board": "board_name",
    "firmwareVendor": "bios_vendor",
    "firmwareVersion": "bios_version",
    "firmwareDate": "bios_date",
}
_FILLERS = {
    "to be filled by o.e.m.",
    "default string",
    "not specified",
    "not applicable",
    "system product name",
    "system manufacturer",
    "system serial number",
    "system version",
    "none",
    "n/a",
    "0123456789",
}
# System enclosure types of the SMBIOS specification, section 7.4.1, in their order from 1.
_CHASSIS = (
    "other",
    "unknown",
    "desktop",
    "low profile desktop",
    "pizza box",
    "mini tower",
    "tower",
    "portable",
    "laptop",
    "notebook",
    "hand held",
    "docking station",
    "all in one",
    "sub notebook",
    "space-saving",
    "lunch box",
    "main server chassis",
    "expansion chassis",
    "sub chassis",
    "bus expansion chassis",
    "peripheral chassis",
    "RAID chassis",
    "rack mount chassis",
    "sealed-case computer",
    "multi-system chassis",
    "compact PCI",
    "advanced TCA",
    "blade",
    "blade enclosure",
    "tablet",
    "convertible",
    "detachable",
    "IoT gateway",
    "embedded computer",
    "mini computer",
    "stick computer",
)


def observe_product(source: Source) -> tuple[Product | None, list[Unknown]]:
    """The machine's product, or None where there is no DMI."""
    look = Look()
    directory = source.sys / "class/dmi/id"
    if not look.names(directory, "product"):
        return None, look.unknown
    values = {wire: _meant(look.text(directory / file, f"product.{wire}")) for wire, file in _FIELDS.items()}
    number = look.number(directory / "chassis_type", "product.chassis")
    product = Product(
        vendor=values["vendor"],
        name=values["name"],
        version=values["version"],
        serial=values["serial"],
        uuid=values["uuid"],
        board=values["board"],
        firmware_vendor=values["firmwareVendor"],
        firmware_version=values["firmwareVersion"],
        firmware_date=values["firmwareDate"],
        chassis=chassis(number),
    )
    return product, look.unknown


def chassis(number: int) -> str:
    """Name of a chassis type; "" when the firmware gives none. The top bit says that there is a lock."""
    number &= 0x7F
    if number in (0, 2):
        return ""
    return _CHASSIS[number - 1] if number <= len(_CHASSIS) else f"type {number}"


def _meant(value: str) -> str:
    return "" if value.lower() in _FILLERS else value
