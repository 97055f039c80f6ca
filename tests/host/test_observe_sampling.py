"""Samples: numbers where they could be read, reasons where they could not."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from roost.host.observe import Source
from roost.host.observe.look import CannotTell
from roost.host.observe.netlink import Link
from roost.host.sampling import (
    PortState,
    Reads,
    Sampler,
    Ticks,
    Unread,
    filesystem_use,
    memory_use,
    parse_stat,
    port_states,
    processor_use,
)

STAT = "cpu  9 9 9 9\ncpu0 {} 0 10 {} 5 1 1 0 7 0\ncpu1 {} 0 10 {} 5 1 1 0 0 0\nintr 1 2 3\n"
LINKS = [
    Link(index=1, name="lo", kind="type 772", loopback=True, up=True, carrier=True),
    Link(index=2, name="eth0", kind="ethernet", up=True),
    Link(index=3, name="veth0", kind="veth", up=True, carrier=True),
]


def statvfs(blocks: int, free: int, available: int) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, blocks, free, available, 0, 0, 0, 0, 255))


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two processors, the second isolated; two file systems, and some that do not count."""
    for name, content in {
        "proc/stat": STAT.format(100, 100, 100, 100),
        "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 200 kB\nHugetlb: 200 kB\n",
        "proc/self/mountinfo": "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 8:2 / /data rw - xfs /dev/sda2 rw\n"
        "3 1 8:3 / /usr ro - ext4 /dev/sda3 ro\n"
        "4 1 0:7 / /nfs rw - nfs4 server:/ rw\n"
        "5 1 7:1 / /image ro - squashfs /dev/loop1 ro\n",
        "sys/devices/system/cpu/isolated": "1\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def sampler(root: Path, reads: Reads | None = None) -> Sampler:
    plain = Reads(links=lambda: LINKS, statvfs=lambda _: statvfs(100, 40, 20))
    return Sampler(Source.under(root), reads or plain)


async def test_samples(machine: Path) -> None:
    sampling = sampler(machine)
    first = await sampling.sample()
    assert first.processor is None  # nothing to compare with yet
    assert first.memory == 75.0
    assert first.filesystems == {"/": 75.0, "/data": 75.0}
    assert first.ports == {
        "eth0": PortState(up=True, carrier=False),
        "veth0": PortState(up=True, carrier=True, virtual=True),
    }
    # The isolated processor is busy all the time, which does not count.
    (machine / "proc/stat").write_text(STAT.format(125, 175, 900, 100))
    assert (await sampling.sample()).processor == 25.0


async def test_what_cannot_be_read_says_so_and_is_not_zero(machine: Path) -> None:
    def refuse() -> list[Link]:
        raise PermissionError(1, "Operation not permitted")

    def broken(mount: str) -> os.statvfs_result:
        if mount == "/data":
            raise OSError(5, "Input/output error", mount)
        return statvfs(100, 100, 100)

    sampling = sampler(machine, Reads(links=refuse, statvfs=broken))
    (machine / "proc/meminfo").write_text("MemTotal: 1000 kB\n")
    (machine / "proc/stat").unlink()
    sample = await sampling.sample()
    assert sample.processor == Unread("/proc/stat tells the time of no processor")
    assert sample.memory == Unread("/proc/meminfo does not tell MemAvailable")
    assert sample.filesystems == {"/": 0.0, "/data": Unread("/data: Input/output error")}
    assert sample.ports == Unread("Operation not permitted")


async def test_mounts_that_cannot_be_listed(machine: Path) -> None:
    (machine / "proc/self/mountinfo").unlink()
    (machine / "proc/self/mountinfo").mkdir()
    sample = await sampler(machine).sample()
    assert isinstance(sample.filesystems, Unread)
    assert "Is a directory" in sample.filesystems.reason


async def test_a_mount_whose_name_is_no_text_hides_no_other(machine: Path) -> None:
    mounts = machine / "proc/self/mountinfo"
    mounts.write_bytes(mounts.read_bytes() + b"6 1 8:4 / /us\xe9b rw - ext4 /dev/sdb1 rw\n")
    sample = await sampler(machine).sample()
    assert isinstance(sample.filesystems, dict)
    assert set(sample.filesystems) == {"/", "/data", "/us\ufffdb"}


async def test_a_mount_that_hangs_is_unread_and_costs_one_thread(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roost.host.observe.mounts.STATVFS_SECONDS", 0.05)
    release, asked = threading.Event(), []

    def hang(mount: str) -> os.statvfs_result:
        asked.append(mount)
        if mount == "/data":
            release.wait(30)
        return statvfs(100, 50, 50)

    sampling = sampler(machine, Reads(links=lambda: LINKS, statvfs=hang))
    try:
        for _ in range(3):
            sample = await sampling.sample()
            assert isinstance(sample.filesystems, dict)
            assert sample.filesystems["/"] == 50.0
            assert isinstance(sample.filesystems["/data"], Unread)
    finally:
        release.set()
    assert asked.count("/data") == 1
    assert asked.count("/") == 3


async def test_a_mount_that_went_away_is_not_in_the_sample(machine: Path) -> None:
    def gone(mount: str) -> os.statvfs_result:
        if mount == "/data":
            raise FileNotFoundError(2, "No such file or directory")
        return statvfs(100, 50, 50)

    sample = await sampler(machine, Reads(links=lambda: LINKS, statvfs=gone)).sample()
    assert sample.filesystems == {"/": 50.0}


async def test_this_machine() -> None:
    sampling = Sampler()
    first, second = await sampling.sample(), await sampling.sample()
    assert first.processor is None
    assert second.processor is None or isinstance(second.processor, float)
    assert isinstance(first.memory, float)
    assert 0 < first.memory < 100
    assert isinstance(first.filesystems, dict)
    assert isinstance(first.ports, dict)
    assert "lo" not in first.ports


def test_stat() -> None:
    # Time of guests is part of user time already.
    assert parse_stat(STAT.format(100, 200, 1, 2))[0] == Ticks(busy=112, total=317)
    assert sorted(parse_stat(STAT.format(1, 1, 1, 1))) == [0, 1]
    with pytest.raises(ValueError, match="invalid literal"):
        parse_stat("cpu0 a b c d e f g h\n")
    with pytest.raises(CannotTell):
        parse_stat("")


def test_processor_use() -> None:
    before = {0: Ticks(10, 100), 1: Ticks(10, 100)}
    assert processor_use(None, before) is None
    assert processor_use(before, before) is None  # no time has passed
    assert processor_use(before, {0: Ticks(60, 200), 1: Ticks(10, 200)}) == 25.0
    # One came online, one went offline: those that were there both times count.
    assert processor_use(before, {0: Ticks(110, 200), 2: Ticks(999, 999)}) == 100.0
    # Counters that run backwards never give a share outside of 0 to 100.
    assert processor_use(before, {0: Ticks(5, 150), 1: Ticks(90, 101)}) == 100.0


def test_memory_use_leaves_huge_pages_out() -> None:
    fields = {"MemTotal": 1000, "MemAvailable": 100}
    assert memory_use(fields) == 90.0
    assert memory_use({**fields, "HugePages_Total": 4, "Hugepagesize": 200}) == 50.0
    with pytest.raises(CannotTell):
        memory_use({**fields, "Hugetlb": 1000})


def test_filesystem_use_is_that_of_df() -> None:
    assert filesystem_use(statvfs(100, 20, 0)) == 100.0  # the rest is kept for root
    assert filesystem_use(statvfs(100, 60, 40)) == 50.0
    assert filesystem_use(statvfs(0, 0, 0)) == 0.0


def test_bonds_and_vlans_are_no_virtual_ports() -> None:
    links = [Link(index=n, name=kind, kind=kind) for n, kind in enumerate(("bond", "vlan", "bridge", "tun"))]
    assert {name: state.virtual for name, state in port_states(links).items()} == {
        "bond": False, "vlan": False, "bridge": True, "tun": True
    }  # fmt: skip
