"""Clearing up after a subcloud that was deleted here: its copies, its mirror, its tokens, its cursor.

Found again after a restart by namespaces and mirrored clouds without a Subcloud.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, select

from roost.link.departure import DepartureController
from roost.link.node import Node, subcloud
from roost.model.cloud import CLOUD, SUBCLOUD
from roost.store.schema import resources
from roost.store.transaction import Transaction


class SubcloudDepartureController(DepartureController):
    """Empties the namespaces of deleted subclouds."""

    name = "subcloud-departure"
    kind = SUBCLOUD.kind
    purpose = "enrol-subcloud"

    def __init__(self, cloud: str, disconnect: Callable[[str], None]) -> None:
        super().__init__("", disconnect)
        self._cloud = cloud

    def node(self, name: str) -> Node:
        return subcloud(name)

    def left_behind(self, tx: Transaction) -> set[str]:
        namespaces = tx.connection.execute(select(resources.c.namespace).distinct()).scalars()
        return {*namespaces, *(s.name for s in tx.select(CLOUD.kind))} - {self._cloud, ""}

    def owned(self, name: str) -> ColumnElement[bool]:
        return resources.c.namespace == name

    def finish(self, tx: Transaction, name: str) -> None:
        tx.drop(CLOUD.kind, "", name)
