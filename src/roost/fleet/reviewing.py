"""What reviews and exceptions may say: rules for people, with reason and remedy.

Both are written at the central cloud in the namespace of the subcloud that they are for.
"""

from __future__ import annotations

from typing import cast

from roost.engine.admission import Refused, Request, Rule
from roost.engine.overrides import OVERRIDABLE, Unfit, laid_over, patch_of, signed
from roost.fleet.reviews import adopted
from roost.model.cloud import Subcloud
from roost.model.override import (
    OVERRIDE_REVIEW,
    SUBCLOUD_EXCEPTION,
    LocalOverride,
    OverrideReview,
    SubcloudException,
)
from roost.store.transaction import HERE, Transaction


def rules(cloud: str) -> dict[str, list[Rule]]:
    """Rules by kind."""

    def reviews(tx: Transaction, request: Request) -> None:
        if request.operation == "delete":
            return
        new = cast(OverrideReview, request.new)
        old = cast(OverrideReview | None, request.old)
        signed(request.user, new.spec.by, old.spec.by if old else "")
        if old is not None and old.spec == new.spec:
            return
        subcloud = _subcloud(tx, cloud, new.metadata.namespace)
        if subcloud.spec.management_state != "managed":
            name = subcloud.metadata.name
            raise Refused(
                f"{name} is unmanaged: what it overrides is its own affair",
                f"manage it first: roost subcloud manage {name}",
            )
        if new.metadata.name != new.spec.override:
            raise Refused(
                "a review has the name of its override", f"name it {new.spec.override}", field="metadata.name"
            )
        _review(tx, cloud, new)

    def exceptions(tx: Transaction, request: Request) -> None:
        if request.operation == "delete":
            return
        new = cast(SubcloudException, request.new)
        old = cast(SubcloudException | None, request.old)
        if old is not None and old.spec == new.spec:
            return
        _subcloud(tx, cloud, new.metadata.namespace)
        _exception(tx, cloud, new)

    return {OVERRIDE_REVIEW.kind: [reviews], SUBCLOUD_EXCEPTION.kind: [exceptions]}


def _subcloud(tx: Transaction, cloud: str, namespace: str) -> Subcloud:
    """The subcloud that a namespace stands for. Raises Refused."""
    found = tx.seek(Subcloud, "", namespace)
    if found is None:
        what = "this cloud itself" if namespace == cloud else f"no subcloud of {cloud}"
        raise Refused(
            f"{namespace} is {what}",
            "write it at the central cloud, in the namespace of a subcloud",
            field="metadata.namespace",
        )
    return found


def _review(tx: Transaction, cloud: str, new: OverrideReview) -> None:
    namespace, spec = new.metadata.namespace, new.spec
    override = tx.seek(LocalOverride, namespace, spec.override)
    if override is None:
        remedy = f"see: roost override list -n {namespace}"
        raise Refused(f"{namespace} has no override {spec.override}", remedy, field="spec.override")
    seen = (spec.uid, spec.generation)
    if seen != (override.metadata.uid, override.metadata.generation):
        raise Refused(
            f"the override is another by now: uid {override.metadata.uid}, "
            f"generation {override.metadata.generation}",
            f"look at it again: roost override show {spec.override} -n {namespace}",
            field="spec.generation",
        )
    if spec.decision == "revert":
        return
    target = override.spec.target
    try:
        exception = adopted(tx, cloud, namespace, override)
    except Unfit as error:
        remedy = "change what is shared, or revert the override"
        raise Refused(
            f"it does not fit what is shared now: {error}", remedy, field="spec.decision"
        ) from error
    if exception is None:
        reason = f"{target.kind}/{target.name} is no copy of anything that {cloud} shares now"
        raise Refused(reason, "revert it, or share it again", field="spec.decision")


def _exception(tx: Transaction, cloud: str, new: SubcloudException) -> None:
    spec = new.spec
    info = OVERRIDABLE.get(spec.kind)
    found = tx.find(spec.kind, cloud, spec.name) if info else None
    if info is None or found is None or found.origin != HERE or "subclouds" not in found.raw["spec"]:
        raise Refused(
            f"{cloud} shares no {spec.kind} {spec.name}",
            "name a FirewallPolicy of this cloud that has spec.subclouds",
            field="spec.name",
        )
    same = [
        e.metadata.name
        for e in tx.every(SubcloudException, new.metadata.namespace)
        if (e.spec.kind, e.spec.name) == (spec.kind, spec.name) and e.metadata.name != new.metadata.name
    ]
    if same:
        raise Refused(f"{same[0]} is an exception from it already", f"change {same[0]}", field="spec.name")
    try:
        laid_over(info, found.raw, patch_of(new))
    except Unfit as error:
        first = error.problems[0]
        raise Refused(
            f"it leaves no right {spec.kind}: {first.field}: {first.reason}",
            first.remedy or f"see kubectl explain {info.plural}.spec",
            field=first.field.replace("spec", "spec.patch", 1),
        ) from error
