"""The tree of a run: a centre, its sites and their hosts, each a node of its own, joined by links."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from roost.engine.procedures import LEASE_SECONDS
from roost.link.exchange import Unreachable
from roost.link.lower import Backoff
from roost.link.pki import Authority
from roost.link.session import Timing
from roost.sim.cloud import World
from roost.sim.deterministic.clock import START
from roost.sim.deterministic.events import Plan
from roost.sim.deterministic.loop import SimulatedLoop
from roost.sim.deterministic.network import Network, Skew
from roost.sim.deterministic.nodes import CloudNode, HostNode
from roost.sim.deterministic.nodes import Node as Node
from roost.sim.fleet import CENTRE
from roost.sim.subcloud import site_name

MOST_SAID = 10_000
_ANNOUNCED = (
    """SELECT name FROM resources WHERE kind = 'Host' AND namespace = ? AND data LIKE '%"nextAt":"2%'"""
)

_WAITING = """SELECT name FROM steps WHERE state IN ('pending', 'running')
AND max(CASE holder WHEN '' THEN 0 ELSE lease_until END, not_before) > ?
AND max(lease_until, not_before) BETWEEN ? AND ?"""
"""Steps whose holder may be dead, or which pause: the times beyond a lease are of a clock that was wrong."""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a node has logged, from warnings on. `traceback` is the error's when one was logged with it."""

    at: float
    node: str
    level: str
    event: str
    fields: dict[str, object]
    traceback: str = ""


class Tree:
    """All nodes by name: "central", "site-0000", "site-0000/controller-0".

    `settled` are their databases as an earlier run of a tree of this form has left them, when it had settled
    for the first time: settling takes as much of the processor as all else that a run does.
    """

    def __init__(
        self, plan: Plan, loop: SimulatedLoop, directory: Path, settled: Mapping[str, bytes] | None = None
    ) -> None:
        self.plan, self.loop, self.directory, self.settled = plan, loop, directory, settled or {}
        self.timing, self.backoff = Timing(), Backoff()
        self.chance = _chance(plan, "tree")
        self.disk_chance = _chance(plan, "disk")
        self.network = Network(loop, _chance(plan, "network"))
        self.trace: list[str] = []
        self.said: list[Said] = []
        self.problems: list[str] = []
        """What went wrong in the simulation itself."""
        self.origin = loop.time()
        self._context = contextvars.Context()
        self._kept: list[object] = []
        self.nodes: dict[str, Node] = {}
        centre = self._add(CloudNode(self, CENTRE, None, 0))
        for number in range(plan.sites):
            site = CloudNode(self, site_name(number), centre, number)
            self._add(site)
            for host in range(plan.hosts):
                self._add(HostNode(self, site.name, host, site, number))

    def _add(self, node: Node) -> Node:
        self.nodes[node.name] = node
        return node

    @property
    def now(self) -> float:
        """Simulated seconds since the tree settled for the first time."""
        return self.loop.time() - self.origin

    def say(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now:.6f} {text}")

    def hear(self, node: str, level: str, entry: dict[str, Any]) -> None:
        """Keep what a node logs; the first MOST_SAID."""
        if len(self.said) >= MOST_SAID:
            return
        fields, told = dict(entry), ""
        event, error = str(fields.pop("event", "")), fields.pop("exc_info", None)
        if error:
            found = error if isinstance(error, BaseException) else sys.exception()
            told = "".join(traceback.format_exception(found)) if found is not None else "no traceback"
        self.said.append(
            Said(at=self.now, node=node, level=level, event=event, fields=fields, traceback=told)
        )

    def world(self, node: Node) -> World:
        """What a cloud of the simulation needs, with a node's own clock."""
        return World(
            directory=self.directory,
            authority=authority(),
            clock=node.clock,
            timing=self.timing,
            backoff=self.backoff,
        )

    def begin(self) -> None:
        """It has settled for the first time: time counts from here."""
        self.origin = self.loop.time()
        self.trace.append("begin")

    def dispose(self) -> None:
        """After the run: close what is open, and let go of everything, the dead too."""
        for node in self.nodes.values():
            node.dispose()
        self.nodes, self.network.links = {}, {}
        self._kept.clear()

    # -- outside of all processes

    def at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Call at a time of the loop, whatever has died by then."""
        return self.loop.call_at(when, callback, context=self._context)

    def outside(self, callback: Callable[[], object]) -> None:
        """Call soon, whatever has died by then."""
        self.loop.call_soon(callback, context=self._context)

    def at_once(self, callback: Callable[[], object]) -> None:
        """Call now, as what happens to a process and not within it."""
        self._context.copy().run(callback)

    def keep(self, remains: object) -> None:
        """Keep what is left of a dead process to the end of the run, so that nothing of it is unwound."""
        self._kept.append(remains)

    # -- all of it

    def start(self) -> None:
        """Start every node that is down."""
        for node in self.nodes.values():
            node.start()

    def heal(self) -> None:
        """Mend every link, make room on every disk, set every clock right, start every node."""
        for node in self.nodes.values():
            node.disk.is_full, node.disk.slow_seconds, node.disk.cut_power = False, 0.0, None
            node.clock.right()
            node.station.skew = Skew()
            if node.link is not None:
                node.link.heal()
            node.start()

    def unsettled(self) -> str:
        """What is not as it should be for all to be in step; empty when all is."""
        for node in self.nodes.values():
            if not node.alive:
                return f"{node.name} is down"
            above, link = node.above, node.uplink
            if above is None:
                continue
            if link is None or not link.state.connected:
                if not self._is_declared(node, above):
                    continue
                return f"{node.name} is not linked"
            try:
                in_step = link.in_step and above.cloud.upper.progress(link.node).in_step
            except Unreachable:
                # The two ends learn at different moments that a link is down.
                return f"{node.name} is not linked as seen from above"
            if not in_step:
                return f"{node.name} is not in step"
        return next(filter(None, map(_coming, self.nodes.values())), "")

    def _is_declared(self, node: Node, above: Node) -> bool:
        """Whether a node is declared above it: one that people have deleted there is let in no more."""
        lower = node.link.node if node.link is not None else None
        if lower is None:
            return False
        key = ("Subcloud", "", lower.name) if lower.kind == "subcloud" else ("Host", lower.cloud, lower.name)
        return bool(above.store._snapshot(lambda tx: tx.find(*key) is not None))

    def revisions(self) -> list[int]:
        """How far each store is that is open."""
        return [node.store.revision if node.alive else -1 for node in self.nodes.values()]


def _coming(node: Node) -> str:
    """What a cloud will do by itself at a time that is set: recover a host, try a step again; or empty."""
    if not isinstance(node, CloudNode):
        return ""
    announced = node.query(_ANNOUNCED, node.name)
    if announced:
        return f"{announced[0][0]} of {node.name} is about to be recovered"
    now = node.clock().timestamp()
    waiting = node.query(_WAITING, now, now, now + LEASE_SECONDS)
    return f"step {waiting[0][0]} is about to be tried at {node.name}" if waiting else ""


def _chance(plan: Plan, what: str) -> Random:
    """Chance of its own for each part of the world: one that draws more does not disturb the others."""
    return Random(f"{plan.seed}/{what}")  # noqa: S311 - a simulation


@functools.cache
def authority() -> Authority:
    """One authority for all simulated clouds of this process: their links need no certificates."""
    return Authority.create(CENTRE, START)
