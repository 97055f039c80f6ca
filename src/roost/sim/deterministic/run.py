"""Perform a plan on a tree, have laws watch it, heal it, and tell what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from roost.sim.deterministic.events import Event
from roost.sim.deterministic.tree import Tree

OPERATIONS: dict[str, Callable[[Tree, Event], Awaitable[None]]] = {}
"""What people do, by the `verb` of an event `operate`."""
