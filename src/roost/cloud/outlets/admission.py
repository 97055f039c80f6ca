"""What is refused of outlets besides what their own invariants say, with reason and remedy."""

from __future__ import annotations

import ssl
from typing import cast

from roost.cloud.outlets.credentials import lacks
from roost.engine.admission import Refused, Request, Rule
from roost.engine.authorities import trusting
from roost.model.outlet import ALARM_OUTLET, SECRET_TYPE, AlarmOutlet
from roost.model.secret import Secret
from roost.store.transaction import Transaction

MOST = 32
"""Outlets that a cloud has at most: each reads all changes."""


def rules(cloud: str) -> dict[str, list[Rule]]:
    """Rules by kind."""

    def rule(tx: Transaction, request: Request) -> None:
        if request.operation == "delete":
            return
        outlet = cast(AlarmOutlet, request.new)
        if request.operation == "create" and tx.count(ALARM_OUTLET.kind, cloud) >= MOST:
            raise Refused(f"{cloud} has {MOST} outlets", "delete one, or send on from one receiver")
        _authorities(outlet)
        _secret(tx, outlet)

    return {ALARM_OUTLET.kind: [rule]}


def _authorities(outlet: AlarmOutlet) -> None:
    if not outlet.spec.ca_bundle:
        return
    try:
        trusting(outlet.spec.ca_bundle)
    except ssl.SSLError as error:
        raise Refused(
            "the authorities can't be read", "write certificates as PEM", field="spec.caBundle"
        ) from error


def _secret(tx: Transaction, outlet: AlarmOutlet) -> None:
    """A Secret that is there must be for outlets and have what the type needs; one to come is waited for."""
    name, field = outlet.spec.secret, "spec.secret"
    found = tx.seek(Secret, outlet.metadata.namespace, name) if name else None
    if found is None:
        return
    if found.type != SECRET_TYPE:
        raise Refused(
            f"Secret {name} is of type {found.type}, and its values are sent nowhere",
            f"name one of type {SECRET_TYPE}",
            field=field,
        )
    if lacking := lacks(outlet, frozenset(found.data)):
        raise Refused(
            f"Secret {name} lacks {lacking}, which this outlet needs", "add this key to it first", field=field
        )
