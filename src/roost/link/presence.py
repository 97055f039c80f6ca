"""Which nodes are there: for each, whether its link is up, and since when.

A node that says it returns at once (renewal) is not shown as lost unless it stays away for `linger` seconds.
What is shown changes with facts only, and each change is told to who listens, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import msgspec
import structlog

from roost.link.node import Node
from roost.link.wire import Peer

log = structlog.get_logger(__name__)

Listener = Callable[[Node, "Presence"], None]


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a node's link is up, and since when it is as it is."""

    connected: bool
    since: datetime
    version: str = ""
    address: str = ""
    certificate_expires_at: datetime | None = None
    reason: str = ""
    trouble: str = ""
    """Why it can't write its store, as it last said; empty when it can."""


class Presences:
    """The presence of every node seen since it was made. Lives on one event loop; `close` in the end."""

    def __init__(self, clock: Callable[[], datetime], linger: float) -> None:
        self._clock, self._linger = clock, linger
        self._known: dict[Node, Presence] = {}
        self._lingering: dict[Node, asyncio.TimerHandle] = {}
        self._listeners: list[Listener] = []
        self._absent = Presence(connected=False, since=clock(), reason="not seen since this process started")

    def of(self, node: Node) -> Presence:
        """Of any node; one not seen yet is absent since this was made."""
        return self._known.get(node) or self._absent

    def all(self) -> dict[Node, Presence]:
        """Every node seen."""
        return dict(self._known)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call back at each change; returns how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def forget(self, node: Node) -> None:
        """Remember nothing of a node."""
        self._known.pop(node, None)

    def arrived(self, node: Node, peer: Peer, version: str) -> None:
        """Its link is up."""
        self._end_lingering(node)
        before = self._known.get(node)
        self._show(
            node,
            Presence(
                connected=True,
                since=before.since if before and before.connected else self._clock(),
                version=version,
                address=peer.address,
                certificate_expires_at=peer.certificate_expires_at,
                trouble=before.trouble if before else "",
            ),
        )
        log.info("link.up", node=str(node), address=peer.address)

    def returning(self, node: Node, reason: str) -> None:
        """Its link is down, and it said that it comes back at once."""
        self._end_lingering(node)
        later = asyncio.get_running_loop().call_later
        self._lingering[node] = later(self._linger, self.left, node, reason)

    def left(self, node: Node, reason: str) -> None:
        """Its link is down."""
        self._end_lingering(node)
        before = self._known.get(node)
        if before is not None and before.connected:
            log.info("link.down", node=str(node), reason=reason)
            gone = msgspec.structs.replace(before, connected=False, since=self._clock(), reason=reason)
            self._show(node, gone)

    def renewed(self, node: Node, expires_at: datetime) -> None:
        """It has a fresh certificate."""
        before = self._known.get(node)
        if before is not None:
            self._show(node, msgspec.structs.replace(before, certificate_expires_at=expires_at))

    def troubled(self, node: Node, trouble: str) -> None:
        """It says why it can't write its store, or that it can."""
        before = self._known.get(node)
        if before is not None and before.trouble != trouble:
            self._show(node, msgspec.structs.replace(before, trouble=trouble))

    def close(self) -> None:
        """Tell no more of those that said they return."""
        for node in list(self._lingering):
            self._end_lingering(node)

    def _end_lingering(self, node: Node) -> None:
        timer = self._lingering.pop(node, None)
        if timer is not None:
            timer.cancel()

    def _show(self, node: Node, presence: Presence) -> None:
        self._known[node] = presence
        for listener in list(self._listeners):
            listener(node, presence)
