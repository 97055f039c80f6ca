"""Shows in the `rules` of each aggregated ClusterRole what it gathers. Decisions don't wait for it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.api.identity.grants import gathered
from roost.engine.controller import Key, StoreController
from roost.model.rbac import CLUSTER_ROLE, ClusterRole
from roost.store.transaction import Change, Transaction

ALL: Key = ("", "")


class AggregationController(StoreController):
    """One key for all: what one role gathers depends on every other."""

    name = "aggregated-roles"

    def concerned(self, change: Change) -> Iterable[Key]:
        """Any ClusterRole."""
        return [ALL] if change.kind == CLUSTER_ROLE.kind else []

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        """The one key."""
        return [ALL]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        """Write the rules that aggregated roles have and do not show."""
        roles = {role.metadata.name: role for role in tx.every(ClusterRole)}
        for role in roles.values():
            rules = gathered(role, roles)
            if rules != role.rules:
                tx.save(msgspec.structs.replace(role, rules=rules))
        return None
