"""Nothing that runs is restarted or configured anew without somebody's intent.

A machine restarts only as often as people asked for it. The intent for a host changes only when people or its
machine change something: a link that comes back, a process that starts, a store that is behind are no cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What there was in a run that may change a host: writes by people that may have happened, by what they
    are for, changes of its machine, and stores that were put back to an older state."""

    reboots: int = 0
    writes: int = 0
    machine: int = 0
    restores: int = 0
    subclouds: int = 0


def unasked_restarts(host: str, restarts: int, orders: Orders) -> list[str]:
    """Restarts of a machine beyond those that were asked for. A restored cloud may ask once more."""
    allowed = orders.reboots * (1 + orders.restores)
    if restarts <= allowed:
        return []
    return [f"{host}: its machine was restarted {restarts} times, {allowed} were asked for"]


REQUESTS = ("health", "drain", "checks")
"""Parts of an intent that ask a host something instead of telling it what to be."""


def changes_of_intent(history: Iterable[Mapping[str, Any]], host: str) -> int:
    """How often the intent for a host became another one, in rows of its store's history."""
    changed = 0
    for row in history:
        if (row["kind"], row["origin"], row["name"]) != ("HostConfiguration", "", host):
            continue
        if row["type"] == "MODIFIED" and _told(row["data"]) != _told(row["previous"]):
            changed += 1
    return changed


def _told(data: str) -> dict[str, Any]:
    spec: dict[str, Any] = msgspec.json.decode(data).get("spec") or {}
    return {k: v for k, v in spec.items() if k not in REQUESTS}


def unasked_intent(host: str, generations: int, orders: Orders) -> list[str]:
    """Changes of a host's intent beyond those that something was changed for."""
    if generations <= 0 or orders.restores:
        return []
    # A policy is declared, and taken away with its name; each write is at most one change, and its copy one.
    allowed = 2 * orders.writes + orders.machine + 2 * orders.subclouds
    if generations <= allowed:
        return []
    return [
        f"{host}: its intent changed {generations} times, and people and machine changed {allowed} things"
    ]
