"""Groups of subclouds: how many are in each, and how they are.

Added up as `summing` does: a change of one subcloud moves the figures of its group, and of the one that it
left. A group that holds subclouds is not deleted, so that none is left to other rules by a slip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import msgspec

from roost.engine.admission import Refused, Request
from roost.engine.controller import Key
from roost.fleet.summing import SUMS, Summing
from roost.model.cloud import SUBCLOUD
from roost.model.fleet import SUBCLOUD_GROUP, SubcloudGroup, SubcloudGroupStatus
from roost.store.store import Store
from roost.store.transaction import Change, Transaction


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    group: str = ""
    management_state: str = ""


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    availability: str = ""
    sync: str = ""


class Member(msgspec.Struct, frozen=True):
    """What counts of a subcloud."""

    spec: _Spec = _Spec()
    status: _Status = _Status()

    @property
    def group(self) -> str:
        """The group it is in; empty: none."""
        return self.spec.group

    def figures(self) -> dict[str, int]:
        """What it adds to each figure of its group."""
        return {
            "subclouds": 1,
            "managed": self.spec.management_state == "managed",
            "online": self.status.availability == "online",
            "in_sync": self.status.sync == "in-sync",
        }


member_of = msgspec.json.Decoder(Member).decode


class GroupSums:
    """Figures by group."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._sums: dict[str, Counter[str]] = {}

    def put(self, name: str, member: Member | None) -> set[str]:
        """What a subcloud is now; None: it is none any more. The groups whose figures this moves."""
        before = self._members.pop(name, None)
        if member is not None:
            self._members[name] = member
        moved = set()
        for one, sign in ((before, -1), (member, 1)):
            if one is not None and one.group and before != member:
                self._add(one, sign)
                moved.add(one.group)
        return moved

    def names(self) -> set[str]:
        """Subclouds that are known."""
        return set(self._members)

    def of(self, group: str) -> SubcloudGroupStatus:
        """The figures of a group."""
        return SubcloudGroupStatus(**self._sums.get(group, Counter()))

    def _add(self, member: Member, sign: int) -> None:
        sums = self._sums.setdefault(member.group, Counter())
        for figure, value in member.figures().items():
            sums[figure] += sign * value
        if not sums["subclouds"]:
            del self._sums[member.group]


class GroupController(Summing[Member]):
    """Keeps the figures of groups."""

    name = "subcloud-groups"

    def __init__(self) -> None:
        super().__init__()
        self._sums = GroupSums()
        self._due: set[str] = set()
        """Groups whose figures may be otherwise than they are written."""
        self._writing: set[str] = set()

    def news(self, change: Change) -> str:
        if change.kind != SUBCLOUD.kind:
            return ""
        same = change.type == "MODIFIED" and member_of(change.data) == member_of(change.previous)
        return "" if same else change.name

    def read(self, tx: Transaction, names: Sequence[str]) -> Mapping[str, Member]:
        found = ((name, tx.find(SUBCLOUD.kind, "", name)) for name in names)
        return {name: member_of(stored.data) for name, stored in found if stored is not None}

    def names(self) -> set[str]:
        return self._sums.names()

    def put(self, name: str, counts: Member | None) -> None:
        self._due |= self._sums.put(name, counts)

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == SUBCLOUD_GROUP.kind and change.type == "ADDED":
            self._due.add(change.name)
            yield SUMS
        yield from super().concerned(change)

    async def prepare(self, store: Store, *, everything: bool) -> None:
        if everything:
            self._due.update(await store.read(lambda tx: [s.name for s in tx.select(SUBCLOUD_GROUP.kind)]))
        self._writing, self._due = self._due, set()

    def due(self) -> Sequence[Key]:
        return [(SUBCLOUD_GROUP.kind, name) for name in sorted(self._writing)]

    def write(self, tx: Transaction, rows: Sequence[Key]) -> None:
        for _, name in rows:
            group = tx.seek(SubcloudGroup, "", name)
            status = self._sums.of(name)
            if group is not None and group.status != status:
                tx.report(msgspec.structs.replace(group, status=status))

    def written(self) -> None:
        self._writing = set()

    def failed(self) -> None:
        self._due |= self._writing


def rule(tx: Transaction, request: Request) -> None:
    """A group that holds subclouds stays. They are counted here: the figures of its status come later."""
    if request.operation != "delete":
        return
    name = cast(SubcloudGroup, request.old).metadata.name
    held = sum(member_of(stored.data).group == name for stored in tx.select(SUBCLOUD.kind))
    if held:
        raise Refused(
            f"{held} subcloud{'s are' if held > 1 else ' is'} in group {name}",
            f"move them first: roost subcloud update --in-group {name} --group OTHER",
        )
