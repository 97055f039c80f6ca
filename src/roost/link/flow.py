"""What travels over a link, and how it is taken in: pure decisions, no I/O.

Two directions, each the same at both ends of any link:

- `Downward`, intent. The upper end offers the resources that live in the node's namespace and whose
  home is not the node: everything but status, and who set which field up there. The lower end copies
  them, keeps its own status, and never overwrites a resource whose home is itself.
- `Upward`, observation. The lower end offers whole resources whose home is itself or below, and only
  the status of those whose home is above. The upper end first asks whether the node may write that at
  all (`permitted`), then mirrors, or merges the status into its own resource.

A change is offered only when the part that travels has changed, so what comes down as intent does not
go back up as news, nor the reverse. The same rules read twice give the same state: taking an entry in
again changes nothing.

Entries are told in `entries`, what a node may write in `permission`, whose is which field in `merging`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from roost.link.entries import Refuse, decoded, intent, observed, unfit, unversioned, whole, written
from roost.link.merging import HOST_KINDS, Owned, merged_from_host, merged_from_subcloud
from roost.link.messages import Entry, Key
from roost.link.node import Node
from roost.link.permission import EVENT_KIND, foreign, permitted
from roost.model.codec import Raw
from roost.model.kind import Flow
from roost.model.meta import Owner
from roost.model.ownership import status_owners
from roost.model.registry import BY_KIND
from roost.store.transaction import HERE, UP, Change, Stored


class Copy(msgspec.Struct, frozen=True):
    """Put this object in place, with this origin."""

    raw: Raw
    origin: str


class Replace(msgspec.Struct, frozen=True):
    """Change the resource, whose home stays where it is."""

    raw: Raw


class Drop(msgspec.Struct, frozen=True):
    """Take the copy away."""


class Nothing(msgspec.Struct, frozen=True):
    """The entry speaks of something that is no longer so."""


Decision = Copy | Replace | Drop | Nothing | Refuse

Span = tuple[str, str, str | None]
"""Resources of a kind in a namespace: the one of a name, or all."""


class Direction(Protocol):
    """One of the two streams of a link."""

    @property
    def origin(self) -> str:
        """Origin, at the receiver, of what this stream brings."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds that travel."""

    @property
    def scope(self) -> tuple[str | None, str | None]:
        """Namespace and name that all its resources have; None where they differ."""

    def offer(self, change: Change) -> Entry | None:
        """What the sender tells of one step of its history; None when that does not concern the peer."""

    def current(self, stored: Stored) -> Entry | None:
        """What the sender tells of a resource as it is."""

    def sent(self) -> list[Span]:
        """Where at the sender all is that travels."""

    def held(self) -> list[Span]:
        """Where at the receiver all is that came."""

    def compared(self, stored: Stored) -> Entry | None:
        """At the sender: what it tells of a resource, as far as the two ends can be compared by it."""

    def taken(self, stored: Stored) -> Entry | None:
        """At the receiver: what `compared` is there, when the two agree; None for what did not come."""

    def narrow(self, kinds: list[str]) -> None:
        """Let only kinds travel that the peer knows, too."""

    def decide(self, existing: Stored | None, entry: Entry) -> Decision:
        """What the receiver does with an entry."""


