"""Samples: how much of the machine is in use at one moment, or why that could not be told.

A sample holds plain numbers. Where something could not be looked at there is an `Unread` with the reason
in the number's place, so that "not in use" and "could not look" never look the same. What the machine does
not have is not in the sample.

- Processor use is the busy share of the time since the sample before, over the processors that the
  platform runs on: those isolated for workloads are left out, since one that polls is always busy.
- Memory use leaves huge pages out of both sides: they are set aside for workloads whether used or not.
- File systems are those on local disks that are writable; use is what `df` calls it.
- A port is in the sample whenever the kernel has it; whether that matters is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

import msgspec

from roost.host.observe import deadline, mounts, netlink
from roost.host.observe.look import CannotTell, Look, describe
from roost.host.observe.memory import meminfo
from roost.host.observe.processors import isolated
from roost.host.observe.source import Source

T = TypeVar("T")

_SECONDS = 4.0
_STAT_LIMIT = 4 << 20
_VIRTUAL = frozenset(
    {
        "veth",
        "netkit",
        "tun",
        "dummy",
        "ifb",
        "nlmon",
        "vcan",
        "bridge",
        "openvswitch",
        "vrf",
        "macvlan",
        "macvtap",
        "ipvlan",
        "ipip",
        "sit",
        "gre",
        "gretap",
        "ip6tnl",
        "ip6gre",
        "vti",
        "vti6",
        "vxlan",
        "geneve",
        "wireguard",
        "xfrm",
    }
)


class Unread(msgspec.Struct, frozen=True):
    """In the place of a value that could not be read."""

    reason: str


class PortState(msgspec.Struct, frozen=True, kw_only=True):
    """A port at one moment."""

    up: bool
    """Whether it is administratively up."""
    carrier: bool
    virtual: bool = False
    """Made by software (veth, bridge, tunnel): such come and go with workloads."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Use in percent and the state of ports at one moment."""

    processor: float | Unread | None = None
    """None: nothing to compare with yet."""
    memory: float | Unread
    filesystems: dict[str, float | Unread] | Unread
    """By mount point; Unread when not even the mounts could be listed."""
    ports: dict[str, PortState] | Unread


class Ticks(msgspec.Struct, frozen=True):
    """Time of one processor since boot, in clock ticks."""

    busy: int
    total: int


class Reads(msgspec.Struct, frozen=True, kw_only=True):
    """How the kernel is asked for what is in no file; replaced by tests."""

    links: Callable[[], list[netlink.Link]] = netlink.read_links
    statvfs: Callable[[str], os.statvfs_result] = os.statvfs


class Sampler:
    """Takes samples, and remembers the processors' times between them. One `sample` at a time."""

    def __init__(self, source: Source | None = None, reads: Reads | None = None) -> None:
        self._source = source or Source()
        self._reads = reads or Reads()
        self._before: dict[int, Ticks] | None = None

    async def sample(self) -> Sample:
        """A sample now. Never raises: what could not be read says so in its place."""
        ticks = await _read("processor", self._ticks)
        processor: float | Unread | None
        if isinstance(ticks, Unread):
            processor = ticks
        else:
            processor, self._before = processor_use(self._before, ticks), ticks
        memory = await _read("memory", self._memory)
        links = await _read("ports", self._reads.links)
        ports = links if isinstance(links, Unread) else port_states(links)
        return Sample(processor=processor, memory=memory, filesystems=await self._filesystems(), ports=ports)

    def _ticks(self) -> dict[int, Ticks]:
        look = Look()
        text = look.text(self._source.proc / "stat", "processor", _STAT_LIMIT)
        apart = isolated(look, self._source)
        _insist(look)
        return {number: ticks for number, ticks in parse_stat(text).items() if number not in set(apart)}

    def _memory(self) -> float:
        look = Look()
        fields = meminfo(look.text(self._source.proc / "meminfo", "memory"))
        _insist(look)
        return memory_use(fields)

    async def _filesystems(self) -> dict[str, float | Unread] | Unread:
        found = await _read("mounts", self._mounts)
        if isinstance(found, Unread):
            return found
        used: dict[str, float | Unread] = {}
        for mount in found[: mounts.MAXIMUM_FILESYSTEMS]:
            try:
                used[mount] = filesystem_use(await asyncio.to_thread(mounts.ask, mount, self._reads.statvfs))
            except FileNotFoundError:
                # Unmounted since it was listed.
                continue
            except Exception as error:
                used[mount] = Unread(describe(error))
        return used

    def _mounts(self) -> list[str]:
        look = Look()
        found = mounts.local(mounts.read_mounts(look, self._source, "filesystems"))
        _insist(look)
        return [mount.mount for mount in found if not mount.read_only]


def parse_stat(text: str) -> dict[int, Ticks]:
    """Times by processor, from /proc/stat. Raises CannotTell or ValueError when they cannot be understood."""
    found: dict[int, Ticks] = {}
    for line in text.splitlines():
        name, *words = line.split()
        if not name.startswith("cpu"):
            break
        if name == "cpu":
            continue
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, words[:8])
        # Time of guests is already part of user and nice.
        busy = user + nice + system + irq + softirq + steal
        found[int(name.removeprefix("cpu"))] = Ticks(busy, busy + idle + iowait)
    if not found:
        raise CannotTell("/proc/stat tells the time of no processor")
    return found


def processor_use(before: dict[int, Ticks] | None, after: dict[int, Ticks]) -> float | None:
    """Busy share in percent of the processors that were online both times; None without a past."""
    if before is None:
        return None
    both = before.keys() & after.keys()
    # Ticks of iowait may run backwards, hence the floors.
    busy = sum(max(after[n].busy - before[n].busy, 0) for n in both)
    total = sum(max(after[n].total - before[n].total, 0) for n in both)
    return min(100.0 * busy / total, 100.0) if total else None


def memory_use(fields: dict[str, int]) -> float:
    """Share in percent of memory outside of huge pages that is not available. Raises CannotTell."""
    for name in ("MemTotal", "MemAvailable"):
        if name not in fields:
            raise CannotTell(f"/proc/meminfo does not tell {name}")
    huge = fields.get("Hugetlb", fields.get("HugePages_Total", 0) * fields.get("Hugepagesize", 0))
    total = fields["MemTotal"] - huge
    if total <= 0:
        raise CannotTell("/proc/meminfo tells of no memory outside of huge pages")
    return min(max(100.0 * (total - fields["MemAvailable"]) / total, 0.0), 100.0)


def filesystem_use(state: os.statvfs_result) -> float:
    """Share in percent that is used of what programs without privilege may use."""
    used = state.f_blocks - state.f_bfree
    usable = used + state.f_bavail
    return min(max(100.0 * used / usable, 0.0), 100.0) if usable > 0 else 0.0


def port_states(links: list[netlink.Link]) -> dict[str, PortState]:
    """Ports by name, without the loopback device."""
    return {
        link.name: PortState(up=link.up, carrier=link.carrier, virtual=link.kind in _VIRTUAL)
        for link in links
        if not link.loopback
    }


async def _read(what: str, function: Callable[[], T]) -> T | Unread:
    try:
        return await deadline.call_async(f"sample {what}", function, _SECONDS)
    # Whatever goes wrong with one value, the others must still be told.
    except Exception as error:
        return Unread(describe(error))


def _insist(look: Look) -> None:
    """A sample is a number or none: whatever could not be read makes it unread."""
    if look.unknown:
        raise CannotTell(look.unknown[0].reason)
