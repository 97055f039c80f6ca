"""Disks and their partitions: what lsblk knows, with place and stable path from /sys and udev.

A disk is a block device of the machine: loop devices, compressed memory, optical drives and devices built
from others (LVM, RAID, device mapper) are none. Where a disk is mounted comes from mountinfo, because
lsblk sees other mounts than this process when it runs in another namespace.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

from roost.host.observe.look import Look
from roost.host.observe.mounts import Mount, best_views, read_mounts
from roost.host.observe.source import Source
from roost.model.host import Disk, Partition, Unknown

LSBLK_COLUMNS = "KNAME,TYPE,MAJ:MIN,SIZE,MODEL,SERIAL,WWN,TRAN,ROTA,RM,RO,FSTYPE,PARTTYPE,PARTLABEL,PARTUUID"
PCI_ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
_LSBLK_SECONDS = 8.0
_NOT_DISKS = re.compile(r"^(zram|ram|loop|fd)\d+$")
_BUSES = {"virtio": "virtio", "mmc_host": "mmc", "nvme": "nvme"}
_MAXIMUM_DISKS = 1024
_MAXIMUM_PARTITIONS = 256
_MIB = 1 << 20
_SECTOR = 512

Row = dict[str, Any]


def observe_disks(source: Source, lsblk: Callable[[], str] | None = None) -> tuple[list[Disk], list[Unknown]]:
    """Every disk with its partitions."""
    look = Look()
    try:
        rows = parse_lsblk((lsblk or run_lsblk)())
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        look.note("disks", _why(error))
        return [], look.unknown
    mounts = best_views(read_mounts(look, source, "disks"))
    disks = [_disk(look, source, row, mounts) for row in rows if _is_disk(row)]
    return look.bound(sorted(disks, key=lambda d: d.name), _MAXIMUM_DISKS, "disks"), look.unknown


def run_lsblk() -> str:
    """Output of lsblk. Raises OSError or SubprocessError."""
    command = ["lsblk", "--json", "--bytes", "--output", LSBLK_COLUMNS]
    done = subprocess.run(command, capture_output=True, timeout=_LSBLK_SECONDS, check=True)
    return done.stdout.decode()


def parse_lsblk(text: str) -> list[Row]:
    """Top rows of lsblk's tree. Raises ValueError when it is none."""
    tree = json.loads(text) if text.strip() else {}
    rows = tree.get("blockdevices", []) if isinstance(tree, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.get("kname") for row in rows):
        raise ValueError("lsblk printed something else than a tree of block devices")
    return rows


def _why(error: Exception) -> object:
    if isinstance(error, FileNotFoundError):
        return "lsblk is not installed; install util-linux"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"lsblk gave no answer within {_LSBLK_SECONDS:g} seconds"
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or b"").decode(errors="replace").strip()[:200]
        return f"lsblk ended with status {error.returncode}: {said}"
    return error


def _is_disk(row: Row) -> bool:
    if row.get("type") != "disk" or _NOT_DISKS.match(str(row["kname"])):
        return False
    # A size of zero: a card reader without a card (listed), or an unused network block device (not).
    return str(row.get("size") or 0) != "0" or _flag(row, "rm")


def _disk(look: Look, source: Source, row: Row, mounts: dict[str, Mount]) -> Disk:
    name = str(row["kname"])
    at = f"disks[{name}]"
    place = look.target(source.sys / "class/block" / name, f"{at}.pciAddress").split("/")
    mount = _mount_of(name, row, mounts)
    children = [child for child in row.get("children") or [] if child.get("type") == "part"]
    partitions = [_partition(look, source, child, mounts, at) for child in children]
    return Disk(
        name=name,
        path=_stable_path(look, source, _word(row, "maj:min"), f"{at}.path"),
        size=_size(look, row, f"{at}.size"),
        model=_word(row, "model"),
        serial=_word(row, "serial"),
        wwn=_word(row, "wwn"),
        transport=_word(row, "tran") or _bus(place),
        rotational=_flag(row, "rota"),
        removable=_flag(row, "rm"),
        read_only=_flag(row, "ro"),
        pci_address=next((p for p in reversed(place) if PCI_ADDRESS.match(p)), ""),
        partitions=look.bound(partitions, _MAXIMUM_PARTITIONS, f"{at}.partitions"),
        filesystem=_word(row, "fstype") or (mount.type if mount else ""),
        mount=mount.mount if mount else "",
    )


def _partition(look: Look, source: Source, row: Row, mounts: dict[str, Mount], disk: str) -> Partition:
    name = str(row.get("kname") or "")
    at = f"{disk}.partitions[{name}]"
    mount = _mount_of(name, row, mounts)
    start = look.number(source.sys / "class/block" / name / "start", f"{at}.start")
    return Partition(
        name=name,
        size=_size(look, row, f"{at}.size"),
        start=start * _SECTOR // _MIB,
        type=_word(row, "parttype"),
        label=_word(row, "partlabel"),
        uuid=_word(row, "partuuid"),
        filesystem=_word(row, "fstype") or (mount.type if mount else ""),
        mount=mount.mount if mount else "",
    )


def _mount_of(name: str, row: Row, mounts: dict[str, Mount]) -> Mount | None:
    # A btrfs mount has a device number of its own, so its source is looked at as well.
    return mounts.get(_word(row, "maj:min")) or mounts.get(f"/dev/{name}")


def _stable_path(look: Look, source: Source, device: str, at: str) -> str:
    """The name under which udev finds the device again: by its place, else by its identity."""
    links = [
        line.removeprefix("S:")
        for line in look.text(source.run / f"udev/data/b{device}", at).splitlines()
        if line.startswith(("S:disk/by-path/", "S:disk/by-id/"))
    ]
    links.sort(key=lambda link: (not link.startswith("disk/by-path/"), len(link), link))
    return f"/dev/{links[0]}" if links else ""


def _bus(place: list[str]) -> str:
    for name, bus in _BUSES.items():
        if any(re.fullmatch(rf"{name}\d*", part) for part in place):
            return bus
    return ""


def _word(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value).strip()


def _flag(row: Row, column: str) -> bool:
    # Booleans since util-linux 2.33, words before.
    return row.get(column) in (True, "1")


def _size(look: Look, row: Row, at: str) -> int:
    try:
        return int(row.get("size") or 0) // _MIB
    except (TypeError, ValueError):
        look.note(at, f"lsblk gives {str(row.get('size'))[:40]!r} as size")
        return 0
