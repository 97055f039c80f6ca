"""A subcloud that has moved to another central cloud, as its former one sees it.

Its link tells where it is and under which epoch (`link.rehoming`); that stands in its status. It is neither
lost nor out of sync then: it is not ours. What it had told of itself is no longer true here and goes, in
bounded transactions, with the cursor of its stream, so that all of it is asked for if it comes back.
What was shared with it stays, is kept as it should be, and is sent nowhere: so it is there from the first
moment if the subcloud comes back. To forget the rest, people delete the Subcloud.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import select

from roost.engine.controller import Key
from roost.link.intake import kinds_property, refused_property
from roost.link.node import subcloud as subcloud_node
from roost.model.cloud import SUBCLOUD, AlarmCounts, Subcloud, SubcloudStatus
from roost.model.meta import Condition, set_condition
from roost.store.schema import resources
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

BATCH = 200


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    moved_to: str = ""


class _Moved(msgspec.Struct, frozen=True):
    status: _Status = _Status()


_decode = msgspec.json.Decoder(_Moved).decode


def has_moved(data: str) -> bool:
    """Whether a Subcloud, as it is stored, is owned elsewhere."""
    return bool(_decode(data).status.moved_to)


def owned(subcloud: Subcloud) -> Condition:
    """Whether this cloud owns a subcloud, in words. Pure."""
    name, epoch, elsewhere = subcloud.metadata.name, subcloud.status.epoch, subcloud.status.moved_to
    if not elsewhere:
        message = f"This cloud owns it, at epoch {epoch}."
        return Condition(type="Owned", status="True", reason="Owner", message=message)
    message = (
        f"It moved to {elsewhere} at epoch {epoch}. Delete it here, or have it back with a token of this "
        f"cloud: roost subcloud token {name}."
    )
    return Condition(type="Owned", status="False", reason="MovedAway", message=message)


def moved_status(subcloud: Subcloud, now: str) -> SubcloudStatus:
    """The status of a subcloud that is owned elsewhere: nothing is known of it here. Pure."""
    before = subcloud.status
    message = f"It moved to {before.moved_to}, which knows."
    conditions = set_condition(before.conditions, owned(subcloud), now)
    for of in ("Online", "InSync"):
        condition = Condition(type=of, status="Unknown", reason="MovedAway", message=message)
        conditions = set_condition(conditions, condition, now)
    return msgspec.structs.replace(
        before,
        enrolled=False,
        availability="unknown",
        availability_changed_at=before.availability_changed_at if before.availability == "unknown" else now,
        sync="unknown",
        out_of_sync=[],
        alarms=AlarmCounts(),
        certificate_expires_at="",
        conditions=conditions,
    )


class MovedAwayController:
    """Lets go of what moved subclouds had told."""

    name = "moved-away"

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == SUBCLOUD.kind and change.type != "DELETED" and has_moved(change.data):
            yield ("", change.name)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [("", s.name) for s in tx.select(SUBCLOUD.kind) if has_moved(s.data)]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        left = await store.transact(lambda tx: _let_go(tx, key[1]))
        return 0.0 if left == BATCH else None


def _let_go(tx: Transaction, name: str) -> int:
    """Drop a bounded part of what a moved subcloud had told; how much that was."""
    found = tx.find(SUBCLOUD.kind, "", name)
    if found is None or not has_moved(found.data):
        return 0
    node = subcloud_node(name)
    query = select(resources.c.kind, resources.c.namespace, resources.c.name)
    rows = tx.connection.execute(query.where(resources.c.origin == node.origin).limit(BATCH)).all()
    for row in rows:
        tx.drop(*row)
    if rows:
        tx.drop_cursor(str(node))
        tx.drop_property(refused_property(str(node)))
        tx.drop_property(kinds_property(str(node)))
    return len(rows)
