"""Each site is told whether it is managed: one Management in its namespace, which the link carries down.

So the site knows its standing from its own store, however long it has been cut off.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.engine.controller import Key, StoreController
from roost.model.cloud import SUBCLOUD, Subcloud
from roost.model.meta import Metadata
from roost.model.override import MANAGEMENT, Management, ManagementSpec
from roost.store.transaction import HERE, Change, Transaction


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    management_state: str = "unmanaged"


class _Subcloud(msgspec.Struct, frozen=True):
    spec: _Spec = _Spec()


_decided = msgspec.json.Decoder(_Subcloud).decode


class ManagementController(StoreController):
    """Writes down for each subcloud what its operator here has decided."""

    name = "management"

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == SUBCLOUD.kind:
            # Its status changes whenever its link comes or goes: that is no decision of an operator.
            if change.type != "MODIFIED" or _decided(change.data) != _decided(change.previous):
                yield ("", change.name)
        elif change.kind == MANAGEMENT.kind and change.type == "DELETED" and change.origin == HERE:
            yield ("", change.namespace)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        # Twenty thousand sites that are told already cost two reads, not as many transactions.
        told = {m.metadata.namespace: m.spec.management_state for m in self._told(tx)}
        return [
            ("", s.metadata.name)
            for s in tx.every(Subcloud)
            if told.get(s.metadata.name) != s.spec.management_state
        ]

    def _told(self, tx: Transaction) -> list[Management]:
        found = tx.select(MANAGEMENT.kind, origin=HERE)
        return [s.typed(Management) for s in found if s.name == self._cloud]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        subcloud = tx.seek(Subcloud, "", key[1])
        if subcloud is None:
            return None
        spec = ManagementSpec(management_state=subcloud.spec.management_state)
        current = tx.seek(Management, key[1], self._cloud)
        if current is None:
            tx.save(Management(metadata=Metadata(name=self._cloud, namespace=key[1]), spec=spec))
        elif current.spec != spec:
            tx.save(msgspec.structs.replace(current, spec=spec))
        return None
