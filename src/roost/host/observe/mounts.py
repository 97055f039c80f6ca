"""Mounted file systems on local disks, from /proc/self/mountinfo.

A host with containers has thousands of mounts; few are file systems of their own. A mount counts when its
type is one that lies on a local disk, nothing is mounted over it, and it is the best view of its device:
`/` before others, the device's own root before a bind mount of a part of it, then the earlier one.
Network file systems, pseudo file systems and read-only images (squashfs and the like) never count.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import msgspec

from roost.host.observe import deadline
from roost.host.observe.look import Look
from roost.host.observe.source import Source
from roost.model.host import Filesystem, Unknown

LOCAL_TYPES = frozenset(
    {
        "bcachefs",
        "btrfs",
        "exfat",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "fuseblk",
        "jfs",
        "nilfs2",
        "ntfs3",
        "reiserfs",
        "vfat",
        "xfs",
        "zfs",
    }
)
MAXIMUM_FILESYSTEMS = 256
_MOUNTINFO_LIMIT = 8 << 20
STATVFS_SECONDS = 2.0
_ESCAPE = re.compile(r"\\([0-7]{3})")
_MIB = 1 << 20


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """One line of mountinfo."""

    device: str
    """Major and minor number, as `254:0`."""
    root: str
    """Which part of the file system is mounted; `/` for all of it."""
    mount: str
    type: str
    source: str
    read_only: bool
    """The file system itself, not just this view of it."""


def observe_filesystems(
    source: Source, statvfs: Callable[[str], os.statvfs_result] = os.statvfs
) -> tuple[list[Filesystem], list[Unknown]]:
    """The mounted file systems on local disks, with their sizes."""
    look = Look()
    mounts = look.bound(local(read_mounts(look, source, "filesystems")), MAXIMUM_FILESYSTEMS, "filesystems")
    found = []
    for mount in mounts:
        size = 0
        try:
            state = ask(mount.mount, statvfs)
            size = state.f_blocks * state.f_frsize // _MIB
        except (OSError, deadline.NoAnswer) as error:
            look.note(f"filesystems[{mount.mount}].size", error)
        found.append(
            Filesystem(
                mount=mount.mount, source=mount.source, type=mount.type, size=size, read_only=mount.read_only
            )
        )
    return found, look.unknown


def ask(mount: str, statvfs: Callable[[str], os.statvfs_result]) -> os.statvfs_result:
    """statvfs with a deadline. Raises NoAnswer or OSError."""
    return deadline.call(f"statvfs {mount}", lambda: statvfs(mount), STATVFS_SECONDS)


def read_mounts(look: Look, source: Source, at: str) -> list[Mount]:
    """All mounts this process sees."""
    # A mount may have any bytes for its name; one that is no text must not hide all others.
    content = look.whole(source.proc / "self/mountinfo", at, _MOUNTINFO_LIMIT, errors="replace")
    mounts, strange = parse_mountinfo(content)
    if strange:
        look.note(at, f"{strange} lines of mountinfo could not be understood")
    return mounts


def parse_mountinfo(text: str) -> tuple[list[Mount], int]:
    """Mounts in their order, and how many lines are none."""
    mounts: list[Mount] = []
    strange = 0
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if not dash or len(before) < 6 or len(after) < 3:
            strange += 1
            continue
        mounts.append(
            Mount(
                device=before[2],
                root=_unescape(before[3]),
                mount=_unescape(before[4]),
                type=after[0],
                source=_unescape(after[1]),
                read_only="ro" in after[2].split(","),
            )
        )
    return mounts, strange


def local(mounts: list[Mount]) -> list[Mount]:
    """The best view of each file system on a local disk, by mount point."""
    best: dict[str, Mount] = {}
    for mount in _on_top(mounts):
        if mount.type in LOCAL_TYPES:
            # Datasets of zfs are told apart by their source, all else by its device.
            _keep_better(best, mount.source if mount.type == "zfs" else mount.device, mount)
    return sorted(best.values(), key=lambda m: m.mount)


def best_views(mounts: list[Mount]) -> dict[str, Mount]:
    """The best view of each file system, by its device number and again by its source."""
    best: dict[str, Mount] = {}
    for mount in _on_top(mounts):
        _keep_better(best, mount.device, mount)
        _keep_better(best, mount.source, mount)
    return best


def _on_top(mounts: list[Mount]) -> list[Mount]:
    # A later mount hides an earlier one at the same place.
    return list({mount.mount: mount for mount in mounts}.values())


def _keep_better(best: dict[str, Mount], key: str, mount: Mount) -> None:
    if key not in best or _rank(mount) < _rank(best[key]):
        best[key] = mount


def _rank(mount: Mount) -> tuple[bool, bool]:
    return (mount.mount != "/", mount.root != "/")


def _unescape(field: str) -> str:
    # The kernel writes space, tab, newline and backslash as three octal digits each.
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
