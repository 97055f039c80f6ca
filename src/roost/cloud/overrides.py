"""A site's own word on intent that came from above: its overrides, and what becomes of them.

The controller looks at each override, its target and the central cloud's review, and writes what that comes
to (`engine.overrides.judge`): its status, or its end. Nothing depends on what came first: a review that comes
twice, a copy that comes late, a restart between them end the same way.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.engine.controller import Key, StoreController
from roost.engine.faults import write_log
from roost.engine.overrides import OVERRIDABLE, Ended, judge
from roost.model import time
from roost.model.codec import Raw
from roost.model.override import (
    LOCAL_OVERRIDE,
    OVERRIDE_REVIEW,
    LocalOverride,
    LocalOverrideStatus,
    OverrideReview,
)
from roost.store import former
from roost.store.errors import Compacted, FutureRevision
from roost.store.transaction import HERE, UP, Change, Stored, Transaction

EVERY = "*"
LARGEST = 8 * 1024 * 1024


class OverrideController(StoreController):
    """Keeps the status of this cloud's overrides, and ends those that are over."""

    name = "overrides"

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.namespace != self._cloud:
            return
        if change.kind == LOCAL_OVERRIDE.kind:
            if change.type != "DELETED":
                yield (self._cloud, change.name)
        elif change.kind == OVERRIDE_REVIEW.kind or (
            change.kind in OVERRIDABLE and change.origin == UP and _is_intent(change)
        ):
            yield (self._cloud, EVERY)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [(self._cloud, EVERY)]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        reviews = {r.spec.override: r for r in tx.every(OverrideReview, self._cloud)}
        for stored in tx.select(LOCAL_OVERRIDE.kind, self._cloud, origin=HERE):
            if key[1] in (EVERY, stored.name):
                self._look(tx, stored, reviews.get(stored.name))
        return None

    def _look(self, tx: Transaction, stored: Stored, review: OverrideReview | None) -> None:
        override = stored.typed(LocalOverride)
        if override.metadata.deletion_timestamp is not None:
            return
        target = _target(tx, override)
        made = _made_against(tx, stored, override, target)
        verdict = judge(override, target, review, time.stamp(tx.now), made)
        entity = f"override={stored.name}"
        if isinstance(verdict, Ended):
            tx.remove(stored.kind, stored.namespace, stored.name)
            write_log(tx, self._cloud, event=verdict.event, entity=entity, text=verdict.text)
        elif verdict != override.status:
            tx.report(msgspec.structs.replace(override, status=verdict))
            for event, text in _news(override, verdict):
                write_log(tx, self._cloud, event=event, severity="warning", entity=entity, text=text)


def _target(tx: Transaction, override: LocalOverride) -> Raw | None:
    """The copy that an override speaks of; None when there is none, or it is this cloud's own."""
    target = override.spec.target
    if target.kind not in OVERRIDABLE:
        return None
    found = tx.find(target.kind, override.metadata.namespace, target.name)
    return found.raw if found is not None and found.origin == UP else None


def _made_against(tx: Transaction, stored: Stored, override: LocalOverride, target: Raw | None) -> Raw | None:
    """The target as it was when the override's spec was written; None when it is the same, or not known."""
    if target is None or override.status.observed_generation == override.metadata.generation:
        return None
    spec, key = override.spec.target, (stored.namespace, override.spec.target.name)
    within = former.Range(kind=spec.kind, namespace=key[0], name=key[1])
    try:
        was = former.read(tx, within, stored.revision, LARGEST).resources.get(key)
    except (Compacted, FutureRevision):
        return None
    return was.raw if was is not None else None


def _news(override: LocalOverride, status: LocalOverrideStatus) -> list[tuple[str, str]]:
    """What the log should tell of a change of status."""
    before, spec = override.status, override.spec
    what = f"{spec.target.kind}/{spec.target.name}"
    told = []
    if not before.observed_generation:
        by = f" by {spec.by}" if spec.by else ""
        how = "put out of force" if spec.withdrawn else "overridden"
        told.append(("override-made", f"{what} is {how}{by}: {spec.reason or 'no reason was given'}"))
    if status.conflicts > before.conflicts:
        told.append(("override-conflict", f"{what} is overridden, and the central cloud has changed it too."))
    if before.in_force and not status.in_force:
        why = next((c.message for c in status.conditions if c.type == "InForce"), "")
        told.append(("override-idle", f"The override of {what} is not in force: {why}"))
    return told


def _is_intent(change: Change) -> bool:
    """Whether more than a status has changed."""
    if change.type != "MODIFIED":
        return True
    return bool(msgspec.json.decode(change.data).get("spec") != change.before().get("spec"))
