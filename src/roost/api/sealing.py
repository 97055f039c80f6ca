"""Secret values on their way into the store: kept, or sealed by the vault. The rules of writing them.

Clients see MARK in place of each value (`model.secrecy`), and patches work on what clients see. What comes
back:

- MARK: the value that is there stays; where none is, the write is refused;
- the same value as is there, of who may get the object: it stays too (`compared`), so that applying a file
  again changes nothing. Others would learn from that whether they have guessed it;
- anything else: it is sealed, and takes the place of what was there;
- no field, or no key: the value is removed.

A sealed text is never taken from a client.
"""

from __future__ import annotations

import hmac

import msgspec

from roost.api.status import ApiError, invalid
from roost.engine.vault import SEALED, BadKeys, Place, Unopened, Vault
from roost.model.audit import LAST_APPLIED
from roost.model.codec import Raw
from roost.model.kind import KindInfo, Problem
from roost.model.secrecy import MARK, Path, has_secrets, masked, values, with_values


def compared(vault: Vault | None, info: KindInfo, body: Raw, stored: Raw) -> Raw:
    """What a client wants, with MARK for each value that is the stored one: so that it is no change."""
    if not has_secrets(info):
        return body
    there = values(stored, info)

    def mark(path: Path, value: str) -> str:
        former = there.get(path, "")
        same = vault is not None and former and _opens_to(vault, place_of(info, stored, path), former, value)
        return MARK if same else value

    return _without_last_applied(info, with_values(body, info, mark))


def sealed(vault: Vault | None, info: KindInfo, raw: Raw, stored: Raw) -> Raw:
    """`raw`, which is to be written over `stored` (empty: to be created), as the store may see it.

    Raises ApiError 422 for a MARK without a value or a sealed text, 503 without a key to seal by.
    """
    if not has_secrets(info):
        return raw
    there = values(stored, info)
    name = str(raw["metadata"].get("name", ""))
    namespace = str(raw["metadata"].get("namespace", ""))

    def seal(path: Path, value: str) -> str:
        place = Place(info.kind, namespace, name, ".".join(path))
        former = there.get(path, "")
        if value == MARK:
            if former:
                return former
            reason = "says that a value stays, and there is none"
            raise _refused(info, name, place.field, reason, "write the value itself, or leave the key out")
        if value.startswith(SEALED):
            raise _refused(info, name, place.field, "is a sealed text", "write the value itself")
        if vault is None:
            raise _no_key(place, "this cloud has no keys for secret values; its operator sets a file of keys")
        try:
            return vault.seal(place, value)
        except BadKeys as error:
            raise _no_key(place, str(error)) from error

    return _without_last_applied(info, with_values(raw, info, seal))


def place_of(info: KindInfo, raw: Raw, path: Path) -> Place:
    """Where a value of a stored object belongs."""
    meta = raw["metadata"]
    return Place(info.kind, meta.get("namespace", ""), meta["name"], ".".join(path))


def _opens_to(vault: Vault, place: Place, former: str, value: str) -> bool:
    try:
        return hmac.compare_digest(vault.unseal(place, former).encode(), value.encode())
    except (Unopened, BadKeys):
        return False


def _without_last_applied(info: KindInfo, raw: Raw) -> Raw:
    """What kubectl last applied stands in an annotation, in clear: its secret values are masked.

    A note that can't be read is dropped: kubectl then compares with the object itself.
    """
    meta = raw.get("metadata")
    annotations = meta.get("annotations") if isinstance(meta, dict) else None
    text = annotations.get(LAST_APPLIED) if isinstance(annotations, dict) else None
    if not isinstance(text, str) or not isinstance(annotations, dict):
        return raw
    kept = {k: v for k, v in annotations.items() if k != LAST_APPLIED}
    try:
        applied = msgspec.json.decode(text, type=dict)
    except (msgspec.MsgspecError, UnicodeError):
        applied = None
    if applied is not None:
        body = msgspec.json.encode(masked(info)(applied)).decode()
        kept[LAST_APPLIED] = body + ("\n" if text.endswith("\n") else "")
    return {**raw, "metadata": {**raw["metadata"], "annotations": kept}}


def _refused(info: KindInfo, name: str, field: str, reason: str, remedy: str) -> ApiError:
    return invalid(info, name, [Problem(field, reason, remedy)])


def _no_key(place: Place, reason: str) -> ApiError:
    return ApiError(503, f"{place}: the value can't be sealed: {reason}; nothing was written")
