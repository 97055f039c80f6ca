"""What a node may write upwards: what lies in its namespace, or is said of itself alone. Pure."""

from __future__ import annotations

import re

from roost.link.entries import Refuse
from roost.link.merging import HOST_KINDS
from roost.link.messages import Entry
from roost.link.node import Node
from roost.model.codec import Raw
from roost.model.kind import Flow
from roost.model.meta import DNS_NAME
from roost.model.registry import BY_KIND

EVENT_KIND = "LogEntry"


def permitted(node: Node, entry: Entry) -> str:
    """Why the node may not write this upwards; empty when it may."""
    info = BY_KIND.get(entry.kind)
    if info is None:
        return f"this version does not know the kind {entry.kind[:63]}"
    if info.flow not in (Flow.UP, Flow.BOTH):
        return f"{entry.kind} does not travel up"
    if entry.type == "intent":
        return "intent does not travel up"
    # Any resource name: copies of shared intent have names (`NAME.CLOUD`) that operators may not give.
    if not re.fullmatch(DNS_NAME, entry.name):
        return f"{entry.name[:63]!r} is no name of a {entry.kind}"
    if node.kind == "subcloud":
        if info.namespaced and entry.namespace == node.cloud:
            return ""
        if (
            not info.namespaced
            and entry.namespace == ""
            and (entry.kind, entry.name) == ("Cloud", node.cloud)
        ):
            return ""
        return f"{node} may write only in namespace {node.cloud}, and its own Cloud"
    if entry.kind == EVENT_KIND and entry.type != "status":
        own = entry.namespace == node.cloud and entry.name.startswith(f"{node.name}-")
        return "" if own else f"{node} may write only log entries named {node.name}-..., in {node.cloud}"
    if entry.kind in HOST_KINDS and entry.type == "status":
        own = (entry.namespace, entry.name) == (node.cloud, node.name)
        return "" if own else f"{node} may write only the status of its own {entry.kind}"
    return f"{node} may not write {entry.type} of {entry.kind}"


def foreign(node: Node, raw: Raw) -> Refuse | None:
    """A host's log entries speak for that host alone."""
    if node.kind != "host" or raw["kind"] != EVENT_KIND:
        return None
    source = raw.get("status", {}).get("source", "")
    if source == f"{node.cloud}/{node.name}":
        return None
    return Refuse(f"its source is {str(source)[:130]!r}, not {node.cloud}/{node.name}", claim=True)
