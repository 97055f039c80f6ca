"""The tree of a run: a centre, its sites and their hosts, each a node with its own store, clock and disk."""

from __future__ import annotations

from typing import Protocol

from roost.sim.cloud import SimulatedCloud
from roost.sim.host import SimulatedHost
from roost.sim.machine import SimulatedMachine
from roost.store.store import Store


class Node(Protocol):
    """One process of the tree, and what stays of it while it is down."""

    name: str

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        ...

    @property
    def store(self) -> Store:
        """Its store, while it is alive."""
        ...

    @property
    def cloud(self) -> SimulatedCloud:
        """Of a centre or a site, while it is alive."""
        ...

    @property
    def host(self) -> SimulatedHost:
        """Of a host, while it is alive."""
        ...

    @property
    def machine(self) -> SimulatedMachine:
        """Of a host; stays while its process is down."""
        ...

    def rows(self) -> dict[str, list[dict[str, object]]]:
        """Everything in its store by table, in the order of keys; read from disk while it is down."""
        ...


class Tree(Protocol):
    """All nodes by name: "central", "site-0000", "site-0000/controller-0"."""

    nodes: dict[str, Node]

    @property
    def now(self) -> float:
        """Simulated seconds since the tree settled for the first time."""
        ...

    def say(self, text: str) -> None:
        """Add a line to the trace."""
        ...
