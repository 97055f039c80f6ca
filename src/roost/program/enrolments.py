"""Which declaration a node enrolled for. A certificate outlives the deletion of its Host or Subcloud; a
new one of the same name must not let it in again, so a node is admitted only while the declaration
that it enrolled for still stands, told by its uid.

A store that was restored knows nothing of those who enrolled after its snapshot. They are turned away like
any stranger, the log tells of each, and an operator who knows them has them in again (`readmit`): their
certificate is of this cloud, so nothing need be done where they are.
"""

from __future__ import annotations

from roost.engine.faults import write_log
from roost.link import renewal
from roost.link.errors import Refused
from roost.link.node import Node
from roost.model.cloud import SUBCLOUD, Subcloud
from roost.model.host import HOST
from roost.store import history
from roost.store.transaction import Transaction

REFUSED_FOR = 3600.0
"""Seconds for which a node that nobody wants need not dial again; it comes to that in growing steps."""

REFUSED_FOR_RESTORED = 30.0
"""The same where the store was restored: who is refused may be one that was forgotten."""

EVENT = "node-not-known"

MANAGED = "management"
"""The fact by which a subcloud that moves here tells whether it is managed where it is."""


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
    if node.kind == "subcloud" and facts.get(MANAGED) == "managed":
        _check_managed(tx, node)
    tx.set_property(_property(node), uid)


def _check_managed(tx: Transaction, node: Node) -> None:
    """One that moves here must not lose by it what is in force there. Raises Refused."""
    found = tx.load(Subcloud, "", node.name)
    if found.spec.management_state != "managed":
        raise Refused(
            "unmanaged",
            f"{node} is managed where it is and unmanaged here: what is shared with it would be lost",
            f"manage it here first: roost subcloud manage {node.name}",
        )


def check_enrolment(tx: Transaction, node: Node, cloud: str) -> None:
    """That the node may connect. Raises Refused."""
    verb = "host" if node.kind == "host" else "subcloud"
    uid = _declared(tx, node)
    if uid and tx.property(_property(node)) == uid:
        return
    forgotten = bool(history.restores(tx))
    later = REFUSED_FOR_RESTORED if forgotten else REFUSED_FOR
    known = f"; if it joined before this cloud was restored: roost {verb} readmit {node.name}"
    if not uid:
        raise Refused(
            "unknown",
            f"{node} is not declared in cloud {cloud}",
            f"declare it and enrol it anew: roost {verb} add {node.name}{known if forgotten else ''}",
            retry_after=later,
        )
    raise Refused(
        "enrol",
        f"{node} was declared anew after this node enrolled",
        f"enrol it with a new token: roost {verb} token {node.name}{known if forgotten else ''}",
        retry_after=later,
    )


def readmit(tx: Transaction, node: Node) -> None:
    """Let in again the node of this name that has a certificate of this cloud, under the declaration that
    stands. Raises Refused.

    Which certificate it was given last is forgotten with the rest: any that it shows may be renewed.
    """
    remember_enrolment(tx, node, {})
    renewal.remember(tx, node)


def tell_not_known(tx: Transaction, cloud: str, node: Node, refusal: Refused) -> None:
    """A log entry of a node that was turned away."""
    text = f"{node} has a certificate of {cloud} and was not let in: {refusal.reason}; {refusal.remedy}."
    write_log(tx, cloud, event=EVENT, severity="warning", entity=f"{node.kind}={node.name}", text=text)
