"""The processors and where each stands: socket, core, thread, NUMA node.

Topology is the kernel's, from /sys/devices/system/cpu; names and features are from the first block of
/proc/cpuinfo. The kernel tells the place of a processor only while it is online: for the others it is
unknown. The current frequency is left out on purpose: it moves all the time, and what is observed is sent.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from roost.host.observe.look import Look
from roost.host.observe.source import Source
from roost.model.host import LogicalProcessor, Processors, Unknown

_PROCESSOR = re.compile(r"^cpu(\d+)$")
_NODE = re.compile(r"^node(\d+)$")
_MAXIMUM_FLAGS = 512
_MAXIMUM_LOGICAL = 4096
_MAXIMUM_LISTED = 20


def observe_processors(source: Source) -> tuple[Processors, list[Unknown]]:
    """Every logical processor and what they have in common."""
    look = Look()
    base = source.sys / "devices/system/cpu"
    present = look.numbers(base / "present", "processors.logical")
    if not present:
        found = (_PROCESSOR.match(name) for name in look.names(base, "processors.logical"))
        present = sorted(int(match[1]) for match in found if match)
    if not present:
        look.note("processors.logical", f"{base} lists no processors")
    online = _online(look, base, present)
    nodes = processor_nodes(look, source.sys / "devices/system/node")
    logical, cores, placeless = _places(look, base, present, online, nodes)
    if placeless:
        some = ", ".join(str(p) for p in placeless[:_MAXIMUM_LISTED])
        more = f" and {len(placeless) - _MAXIMUM_LISTED} more" if len(placeless) > _MAXIMUM_LISTED else ""
        look.note("processors.logical", f"the kernel does not tell the place of {some}{more}")
    about = cpuinfo(look.text(source.proc / "cpuinfo", "processors.model"))
    processors = Processors(
        model=about.get("model name") or about.get("cpu") or about.get("Processor", ""),
        vendor=about.get("vendor_id") or about.get("CPU implementer", ""),
        architecture=os.uname().machine,
        sockets=len({socket for socket, _ in cores}),
        cores=len(cores),
        threads=len(present),
        maximum_mhz=_maximum_mhz(look, base, online),
        flags=look.bound(
            (about.get("flags") or about.get("Features", "")).split(), _MAXIMUM_FLAGS, "processors.flags"
        ),
        isolated=isolated(look, source),
        logical=look.bound(logical, _MAXIMUM_LOGICAL, "processors.logical"),
    )
    return processors, look.unknown


def isolated(look: Look, source: Source) -> list[int]:
    """Processors kept from the scheduler at boot."""
    return look.numbers(source.sys / "devices/system/cpu/isolated", "processors.isolated")


def cpuinfo(text: str) -> dict[str, str]:
    """Fields of the first processor of /proc/cpuinfo, whatever the architecture calls them."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if not colon:
            if fields:
                break
            continue
        fields.setdefault(name.strip(), value.strip())
    return fields


def processor_nodes(look: Look, base: Path) -> dict[int, int]:
    """NUMA node by processor; empty on a kernel without NUMA."""
    nodes: dict[int, int] = {}
    for name in look.names(base, "processors.logical"):
        match = _NODE.match(name)
        if match:
            for processor in look.numbers(base / name / "cpulist", f"processors.{name}"):
                nodes[processor] = int(match[1])
    return nodes


def _online(look: Look, base: Path, present: list[int]) -> set[int]:
    # A kernel that cannot take processors offline has no such file: then all are online.
    if not (listed := look.numbers(base / "online", "processors.online")):
        return set(present)
    return set(listed)


def _places(
    look: Look, base: Path, present: list[int], online: set[int], nodes: dict[int, int]
) -> tuple[list[LogicalProcessor], set[tuple[int, frozenset[int]]], list[int]]:
    """Logical processors, the distinct cores as (socket, its threads), and whose place is not told."""
    logical: list[LogicalProcessor] = []
    cores: set[tuple[int, frozenset[int]]] = set()
    placeless: list[int] = []
    for number in present:
        if number not in online:
            placeless.append(number)
            logical.append(LogicalProcessor(id=number, online=False))
            continue
        topology, at = base / f"cpu{number}/topology", f"processors.logical[{number}]"
        socket = look.number(topology / "physical_package_id", f"{at}.socket", -1)
        core = look.number(topology / "core_id", f"{at}.core", -1)
        threads = look.numbers(topology / "thread_siblings_list", f"{at}.thread") or [number]
        if socket < 0 or core < 0:
            placeless.append(number)
        socket, core = max(socket, 0), max(core, 0)
        cores.add((socket, frozenset(threads)))
        logical.append(
            LogicalProcessor(
                id=number,
                socket=socket,
                core=core,
                thread=threads.index(number) if number in threads else 0,
                numa_node=nodes.get(number, 0),
            )
        )
    return logical, cores, placeless


def _maximum_mhz(look: Look, base: Path, online: set[int]) -> int:
    # Cores of one machine differ (efficiency and performance cores), so all are asked.
    files = (base / f"cpu{number}/cpufreq/cpuinfo_max_freq" for number in sorted(online))
    return max((look.number(file, "processors.maximumMhz") // 1000 for file in files), default=0)
