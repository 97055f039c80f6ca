"""Memory of the machine and of each NUMA node, with its huge pages and its distances.

A kernel built without NUMA has no node directories. All its memory and processors are then one node, 0,
and its huge pages stand in one place for the whole machine.
"""

from __future__ import annotations

import re
from pathlib import Path

from roost.host.observe.look import Look
from roost.host.observe.source import Source
from roost.model.host import HugePages, Memory, MemoryNode, Unknown

_NODE = re.compile(r"^node(\d+)$")
_LINE = re.compile(r"^(?:Node \d+ )?(\w+(?:\(\w+\))?):\s+(\d+)(?: kB)?\s*$")
_POOL = re.compile(r"^hugepages-(\d+)kB$")
_MAXIMUM_NODES = 256


def observe_memory(source: Source) -> tuple[Memory, list[Unknown]]:
    """Totals and nodes."""
    look = Look()
    fields = meminfo(look.text(source.proc / "meminfo", "memory.total"))
    if "MemTotal" not in fields and not look.unknown:
        look.note("memory.total", f"{source.proc / 'meminfo'} does not tell MemTotal")
    total = fields.get("MemTotal", 0) // 1024
    nodes = _nodes(look, source.sys / "devices/system/node")
    if not nodes and not look.unknown:
        pages = _huge_pages(look, source.sys / "kernel/mm/hugepages", "memory.nodes[0].hugePages")
        nodes = [MemoryNode(numa_node=0, total=total, huge_pages=pages)]
    memory = Memory(
        total=total,
        swap=fields.get("SwapTotal", 0) // 1024,
        nodes=look.bound(nodes, _MAXIMUM_NODES, "memory.nodes"),
    )
    return memory, look.unknown


def meminfo(text: str) -> dict[str, int]:
    """Fields of a meminfo file, of the machine or of a node: KiB, or a count for HugePages_*."""
    matches = (_LINE.match(line) for line in text.splitlines())
    return {match[1]: int(match[2]) for match in matches if match}


def _nodes(look: Look, base: Path) -> list[MemoryNode]:
    found = (_NODE.match(name) for name in look.names(base, "memory.nodes"))
    nodes = []
    for number in sorted(int(match[1]) for match in found if match):
        directory, at = base / f"node{number}", f"memory.nodes[{number}]"
        content = look.text(directory / "meminfo", f"{at}.total")
        fields = meminfo(content)
        if content and "MemTotal" not in fields:
            look.note(f"{at}.total", f"{directory / 'meminfo'} does not tell MemTotal")
        nodes.append(
            MemoryNode(
                numa_node=number,
                total=fields.get("MemTotal", 0) // 1024,
                huge_pages=_huge_pages(look, directory / "hugepages", f"{at}.hugePages"),
                distances=_distances(look, directory / "distance", f"{at}.distances"),
            )
        )
    return nodes


def _huge_pages(look: Look, base: Path, at: str) -> list[HugePages]:
    found = (_POOL.match(name) for name in look.names(base, at))
    pools = []
    for size in sorted(int(match[1]) for match in found if match):
        directory = base / f"hugepages-{size}kB"
        total = look.number(directory / "nr_hugepages", at)
        free = look.number(directory / "free_hugepages", at)
        pools.append(HugePages(size=size, total=total, free=free))
    return pools


def _distances(look: Look, path: Path, at: str) -> list[int]:
    content = look.text(path, at)
    try:
        return [int(word) for word in content.split()]
    except ValueError:
        look.note(at, f"{path} holds {content[:40]!r}, which are no numbers")
        return []
