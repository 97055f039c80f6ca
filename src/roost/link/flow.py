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

What the peer sends is checked before it is kept: an object that this version can't decode would stop
every controller that reads its kind, so it is refused, entry by entry. Fields this version does not
know are kept.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import msgspec

from roost.link.messages import Entry, EntryType, Key
from roost.link.node import Node
from roost.model.codec import Raw
from roost.model.kind import Flow, KindInfo
from roost.model.meta import DNS_NAME, Owner
from roost.model.ownership import status_owners
from roost.model.registry import BY_KIND
from roost.store.transaction import HERE, UP, Change, Stored

ENTRY_LIMIT = 4 * 1024 * 1024
HOST_KINDS = ("Host", "HostConfiguration")
EVENT_KIND = "LogEntry"
_encode = msgspec.json.Encoder().encode


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


class Refuse(msgspec.Struct, frozen=True):
    """Do not take it in; the reason is told to the sender. `claim`: it says what is another's to say."""

    reason: str
    claim: bool = False


Decision = Copy | Replace | Drop | Nothing | Refuse

Span = tuple[str, str, str | None]
"""Resources of a kind in a namespace: the one of a name, or all."""

Owned = dict[str, list[str]]
"""By kind, the fields of status that a host says it owns."""


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
            return _entry("deleted", change)
        intent = _intent(msgspec.json.decode(change.data))
        if change.type == "MODIFIED" and intent == _intent(change.before()):
            return None
        return _entry("intent", change, intent)

    def current(self, stored: Stored) -> Entry | None:
        if not self.concerns(stored.kind, stored.namespace, stored.name) or stored.origin == self.node.origin:
            return None
        return _entry("intent", stored, _intent(stored.raw))

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
        raw = _decoded(entry)
        if isinstance(raw, Refuse):
            return raw
        taken = _intent(raw)
        # The same name with another uid is another resource: what was observed of the old one
        # says nothing of it.
        if existing and existing.uid == str(raw["metadata"].get("uid", "")) and "status" in existing.raw:
            taken["status"] = existing.raw["status"]
        return _fitting(entry, taken) or Copy(taken, UP)


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
                return self._allowed(_entry("deleted", change))
            return self._allowed(_whole(change))
        if change.type == "DELETED":
            return None
        raw = msgspec.json.decode(change.data)
        if raw.get("status") == change.before().get("status"):
            return None
        return self._allowed(_entry("status", change, _observed(raw)))

    def current(self, stored: Stored) -> Entry | None:
        if stored.kind not in self.kinds:
            return None
        if stored.origin != UP:
            return self._allowed(_whole(stored))
        if "status" not in stored.raw:
            return None
        return self._allowed(_entry("status", stored, _observed(stored.raw)))

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
            return _whole(stored)
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
        return _entry("status", stored, {"uid": stored.uid, "status": mine}) if mine else None

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
            raw = _decoded(entry)
            if isinstance(raw, Refuse):
                return raw
            return _fitting(entry, raw) or _foreign(self.node, raw) or Copy(raw, self.origin)
        if existing is None:
            return Nothing()
        if mine:
            return Refuse("its home is at the sender: the whole object is wanted, not its status")
        return self._merged(existing, entry)

    def _merged(self, existing: Stored, entry: Entry) -> Decision:
        raw = _decoded(entry)
        if isinstance(raw, Refuse):
            return raw
        if str(raw["metadata"].get("uid", "")) != existing.uid:
            return Nothing()
        info, current = BY_KIND[entry.kind], _unversioned(existing.raw)
        if self.node.kind == "host":
            # Only what travels may be merged: a spec in the entry is not the node's to give.
            told = None if self.owned is None else self.owned.get(entry.kind, [])
            merged = _host_merged(info, current, raw.get("status") or {}, told)
        else:
            merged = {**current, "status": _all_but_fleet(info, current, raw)}
        return _fitting(entry, merged) or Replace(merged)


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


def _entry(type: EntryType, of: Change | Stored, body: Raw | None = None) -> Entry:
    data = b"" if body is None else _encode(body)
    return Entry(type=type, kind=of.kind, namespace=of.namespace, name=of.name, data=data)


