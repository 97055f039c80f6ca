"""Observers on machines laid out as files: what is there, what is not, and what could not be read."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from roost.host.observe import Source, deadline, observe
from roost.host.observe.__main__ import main
from roost.host.observe.clock import observe_clock
from roost.host.observe.devices import observe_devices
from roost.host.observe.ethtool import Driver, Speed
from roost.host.observe.inventory import OBSERVERS, assemble
from roost.host.observe.look import MAXIMUM_UNKNOWN, Look, ranges, settle, unknown
from roost.host.observe.memory import observe_memory
from roost.host.observe.mounts import local, observe_filesystems, parse_mountinfo
from roost.host.observe.netlink import Address, Link, NetlinkError
from roost.host.observe.ports import Kernel, observe_ports
from roost.host.observe.processors import observe_processors
from roost.host.observe.product import chassis, observe_product
from roost.host.observe.storage import observe_disks, parse_lsblk
from roost.host.observe.system import observe_operating_system, os_release
from roost.model.host import (
    HugePages,
    Inventory,
    LogicalProcessor,
    PciDevice,
    Port,
    SriovCapability,
    Unknown,
)

FIXTURES = Path(__file__).parent / "fixtures"


def lay_out(name: str, root: Path) -> Source:
    """Lay out a fixture: `path = content`, `path -> link`, `path !` for a file that cannot be read (a
    directory in its place: even root is refused)."""
    for line in (FIXTURES / f"{name}.tree").read_text().splitlines():
        path, mark, rest = (*line.split(" ", 2), "")[:3]
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if mark == "=":
            file.write_text(rest.replace("\\n", "\n").replace("\\\\", "\\") + "\n")
        elif mark == "->":
            file.symlink_to(rest)
        else:
            file.mkdir()
    return Source.under(root)


@pytest.fixture
def two_socket(tmp_path: Path) -> Source:
    return lay_out("two-socket", tmp_path)


@pytest.fixture
def small_board(tmp_path: Path) -> Source:
    return lay_out("small-board", tmp_path)


@pytest.fixture
def broken(tmp_path: Path) -> Source:
    return lay_out("broken", tmp_path)


def paths(unknowns: list[Unknown]) -> set[str]:
    assert all(u.reason for u in unknowns)
    return {u.path for u in unknowns}


def test_product(two_socket: Source) -> None:
    product, unknowns = observe_product(two_socket)
    assert unknowns == []
    assert product is not None
    assert (product.vendor, product.name, product.serial) == ("Example Systems", "Edge 2200", "EX123456")
    assert product.version == ""  # the firmware's filler phrase
    assert product.chassis == "rack mount chassis"


def test_machine_without_dmi_has_no_product(small_board: Source) -> None:
    assert observe_product(small_board) == (None, [])


def test_unreadable_dmi_fields_are_unknown(broken: Source) -> None:
    product, unknowns = observe_product(broken)
    assert product is not None
    assert product.vendor == "Example"
    assert product.serial == product.chassis == ""
    assert paths(unknowns) == {"product.serial", "product.chassis"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")
def test_permission_denied_is_unknown_and_not_absent(two_socket: Source, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        product, unknowns = observe_product(two_socket)
        devices, device_unknowns = observe_devices(two_socket)
    finally:
        os.seteuid(0)
    assert product is None
    assert paths(unknowns) == {"product"}
    assert "Permission denied" in unknowns[0].reason
    assert devices == []
    assert "devices" in paths(device_unknowns)


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, ""), (2, ""), (3, "desktop"), (0x97, "rack mount chassis"), (36, "stick computer"), (99, "type 99")],
)
def test_chassis(number: int, name: str) -> None:
    assert chassis(number) == name


def test_processors_of_two_sockets(two_socket: Source) -> None:
    processors, unknowns = observe_processors(two_socket)
    assert (processors.sockets, processors.cores, processors.threads) == (2, 8, 16)
    assert processors.model == "Example Xeon 8-way"
    assert processors.maximum_mhz == 3500
    assert processors.flags == ["fpu", "sse4_2", "avx512f", "vmx"]
    assert processors.isolated == [2, 3, 10, 11]
    assert processors.logical[0] == LogicalProcessor(id=0, socket=0, core=0, thread=0, numa_node=0)
    assert processors.logical[13] == LogicalProcessor(id=13, socket=1, core=1, thread=1, numa_node=1)
    assert processors.logical[15] == LogicalProcessor(id=15, online=False)
    # The kernel tells nothing of the processor that is offline.
    assert unknowns == [Unknown(path="processors.logical", reason="the kernel does not tell the place of 15")]


def test_processors_of_a_small_board(small_board: Source) -> None:
    processors, unknowns = observe_processors(small_board)
    assert unknowns == []
    assert (processors.sockets, processors.cores, processors.threads) == (1, 2, 2)
    assert processors.flags == ["fp", "asimd", "crc32"]
    assert (processors.maximum_mhz, processors.isolated) == (0, [])


def test_processors_that_cannot_be_read(broken: Source) -> None:
    processors, unknowns = observe_processors(broken)
    assert processors.threads == 2
    assert paths(unknowns) == {
        "processors.online",
        "processors.isolated",
        "processors.logical[1].socket",
        "processors.logical",
    }


def test_processors_are_found_without_the_list_of_those_present(small_board: Source) -> None:
    expected, _ = observe_processors(small_board)
    (small_board.sys / "devices/system/cpu/present").unlink()
    (small_board.sys / "devices/system/cpu/online").unlink()
    assert observe_processors(small_board) == (expected, [])


def test_a_machine_that_shows_no_processors_is_unknown(tmp_path: Path) -> None:
    processors, unknowns = observe_processors(Source.under(tmp_path))
    assert processors.threads == 0
    assert paths(unknowns) == {"processors.logical"}


def test_memory_of_two_nodes(two_socket: Source) -> None:
    memory, unknowns = observe_memory(two_socket)
    assert unknowns == []
    assert (memory.total, memory.swap) == (128000, 2048)
    assert [node.numa_node for node in memory.nodes] == [0, 1]
    assert [node.distances for node in memory.nodes] == [[10, 21], [21, 10]]
    assert memory.nodes[1].total == 64000
    assert memory.nodes[1].huge_pages == [
        HugePages(size=2048, total=513, free=500),
        HugePages(size=1048576, total=8, free=8),
    ]


def test_memory_without_numa_is_one_node(small_board: Source) -> None:
    memory, unknowns = observe_memory(small_board)
    assert unknowns == []
    (node,) = memory.nodes
    assert (node.numa_node, node.total) == (0, memory.total)
    assert node.huge_pages == [HugePages(size=2048, total=4, free=3)]


def test_memory_that_cannot_be_read(broken: Source) -> None:
    _, unknowns = observe_memory(broken)
    assert paths(unknowns) == {
        "memory.total",
        "memory.nodes[0].total",
        "memory.nodes[0].distances",
        "memory.nodes[0].hugePages",
    }


def lsblk_output() -> str:
    return (FIXTURES / "two-socket.lsblk.json").read_text()


def test_disks(two_socket: Source) -> None:
    disks, unknowns = observe_disks(two_socket, lsblk_output)
    assert unknowns == []
    assert [disk.name for disk in disks] == ["nvme0n1", "sdb"]
    disk = disks[0]
    assert disk.path == "/dev/disk/by-path/pci-0000:3b:00.0-nvme-1"
    assert (disk.size, disk.transport, disk.pci_address) == (915715, "nvme", "0000:3b:00.0")
    assert [(p.name, p.start, p.mount, p.filesystem) for p in disk.partitions] == [
        ("nvme0n1p1", 1, "/boot/efi", "vfat"),
        ("nvme0n1p2", 513, "/srv/my data", "btrfs"),
        ("nvme0n1p3", 1537, "/", "ext4"),
    ]
    assert (disks[1].model, disks[1].removable, disks[1].size) == ("Card Reader", True, 0)


def raising(error: BaseException) -> str:
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory"), "install util-linux"),
        (subprocess.TimeoutExpired("lsblk", 8), "no answer within"),
        (subprocess.CalledProcessError(32, "lsblk", stderr=b"no /sys"), "status 32: no /sys"),
    ],
)
def test_disks_are_unknown_when_lsblk_fails(two_socket: Source, error: Exception, said: str) -> None:
    disks, unknowns = observe_disks(two_socket, lambda: raising(error))
    assert disks == []
    assert paths(unknowns) == {"disks"}
    assert said in unknowns[0].reason


def test_disks_are_unknown_when_lsblk_prints_nonsense(two_socket: Source) -> None:
    for text in ("{", "[]", '{"blockdevices": [1]}', '{"blockdevices": {}}'):
        assert paths(observe_disks(two_socket, lambda text=text: text)[1]) == {"disks"}  # type: ignore[misc]
    assert parse_lsblk("") == []  # a machine without block devices


def test_size_of_a_disk_that_is_no_number(two_socket: Source) -> None:
    text = json.dumps({"blockdevices": [{"kname": "sda", "type": "disk", "size": "many"}]})
    disks, unknowns = observe_disks(two_socket, lambda: text)
    assert [disk.size for disk in disks] == [0]
    assert paths(unknowns) == {"disks[sda].size"}


def fixed_statvfs(_: str) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, 2560, 1024, 512, 0, 0, 0, 0, 255))


def test_filesystems(two_socket: Source) -> None:
    found, unknowns = observe_filesystems(two_socket, fixed_statvfs)
    assert unknowns == []
    assert [(f.mount, f.type, f.size, f.read_only) for f in found] == [
        ("/", "ext4", 10, False),
        ("/boot/efi", "vfat", 10, False),
        ("/srv/my data", "btrfs", 10, True),
    ]


def test_filesystem_that_does_not_answer(two_socket: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.host.observe.mounts.STATVFS_SECONDS", 0.05)
    release = threading.Event()

    def statvfs(mount: str) -> os.statvfs_result:
        if mount == "/boot/efi":
            release.wait(30)
        return fixed_statvfs(mount)

    try:
        found, unknowns = observe_filesystems(two_socket, statvfs)
    finally:
        release.set()
    assert [f.size for f in found] == [10, 0, 10]
    assert paths(unknowns) == {"filesystems[/boot/efi].size"}


def test_a_mount_hidden_by_a_later_one_does_not_count() -> None:
    text = (
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 8:2 / /data rw - xfs /dev/sdb rw\n"
        "3 1 0:9 / /data rw - tmpfs tmpfs rw\n"
    )
    mounts, strange = parse_mountinfo(text)
    assert strange == 0
    assert [mount.mount for mount in local(mounts)] == ["/"]


def test_bind_mounts_of_a_thousand_containers_are_one_file_system() -> None:
    binds = [f"{n} 1 8:1 /pod/{n} /pod/{n} rw - ext4 /dev/sda1 rw" for n in range(2, 1000)]
    mounts, _ = parse_mountinfo("\n".join([*binds, "1000 1 8:1 / /sysroot rw - ext4 /dev/sda1 rw"]))
    assert [mount.mount for mount in local(mounts)] == ["/sysroot"]
    root = parse_mountinfo("1001 1 8:1 /deploy/x / rw - ext4 /dev/sda1 rw")[0]
    assert [mount.mount for mount in local([*mounts, *root])] == ["/"]


NIC = Link(index=2, name="ens1f0", kind="ethernet", mac="02:00:00:00:00:02", mtu=9000, up=True, carrier=True)
KERNEL = Kernel(
    links=lambda: [
        Link(index=1, name="lo", kind="type 772", loopback=True, up=True, carrier=True),
        msgspec.structs.replace(NIC, master=3),
        Link(index=3, name="br0", kind="bridge", up=True),
    ],
    addresses=lambda: [
        Address(index=3, address="fd00::1/64"),
        Address(index=3, address="192.0.2.1/24"),
        Address(index=1, address="127.0.0.1/8"),
    ],
    driver=lambda name: (
        Driver(name="i40e", version="6.1", firmware="9.20", bus="0000:5e:00.0")
        if name == "ens1f0"
        else Driver(name="bridge")
    ),
    speed=lambda name: Speed(mbit=25000, duplex="full"),
)


def test_ports(two_socket: Source) -> None:
    ports, unknowns = observe_ports(two_socket, KERNEL)
    assert unknowns == []
    bridge, nic = ports
    assert nic == Port(
        name="ens1f0", mac="02:00:00:00:00:02", mtu=9000, up=True, carrier=True, speed=25000, duplex="full",
        driver="i40e", driver_version="6.1", firmware_version="9.20", pci_address="0000:5e:00.0", numa_node=0,
        sriov=SriovCapability(total_functions=64, functions=4), master="br0",
    )  # fmt: skip
    # No link, no speed; no PCI address, no NUMA node and no virtual functions.
    assert bridge == Port(
        name="br0", kind="bridge", addresses=["192.0.2.1/24", "fd00::1/64"], up=True, driver="bridge"
    )


def test_ports_that_cannot_be_listed_are_unknown(two_socket: Source) -> None:
    def refuse() -> list[Link]:
        raise NetlinkError("changed all the time")

    kernel = msgspec.structs.replace(KERNEL, links=refuse)
    assert observe_ports(two_socket, kernel) == (
        [],
        [Unknown(path="ports", reason="changed all the time")],
    )


def test_driver_that_cannot_be_asked_is_unknown(two_socket: Source) -> None:
    def refuse(name: str) -> Driver:
        raise PermissionError(1, "Operation not permitted")

    ports, unknowns = observe_ports(two_socket, msgspec.structs.replace(KERNEL, driver=refuse))
    assert [port.driver for port in ports] == ["", ""]
    assert paths(unknowns) == {"ports[br0].driver", "ports[ens1f0].driver"}


def test_devices(two_socket: Source) -> None:
    devices, unknowns = observe_devices(two_socket)
    assert unknowns == []
    # Neither the disk controller nor the virtual function.
    assert [device.address for device in devices] == [
        "0000:00:00.0",
        "0000:5e:00.0",
        "0000:5e:00.1",
        "0000:b1:00.0",
    ]
    accelerator = devices[-1]
    assert (accelerator.vendor, accelerator.device) == ("Intel Corporation", "4xxx Series QAT")
    assert (accelerator.class_code, accelerator.class_name) == ("0b4000", "Co-processor")
    assert (accelerator.driver, accelerator.numa_node) == ("4xxx", 1)
    assert accelerator.sriov == SriovCapability(total_functions=16, functions=16)


def test_devices_that_are_ports_are_listed_as_ports_only(two_socket: Source) -> None:
    inventory = assemble(
        {"devices": observe_devices(two_socket)[0], "ports": observe_ports(two_socket, KERNEL)[0]}, []
    )
    # The other function of the card belongs to a user space driver: no port, so a device.
    assert [device.address for device in inventory.devices] == [
        "0000:00:00.0",
        "0000:5e:00.1",
        "0000:b1:00.0",
    ]


def test_machine_without_pci_has_no_devices(small_board: Source) -> None:
    assert observe_devices(small_board) == ([], [])


def test_devices_that_cannot_be_read(broken: Source) -> None:
    devices, unknowns = observe_devices(broken)
    (device,) = devices
    assert device.sriov == SriovCapability(total_functions=8, functions=0)
    at = "devices[0000:01:00.0]"
    assert paths(unknowns) == {
        f"{at}.deviceId", f"{at}.numaNode", f"{at}.sriov.functions", "devices.vendor"
    }  # fmt: skip


def test_operating_system(two_socket: Source) -> None:
    system, unknowns = observe_operating_system(two_socket)
    assert unknowns == []
    assert (system.name, system.id, system.version) == ("Debian GNU/Linux 12 (bookworm)", "debian", "12")
    assert (system.kernel, system.hostname) == ("6.1.0-31-amd64", "edge-1")
    assert "isolcpus" in system.kernel_arguments


def test_operating_system_that_cannot_be_read(broken: Source) -> None:
    system, unknowns = observe_operating_system(broken)
    assert system.kernel == "6.1.0"
    assert paths(unknowns) == {"operatingSystem.name"}


def test_clock(two_socket: Source) -> None:
    clock, unknowns = observe_clock(two_socket, lambda: 0x2001)
    assert unknowns == []
    assert (clock.synchronised, clock.source, clock.time_zone) == (True, "tsc", "Europe/Berlin")
    assert observe_clock(two_socket, lambda: 0x41)[0].synchronised is False


def test_clock_of_a_board_without_time_zone(small_board: Source) -> None:
    clock, unknowns = observe_clock(small_board, lambda: 0)
    assert unknowns == []
    assert clock.time_zone == "UTC"


def test_clock_that_cannot_be_read(broken: Source) -> None:
    def refuse() -> int:
        raise PermissionError(1, "Operation not permitted")

    clock, unknowns = observe_clock(broken, refuse)
    assert clock.synchronised is None
    assert paths(unknowns) == {"clock.synchronised", "clock.source", "clock.timeZone"}


async def test_a_crash_or_a_hang_makes_only_its_part_unknown(two_socket: Source) -> None:
    release = threading.Event()

    def crash(_: Source) -> tuple[None, list[Unknown]]:
        raise ZeroDivisionError("of course")

    def hang(_: Source) -> tuple[None, list[Unknown]]:
        release.wait(30)
        return None, []

    observers = {**OBSERVERS, "memory": crash, "operating_system": hang}
    observers["ports"] = lambda source: observe_ports(source, KERNEL)
    observers["disks"] = lambda source: observe_disks(source, lsblk_output)
    observers["filesystems"] = lambda source: observe_filesystems(source, fixed_statvfs)
    try:
        inventory = await observe(two_socket, observers, seconds=1.0)
    finally:
        release.set()
    assert inventory.product is not None
    assert len(inventory.ports) == 2
    assert {(u.path, u.reason) for u in inventory.unknown if not u.path.startswith("processors")} == {
        ("memory", "ZeroDivisionError: of course"),
        ("operatingSystem", "no answer within 1 seconds"),
    }
    # It fits its own declared bounds, and survives the wire.
    raw = msgspec.json.encode(inventory)
    assert msgspec.json.decode(raw, type=Inventory) == inventory


async def test_a_file_that_never_answers_is_unknown(two_socket: Source, tmp_path: Path) -> None:
    pipe = tmp_path / "proc/sys/kernel/hostname"
    pipe.unlink()
    os.mkfifo(pipe)
    observers = {"operating_system": OBSERVERS["operating_system"]}
    inventory = await observe(two_socket, observers, seconds=0.2)
    with pipe.open("w"):  # lets the reader go
        pass
    assert paths(inventory.unknown) == {"operatingSystem"}


def test_addresses_that_cannot_be_listed_are_unknown(two_socket: Source) -> None:
    def refuse() -> list[Address]:
        raise PermissionError(1, "Operation not permitted")

    ports, unknowns = observe_ports(two_socket, msgspec.structs.replace(KERNEL, addresses=refuse))
    assert [port.addresses for port in ports] == [[], []]
    assert paths(unknowns) == {"ports.addresses"}


def test_lines_of_os_release_that_are_none_are_passed_over() -> None:
    assert os_release("A='b c'\nB=\n# C=d\nD='open\nE\n F=\"g\" ") == {"A": "b c", "B": "", "F": "g"}


@pytest.mark.parametrize(
    ("link", "zone", "known"),
    [("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo", True), ("/somewhere/else", "", False)],
)
def test_time_zone(tmp_path: Path, link: str, zone: str, known: bool) -> None:  # noqa: FBT001
    source = Source.under(tmp_path)
    source.etc.mkdir()
    (source.etc / "localtime").symlink_to(link)
    clock, unknowns = observe_clock(source, lambda: 0)
    assert clock.time_zone == zone
    assert bool(unknowns) is not known


def test_the_inventory_can_be_printed(two_socket: Source, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(two_socket.proc.parent)]) == 1  # the processor that is offline
    printed = msgspec.json.decode(capsys.readouterr().out, type=Inventory)
    assert printed.product is not None
    assert printed.product.name == "Edge 2200"
    assert main(["one", "two"]) == main(["--help"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_too_many_devices_are_cut_and_it_is_told() -> None:
    devices = [PciDevice(address=f"{n:04x}:00:00.0") for n in range(1030)]
    inventory = assemble({"devices": devices}, [])
    assert len(inventory.devices) == 1024
    assert inventory.unknown == [Unknown(path="devices", reason="6 more are not listed")]


async def test_this_machine() -> None:
    inventory = await observe()
    assert inventory.processors.threads > 0
    assert inventory.memory.total > 0
    assert inventory.operating_system.kernel == os.uname().release
    assert inventory.operating_system.hostname == os.uname().nodename
    assert inventory.clock.synchronised is not None
    assert not {port.name for port in inventory.ports} & {"lo"}
    assert msgspec.json.decode(msgspec.json.encode(inventory), type=Inventory) == inventory
    assert not {u.path for u in inventory.unknown} & {"ports", "disks", "memory", "clock"}


def test_deadline_starts_no_second_call_while_one_is_overdue() -> None:
    release, calls = threading.Event(), []

    def hang() -> int:
        calls.append(1)
        release.wait(30)
        return 7

    for _ in range(3):
        with pytest.raises(deadline.NoAnswer):
            deadline.call("test overdue", hang, 0.02)
    assert len(calls) == 1
    release.set()
    for thread in threading.enumerate():
        if thread.name == "deadline test overdue":
            thread.join(10)
    assert deadline.call("test overdue", hang, 10) == 7


def test_deadline_passes_errors_on() -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        deadline.call("test error", lambda: raising(FileNotFoundError("gone")), 10)


@pytest.mark.parametrize(
    ("text", "numbers"), [("", []), ("0", [0]), ("0-2,7", [0, 1, 2, 7]), ("1-2, 4-4\n", [1, 2, 4])]
)
def test_ranges(text: str, numbers: list[int]) -> None:
    assert ranges(text) == numbers


@pytest.mark.parametrize("text", ["a", "-1", "3-1", "0-9999999", "1-", "1;2", "0x1"])
def test_what_is_no_list_of_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="no list"):
        ranges(text)


def test_text_that_is_no_text_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "serial").write_bytes(b"\xff\xff\xff")
    look = Look()
    assert look.text(tmp_path / "serial", "product.serial") == ""
    assert paths(look.unknown) == {"product.serial"}
    assert look.text(tmp_path / "absent", "product.name") == ""
    assert len(look.unknown) == 1


def test_a_list_cut_short_says_so(tmp_path: Path) -> None:
    look = Look()
    assert look.bound([1, 2, 3], 2, "ports") == [1, 2]
    assert look.unknown == [Unknown(path="ports", reason="1 more are not listed, the limit is 2")]
    (tmp_path / "long").write_text("x" * 20)
    assert len(look.whole(tmp_path / "long", "filesystems", 10)) == 11
    assert len(look.unknown) == 2


def test_unknowns_are_bounded_and_each_told_once() -> None:
    many = [unknown(f"ports[p{n:04}]", "x" * 1000) for n in range(400)]
    settled = settle([*many, *many])
    assert len(settled) == MAXIMUM_UNKNOWN
    assert settled[-1].reason == "145 more are not listed"
    assert max(len(u.reason) for u in settled) == 512
