"""Everything is bounded: queues, windows, waiting writes, histories, log entries, finished work.

Sizes are counted while a run goes on, in objects of the processes that live; the limits are those that the
documents promise, or what a tree of a few clouds can need at most where they promise more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LIMITS: dict[str, int] = {
    "keys that wait": 300,
    "delays that nobody waits for": 70,
    "changes queued for a session": 1000,
    "sessions of a feed": 6,
    "sessions of a lower end": 2,
    "batches not acknowledged": 4,
    "batches not taken in": 16,
    "resources asked for again": 1000,
    "resources refused": 1001,
    "calls under way": 64,
    "writes that wait": 500,
    "heartbeats not echoed": 16,
    "history": 20_500,
    "log entries": 5_300,
    "operations": 250,
    "events": 10_500,
    "steps": 3000,
}


def over(name: str, sizes: Mapping[str, int]) -> list[str]:
    """What is larger than it may be."""
    return [
        f"{name}: {size} {what}, at most {LIMITS[what]}"
        for what, size in sorted(sizes.items())
        if size > LIMITS[what]
    ]


def largest(sizes: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The largest of each."""
    found: dict[str, int] = {}
    for what, size in sizes:
        found[what] = max(size, found.get(what, 0))
    return found
