"""Events fade: each goes an hour after it last happened, and the oldest go first when there are many.

`note` writes one of our own, where something about a resource must be said that is no state and no alarm.

One key per Event, so no sweep: whoever writes an Event has it looked at, and the queue looks again when its
time is over. They are counted at one look in `COUNTED`, so there may be as many more for a while; past `KEPT`
the oldest go, so many at once that this is rare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

from roost.engine.controller import Key, StoreController
from roost.model import time
from roost.model.codec import Raw
from roost.model.event import EVENT, Event, EventSource, ObjectReference
from roost.model.meta import Metadata
from roost.store.transaction import HERE, Change, Stored, Transaction

KEPT = 10_000
"""Events kept in a cloud."""

SHED = 1_000
"""How many more than necessary go when there are too many."""

COUNTED = 100
"""At how many looks they are counted once: counting reads all of them."""

LIFE = 3600.0
"""Seconds an Event is kept after it last happened; the default of Kubernetes."""


class EventController(StoreController):
    """Lets Events go that are old, or too many."""

    name = "events"
    _looks = 0

    def concerned(self, change: Change) -> Iterable[Key]:
        """Every Event that was written here."""
        if change.kind == EVENT.kind and change.origin == HERE and change.type != "DELETED":
            yield (change.namespace, change.name)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        """Every Event of here."""
        return [(s.namespace, s.name) for s in tx.select(EVENT.kind, origin=HERE)]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        """Let the Event go when its hour is over; else look again when it will be."""
        if self._looks % COUNTED == 0 and tx.count(EVENT.kind) > KEPT:
            for stored in oldest(tx.select(EVENT.kind, origin=HERE), keep=KEPT - SHED):
                tx.drop(EVENT.kind, stored.namespace, stored.name)
        self._looks += 1
        current = tx.find(EVENT.kind, *key)
        if current is None:
            return None
        left = LIFE - (tx.now - last_seen(current.raw, tx.now)).total_seconds()
        if left > 0:
            return left
        tx.drop(EVENT.kind, *key)
        return None


def last_seen(raw: Raw, now: datetime) -> datetime:
    """When an Event of core/v1 last happened: the latest of what it says and of its creation.

    What lies ahead of us does not count: a clock that is fast must not keep Events for ever.
    """
    created = time.parse(raw["metadata"]["creationTimestamp"])
    series = raw.get("series") or {}
    told = [series.get("lastObservedTime"), raw.get("lastTimestamp"), raw.get("eventTime")]
    return max((m for m in (time.parse(text) for text in told if text) if m <= now), default=created)


def oldest(events: Iterable[Stored], *, keep: int) -> list[Stored]:
    """The Events that go when only `keep` stay."""
    ordered = sorted(events, key=lambda stored: stored.revision)
    return ordered[: max(0, len(ordered) - keep)]


def note(tx: Transaction, cloud: str, about: Stored, reason: str, message: str) -> None:
    """Write a warning about a resource into the cloud's namespace; the same again is counted."""
    told = hashlib.sha256(f"{about.uid} {reason} {message}".encode()).hexdigest()[:16]
    name = f"{about.name[:200]}.{told}".lower()
    now = time.seconds(tx.now)
    before = tx.seek(Event, cloud, name)
    tx.save(
        Event(
            metadata=before.metadata if before else Metadata(name=name, namespace=cloud),
            involved_object=ObjectReference(
                api_version=about.raw["apiVersion"],
                kind=about.kind,
                namespace=about.namespace,
                name=about.name,
                uid=about.uid,
            ),
            type="Warning",
            reason=reason,
            message=message[:4096],
            count=before.count + 1 if before else 1,
            first_timestamp=before.first_timestamp if before else now,
            last_timestamp=now,
            source=EventSource(component="roost"),
        )
    )
