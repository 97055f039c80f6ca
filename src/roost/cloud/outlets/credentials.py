"""The values of the Secret that an outlet names, opened for its sink; what is wrong with it, never values."""

from __future__ import annotations

import base64

from roost.cloud.outlets.pausing import Failed
from roost.engine.vault import Place, Vault, VaultError
from roost.model.outlet import SECRET_KEYS, SECRET_TYPE, AlarmOutlet
from roost.model.secret import SECRET, Secret
from roost.store.transaction import Transaction


def sealed_of(tx: Transaction, outlet: AlarmOutlet) -> Secret | None:
    """The Secret that an outlet names, as it is stored; None when it names none.

    Raises Failed when it is not there or is not for outlets.
    """
    name, namespace = outlet.spec.secret, outlet.metadata.namespace
    if not name:
        return None
    found = tx.seek(Secret, namespace, name)
    if found is None:
        raise Failed(
            f"there is no Secret {name} in {namespace}",
            f"create it with type {SECRET_TYPE}",
            halted=True,
            code="SecretMissing",
        )
    if found.type != SECRET_TYPE:
        raise Failed(
            f"Secret {name} is of type {found.type or 'Opaque'}, which is not for outlets",
            f"create one of type {SECRET_TYPE}",
            halted=True,
            code="SecretOfOtherType",
        )
    return found


def opened(secret: Secret | None, outlet: AlarmOutlet, vault: Vault) -> dict[str, bytes]:
    """Values by key: those that the outlet's type reads. Raises Failed."""
    spec = outlet.spec
    found: dict[str, bytes] = {}
    if secret is not None:
        meta = secret.metadata
        for key in sorted(SECRET_KEYS[spec.type] & set(secret.data)):
            place = Place(SECRET.kind, meta.namespace, meta.name, f"data.{key}")
            try:
                found[key] = base64.b64decode(vault.unseal(place, secret.data[key]))
            except VaultError as error:
                raise Failed(
                    f"{place} does not open: {error.reason}", error.remedy, halted=True, code="SecretSealed"
                ) from error
    if lacking := lacks(outlet, frozenset(found)):
        raise Failed(
            f"Secret {spec.secret} lacks {lacking}",
            "add this key to it",
            halted=True,
            code="SecretIncomplete",
        )
    return found


def lacks(outlet: AlarmOutlet, keys: frozenset[str]) -> str:
    """A key that an outlet's Secret must have and has not; empty when it has all."""
    spec = outlet.spec
    if spec.type == "snmp":
        if spec.snmp.version == "2c":
            return "" if "community" in keys else "community"
        if "authentication" not in keys:
            return "authentication"
        return "privacy" if spec.snmp.privacy != "none" and "privacy" not in keys else ""
    for one, other in (("tls.crt", "tls.key"), ("tls.key", "tls.crt")):
        if one in keys and other not in keys:
            return other
    return ""