def _whole(of: Change | Stored) -> Entry:
    """As the store has it, which is without resourceVersion."""
    data = of.data.encode()
    return Entry(type="object", kind=of.kind, namespace=of.namespace, name=of.name, data=data)


def _unversioned(raw: Raw) -> Raw:
    return {**raw, "metadata": {k: v for k, v in raw["metadata"].items() if k != "resourceVersion"}}


def _intent(raw: Raw) -> Raw:
    """All but the status. Which manager above owns a field is no business below, and a change of that alone
    is no news."""
    meta = {k: v for k, v in raw["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {**{k: v for k, v in raw.items() if k != "status"}, "metadata": meta}


def _observed(raw: Raw) -> Raw:
    """The status, with what it takes to know whose it is. Its uid is the one the home gave."""
    meta = {k: raw["metadata"][k] for k in ("name", "namespace", "uid") if k in raw["metadata"]}
    return {"kind": raw["kind"], "metadata": meta, "status": raw.get("status", {})}


def owned_by_host() -> Owned:
    """The fields of status that a host of this version owns, by kind."""
    return {
        kind: sorted(k for k, owner in status_owners(BY_KIND[kind]).items() if owner is Owner.HOST)
        for kind in HOST_KINDS
    }


def _host_merged(info: KindInfo, current: Raw, brought: Raw, told: list[str] | None) -> Raw:
    """`current` with what a host says of the fields it owns.

    A field that this version does not know belongs to a host that says it owns it, or that says no such thing
    and brings it. A field that the host does not know (it is the older) stays as it is: that it is absent
    there means nothing.
    """
    owners, before = status_owners(info), current.get("status") or {}
    known = {k for k, owner in owners.items() if owner is Owner.HOST}
    if told is None:
        mine = known | (brought.keys() - owners.keys())
    else:
        mine = {k for k in told if k in known or k not in owners}
    status = {k: v for k, v in before.items() if k not in mine} | {
        k: v for k, v in brought.items() if k in mine
    }
    return current if status == before else {**current, "status": status}


def _all_but_fleet(info: KindInfo, current: Raw, incoming: Raw) -> Raw:
    """A subcloud's status is all its own but for fields that the fleet level fills in above it."""
    kept = {k for k, owner in status_owners(info).items() if owner is Owner.FLEET}
    status = {k: v for k, v in (incoming.get("status") or {}).items() if k not in kept}
    return status | {k: v for k, v in current.get("status", {}).items() if k in kept}


def _decoded(entry: Entry) -> Raw | Refuse:
    """The entry's object, when it is one and is the one it says it is."""
    if len(entry.data) > ENTRY_LIMIT:
        return Refuse(f"it has {len(entry.data)} bytes, the limit is {ENTRY_LIMIT}")
    try:
        raw: Any = msgspec.json.decode(entry.data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return Refuse(f"it is not JSON: {error}")
    meta = raw.get("metadata") if isinstance(raw, dict) else None
    if not isinstance(meta, dict):
        return Refuse("it is no object with metadata")
    if (raw.get("kind"), meta.get("namespace", ""), meta.get("name")) != entry.key:
        return Refuse("its kind, namespace and name are not those of the entry")
    if not isinstance(raw.get("status", {}), dict):
        return Refuse("its status is no object")
    return _unversioned(raw)


def _fitting(entry: Entry, raw: Raw) -> Refuse | None:
    """Why this version can't read the object; None when it can."""
    try:
        msgspec.convert(raw, BY_KIND[entry.kind].type)
    except msgspec.ValidationError as error:
        return Refuse(f"this version can't read it: {error}")
    return None


def _foreign(node: Node, raw: Raw) -> Refuse | None:
    """A host's log entries speak for that host alone."""
    if node.kind != "host" or raw["kind"] != EVENT_KIND:
        return None
    source = raw.get("status", {}).get("source", "")
    if source == f"{node.cloud}/{node.name}":
        return None
    return Refuse(f"its source is {str(source)[:130]!r}, not {node.cloud}/{node.name}", claim=True)


TRAVELLING = _travelling(Flow.DOWN, Flow.UP, Flow.BOTH)
"""Every kind of this version that travels."""
