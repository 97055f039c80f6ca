"""Alarms for the certificates a cloud itself lives by: its server's, its link's upwards, and its authority's.

The authority's comes a year early: all that it has issued ends with it, and people have to renew it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec

from roost.engine.certificates import (
    AUTHORITY_WARN_SECONDS,
    RENEWAL_GRACE,
    certificate_faults,
)
from roost.engine.controller import Key, StoreController
from roost.engine.faults import settle
from roost.model.alarms import Fault
from roost.store.transaction import Change, Transaction

LOOK_AGAIN = 3600.0


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """When certificates end, as points in time; empty where there is none."""

    server: str
    authority: str
    link: str = ""


class CertificateController(StoreController):
    """Looks at the ends of certificates. Wake it when one of them has changed."""

    name = "certificates"

    def __init__(self, cloud: str, ends: Callable[[], Ends]) -> None:
        self._cloud, self._ends = cloud, ends

    def concerned(self, change: Change) -> Iterable[Key]:
        return ()

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [("", self._cloud)]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        settle(tx, self._cloud, f"cloud.{self._cloud}", faults(self._cloud, self._ends(), tx.now))
        return LOOK_AGAIN


def faults(cloud: str, ends: Ends, now: datetime) -> list[Fault]:
    """The alarms that a cloud's own certificates should have. Pure."""
    entity = f"cloud={cloud}"
    return [
        *certificate_faults(f"{entity}.server", ends.server, now),
        *certificate_faults(f"{entity}.link", ends.link, now, grace=RENEWAL_GRACE),
        *certificate_faults(f"{entity}.authority", ends.authority, now, warn_seconds=AUTHORITY_WARN_SECONDS),
    ]
