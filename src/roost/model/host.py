"""Host: one machine of a cloud. Its life is driven by `spec`, its inventory observed by its agent.

Three independent states, as the field has them: administrative (locked, unlocked), operational
(enabled, disabled), availability. The table of states and moves is in `roost.cloud.states`.

What a machine lacks is absent and listed nowhere; what could not be read stands in
`inventory.unknown` with the reason, so that "not present" and "unknown" never look the same.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from roost.model.health import (
    CheckReport,
    DegradedReason,
    Examination,
    RecoveryPolicy,
    RecoveryStatus,
)
from roost.model.kind import Column, Flow, KindInfo, Problem
from roost.model.meta import Condition, Owner, Part, Resource, doc
from roost.model.power import BoardController, PowerStatus, board_problems

AdministrativeState = Literal["locked", "unlocked"]
OperationalState = Literal["enabled", "disabled"]
Availability = Literal["offline", "online", "intest", "available", "degraded", "failed", "power-off"]
Personality = Literal["controller", "worker", "storage"]
Level = Literal["normal", "minor", "major", "critical", "unknown"]


class InterfaceAssignment(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Which platform networks a port carries."""

    port: Annotated[str, doc("Name of the port as the kernel has it.", min_length=1, max_length=15)]
    networks: Annotated[list[str], doc("Names of PlatformNetworks.", list_type="set", max_length=8)] = []


