"""Observe a machine: its inventory from real sources, and when its ports change.

One module per aspect, each an observer `(source) -> (part, unknowns)` that reads and parses apart:
`product`, `processors`, `memory`, `storage` and `mounts`, `ports` (on `netlink` and `ethtool`), `devices`
(on `pci`), `system`, `clock`. They share `look`, which keeps "not present" and "could not look" apart, and
`deadline`, for calls that may hang. `inventory` runs them all; `watching` tells of changes.

`python -m roost.host.observe` prints this machine's inventory as JSON.
"""

from __future__ import annotations

from roost.host.observe.inventory import observe
from roost.host.observe.ports import port_signature
from roost.host.observe.source import Source
from roost.host.observe.watching import watch_ports

__all__ = ["Source", "observe", "port_signature", "watch_ports"]
