"""What can be done at a subcloud by an operation, and how its end is seen.

An action has three parts. `facts` reads what is known of a subcloud. `reached` says purely, from these
facts, whether it is as wanted, what is missing, or why it can't be. `wish` writes at this cloud what is
wanted; the link carries it down. It may be written twice. The end is always something that the site itself
has said: so it is seen again after any restart, and work that was done by another hand counts as well.

An action is made for one look, in one transaction: what is the same for all subclouds it reads once.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, Protocol

import msgspec

from roost.fleet.sharing import copy_name, copy_of, exceptions_in, in_force
from roost.model.cloud import CLOUD, SUBCLOUD, Cloud, Subcloud
from roost.model.firewall import FIREWALL_POLICY, FirewallPolicy
from roost.model.fleet import selects
from roost.model.meta import Condition
from roost.model.subcloud_operation import SubcloudOperationSpec
from roost.store.transaction import HERE, Transaction


class Reached(msgspec.Struct, frozen=True):
    """The site says that it is as wanted."""


class Missing(msgspec.Struct, frozen=True):
    """It is not, or not known to be: why in one word, and what was seen and what to do."""

    reason: str
    message: str


class Impossible(msgspec.Struct, frozen=True):
    """It can't come about there, however long one waits."""

    reason: str
    message: str


Standing = Reached | Missing | Impossible


class Shared(msgspec.Struct, frozen=True):
    """A shared policy as it stands at a subcloud: as it should, not yet, or not what it should be."""

    name: str
    state: Literal["in-force", "absent", "old", "late", "left-over"]
    ready: Condition | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a subcloud. `told` is what it says of its own management state, empty when nothing;
    `shared` is filled where the action asks for it."""

    subcloud: Subcloud
    told: str = ""
    shared: tuple[Shared, ...] = ()


class Action(Protocol):
    """Something that can be done at a subcloud."""

    def facts(self, subcloud: Subcloud) -> Facts:
        """What is known of it."""
        ...

    def reached(self, facts: Facts) -> Standing:
        """Whether it is as wanted. Pure."""
        ...

    def wish(self, subcloud: Subcloud) -> None:
        """Write here what is wanted there."""
        ...


def action_of(tx: Transaction, spec: SubcloudOperationSpec, cloud: str) -> Action:
    """The action of an operation, for one transaction."""
    if spec.action == "label":
        return Label(tx, spec.labels, cloud)
    return Manage(tx, spec.action)


def kinds_of(spec: SubcloudOperationSpec) -> frozenset[str]:
    """Kinds whose change at a subcloud may bring an end."""
    return frozenset({SUBCLOUD.kind, FIREWALL_POLICY.kind if spec.action == "label" else CLOUD.kind})


class Manage:
    """Manage subclouds, or leave them to themselves: over when the site says so."""

    def __init__(self, tx: Transaction, action: Literal["manage", "unmanage"]) -> None:
        self._tx, self._wanted = tx, MANAGED[action]

    def facts(self, subcloud: Subcloud) -> Facts:
        copy = self._tx.seek(Cloud, "", subcloud.metadata.name)
        return Facts(subcloud=subcloud, told=copy.status.management_state if copy else "")

    def reached(self, facts: Facts) -> Standing:
        if facts.subcloud.spec.management_state != self._wanted:
            state = facts.subcloud.spec.management_state
            return Missing("NotWanted", f"it is {state} here; somebody may have changed it back")
        if facts.told == self._wanted:
            return Reached()
        said = f"it says that it is {facts.told}" if facts.told else "it has not said what it is"
        name = facts.subcloud.metadata.name
        return Missing("NotObserved", f"{said}; look at its link: roost subcloud show {name}")

    def wish(self, subcloud: Subcloud) -> None:
        spec = msgspec.structs.replace(subcloud.spec, management_state=self._wanted)
        self._tx.save(msgspec.structs.replace(subcloud, spec=spec))


MANAGED: dict[str, Literal["managed", "unmanaged"]] = {"manage": "managed", "unmanage": "unmanaged"}


class Label:
    """Set labels: over when what is shared with the subcloud, labelled so, is in force there.

    A policy whose selector names the label thus goes out within the operation's window and budget.
    """

    def __init__(self, tx: Transaction, labels: dict[str, str], cloud: str) -> None:
        self._tx, self._labels, self._cloud = tx, labels, cloud

    @cached_property
    def _policies(self) -> list[FirewallPolicy]:
        found = (s.typed(FirewallPolicy) for s in self._tx.select(FIREWALL_POLICY.kind, self._cloud))
        return [p for p in found if p.spec.subclouds is not None]

    def facts(self, subcloud: Subcloud) -> Facts:
        shared = tuple(self._shared(policy, subcloud) for policy in self._policies)
        return Facts(subcloud=subcloud, shared=shared)

    def _shared(self, policy: FirewallPolicy, subcloud: Subcloud) -> Shared:
        name, site = policy.metadata.name, subcloud.metadata.name
        found = self._tx.find(FIREWALL_POLICY.kind, site, copy_name(name, self._cloud))
        copy = found.typed(FirewallPolicy) if found is not None and found.origin == HERE else None
        wanted = policy.spec.subclouds is not None and selects(policy.spec.subclouds, subcloud)
        if copy is None and not wanted:
            return Shared(name, "in-force")
        if copy is not None and in_force(copy) and wanted and self._same(copy, policy, site):
            return Shared(name, "in-force")
        laid = exceptions_in(self._tx, site).get((site, name), [])
        if copy is None:
            withdrawn = any(exception.spec.withdrawn for exception in laid)
            return Shared(name, "in-force" if withdrawn else "absent")
        if not wanted:
            return Shared(name, "left-over")
        if not laid and not self._same(copy, policy, site):
            return Shared(name, "old")
        ready = next((c for c in copy.status.conditions if c.type == "Ready"), None)
        return Shared(name, "in-force" if in_force(copy) else "late", ready)

    def _same(self, copy: FirewallPolicy, policy: FirewallPolicy, site: str) -> bool:
        return copy.spec == copy_of(policy, self._cloud, site).spec

    def reached(self, facts: Facts) -> Standing:
        subcloud = facts.subcloud
        if subcloud.spec.management_state != "managed":
            step = f"manage it first: roost subcloud manage {subcloud.metadata.name}"
            return Impossible("NotManaged", f"it is unmanaged, nothing is shared with it; {step}")
        if not self._labels.items() <= subcloud.metadata.labels.items():
            return Missing("NotWanted", "its labels are others; somebody may have changed them back")
        late = [shared for shared in facts.shared if shared.state != "in-force"]
        if not late:
            return Reached()
        first = late[0]
        said = f": {first.ready.message or first.ready.reason}" if first.ready else ""
        more = f", and {len(late) - 1} more" if len(late) > 1 else ""
        overridden = next((c for c in subcloud.status.conditions if c.reason == "LocalOverrides"), None)
        step = f" {overridden.message}" if overridden else ""
        return Missing(
            "NotInForce", f"policy {first.name} is not in force there ({first.state}{said}){more}.{step}"
        )

    def wish(self, subcloud: Subcloud) -> None:
        labels = {**subcloud.metadata.labels, **self._labels}
        metadata = msgspec.structs.replace(subcloud.metadata, labels=labels)
        self._tx.save(msgspec.structs.replace(subcloud, metadata=metadata))
