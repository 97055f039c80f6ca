"""Intent selected for subclouds flows down: as copies in each subcloud's namespace.

A FirewallPolicy of this cloud with `spec.subclouds` is meant for the subclouds it selects. For each
managed one a copy `NAME.CLOUD` without the selector stands in its namespace; the link carries it down,
its status comes back up. A copy that should not be is removed. Unmanaged subclouds are left as they
are: nothing new flows, nothing is taken away.

A SubcloudException beside the copy says what is otherwise for this subcloud alone: it is laid over the
policy before that becomes the copy. One that no longer fits leaves the copy as it is, and says so.

Keys are `subcloud/NAME` (all policies for one subcloud), `policy/NAME` (one policy for all) and
`counts/NAME` (in how many subclouds a policy is in force), so that the cost of a change goes with what
it concerns: only intent moves copies. Copies are counted at a pace that goes with their number, however
many subclouds speak at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.engine.controller import Key, StoreController
from roost.engine.overrides import OVERRIDABLE, Unfit, laid_over, patch_of
from roost.engine.pacing import Pace
from roost.model import time
from roost.model.cloud import SUBCLOUD, Subcloud
from roost.model.codec import Raw, encode
from roost.model.firewall import (
    FIREWALL_POLICY,
    FirewallPolicy,
    FirewallPolicyStatus,
)
from roost.model.fleet import selects
from roost.model.meta import Condition, Metadata, condition_is, set_condition
from roost.model.override import SUBCLOUD_EXCEPTION, SubcloudException, SubcloudExceptionStatus
from roost.store.transaction import HERE, Change, Transaction

SHARED_BY = "roost.edge/shared-by"
"""Label of a copy: the cloud whose policy it is."""


def copy_name(policy: str, cloud: str) -> str:
    """Name of a policy's copy; operators' own names carry no dot."""
    return f"{policy}.{cloud}"


def copy_of(policy: FirewallPolicy, cloud: str, subcloud: str) -> FirewallPolicy:
    """The copy of a policy in a subcloud's namespace."""
    metadata = Metadata(
        name=copy_name(policy.metadata.name, cloud),
        namespace=subcloud,
        labels={**policy.metadata.labels, SHARED_BY: cloud},
    )
    spec = msgspec.structs.replace(policy.spec, subclouds=None)
    return FirewallPolicy(metadata=metadata, spec=spec)


def shared_original(tx: Transaction, cloud: str, kind: str, copy: str) -> Raw | None:
    """The resource of this cloud whose copies have this name; None when nothing of the kind is shared so."""
    name = copy.removesuffix(f".{cloud}")
    found = tx.find(kind, cloud, name) if kind == FIREWALL_POLICY.kind and name != copy else None
    return found.raw if found and found.origin == HERE and "subclouds" in found.raw["spec"] else None


Exceptions = dict[tuple[str, str], list[SubcloudException]]
"""By subcloud and name of a policy, in the order of their names."""


def exceptions_in(tx: Transaction, subcloud: str | None = None) -> Exceptions:
    """What is otherwise for one subcloud, or for each, of policies that are shared."""
    found: Exceptions = {}
    for stored in tx.select(SUBCLOUD_EXCEPTION.kind, subcloud, origin=HERE):
        exception = stored.typed(SubcloudException)
        if exception.spec.kind == FIREWALL_POLICY.kind:
            found.setdefault((stored.namespace, exception.spec.name), []).append(exception)
    return found


def in_force(copy: FirewallPolicy) -> bool:
    """Whether the subcloud says that this generation is in force everywhere."""
    observed = copy.status.observed_generation == copy.metadata.generation
    return observed and condition_is(copy.status.conditions, "Ready")


