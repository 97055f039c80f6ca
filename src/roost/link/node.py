"""Node: one lower end of a link, a host of a cloud or a subcloud, and the names made from it.

Everything that is written of a node elsewhere is made here and nowhere else: the text form
(`host/CLOUD/NAME`, `subcloud/NAME`), the identity in its certificate (`roost:` before the text form),
the origin of what it sends up (`down:` before the text form). Parsing is strict, for the text comes
from certificates and peers.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from roost.model.meta import DNS_LABEL

URI_SCHEME = "roost:"
_LABEL = re.compile(DNS_LABEL)


class BadNode(ValueError):
    """A text that names no node."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text[:120]!r} names no node: {reason}; write subcloud/NAME or host/CLOUD/NAME")
        self.text, self.reason = text, reason


class Node(msgspec.Struct, frozen=True, order=True):
    """A lower end. `cloud` is the namespace its resources live in; a subcloud's is its own name."""

    kind: Literal["host", "subcloud"]
    cloud: str
    name: str

    def __str__(self) -> str:
        return f"subcloud/{self.name}" if self.kind == "subcloud" else f"host/{self.cloud}/{self.name}"

    @property
    def origin(self) -> str:
        """Origin, at the upper store, of the resources this node sent."""
        return f"down:{self}"

    @property
    def uri(self) -> str:
        """Identity as it stands in the node's certificate."""
        return f"{URI_SCHEME}{self}"


def subcloud(name: str) -> Node:
    """The subcloud of this name; raises BadNode."""
    return parse(f"subcloud/{name}")


def host(cloud: str, name: str) -> Node:
    """The host of this cloud and name; raises BadNode."""
    return parse(f"host/{cloud}/{name}")


def parse(text: str) -> Node:
    """The node of a text form; raises BadNode."""
    kind, *labels = text.split("/")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise BadNode(text, f"{label[:70]!r} is not a DNS label")
    match kind, labels:
        case "subcloud", [name]:
            return Node("subcloud", name, name)
        case "host", [cloud, name]:
            return Node("host", cloud, name)
    raise BadNode(text, "wrong number of parts or unknown kind")


def parse_uri(uri: str) -> Node:
    """The node of a certificate's identity; raises BadNode."""
    if not uri.startswith(URI_SCHEME):
        raise BadNode(uri, f"it does not begin with {URI_SCHEME}")
    return parse(uri.removeprefix(URI_SCHEME))


def subject(node: Node) -> str:
    """What an enrolment credential for the node names as its subject."""
    return node.name if node.kind == "subcloud" else f"{node.cloud}/{node.name}"
