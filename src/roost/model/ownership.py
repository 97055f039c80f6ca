"""Who may write which field, enforced when objects are merged (law 1: one writer per fact).

`spec` belongs to the kind's `spec_owner`; each direct field of `status` to the owner named at the
field, else to the kind's `status_owner`. `merge` takes only the writer's own fields from what it
brings; everything else stays as it was.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, get_args, get_origin, get_type_hints

import msgspec

from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.meta import Owner


@cache
def status_owners(info: KindInfo) -> dict[str, Owner]:
    """Owner of each direct field of status, by wire name."""
    hints = get_type_hints(info.type, include_extras=True)
    if "status" not in hints:
        return {}
    struct = get_args(hints["status"])[0]
    inner = get_type_hints(struct, include_extras=True)
    owners = {}
    for name, wire in zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True):
        owners[wire] = _owner(inner[name]) or info.status_owner
    return owners


def merge(info: KindInfo, current: Raw, incoming: Raw, writer: Owner) -> Raw:
    """`current` with the fields that `writer` owns taken from `incoming` (absent there: removed)."""
    merged = dict(current)
    if info.spec_owner is writer and "spec" in incoming:
        merged["spec"] = incoming["spec"]
    owners = status_owners(info)
    if owners:
        brought, before = incoming.get("status") or {}, current.get("status") or {}
        mine = {k for k, o in owners.items() if o is writer}
        if info.status_owner is writer:
            mine |= (set(brought) | set(before)) - set(owners)
        status = {k: v for k, v in before.items() if k not in mine}
        status |= {k: v for k, v in brought.items() if k in mine}
        if status != before:
            merged["status"] = status
    return merged


def _owner(hint: object) -> Owner | None:
    if get_origin(hint) is not Annotated:
        return None
    for note in get_args(hint)[1:]:
        if isinstance(note, msgspec.Meta) and note.extra:
            owner = note.extra.get("owner")
            if isinstance(owner, Owner):
                return owner
    return None
