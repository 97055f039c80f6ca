"""Which declaration a node enrolled for. A certificate outlives the deletion of its Host or Subcloud; a
new one of the same name must not let it in again, so a node is admitted only while the declaration
that it enrolled for still stands, told by its uid.
"""

from __future__ import annotations

from roost.link.errors import Refused
from roost.link.node import Node
from roost.model.cloud import SUBCLOUD
from roost.model.host import HOST
from roost.store.transaction import Transaction

REFUSED_FOR = 3600.0
"""Seconds for which a node that nobody wants need not dial again; it comes to that in growing steps."""


def _property(node: Node) -> str:
    return f"enrolled:{node}"


def _declared(tx: Transaction, node: Node) -> str:
    """Uid of the node's declaration; empty when there is none."""
    kind, namespace = (HOST.kind, node.cloud) if node.kind == "host" else (SUBCLOUD.kind, "")
    found = tx.find(kind, namespace, node.name)
    return found.uid if found else ""


def remember_enrolment(tx: Transaction, node: Node, facts: dict[str, str]) -> None:
    """Note what a node enrolled for, in the transaction that uses its token. Raises Refused."""
    uid = _declared(tx, node)
    if not uid:
        raise Refused("unknown", f"{node} is not declared", "declare it, then ask for a new token")
    tx.set_property(_property(node), uid)


def check_enrolment(tx: Transaction, node: Node, cloud: str) -> None:
    """That the node may connect. Raises Refused."""
    verb = "host" if node.kind == "host" else "subcloud"
    uid = _declared(tx, node)
    if not uid:
        raise Refused(
            "unknown",
            f"{node} is not declared in cloud {cloud}",
            f"declare it and enrol it anew: roost {verb} add {node.name}",
            retry_after=REFUSED_FOR,
        )
    if tx.property(_property(node)) != uid:
        raise Refused(
            "enrol",
            f"{node} was declared anew after this node enrolled",
            f"enrol it with a new token: roost {verb} token {node.name}",
            retry_after=REFUSED_FOR,
        )