class Downward:
    """Intent for one node."""

    origin = UP

    def __init__(self, node: Node) -> None:
        self.node = node
        self.kinds: tuple[str, ...] = HOST_KINDS if node.kind == "host" else _travelling(Flow.DOWN, Flow.BOTH)
        self.scope = (node.cloud, node.name if node.kind == "host" else None)

    def concerns(self, kind: str, namespace: str, name: str) -> bool:
        """Whether a resource is intent for the node, by its key."""
        return kind in self.kinds and namespace == self.node.cloud and self.scope[1] in (None, name)

    def offer(self, change: Change) -> Entry | None:
        if not self.concerns(change.kind, change.namespace, change.name) or change.origin == self.node.origin:
            return None
        if change.type == "DELETED":
            return written("deleted", change)
        wanted = intent(msgspec.json.decode(change.data))
        if change.type == "MODIFIED" and wanted == intent(change.before()):
            return None
        return written("intent", change, wanted)

    def current(self, stored: Stored) -> Entry | None:
        if not self.concerns(stored.kind, stored.namespace, stored.name) or stored.origin == self.node.origin:
            return None
        return written("intent", stored, intent(stored.raw))

    def sent(self) -> list[Span]:
        return [(kind, self.node.cloud, self.scope[1]) for kind in self.kinds]

    def held(self) -> list[Span]:
        return self.sent()

    def compared(self, stored: Stored) -> Entry | None:
        return self.current(stored)

    def taken(self, stored: Stored) -> Entry | None:
        return self.current(stored) if stored.origin == UP else None

    def narrow(self, kinds: list[str]) -> None:
        self.kinds = tuple(k for k in self.kinds if k in kinds)

    def decide(self, existing: Stored | None, entry: Entry) -> Decision:
        if entry.kind not in BY_KIND:
            return Refuse(f"this version does not know the kind {entry.kind[:63]}")
        if not self.concerns(*entry.key):
            return Refuse(f"it is no intent for {self.node}")
        if entry.type == "deleted":
            return Drop() if existing and existing.origin == UP else Nothing()
        if entry.type != "intent":
            return Refuse(f"{entry.type} does not travel down")
        if existing and existing.origin != UP:
            return Refuse("a resource of this name has its home here; rename or delete one of the two")
        return self._taken(existing, entry)

    def _taken(self, existing: Stored | None, entry: Entry) -> Decision:
        raw = decoded(entry)
        if isinstance(raw, Refuse):
            return raw
        taken = intent(raw)
        # The same name with another uid is another resource: what was observed of the old one
        # says nothing of it.
        if existing and existing.uid == str(raw["metadata"].get("uid", "")) and "status" in existing.raw:
            taken["status"] = existing.raw["status"]
        return unfit(entry, taken) or Copy(taken, UP)


