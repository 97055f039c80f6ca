"""Who depends on whom: resources that name owners, or wait for dependents, as an index in memory.

Nodes are kept by identity (uid), so a resource that was made anew under an owner's name is no owner. The
index has no place for what neither names owners nor waits; who keeps it tells it of every change (`put`,
`drop`). It lives on one event loop and asks nobody.
"""

from __future__ import annotations

import msgspec

from roost.model.codec import Raw
from roost.model.meta import API_VERSION

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
"""Finalizers that say what becomes of dependents before their owner goes, as in Kubernetes."""

Where = tuple[str, str, str]
"""Kind, namespace and name."""


class Reference(msgspec.Struct, frozen=True):
    """One owner, as its dependent names it."""

    uid: str
    kind: str
    name: str
    blocks: bool = False
    api_version: str = ""


class Node(msgspec.Struct, frozen=True):
    """What matters of a resource that has owners, or waits for dependents. `deleting` is empty, or one of the
    two finalizers once its deletion was asked for, or `yes` for any other."""

    uid: str
    where: Where
    owners: tuple[Reference, ...] = ()
    deleting: str = ""

    @classmethod
    def of(cls, where: Where, raw: Raw) -> Node:
        """From a stored resource."""
        meta = raw["metadata"]
        owners = tuple(
            Reference(
                str(r.get("uid", "")),
                str(r.get("kind", "")),
                str(r.get("name", "")),
                bool(r.get("blockOwnerDeletion")),
                str(r.get("apiVersion", API_VERSION)),
            )
            for r in meta.get("ownerReferences") or ()
        )
        deleting = ""
        if meta.get("deletionTimestamp"):
            waits = [f for f in meta.get("finalizers") or () if f in (FOREGROUND, ORPHAN)]
            deleting = ORPHAN if ORPHAN in waits else FOREGROUND if waits else "yes"
        return cls(str(meta.get("uid", "")), where, owners, deleting)

    @property
    def matters(self) -> bool:
        """Whether the graph has a place for it."""
        return bool(self.owners) or self.deleting in (FOREGROUND, ORPHAN)


class Graph:
    """Resources by identity, and who depends on whom. `upto` is the revision it has come to."""

    def __init__(self) -> None:
        self.upto = 0
        self._nodes: dict[str, Node] = {}
        self._dependents: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def put(self, node: Node) -> None:
        """A resource as it is now."""
        self.drop(node.uid)
        if not node.matters:
            return
        self._nodes[node.uid] = node
        for reference in node.owners:
            self._dependents.setdefault(reference.uid, {})[node.uid] = None

    def drop(self, uid: str) -> None:
        """A resource is gone."""
        node = self._nodes.pop(uid, None)
        for reference in node.owners if node else ():
            of_owner = self._dependents.get(reference.uid, {})
            of_owner.pop(uid, None)
            if not of_owner:
                self._dependents.pop(reference.uid, None)

    def dependents(self, uid: str) -> list[Node]:
        """Resources that name `uid` as an owner."""
        return [self._nodes[d] for d in self._dependents.get(uid, ())]

    def blocking(self, uid: str) -> list[Node]:
        """Dependents that the owner waits for: not those that wait for it themselves, round a circle."""
        return [d for d in self._blockers(uid) if not self._waits_for(d.uid, uid)]

    def pending(self, uid: str) -> Node | None:
        """The resource when it is being deleted, and what becomes of its dependents comes first."""
        node = self._nodes.get(uid)
        return node if node and node.deleting in (FOREGROUND, ORPHAN) else None

    def waits(self, uid: str) -> bool:
        """Whether this resource waits for its dependents to be gone."""
        node = self._nodes.get(uid)
        return node is not None and node.deleting == FOREGROUND

    def _blockers(self, uid: str) -> list[Node]:
        return [d for d in self.dependents(uid) if any(r.blocks and r.uid == uid for r in d.owners)]

    def _waits_for(self, start: str, goal: str) -> bool:
        """Whether `start` waits, itself or through others that wait, for `goal`."""
        seen, ahead = {start}, [start]
        while ahead:
            uid = ahead.pop()
            if not self.waits(uid):
                continue
            for node in self._blockers(uid):
                if node.uid == goal:
                    return True
                if node.uid not in seen:
                    seen.add(node.uid)
                    ahead.append(node.uid)
        return False
