"""Clearing up after a host that was deleted: its link, its log entries, its tokens, its cursor.

Found again after a restart by what it sent and by its cursor. Its alarms and its configuration are
taken away by the controllers that made them.
"""

from __future__ import annotations

from sqlalchemy import select

from roost.link.departure import DepartureController
from roost.link.node import Node, host
from roost.model.host import HOST
from roost.store.schema import cursors
from roost.store.transaction import Transaction


class HostDepartureController(DepartureController):
    """Forgets deleted hosts of this cloud."""

    name = "host-departure"
    kind = HOST.kind
    purpose = "enrol-host"

    def node(self, name: str) -> Node:
        return host(self._namespace, name)

    def left_behind(self, tx: Transaction) -> set[str]:
        # A host that ever sent anything has a cursor; it goes last.
        prefix = f"host/{self._namespace}/"
        peers = tx.connection.execute(select(cursors.c.peer).where(cursors.c.peer.startswith(prefix)))
        return {peer.removeprefix(prefix) for peer in peers.scalars()}
