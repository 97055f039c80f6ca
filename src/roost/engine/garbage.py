"""Garbage collection: what depends on resources that are gone goes too (metadata.ownerReferences).

As in Kubernetes: a resource is deleted when it names owners and every one of them is gone. An owner that is
deleted with the finalizer `foregroundDeletion` has its dependents deleted first and waits for those that
say blockOwnerDeletion; one with `orphan` leaves them, without the reference. Who asks for a deletion puts
these finalizers there.

An owner is looked for in the dependent's namespace or, for a cluster-scoped kind, outside of all. One that
can't be looked for (its kind is not served here, or it lies in another namespace) counts as living, and an
Event says so. Only resources whose home is here are collected, by the rules of their domain: what those
refuse stays, an Event says why, and it is tried again, after pauses that grow (`refusals`) and at each change
of its own.

The cost follows change. An index in memory (`ownership`) has the resources that name owners, or wait for
dependents, and nothing else; the watch keeps it, and it is read anew only at start or when history was
lost. What is done with one resource is a function of the graph and its owners' standing (`decide`), and each
resource is a transaction of its own, but for references, which go in batches.

The graph may lag behind the store. That matters only for an owner about to lose its finalizer, since a
dependent it does not know yet would be overlooked: so the graph must have come to the owner's own revision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum

import msgspec

from roost.engine import admission
from roost.engine.controller import Key
from roost.engine.events import note
from roost.engine.ownership import FOREGROUND, ORPHAN, Graph, Node, Reference, Where
from roost.engine.refusals import Refusals, following
from roost.model.codec import Raw
from roost.model.registry import BY_KIND
from roost.store import present
from roost.store.store import Store
from roost.store.transaction import HERE, Change, Stored, Transaction

TOGETHER = 200
"""References taken away in one transaction."""
CHUNK = 1000
REMEMBERED = 1024
"""Identities that are known to be gone."""
USER = "system:serviceaccount:kube-system:generic-garbage-collector"
"""As whom rules see it: the name that the collector of Kubernetes has."""


class Standing(Enum):
    """How an owner stands, as seen from a dependent."""

    LIVING = "living"
    WAITING = "waiting"
    """It is being deleted and waits for its dependents."""
    GONE = "gone"
    UNKNOWN = "unknown"
    """It can't be looked for."""


class Do(Enum):
    NOTHING = "nothing"
    DELETE = "delete"
    DELETE_FOREGROUND = "delete, dependents first"
    FORGET = "take away references to owners that are gone"
    RELEASE = "take away the finalizer: nothing is waited for"
    ORPHAN = "take references away from dependents, then the finalizer"


class Action(msgspec.Struct, frozen=True):
    """What is to be done with a resource; `owners` are the references that go with FORGET."""

    do: Do
    owners: frozenset[str] = frozenset()


def decide(node: Node, standing: Mapping[str, Standing], graph: Graph) -> Action:
    """What is to be done with one resource, given how each of its owners stands."""
    if node.deleting == ORPHAN:
        return Action(Do.ORPHAN)
    if node.deleting == FOREGROUND:
        return Action(Do.NOTHING if graph.blocking(node.uid) else Do.RELEASE)
    if node.deleting or not node.owners:
        return Action(Do.NOTHING)
    of = {r.uid: standing[r.uid] for r in node.owners}
    leaving = frozenset(uid for uid, s in of.items() if s in (Standing.GONE, Standing.WAITING))
    if len(leaving) < len(of):
        return Action(Do.FORGET, leaving) if leaving else Action(Do.NOTHING)
    if Standing.WAITING in of.values() and graph.blocking(node.uid):
        return Action(Do.DELETE_FOREGROUND)
    return Action(Do.DELETE)