class SharingController(StoreController):
    """Keeps the copies of shared policies."""

    name = "sharing"

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud
        self._pace = Pace()

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == SUBCLOUD.kind:
            if _is_intent(change):
                yield ("subcloud", change.name)
        elif change.kind == SUBCLOUD_EXCEPTION.kind and change.origin == HERE:
            if _is_intent(change):
                yield ("subcloud", change.namespace)
        elif change.kind == FIREWALL_POLICY.kind and change.origin == HERE:
            if change.namespace != self._cloud:
                yield ("counts", change.name.removesuffix(f".{self._cloud}"))
                if _is_intent(change):
                    yield ("subcloud", change.namespace)
            elif _is_intent(change):
                yield ("policy", change.name)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        keys = [("subcloud", s.name) for s in tx.select(SUBCLOUD.kind)]
        policies = [s.name for s in tx.select(FIREWALL_POLICY.kind, self._cloud)]
        return [*keys, *((what, name) for name in policies for what in ("policy", "counts"))]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        match key:
            case ("subcloud", name):
                self._for_subcloud(tx, name)
            case ("policy", name):
                self._for_policy(tx, name)
                self._count(tx, name)
            case (_, name):
                if wait := self._pace.wait(name, tx.now):
                    return wait
                self._count(tx, name)
        return None

    def _for_subcloud(self, tx: Transaction, name: str) -> None:
        subcloud = tx.seek(Subcloud, "", name)
        if subcloud is None or subcloud.spec.management_state != "managed":
            return
        policies = {p.metadata.name: p for p in tx.every(FirewallPolicy, self._cloud)}
        exceptions = exceptions_in(tx, name)
        for policy in policies.values():
            self._place(tx, policy, subcloud, exceptions)
        for stored in tx.select(FIREWALL_POLICY.kind, name, origin=HERE):
            labels = stored.raw["metadata"].get("labels", {})
            original = stored.name.removesuffix(f".{self._cloud}")
            if labels.get(SHARED_BY) == self._cloud and original not in policies:
                tx.remove(stored.kind, stored.namespace, stored.name)

    def _for_policy(self, tx: Transaction, name: str) -> None:
        policy = tx.seek(FirewallPolicy, self._cloud, name)
        exceptions = exceptions_in(tx)
        for subcloud in tx.every(Subcloud):
            if subcloud.spec.management_state == "managed":
                if policy is not None:
                    self._place(tx, policy, subcloud, exceptions)
                else:
                    self._take_away(tx, name, subcloud)

    def _count(self, tx: Transaction, name: str) -> None:
        policy = tx.seek(FirewallPolicy, self._cloud, name)
        if policy is None or policy.spec.subclouds is None:
            self._pace.forget(name)
            return
        places = [s.name for s in tx.select(SUBCLOUD.kind)]
        self._pace.looked(name, tx.now, len(places))
        found = (tx.seek(FirewallPolicy, place, copy_name(name, self._cloud)) for place in places)
        status = shared_status(policy, [c for c in found if c is not None], time.stamp(tx.now))
        if status != policy.status:
            tx.report(msgspec.structs.replace(policy, status=status))

    def _place(
        self, tx: Transaction, policy: FirewallPolicy, subcloud: Subcloud, exceptions: Exceptions
    ) -> None:
        selector = policy.spec.subclouds
        if selector is None or not selects(selector, subcloud):
            self._take_away(tx, policy.metadata.name, subcloud)
            return
        laid = exceptions.get((subcloud.metadata.name, policy.metadata.name), [])
        if any(exception.spec.withdrawn for exception in laid):
            self._take_away(tx, policy.metadata.name, subcloud)
            for exception in laid:
                _say_in_force(tx, exception)
            return
        wanted = copy_of(policy, self._cloud, subcloud.metadata.name)
        current = tx.find(FIREWALL_POLICY.kind, wanted.metadata.namespace, wanted.metadata.name)
        if current is None:
            new = encode(wanted)
            tx.create({**new, "spec": _with_exceptions(tx, wanted, laid, new["spec"])})
            return
        if current.origin != HERE:
            # The site has one of its own of this name: its home is there, and it is not ours to write.
            return
        spec = _with_exceptions(tx, wanted, laid, current.raw["spec"])
        metadata = {**current.raw["metadata"], "labels": dict(wanted.metadata.labels)}
        tx.replace({**current.raw, "metadata": metadata, "spec": spec})

    def _take_away(self, tx: Transaction, policy: str, subcloud: Subcloud) -> None:
        name = copy_name(policy, self._cloud)
        current = tx.find(FIREWALL_POLICY.kind, subcloud.metadata.name, name)
        if current is not None and current.origin == HERE:
            tx.remove(current.kind, current.namespace, current.name)


def _say_in_force(tx: Transaction, exception: SubcloudException) -> None:
    status = SubcloudExceptionStatus(observed_generation=exception.metadata.generation, in_force=True)
    if status != exception.status:
        tx.report(msgspec.structs.replace(exception, status=status))


def _with_exceptions(
    tx: Transaction, wanted: FirewallPolicy, exceptions: list[SubcloudException], kept: Raw
) -> Raw:
    """The spec of a copy with what is otherwise for its subcloud; `kept` while that does not fit.

    Says of each whether it is in force.
    """
    raw = encode(wanted)
    for exception in exceptions:
        status = SubcloudExceptionStatus(observed_generation=exception.metadata.generation, in_force=True)
        try:
            raw = laid_over(OVERRIDABLE[FIREWALL_POLICY.kind], raw, patch_of(exception))
        except Unfit as error:
            message = f"It does not fit what is shared now, and the copy stays as it was: {error}"
            status = msgspec.structs.replace(status, in_force=False, message=message[:2048])
        if status != exception.status:
            tx.report(msgspec.structs.replace(exception, status=status))
        if not status.in_force:
            return kept
    spec: Raw = raw["spec"]
    return spec


def _is_intent(change: Change) -> bool:
    """Whether a change is more than news in a status."""
    return change.type != "MODIFIED" or _intent(change.data) != _intent(change.previous)


def _intent(data: str) -> dict[str, object]:
    return {k: v for k, v in msgspec.json.decode(data).items() if k != "status"}


def shared_status(policy: FirewallPolicy, copies: list[FirewallPolicy], now: str) -> FirewallPolicyStatus:
    """The status of a shared policy from its copies. Pure."""
    late = [c.metadata.namespace for c in copies if not in_force(c)]
    if late:
        message = "Not in force in " + ", ".join(late[:20]) + ("." if len(late) <= 20 else ", and more.")
        ready = Condition(type="Ready", status="False", reason="OutOfSync", message=message)
    else:
        ready = Condition(type="Ready", status="True", reason="InSync", message="In force where selected.")
    ready = msgspec.structs.replace(ready, observed_generation=policy.metadata.generation)
    return FirewallPolicyStatus(
        observed_generation=policy.metadata.generation,
        hosts=sum(c.status.hosts for c in copies),
        applied=sum(c.status.applied for c in copies),
        subclouds=len(copies),
        in_sync=len(copies) - len(late),
        conditions=set_condition(policy.status.conditions, ready, now),
    )