class Upward:
    """Observation from one node."""

    scope: tuple[str | None, str | None] = (None, None)

    def __init__(self, node: Node) -> None:
        self.node = node
        self.origin = node.origin
        self.kinds: tuple[str, ...] = (
            (*HOST_KINDS, EVENT_KIND) if node.kind == "host" else _travelling(Flow.UP, Flow.BOTH)
        )
        self.owned: Owned | None = None
        """What the host said it owns; None of a host that says no such thing."""
        self._downward = Downward(node)

    def offer(self, change: Change) -> Entry | None:
        if change.kind not in self.kinds:
            return None
        if change.origin != UP:
            if change.type == "DELETED":
                return self._allowed(written("deleted", change))
            return self._allowed(whole(change))
        if change.type == "DELETED":
            return None
        raw = msgspec.json.decode(change.data)
        if raw.get("status") == change.before().get("status"):
            return None
        return self._allowed(written("status", change, observed(raw)))

    def current(self, stored: Stored) -> Entry | None:
        if stored.kind not in self.kinds:
            return None
        if stored.origin != UP:
            return self._allowed(whole(stored))
        if "status" not in stored.raw:
            return None
        return self._allowed(written("status", stored, observed(stored.raw)))

    def sent(self) -> list[Span]:
        if self.node.kind == "host":
            named: list[Span] = [(kind, self.node.cloud, self.node.name) for kind in HOST_KINDS]
            spans = [*named, (EVENT_KIND, self.node.cloud, None)]
        else:
            spans = [(kind, self.node.cloud, None) for kind in self.kinds]
            spans.append(("Cloud", "", self.node.cloud))
        return [span for span in spans if span[0] in self.kinds]

    def held(self) -> list[Span]:
        return self.sent()

    def compared(self, stored: Stored) -> Entry | None:
        entry = self.current(stored)
        if entry is None or entry.type != "status":
            return entry
        return self._comparable(stored)

    def taken(self, stored: Stored) -> Entry | None:
        if stored.kind not in self.kinds:
            return None
        if stored.origin == self.origin:
            return whole(stored)
        if "status" not in stored.raw or not self._downward.concerns(
            stored.kind, stored.namespace, stored.name
        ):
            return None
        return self._comparable(stored)

    def _comparable(self, stored: Stored) -> Entry | None:
        """What the node says in a status whose home is above; None when that is nothing."""
        owners, status = status_owners(BY_KIND[stored.kind]), stored.raw.get("status") or {}
        if self.node.kind == "host":
            told = (self.owned or {}).get(stored.kind, [])
            mine = {k: v for k, v in status.items() if k in told and owners.get(k, Owner.HOST) is Owner.HOST}
        else:
            mine = {k: v for k, v in status.items() if owners.get(k) is not Owner.FLEET}
        return written("status", stored, {"uid": stored.uid, "status": mine}) if mine else None

    def narrow(self, kinds: list[str]) -> None:
        self.kinds = tuple(k for k in self.kinds if k in kinds)

    def _allowed(self, entry: Entry) -> Entry | None:
        return None if permitted(self.node, entry) else entry

    def decide(self, existing: Stored | None, entry: Entry) -> Decision:
        reason = permitted(self.node, entry)
        if reason:
            return Refuse(reason, claim=entry.kind in TRAVELLING)
        mine = existing is not None and existing.origin == self.origin
        if entry.type == "deleted":
            return Drop() if mine else Nothing()
        if entry.type == "object":
            if existing and not mine:
                where = "here" if existing.origin == HERE else existing.origin
                return Refuse(
                    f"a resource of this name has its home {where}; rename or delete one of the two"
                )
            raw = decoded(entry)
            if isinstance(raw, Refuse):
                return raw
            return unfit(entry, raw) or foreign(self.node, raw) or Copy(raw, self.origin)
        if existing is None:
            return Nothing()
        if mine:
            return Refuse("its home is at the sender: the whole object is wanted, not its status")
        return self._merged(existing, entry)

    def _merged(self, existing: Stored, entry: Entry) -> Decision:
        raw = decoded(entry)
        if isinstance(raw, Refuse):
            return raw
        if str(raw["metadata"].get("uid", "")) != existing.uid:
            return Nothing()
        info, current = BY_KIND[entry.kind], unversioned(existing.raw)
        if self.node.kind == "host":
            # Only what travels may be merged: a spec in the entry is not the node's to give.
            told = None if self.owned is None else self.owned.get(entry.kind, [])
            merged = merged_from_host(info, current, raw.get("status") or {}, told)
        else:
            merged = {**current, "status": merged_from_subcloud(info, current, raw)}
        return unfit(entry, merged) or Replace(merged)


def audience(change: Change) -> tuple[str, ...]:
    """Text forms of the nodes whose session a change can concern; cheap, by key alone.

    Besides what flows down, removals of what the node sends up: they may make way for what was refused.
    """
    info = BY_KIND.get(change.kind)
    if info is None or info.flow is Flow.LOCAL:
        return ()
    if info.flow is Flow.UP and change.type != "DELETED":
        return ()
    cloud = change.namespace or change.name
    if change.kind in HOST_KINDS:
        return (f"subcloud/{cloud}", f"host/{cloud}/{change.name}")
    return (f"subcloud/{cloud}",)


def coalesced(entries: list[tuple[int, Entry]]) -> list[tuple[int, Entry]]:
    """Entries with their revisions, only the last of each resource kept, but every log entry."""
    seen: set[Key] = set()
    kept = []
    for revision, entry in reversed(entries):
        if entry.kind != EVENT_KIND:
            if entry.key in seen:
                continue
            seen.add(entry.key)
        kept.append((revision, entry))
    return kept[::-1]


def _travelling(*flows: Flow) -> tuple[str, ...]:
    return tuple(info.kind for info in BY_KIND.values() if info.flow in flows)


TRAVELLING = _travelling(Flow.DOWN, Flow.UP, Flow.BOTH)
"""Every kind of this version that travels."""