class Threshold(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Levels at which a resource's use raises an alarm, in percent; 0 leaves a level out."""

    minor: Annotated[int, doc("Raise minor at or above.", unit="percent", ge=0, le=100)] = 0
    major: Annotated[int, doc("Raise major at or above.", unit="percent", ge=0, le=100)] = 90
    critical: Annotated[int, doc("Raise critical at or above.", unit="percent", ge=0, le=100)] = 95


class Thresholds(Part, frozen=True, kw_only=True, omit_defaults=False):
    """When the host's monitors speak up."""

    processor: Annotated[Threshold, doc("Use of the processors.")] = Threshold()
    memory: Annotated[Threshold, doc("Use of memory.")] = Threshold(major=80, critical=90)
    filesystem: Annotated[Threshold, doc("Use of each file system.")] = Threshold(major=80, critical=90)
    hysteresis: Annotated[
        int, doc("How far below a level use must fall before it is left.", unit="percent", ge=0, le=50)
    ] = 3
    raise_after: Annotated[
        int, doc("Samples in a row, 5 seconds apart, at a level before it is entered.", ge=1, le=60)
    ] = 1
    clear_after: Annotated[
        int, doc("Samples in a row, 5 seconds apart, below a level before it is left.", ge=1, le=60)
    ] = 1


class HostSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the operator wants of the host."""

    administrative_state: Annotated[
        AdministrativeState, doc("Locked: out of service, safe to work on. Unlocked: in service.")
    ] = "locked"
    force_lock: Annotated[bool, doc("Lock without the checks that protect running services.")] = False
    personalities: Annotated[
        list[Personality],
        doc("Roles of the host; a host can have several.", list_type="set", min_length=1, max_length=3),
    ] = msgspec.field(default_factory=lambda: ["controller", "worker"])
    interfaces: Annotated[
        list[InterfaceAssignment],
        doc(
            "Platform networks by port. Ports left out carry the networks that hold their addresses.",
            list_type="map",
            list_keys=("port",),
            max_length=64,
        ),
    ] = []
    thresholds: Annotated[Thresholds, doc("When monitors speak up.")] = Thresholds()
    location: Annotated[str, doc("Where the machine stands.", max_length=255)] = ""
    board_controller: Annotated[
        BoardController | None, doc("The machine's own controller (BMC), which turns it on and off.")
    ] = None
    check_seconds: Annotated[
        int, doc("Time for each of its health checks.", unit="seconds", ge=1, le=600)
    ] = 60
    drain_seconds: Annotated[
        int,
        doc(
            "How long a lock waits for workloads to leave before it gives up.", unit="seconds", ge=1, le=7200
        ),
    ] = 300
    recovery: Annotated[RecoveryPolicy, doc("How far it may be recovered by itself.")] = RecoveryPolicy()
    recovery_round: Annotated[
        int, doc("Raised to have automatic recovery begin anew, with all its tries.", ge=0)
    ] = 0


class Unknown(Part, frozen=True, kw_only=True):
    """Something that could not be read, and why. Different from something that is not present."""

    path: Annotated[str, doc("What is unknown, as a dotted path of the inventory.")]
    reason: Annotated[str, doc("Why it could not be read.", max_length=512)]


class Product(Part, frozen=True, kw_only=True):
    """What the machine is, from DMI."""

    vendor: Annotated[str, doc("System manufacturer.")] = ""
    name: Annotated[str, doc("Product name.")] = ""
    version: Annotated[str, doc("Product version.")] = ""
    serial: Annotated[str, doc("Serial number.")] = ""
    uuid: Annotated[str, doc("System UUID.")] = ""
    board: Annotated[str, doc("Board name.")] = ""
    firmware_vendor: Annotated[str, doc("Firmware vendor.")] = ""
    firmware_version: Annotated[str, doc("Firmware version.")] = ""
    firmware_date: Annotated[str, doc("Firmware release date.")] = ""
    chassis: Annotated[str, doc("Chassis type.")] = ""


class LogicalProcessor(Part, frozen=True, kw_only=True):
    """One logical processor and its place in the machine."""

    id: Annotated[int, doc("Number of the logical processor.", ge=0)]
    socket: Annotated[int, doc("Physical package.")] = 0
    core: Annotated[int, doc("Core within the package.")] = 0
    thread: Annotated[int, doc("Thread within the core.")] = 0
    numa_node: Annotated[int, doc("NUMA node.")] = 0
    online: Annotated[bool, doc("Whether the kernel schedules on it.")] = True


class Processors(Part, frozen=True, kw_only=True):
    """The processors and their topology."""

    model: Annotated[str, doc("Model name.")] = ""
    vendor: Annotated[str, doc("Vendor identification.")] = ""
    architecture: Annotated[str, doc("Machine architecture.")] = ""
    sockets: Annotated[int, doc("Physical packages.")] = 0
    cores: Annotated[int, doc("Physical cores over all sockets.")] = 0
    threads: Annotated[int, doc("Logical processors.")] = 0
    maximum_mhz: Annotated[int, doc("Highest frequency; 0 when not known.", unit="MHz")] = 0
    flags: Annotated[list[str], doc("Features that workloads ask for.", max_length=512)] = []
    isolated: Annotated[list[int], doc("Processors kept from the scheduler.")] = []
    logical: Annotated[
        list[LogicalProcessor],
        doc("Every logical processor.", list_type="map", list_keys=("id",), max_length=4096),
    ] = []


class HugePages(Part, frozen=True, kw_only=True):
    """Huge pages of one size on one NUMA node."""

    size: Annotated[int, doc("Page size.", unit="KiB")]
    total: Annotated[int, doc("Pages set aside.")] = 0
    free: Annotated[int, doc("Pages not in use.")] = 0


class MemoryNode(Part, frozen=True, kw_only=True):
    """Memory of one NUMA node."""

    numa_node: Annotated[int, doc("NUMA node.")]
    total: Annotated[int, doc("Memory of the node.", unit="MiB")] = 0
    huge_pages: Annotated[
        list[HugePages], doc("Huge pages by size.", list_type="map", list_keys=("size",))
    ] = []
    distances: Annotated[list[int], doc("Relative distance to each node.")] = []


class Memory(Part, frozen=True, kw_only=True):
    """Memory of the machine."""

    total: Annotated[int, doc("Memory the kernel manages.", unit="MiB")] = 0
    swap: Annotated[int, doc("Swap space.", unit="MiB")] = 0
    nodes: Annotated[
        list[MemoryNode], doc("By NUMA node.", list_type="map", list_keys=("numaNode",), max_length=256)
    ] = []


class Partition(Part, frozen=True, kw_only=True):
    """A partition of a disk."""

    name: Annotated[str, doc("Device name.")]
    size: Annotated[int, doc("Size.", unit="MiB")] = 0
    start: Annotated[int, doc("Start on the disk.", unit="MiB")] = 0
    type: Annotated[str, doc("Partition type GUID or code.")] = ""
    label: Annotated[str, doc("Partition label.")] = ""
    uuid: Annotated[str, doc("Partition UUID.")] = ""
    filesystem: Annotated[str, doc("File system or other content.")] = ""
    mount: Annotated[str, doc("Where it is mounted.")] = ""


class Disk(Part, frozen=True, kw_only=True):
    """A disk."""

    name: Annotated[str, doc("Device name.")]
    path: Annotated[str, doc("Stable path by which it is addressed.")] = ""
    size: Annotated[int, doc("Size.", unit="MiB")] = 0
    model: Annotated[str, doc("Model.")] = ""
    serial: Annotated[str, doc("Serial number.")] = ""
    wwn: Annotated[str, doc("World wide name.")] = ""
    transport: Annotated[str, doc("nvme, sata, sas, virtio, usb.")] = ""
    rotational: Annotated[bool, doc("Whether it turns.")] = False
    removable: Annotated[bool, doc("Whether its medium can be taken out.")] = False
    read_only: Annotated[bool, doc("Whether writing is refused.")] = False
    pci_address: Annotated[str, doc("PCI address of its controller.")] = ""
    partitions: Annotated[
        list[Partition], doc("Its partitions.", list_type="map", list_keys=("name",), max_length=256)
    ] = []
    filesystem: Annotated[str, doc("File system on the whole disk.")] = ""
    mount: Annotated[str, doc("Where the whole disk is mounted.")] = ""


class Filesystem(Part, frozen=True, kw_only=True):
    """A mounted file system on a local disk."""

    mount: Annotated[str, doc("Where it is mounted.")]
    source: Annotated[str, doc("Device.")] = ""
    type: Annotated[str, doc("File system type.")] = ""
    size: Annotated[int, doc("Size.", unit="MiB")] = 0
    read_only: Annotated[bool, doc("Whether writing is refused.")] = False


class SriovCapability(Part, frozen=True, kw_only=True):
    """Single-root I/O virtualisation of a device."""

    total_functions: Annotated[int, doc("Virtual functions the device can have.")] = 0
    functions: Annotated[int, doc("Virtual functions it has now.")] = 0


class Port(Part, frozen=True, kw_only=True):
    """A network port."""

    name: Annotated[str, doc("Name.")]
    kind: Annotated[str, doc("ethernet, bridge, veth, bond, vlan ... as the kernel says.")] = "ethernet"
    mac: Annotated[str, doc("MAC address.")] = ""
    addresses: Annotated[list[str], doc("Addresses with prefix length.", max_length=256)] = []
    mtu: Annotated[int, doc("Largest packet.", unit="bytes")] = 0
    up: Annotated[bool, doc("Whether it is administratively up.")] = False
    carrier: Annotated[bool, doc("Whether it has a link.")] = False
    speed: Annotated[int, doc("Speed; 0 when not known.", unit="Mbit/s")] = 0
    duplex: Annotated[str, doc("full or half; empty when not known.")] = ""
    driver: Annotated[str, doc("Kernel driver.")] = ""
    driver_version: Annotated[str, doc("Driver version.")] = ""
    firmware_version: Annotated[str, doc("Firmware version.")] = ""
    pci_address: Annotated[str, doc("PCI address.")] = ""
    numa_node: Annotated[int, doc("NUMA node; -1 when none.")] = -1
    sriov: Annotated[SriovCapability | None, doc("Present when the port can have virtual functions.")] = None
    master: Annotated[str, doc("Bridge or bond it belongs to.")] = ""


class PciDevice(Part, frozen=True, kw_only=True):
    """A PCI device that is neither a port nor a disk controller."""

    address: Annotated[str, doc("PCI address.")]
    class_code: Annotated[str, doc("Class code, hexadecimal.")] = ""
    class_name: Annotated[str, doc("Class name.")] = ""
    vendor_id: Annotated[str, doc("Vendor, hexadecimal.")] = ""
    vendor: Annotated[str, doc("Vendor name.")] = ""
    device_id: Annotated[str, doc("Device, hexadecimal.")] = ""
    device: Annotated[str, doc("Device name.")] = ""
    driver: Annotated[str, doc("Kernel driver.")] = ""
    numa_node: Annotated[int, doc("NUMA node; -1 when none.")] = -1
    sriov: Annotated[SriovCapability | None, doc("Present when it can have virtual functions.")] = None


class OperatingSystem(Part, frozen=True, kw_only=True):
    """Operating system and kernel."""

    name: Annotated[str, doc("Name for people.")] = ""
    id: Annotated[str, doc("Identifier.")] = ""
    version: Annotated[str, doc("Version.")] = ""
    kernel: Annotated[str, doc("Kernel release.")] = ""
    kernel_arguments: Annotated[str, doc("Kernel command line.", max_length=4096)] = ""
    hostname: Annotated[str, doc("Name the kernel has.")] = ""


class ClockState(Part, frozen=True, kw_only=True):
    """Whether the clock can be trusted."""

    synchronised: Annotated[bool | None, doc("Whether the kernel says it is synchronised.")] = None
    source: Annotated[str, doc("Current clock source.")] = ""
    time_zone: Annotated[str, doc("Time zone.")] = ""


class Inventory(Part, frozen=True, kw_only=True):
    """What the machine has, read from real sources."""

    product: Annotated[Product | None, doc("From DMI; absent where there is none.")] = None
    processors: Annotated[Processors, doc("Processors.")] = Processors()
    memory: Annotated[Memory, doc("Memory.")] = Memory()
    disks: Annotated[list[Disk], doc("Disks.", list_type="map", list_keys=("name",), max_length=1024)] = []
    filesystems: Annotated[list[Filesystem], doc("Mounted file systems.", max_length=256)] = []
    ports: Annotated[
        list[Port], doc("Network ports.", list_type="map", list_keys=("name",), max_length=1024)
    ] = []
    devices: Annotated[list[PciDevice], doc("Other PCI devices.", max_length=1024)] = []
    operating_system: Annotated[OperatingSystem, doc("Operating system.")] = OperatingSystem()
    clock: Annotated[ClockState, doc("Clock.")] = ClockState()
    unknown: Annotated[list[Unknown], doc("What could not be read, and why.", max_length=256)] = []


class Reading(Part, frozen=True, kw_only=True):
    """The level a monitored thing is at, after hysteresis."""

    monitor: Annotated[Literal["processor", "memory", "filesystem", "port"], doc("Which monitor.")]
    instance: Annotated[str, doc("Which one, where there are several: mount point, port.")] = ""
    level: Annotated[Level, doc("Level; unknown when it could not be read.")]
    value: Annotated[float, doc("Use, rounded; 0 for ports.", unit="percent")] = 0.0
    message: Annotated[str, doc("For people.", max_length=512)] = ""
    since: Annotated[str, doc("When this level was entered.", format="date-time")] = ""


class AgentState(Part, frozen=True, kw_only=True):
    """The agent on the host."""

    version: Annotated[str, doc("Version of the agent.")] = ""
    boot_id: Annotated[str, doc("Changes with each start of the machine.")] = ""
    incarnation: Annotated[str, doc("Changes with each start of the agent.")] = ""
    started_at: Annotated[str, doc("When the agent started.", format="date-time")] = ""
    certificate_expires_at: Annotated[str, doc("End of its certificate.", format="date-time")] = ""


class HostStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is."""

    administrative: Annotated[AdministrativeState, doc("Administrative state.")] = "locked"
    operational: Annotated[OperationalState, doc("Operational state.")] = "disabled"
    availability: Annotated[Availability, doc("Availability.")] = "offline"
    task: Annotated[str, doc("What is being done to it now.", max_length=255)] = ""
    connected: Annotated[bool, doc("Whether its agent's link is up.")] = False
    connection_changed_at: Annotated[str, doc("When connected last changed.", format="date-time")] = ""
    observed_generation: Annotated[int, doc("Generation of spec this speaks of.")] = 0
    conditions: Annotated[
        list[Condition],
        doc("Aspects of its state.", list_type="map", list_keys=("type",), max_length=32),
    ] = []
    inventory: Annotated[Inventory | None, doc("Absent until first observed.", owner=Owner.HOST)] = None
    inventory_observed_at: Annotated[
        str, doc("When the inventory last changed.", owner=Owner.HOST, format="date-time")
    ] = ""
    readings: Annotated[
        list[Reading], doc("Levels of what is monitored.", owner=Owner.HOST, max_length=1024)
    ] = []
    agent: Annotated[AgentState, doc("The agent.", owner=Owner.HOST)] = AgentState()
    health: Annotated[
        CheckReport | None, doc("What its health checks found; absent: it knows none.", owner=Owner.HOST)
    ] = None
    drain: Annotated[
        CheckReport | None, doc("What its drain hooks say; absent: it knows none.", owner=Owner.HOST)
    ] = None
    examination: Annotated[Examination, doc("What is made of its health checks.")] = Examination()
    fit_boot: Annotated[str, doc("The start of the machine in which it was last found fit to serve.")] = ""
    degraded: Annotated[
        list[DegradedReason], doc("Why it is degraded, each reason; empty when it is not.", max_length=256)
    ] = []
    recovery: Annotated[RecoveryStatus, doc("How it was recovered by itself.")] = RecoveryStatus()
    power: Annotated[PowerStatus | None, doc("What its board controller says; absent when it has none.")] = (
        None
    )


class Host(Resource, frozen=True, kw_only=True):
    """A machine of a cloud."""

    spec: Annotated[HostSpec, doc("What the operator wants.")] = HostSpec()
    status: Annotated[HostStatus, doc("What is.")] = HostStatus()


def _invariants(host: Host) -> list[Problem]:
    problems = []
    spec = host.spec
    if len(set(spec.personalities)) != len(spec.personalities):
        problems.append(Problem("spec.personalities", "a personality is listed twice", "list each once"))
    ports = [i.port for i in spec.interfaces]
    problems += [
        Problem(f"spec.interfaces[{n}].port", f"port {p} is assigned twice", "merge the two entries")
        for n, p in enumerate(ports)
        if p in ports[:n]
    ]
    if spec.board_controller is not None:
        problems += board_problems(spec.board_controller, "spec.boardController")
    for name in ("processor", "memory", "filesystem"):
        levels = getattr(spec.thresholds, name)
        used = [v for v in (levels.minor, levels.major, levels.critical) if v]
        if used != sorted(set(used)):
            problems.append(
                Problem(
                    f"spec.thresholds.{name}",
                    "levels must rise from minor to critical",
                    "set minor < major < critical, or 0 to leave one out",
                )
            )
    return problems


HOST = KindInfo(
    kind="Host",
    operating=("administrativeState", "forceLock", "recoveryRound"),
    plural="hosts",
    singular="host",
    short_names=("ho",),
    categories=("roost",),
    type=Host,
    description="A machine of a cloud: its life, its inventory, its health.",
    flow=Flow.BOTH,
    invariants=_invariants,
    selectable=("spec.administrativeState", "status.availability", "status.operational"),
    columns=(
        Column("Personalities", "spec.personalities[*]", "Roles of the host."),
        Column("Administrative", "status.administrative", "Locked or unlocked."),
        Column("Operational", "status.operational", "Enabled or disabled."),
        Column("Availability", "status.availability", "Availability."),
        Column("Task", "status.task", "What is being done to it now."),
        Column("Threads", "status.inventory.processors.threads", "Logical processors.", "integer", 1),
        Column("Memory MiB", "status.inventory.memory.total", "Memory.", "integer", 1),
        Column("Kernel", "status.inventory.operatingSystem.kernel", "Kernel release.", "string", 1),
        Column("Version", "status.agent.version", "Version of the agent.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
