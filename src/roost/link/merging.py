"""Whose is which field of a status that two write: the node below and its cloud above. Pure."""

from __future__ import annotations

from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.meta import Owner
from roost.model.ownership import status_owners
from roost.model.registry import BY_KIND

HOST_KINDS = ("Host", "HostConfiguration")

Owned = dict[str, list[str]]
"""By kind, the fields of status that a host says it owns."""


def owned_by_host() -> Owned:
    """The fields of status that a host of this version owns, by kind."""
    return {
        kind: sorted(k for k, owner in status_owners(BY_KIND[kind]).items() if owner is Owner.HOST)
        for kind in HOST_KINDS
    }


def merged_from_host(info: KindInfo, current: Raw, brought: Raw, told: list[str] | None) -> Raw:
    """`current` with what a host says of the fields it owns.

    A field that this version does not know belongs to a host that says it owns it, or that says no such thing
    and brings it. A field that the host does not know (it is the older) stays as it is: that it is absent
    there means nothing.
    """
    owners, before = status_owners(info), current.get("status") or {}
    known = {k for k, owner in owners.items() if owner is Owner.HOST}
    if told is None:
        mine = known | (brought.keys() - owners.keys())
    else:
        mine = {k for k in told if k in known or k not in owners}
    status = {k: v for k, v in before.items() if k not in mine} | {
        k: v for k, v in brought.items() if k in mine
    }
    return current if status == before else {**current, "status": status}


def merged_from_subcloud(info: KindInfo, current: Raw, incoming: Raw) -> Raw:
    """A subcloud's status is all its own but for fields that the fleet level fills in above it."""
    kept = {k for k, owner in status_owners(info).items() if owner is Owner.FLEET}
    status = {k: v for k, v in (incoming.get("status") or {}).items() if k not in kept}
    return status | {k: v for k, v in current.get("status", {}).items() if k in kept}
