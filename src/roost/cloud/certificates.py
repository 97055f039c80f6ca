"""Alarms for the certificates a cloud itself lives by: its server's, and its link's upwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from roost.engine.certificates import certificate_faults
from roost.engine.controller import Key, StoreController
from roost.engine.faults import settle
from roost.store.transaction import Change, Transaction

LOOK_AGAIN = 3600.0


class CertificateController(StoreController):
    """Looks at the ends of certificates, told by entity as points in time."""

    name = "certificates"

    def __init__(self, cloud: str, ends: Callable[[], Mapping[str, str]]) -> None:
        self._cloud, self._ends = cloud, ends

    def concerned(self, change: Change) -> Iterable[Key]:
        return ()

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [("", self._cloud)]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        ends = self._ends()
        faults = [f for entity, end in ends.items() for f in certificate_faults(entity, end, tx.now)]
        settle(tx, self._cloud, f"cloud.{self._cloud}", faults)
        return LOOK_AGAIN
