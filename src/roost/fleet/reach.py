"""Which shared policy reaches which subcloud, in memory: a change finds what it concerns, and no more.

Held is what decides that: of a subcloud what selectors ask of it, of a policy its selector and what its
copies should be, of a copy what it is, and who has an exception. Subclouds are filed by group and by label,
policies by one condition of their selector; so whom a policy may select, and what may select a subcloud, is
looked up.
How many copies of a policy are in force is added up as copies change.

What is here is as far as the changes that were told, and so may lag behind the store: it says where to look,
and the look itself goes by the store. A pair of which nothing is told here is as it should be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TypeVar

import msgspec

from roost.model.firewall import FirewallPolicy
from roost.model.fleet import SubcloudSelector, chooses
from roost.model.meta import Condition, condition_is

LATE_TOLD = 20
"""Subclouds that are named as late."""

K = TypeVar("K")
Anchor = tuple[str, ...]
_ALL: Anchor = ("all",)


class _SiteMetadata(msgspec.Struct, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}


class _SiteSpec(msgspec.Struct, frozen=True, rename="camel"):
    management_state: str = "unmanaged"
    group: str = ""
    latitude: float | None = None
    longitude: float | None = None


class Site(msgspec.Struct, frozen=True):
    """What counts of a subcloud."""

    metadata: _SiteMetadata
    spec: _SiteSpec = _SiteSpec()

    @property
    def managed(self) -> bool:
        """Whether intent flows to it."""
        return self.spec.management_state == "managed"

    def is_chosen(self, selector: SubcloudSelector) -> bool:
        """Whether a selector selects it."""
        spec, metadata = self.spec, self.metadata
        place = (spec.latitude, spec.longitude)
        return chooses(selector, metadata.name, metadata.labels, spec.group, place=place)


site_of = msgspec.json.Decoder(Site).decode

Print = int
"""Of labels and spec, for comparing what is with what should be."""


class Wanted(msgspec.Struct, frozen=True):
    """What counts of a shared policy."""

    selector: SubcloudSelector
    generation: int
    print: Print


class Copy(msgspec.Struct, frozen=True, gc=False):
    """What counts of a copy."""

    print: Print
    late: bool
    hosts: int = 0
    applied: int = 0


class Sums(msgspec.Struct, frozen=True):
    """What the copies of a policy come to. `named` are some of the subclouds that are late, longest first."""

    copies: int = 0
    late: int = 0
    hosts: int = 0
    applied: int = 0
    named: tuple[str, ...] = ()
    settled: bool = True
    """Whether all of its copies are written."""


class _Metadata(msgspec.Struct, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}
    generation: int = 1


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    observed_generation: int = 0
    hosts: int = 0
    applied: int = 0
    conditions: list[Condition] = []


class Row(msgspec.Struct, frozen=True):
    """A copy as it is stored, its spec not decoded."""

    metadata: _Metadata
    spec: msgspec.Raw
    status: _Status = _Status()


row_of = msgspec.json.Decoder(Row).decode


def in_force(copy: FirewallPolicy | Row) -> bool:
    """Whether the subcloud says that this generation is in force everywhere."""
    observed = copy.status.observed_generation == copy.metadata.generation
    return observed and condition_is(copy.status.conditions, "Ready")


def copy_in(data: str) -> Copy:
    """What counts of a copy as it is stored."""
    row = row_of(data)
    taken = printed(row.metadata.labels, bytes(row.spec))
    return Copy(print=taken, late=not in_force(row), hosts=row.status.hosts, applied=row.status.applied)


def printed(labels: Mapping[str, str], spec: bytes) -> Print:
    """The print of labels and of a spec's JSON, as the store writes it."""
    return hash((frozenset(labels.items()), spec))


