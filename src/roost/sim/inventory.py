"""What a simulated machine has: a plausible inventory, made from a seed.

The same seed and number give the same machine, down to its serial numbers. A machine has one port for
each of its platform networks, so that policies for these networks reach it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec

from roost.model.host import (
    ClockState,
    Disk,
    Filesystem,
    HugePages,
    Inventory,
    LogicalProcessor,
    Memory,
    MemoryNode,
    OperatingSystem,
    Partition,
    PciDevice,
    Port,
    Processors,
    Product,
)


class _Model(msgspec.Struct, frozen=True):
    """A make of machine."""

    vendor: str
    name: str
    processor: str
    cores: int
    memory_gib: int
    disk_gib: int


_MODELS = (
    _Model("Example Systems", "Edge 110", "Example E-2200 @ 2.20GHz", 4, 32, 480),
    _Model("Example Systems", "Edge 220", "Example D-1700 @ 2.40GHz", 8, 64, 960),
    _Model("Sample Computing", "Rack 1U", "Sample Gold 16C @ 2.60GHz", 16, 128, 1920),
)
_FLAGS = ["aes", "avx2", "constant_tsc", "pdpe1gb", "rdtscp", "sse4_2", "vmx"]


def inventory(seed: str, hostname: str, addresses: Mapping[str, str]) -> Inventory:
    """The machine of a seed. `addresses` are addresses with prefix length by port."""
    chance = random.Random(seed)  # noqa: S311 - plausible machines, no secrets
    model = chance.choice(_MODELS)
    serial = f"{chance.getrandbits(40):010X}"
    return Inventory(
        product=Product(
            vendor=model.vendor,
            name=model.name,
            version="1.0",
            serial=serial,
            uuid=f"{chance.getrandbits(128):032x}",
            board=f"{model.name} board",
            firmware_vendor=model.vendor,
            firmware_version=f"2.{chance.randrange(9)}",
            firmware_date="2025-06-01",
            chassis="server",
        ),
        processors=_processors(model),
        memory=_memory(model),
        disks=[_disk(model, chance)],
        filesystems=[
            Filesystem(mount="/", source="/dev/nvme0n1p2", type="ext4", size=model.disk_gib * 1000 // 2)
        ],
        ports=[_port(n, name, address, chance) for n, (name, address) in enumerate(addresses.items())],
        devices=[_accelerator()] if chance.random() < 0.3 else [],
        operating_system=OperatingSystem(
            name="Simulated Linux",
            id="simulated",
            version="12",
            kernel="6.1.0-simulated",
            kernel_arguments="root=/dev/nvme0n1p2 ro quiet",
            hostname=hostname,
        ),
        clock=ClockState(synchronised=True, source="tsc", time_zone="UTC"),
    )


def _processors(model: _Model) -> Processors:
    logical = [
        LogicalProcessor(id=n, core=n % model.cores, thread=n // model.cores) for n in range(2 * model.cores)
    ]
    return Processors(
        model=model.processor,
        vendor=model.vendor,
        architecture="x86_64",
        sockets=1,
        cores=model.cores,
        threads=2 * model.cores,
        maximum_mhz=3500,
        flags=_FLAGS,
        logical=logical,
    )


def _memory(model: _Model) -> Memory:
    total = model.memory_gib * 1024
    pages = [HugePages(size=2048, total=0, free=0), HugePages(size=1048576, total=4, free=4)]
    node = MemoryNode(numa_node=0, total=total, huge_pages=pages, distances=[10])
    return Memory(total=total, nodes=[node])


def _disk(model: _Model, chance: random.Random) -> Disk:
    size = model.disk_gib * 1000
    root = Partition(
        name="nvme0n1p2", size=size // 2, start=512, type="linux", label="root", filesystem="ext4", mount="/"
    )
    boot = Partition(name="nvme0n1p1", size=511, start=1, type="efi", label="boot", filesystem="vfat")
    return Disk(
        name="nvme0n1",
        path="/dev/disk/by-path/pci-0000:02:00.0-nvme-1",
        size=size,
        model="Example NVMe",
        serial=f"{chance.getrandbits(48):012X}",
        wwn=f"eui.{chance.getrandbits(64):016x}",
        transport="nvme",
        pci_address="0000:02:00.0",
        partitions=[boot, root],
    )


def _port(number: int, name: str, address: str, chance: random.Random) -> Port:
    low = chance.getrandbits(40)
    mac = ":".join(f"{byte:02x}" for byte in (0x02, *low.to_bytes(5, "big")))
    return Port(
        name=name,
        mac=mac,
        addresses=[address],
        mtu=1500,
        up=True,
        carrier=True,
        speed=10_000,
        duplex="full",
        driver="simulated",
        pci_address=f"0000:03:00.{number}",
        numa_node=0,
    )


def _accelerator() -> PciDevice:
    return PciDevice(
        address="0000:04:00.0",
        class_code="120000",
        class_name="Processing accelerators",
        vendor_id="ffff",
        vendor="Example Systems",
        device_id="0001",
        device="Simulated accelerator",
        numa_node=0,
    )