class Gone:
    """Identities that were looked for everywhere in vain. They do not return, so one look serves all
    dependents of an owner; at most REMEMBERED, the newest."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}

    def __contains__(self, uid: str) -> bool:
        return uid in self._known

    def add(self, uid: str) -> None:
        """Remember one."""
        self._known[uid] = None
        while len(self._known) > REMEMBERED:
            self._known.pop(next(iter(self._known)))


class GarbageController:
    """Deletes what depends on resources that are gone. `rules` are the admission rules by kind."""

    name = "garbage"

    def __init__(self, cloud: str, rules: Mapping[str, Sequence[admission.Rule]]) -> None:
        self._cloud, self._rules = cloud, rules
        self._graph = Graph()
        self._gone = Gone()
        self._refusals = Refusals()

    # -- which resources

    def concerned(self, change: Change) -> Iterable[Key]:
        """The resource itself, when it has owners or waits; at its end, or when it begins to wait, all that
        depend on it; at the end of a dependent, the owners that wait for it."""
        graph = self._graph
        graph.upto = change.revision
        where = (change.kind, change.namespace, change.name)
        if change.type == "DELETED":
            node = Node.of(where, change.stored().raw)
            graph.drop(node.uid)
            self._refusals.forget(node.uid)
            keys = [*self._dependents(node), *self._waiting_owners(node)]
        elif _may_matter(change.data) or _may_matter(change.previous):
            node = Node.of(where, change.stored().raw)
            graph.put(node)
            former = Node.of(where, change.before()) if change.previous else node
            keys = [*([_key(where)] if node.matters else ()), *self._waiting_owners(former)]
            if node.deleting == FOREGROUND:
                keys += self._dependents(node)
        else:
            return ()
        return dict.fromkeys(keys)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        """Every resource that has owners or waits; the graph is made anew on the way."""
        graph = Graph()
        keys = []
        for stored in _everything(tx):
            node = Node.of((stored.kind, stored.namespace, stored.name), stored.raw)
            graph.put(node)
            if node.matters:
                keys.append(_key(node.where))
        graph.upto = tx.revision
        self._graph, self._gone = graph, Gone()
        return keys

    def _dependents(self, node: Node) -> list[Key]:
        return [_key(d.where) for d in self._graph.dependents(node.uid)]

    def _waiting_owners(self, node: Node) -> Iterator[Key]:
        for reference in node.owners:
            owner = self._graph.pending(reference.uid)
            if owner is not None:
                yield _key(owner.where)

    # -- what is done

    async def reconcile(self, store: Store, key: Key) -> float | None:
        """Do what is to be done with one resource, as it is now."""
        kind, (namespace, _, name) = key[0], key[1].partition("/")
        where = (kind, namespace, name)
        graph = self._graph
        stored = await store.read(lambda tx: tx.find(*where))
        if stored is None or stored.origin != HERE:
            return None
        if stored.revision > graph.upto:
            # Its own change has yet to come by, and has it looked at again.
            return None
        node, standing = await store.read(lambda tx: _look(tx, where, self._gone))
        # The graph is the loop's own: it is asked here, not in the store's threads.
        action = decide(node, standing, graph)
        dependents = graph.dependents(node.uid) if action.do is Do.ORPHAN else []
        try:
            if action.do is not Do.NOTHING:
                await store.transact(lambda tx: self._carry_out(tx, stored, action, dependents))
        except admission.Refused as refusal:
            return await self._refused(store, stored, str(refusal))
        self._refusals.forget(node.uid)
        unknown = [f"{r.kind} {r.name}" for r in node.owners if standing[r.uid] is Standing.UNKNOWN]
        if unknown:
            told = (
                f"owners can't be looked for from here and count as living: {', '.join(unknown)[:1000]}; an "
                "owner has a kind that is served here, and lies in the same namespace or in none"
            )
            await store.transact(lambda tx: note(tx, self._cloud, stored, "OwnerUnknown", told))
        return None

    async def _refused(self, store: Store, stored: Stored, reason: str) -> float:
        """Tell of it when it is news; seconds until it is tried again."""
        now, known = asyncio.get_running_loop().time(), self._refusals.get(stored.uid)
        refusal = following(known, reason, now)
        if refusal is not known:
            told = f"its owners are gone, and yet it stays: {reason}; it is tried again by itself"
            await store.transact(lambda tx: note(tx, self._cloud, stored, "OwnersGone", told))
            self._refusals.put(stored.uid, refusal)
        return refusal.due - now

    def _carry_out(self, tx: Transaction, seen: Stored, action: Action, dependents: Sequence[Node]) -> None:
        current = tx.find(seen.kind, seen.namespace, seen.name)
        if current is None or current.revision != seen.revision:
            # Its change has it looked at again.
            return
        match action.do:
            case Do.DELETE:
                self._delete(tx, current, ())
            case Do.DELETE_FOREGROUND:
                self._delete(tx, current, (FOREGROUND,))
            case Do.FORGET:
                _forget(tx, current, action.owners)
            case Do.RELEASE:
                _release(tx, current, FOREGROUND)
            case Do.ORPHAN:
                # What is done to the dependents has the owner looked at again, until a batch is the last.
                for node in dependents[:TOGETHER]:
                    found = tx.find(*node.where)
                    if found is not None and found.uid == node.uid and found.origin == HERE:
                        _forget(tx, found, frozenset({current.uid}))
                if len(dependents) <= TOGETHER:
                    _release(tx, current, ORPHAN)

    def _delete(self, tx: Transaction, current: Stored, finalizers: tuple[str, ...]) -> None:
        """Delete as an API call would, rules included; raises Refused. What an owner still stands for was
        looked at in another transaction: identities never return, so what was gone is gone."""
        info = BY_KIND[current.kind]
        request = admission.Request(operation="delete", info=info, user=USER, old=current.typed(info.type))
        for rule in self._rules.get(current.kind, ()):
            rule(tx, request)
        if finalizers:
            meta = current.raw["metadata"]
            kept = [f for f in meta.get("finalizers") or () if f not in finalizers]
            tx.replace({**current.raw, "metadata": {**meta, "finalizers": [*kept, *finalizers]}})
        tx.remove(current.kind, current.namespace, current.name, expected_uid=current.uid)


def _look(tx: Transaction, where: Where, gone: Gone) -> tuple[Node, dict[str, Standing]]:
    """The resource and how its owners stand. One that is gone has none."""
    stored = tx.find(*where)
    if stored is None:
        return Node("", where), {}
    node = Node.of(where, stored.raw)
    return node, {r.uid: stands(tx, where[1], r, gone) for r in node.owners}


def stands(tx: Transaction, namespace: str, reference: Reference, gone: Gone) -> Standing:
    """How an owner stands, for a dependent in a namespace (empty: in none).

    It is found by its kind, in whatever version, and its name; only its own identity is the owner.
    """
    info = BY_KIND.get(reference.kind)
    group = reference.api_version.rpartition("/")[0]
    if info is None or info.group != group or not reference.uid:
        return Standing.UNKNOWN
    if info.namespaced and not namespace:
        return Standing.UNKNOWN
    where = (info.kind, namespace if info.namespaced else "", reference.name)
    owner = tx.find(*where)
    if owner is not None and owner.uid == reference.uid:
        return Standing.WAITING if Node.of(where, owner.raw).deleting == FOREGROUND else Standing.LIVING
    if info.namespaced and reference.uid not in gone:
        if present.is_somewhere(tx, info.kind, reference.uid):
            return Standing.UNKNOWN
        gone.add(reference.uid)
    return Standing.GONE


def _may_matter(text: str) -> bool:
    """Whether a resource may have owners or wait, without decoding it."""
    return '"ownerReferences"' in text or ('"deletionTimestamp"' in text and '"finalizers"' in text)


def _everything(tx: Transaction) -> Iterator[Stored]:
    for kind in BY_KIND:
        after: tuple[str, str] | None = None
        while True:
            chunk = tx.select(kind, after=after, limit=CHUNK)
            yield from (stored for stored in chunk if _may_matter(stored.data))
            if len(chunk) < CHUNK:
                break
            after = (chunk[-1].namespace, chunk[-1].name)


def _key(where: Where) -> Key:
    return where[0], f"{where[1]}/{where[2]}"


def _forget(tx: Transaction, stored: Stored, owners: frozenset[str]) -> None:
    """Take away references to owners."""
    meta = stored.raw["metadata"]
    kept = [r for r in meta.get("ownerReferences") or () if r.get("uid") not in owners]
    _put(tx, stored, "ownerReferences", kept)


def _release(tx: Transaction, stored: Stored, finalizer: str) -> None:
    """Take away a finalizer; with the last one the resource goes."""
    kept = [f for f in stored.raw["metadata"].get("finalizers") or () if f != finalizer]
    _put(tx, stored, "finalizers", kept)


def _put(tx: Transaction, stored: Stored, field: str, value: list[Raw] | list[str]) -> None:
    meta = {k: v for k, v in stored.raw["metadata"].items() if k != field}
    tx.replace({**stored.raw, "metadata": {**meta, **({field: value} if value else {})}})