class _Policy:
    """A policy, or copies of one that is shared no more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wanted: Wanted | None = None
        self.usual: Copy | None = None
        self.copies: dict[str, Copy] = {}
        self.late: dict[str, None] = {}
        self.hosts = self.applied = 0

    def put(self, site: str, copy: Copy | None) -> bool:
        """A copy as it is now; whether that moves the sums."""
        before = self.copies.pop(site, None)
        if before is not None:
            self.hosts, self.applied = self.hosts - before.hosts, self.applied - before.applied
        if copy is not None:
            self.copies[site] = copy
            self.hosts, self.applied = self.hosts + copy.hosts, self.applied + copy.applied
        late = copy is not None and copy.late
        if late:
            self.late.setdefault(site)
        else:
            self.late.pop(site, None)
        return _counted(before) != _counted(copy)


def _counted(copy: Copy | None) -> tuple[bool, int, int] | None:
    return (copy.late, copy.hosts, copy.applied) if copy else None


class Reach:
    """All of it. One thread at a time."""

    def __init__(self) -> None:
        self._sites: dict[str, Site] = {}
        self._policies: dict[str, _Policy] = {}
        self._copies_in: dict[str, set[str]] = defaultdict(set)
        """By subcloud: policies that have a copy there."""
        self._sites_at: dict[Anchor, set[str]] = defaultdict(set)
        self._policies_at: dict[Anchor, set[str]] = defaultdict(set)
        self._excepted: dict[str, dict[str, str]] = {}
        """By subcloud: policies by the exceptions from them."""

    # -- what is told

    def put_site(self, name: str, site: Site | None) -> bool:
        """A subcloud as it is now; None: it is none any more. Whether that is news."""
        before = self._sites.get(name)
        if before == site:
            return False
        if before is not None:
            del self._sites[name]
            for anchor in _filed_at(before):
                _drop(self._sites_at, anchor, name)
        if site is not None:
            self._sites[name] = site
            for anchor in _filed_at(site):
                self._sites_at[anchor].add(name)
        return True

    def put_policy(self, name: str, wanted: Wanted | None) -> bool:
        """A shared policy as it is now; None: it is none any more. Whether that is news."""
        policy = self._policies.get(name)
        before = policy.wanted if policy else None
        if before == wanted:
            return False
        if before is not None:
            for anchor in anchors(before.selector):
                _drop(self._policies_at, anchor, name)
        policy = self._policies.setdefault(name, _Policy(name))
        policy.wanted = wanted
        if wanted is not None:
            for anchor in anchors(wanted.selector):
                self._policies_at[anchor].add(name)
        self._tidy(name)
        return True

    def put_copy(self, name: str, site: str, copy: Copy | None) -> bool:
        """The copy of a policy in a subcloud; None: there is none any more. Whether that moves the sums."""
        policy = self._policies.setdefault(name, _Policy(name))
        # Most copies of a policy are equal, and each name is here already: held once.
        name, known = policy.name, self._sites.get(site)
        site = known.metadata.name if known else site
        if copy is not None and copy == policy.usual:
            copy = policy.usual
        elif copy is not None:
            policy.usual = copy
        moved = policy.put(site, copy)
        if copy is not None:
            self._copies_in[site].add(name)
        else:
            _drop(self._copies_in, site, name)
        self._tidy(name)
        return moved

    def put_exception(self, site: str, exception: str, name: str) -> set[str]:
        """The policy that an exception of a subcloud is from; empty: none any more. Policies concerned."""
        there = self._excepted.setdefault(site, {})
        concerned = {there.pop(exception, ""), name} - {""}
        if name:
            there[exception] = name
        if not there:
            del self._excepted[site]
        return concerned

    def _tidy(self, name: str) -> None:
        policy = self._policies[name]
        if policy.wanted is None and not policy.copies:
            del self._policies[name]

    # -- what is asked

    def policies(self) -> list[str]:
        """Names of policies that are shared or have copies."""
        return sorted(self._policies)

    def is_shared(self, name: str) -> bool:
        """Whether there is such a policy, and it is shared."""
        return name in self._policies and self._policies[name].wanted is not None

    def sites_for(self, name: str) -> list[str]:
        """Subclouds that a policy may have to do with: that have a copy, or that it may select."""
        policy = self._policies.get(name)
        if policy is None:
            return []
        found = set(policy.copies)
        if policy.wanted is not None:
            for anchor in anchors(policy.wanted.selector):
                found.update(self._at(anchor))
        return sorted(found)

    def policies_for(self, site: str) -> list[str]:
        """Policies that may have to do with a subcloud: that may select it, or have a copy there."""
        known = self._sites.get(site)
        if known is None or not known.managed:
            return []
        found = set(self._copies_in.get(site, ()))
        for anchor in (("name", site), *_filed_at(known), _ALL):
            found |= self._policies_at.get(anchor, set())
        return sorted(found)

    def is_right(self, name: str, site: str) -> bool:
        """Whether a subcloud's copy of a policy is as it should be: there is none where none should be."""
        known, policy = self._sites.get(site), self._policies.get(name)
        if known is None or not known.managed or policy is None:
            return True
        copy, wanted = policy.copies.get(site), policy.wanted
        if wanted is None or not known.is_chosen(wanted.selector):
            return copy is None
        if name in self._excepted.get(site, {}).values():
            return False
        return copy is not None and copy.print == wanted.print

    def sums(self, name: str) -> Sums:
        """What the copies of a policy come to."""
        policy = self._policies.get(name) or _Policy(name)
        return Sums(
            copies=len(policy.copies),
            late=len(policy.late),
            hosts=policy.hosts,
            applied=policy.applied,
            named=tuple(islice(policy.late, LATE_TOLD)),
        )

    def _at(self, anchor: Anchor) -> Iterable[str]:
        if anchor == _ALL:
            return self._sites
        if anchor[0] == "name":
            return [anchor[1]] if anchor[1] in self._sites else []
        return self._sites_at.get(anchor, ())


def anchors(selector: SubcloudSelector) -> list[Anchor]:
    """Where a selector's subclouds are filed: all that it selects are at one of these."""
    if selector.names:
        return [("name", name) for name in selector.names]
    if selector.groups:
        return [("group", group) for group in selector.groups]
    if selector.labels:
        return [("label", *min(selector.labels.items()))]
    return [_ALL]


def _filed_at(site: Site) -> list[Anchor]:
    """Where a subcloud is filed, besides its name and among all."""
    return [("group", site.spec.group), *(("label", k, v) for k, v in site.metadata.labels.items())]


def _drop(index: dict[K, set[str]], place: K, name: str) -> None:
    if place in index:
        index[place].discard(name)
        if not index[place]:
            del index[place]
