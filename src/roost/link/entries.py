"""What travels of a resource, as one entry of a stream, and an entry read again: pure.

Intent is all but the status, observation is a whole resource or its status alone. What the peer sends is
checked before it is kept: an object that this version can't decode would stop every controller that reads its
kind, so it is refused, entry by entry. Fields this version does not know are kept.
"""

from __future__ import annotations

from typing import Any

import msgspec

from roost.link.messages import Entry, EntryType
from roost.model.codec import Raw
from roost.model.registry import BY_KIND
from roost.store.transaction import Change, Stored

ENTRY_LIMIT = 4 * 1024 * 1024
_encode = msgspec.json.Encoder().encode


class Refuse(msgspec.Struct, frozen=True):
    """Do not take it in; the reason is told to the sender. `claim`: it says what is another's to say."""

    reason: str
    claim: bool = False


def written(type: EntryType, of: Change | Stored, body: Raw | None = None) -> Entry:
    """What is told of a resource; without a body that it is there no more."""
    data = b"" if body is None else _encode(body)
    return Entry(type=type, kind=of.kind, namespace=of.namespace, name=of.name, data=data)


def whole(of: Change | Stored) -> Entry:
    """As the store has it, which is without resourceVersion."""
    data = of.data.encode()
    return Entry(type="object", kind=of.kind, namespace=of.namespace, name=of.name, data=data)


def unversioned(raw: Raw) -> Raw:
    """The object without the revision that its store gave it."""
    return {**raw, "metadata": {k: v for k, v in raw["metadata"].items() if k != "resourceVersion"}}


def intent(raw: Raw) -> Raw:
    """All but the status. Which manager above owns a field is no business below, and a change of that alone
    is no news."""
    meta = {k: v for k, v in raw["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {**{k: v for k, v in raw.items() if k != "status"}, "metadata": meta}


def observed(raw: Raw) -> Raw:
    """The status, with what it takes to know whose it is. Its uid is the one the home gave."""
    meta = {k: raw["metadata"][k] for k in ("name", "namespace", "uid") if k in raw["metadata"]}
    return {"kind": raw["kind"], "metadata": meta, "status": raw.get("status", {})}


def decoded(entry: Entry) -> Raw | Refuse:
    """The entry's object, when it is one and is the one it says it is."""
    if len(entry.data) > ENTRY_LIMIT:
        return Refuse(f"it has {len(entry.data)} bytes, the limit is {ENTRY_LIMIT}")
    try:
        raw: Any = msgspec.json.decode(entry.data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return Refuse(f"it is not JSON: {error}")
    meta = raw.get("metadata") if isinstance(raw, dict) else None
    if not isinstance(meta, dict):
        return Refuse("it is no object with metadata")
    if (raw.get("kind"), meta.get("namespace", ""), meta.get("name")) != entry.key:
        return Refuse("its kind, namespace and name are not those of the entry")
    if not isinstance(raw.get("status", {}), dict):
        return Refuse("its status is no object")
    return unversioned(raw)


def unfit(entry: Entry, raw: Raw) -> Refuse | None:
    """Why this version can't read the object; None when it can."""
    try:
        msgspec.convert(raw, BY_KIND[entry.kind].type)
    except msgspec.ValidationError as error:
        return Refuse(f"this version can't read it: {error}")
    return None
