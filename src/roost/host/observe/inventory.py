"""Put the inventory together from all observers.

Each observer runs in a thread of its own with a deadline, one after the other: they wait for files, not
for each other, and one at a time keeps memory small. An observer that raises or gives no answer makes its
part unknown and touches nothing else: `observe` itself never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from roost.host.observe import deadline
from roost.host.observe.clock import observe_clock
from roost.host.observe.devices import observe_devices
from roost.host.observe.look import settle, unknown
from roost.host.observe.memory import observe_memory
from roost.host.observe.mounts import observe_filesystems
from roost.host.observe.ports import observe_ports
from roost.host.observe.processors import observe_processors
from roost.host.observe.product import observe_product
from roost.host.observe.source import Source
from roost.host.observe.storage import observe_disks
from roost.host.observe.system import observe_operating_system
from roost.model.host import Inventory, Unknown

Observer = Callable[[Source], tuple[Any, list[Unknown]]]

OBSERVERS: dict[str, Observer] = {
    "product": observe_product,
    "processors": observe_processors,
    "memory": observe_memory,
    "disks": observe_disks,
    "filesystems": observe_filesystems,
    "ports": observe_ports,
    "devices": observe_devices,
    "operating_system": observe_operating_system,
    "clock": observe_clock,
}
"""Observer by the field of Inventory that it fills."""

_SECONDS = 10.0
_MAXIMUM_DEVICES = 1024


async def observe(
    source: Source | None = None, observers: dict[str, Observer] | None = None, seconds: float = _SECONDS
) -> Inventory:
    """What the machine has. Each observer has `seconds`; what it could not tell is in `unknown`."""
    source = source or Source()
    parts: dict[str, Any] = {}
    unknowns: list[Unknown] = []
    for field, observer in (OBSERVERS if observers is None else observers).items():
        try:
            part, notes = await deadline.call_async(f"observe {field}", partial(observer, source), seconds)
        # Whatever an observer trips over, the others must still be told.
        except Exception as error:
            unknowns.append(unknown(_wire(field), error))
            continue
        parts[field] = part
        unknowns += notes
    return assemble(parts, unknowns)


def assemble(parts: dict[str, Any], unknowns: list[Unknown]) -> Inventory:
    """The inventory of these parts: devices that are ports are listed as ports only."""
    inventory = Inventory(**parts)
    ports = {port.pci_address for port in inventory.ports}
    devices = [device for device in inventory.devices if device.address not in ports]
    if len(devices) > _MAXIMUM_DEVICES:
        left_out = len(devices) - _MAXIMUM_DEVICES
        unknowns = [*unknowns, unknown("devices", f"{left_out} more are not listed")]
    return msgspec.structs.replace(inventory, devices=devices[:_MAXIMUM_DEVICES], unknown=settle(unknowns))


def _wire(field: str) -> str:
    names = zip(Inventory.__struct_fields__, Inventory.__struct_encode_fields__, strict=True)
    return dict(names).get(field, field)
