"""What is in force of intent that came from above: the copy with the site's overrides laid over it.

The one place where that is computed: whoever acts on such intent reads it with `in_force`. The copy itself
stays as the central cloud said it, so that both words are there to be compared.

The rule where both sides have changed something: an override holds field by field where it speaks,
everything else follows the central cloud; what both have changed is a conflict, shown on both sides until
somebody decides. An override ends when it was reverted, or when the intent from above says the same in all
that it speaks of. It names its target, not one life of it: a target that is taken away and comes back finds
it again.

All decisions here are pure functions of what is; asked twice they say the same twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import msgspec

from roost.engine.admission import Refused
from roost.model import codec, patches
from roost.model.codec import Raw
from roost.model.firewall import FIREWALL_POLICY
from roost.model.kind import KindInfo, Problem
from roost.model.meta import Condition, Resource, set_condition
from roost.model.network import PLATFORM_NETWORK
from roost.model.override import (
    LOCAL_OVERRIDE,
    LONGEST_VALUE,
    MOST_SHOWN,
    Difference,
    LocalOverride,
    LocalOverrideStatus,
    Managed,
    Management,
    OverrideBase,
    OverrideReview,
    SubcloudException,
)
from roost.model.registry import BY_KIND, BY_TYPE
from roost.store.transaction import UP, Stored, Transaction

R = TypeVar("R", bound=Resource)

OVERRIDABLE = {info.kind: info for info in (FIREWALL_POLICY, PLATFORM_NETWORK)}
"""Kinds whose copies may be overridden: all who act on them read them with `in_force`."""

RESERVED = {FIREWALL_POLICY.kind: ("subclouds",)}
"""Fields of spec that say where a resource goes; no patch may set them."""


class Unfit(Exception):
    """A patch leaves no right resource of what it is laid over."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.field}: {p.reason}" for p in problems[:3]))
        self.problems = problems


class Ended(msgspec.Struct, frozen=True):
    """The override is over: what the log says."""

    event: str
    text: str


def normal(info: KindInfo, raw: Raw) -> Raw:
    """A resource with every default that it leaves out. Raises Unfit."""
    resource, problems = codec.check(info, raw)
    if resource is None:
        raise Unfit(problems)
    return codec.overlay(raw, resource)


def laid_over(info: KindInfo, raw: Raw, patch: Raw) -> Raw:
    """A resource with a patch laid over its spec, with every default. Raises Unfit."""
    if reserved := [key for key in RESERVED.get(info.kind, ()) if key in patch]:
        remedy = "leave it out: where a resource goes is decided at its home"
        raise Unfit([Problem(f"spec.{reserved[0]}", "it can't be overridden", remedy)])
    patched = {**raw, "spec": patches.merge(raw.get("spec", {}), patch)}
    known = set(codec.unknown_fields(info, raw))
    if unknown := [path for path in codec.unknown_fields(info, patched) if path not in known]:
        remedy = f"see kubectl explain {info.plural}.spec"
        raise Unfit([Problem(path[:200], "there is no such field", remedy) for path in unknown[:20]])
    return normal(info, patched)


def patch_of(resource: LocalOverride | SubcloudException) -> Raw:
    """The merge patch that an override or an exception stands for."""
    return patches.joined(resource.spec.patch, resource.spec.removes)


# -- what is in force


def in_force(
    tx: Transaction, kind: type[R], namespace: str, *, besides: Callable[[str], bool] = lambda _: False
) -> list[R]:
    """All resources of a kind as they are in force in this cloud: copies from above with their overrides.

    Those for whose stored text `besides` holds are left out, and not decoded.
    """
    found = stored_in_force(tx, BY_TYPE[kind], namespace, besides=besides)
    return [codec.decode(kind, raw) for _, raw in found]


def stored_in_force(
    tx: Transaction, info: KindInfo, namespace: str, *, besides: Callable[[str], bool] = lambda _: False
) -> list[tuple[Stored, Raw]]:
    """The same as the store has them, each beside what is in force; fields of newer versions are kept.

    What is withdrawn is left out.
    """
    overrides = _by_target(tx, info.kind, namespace)
    found = []
    for stored in tx.select(info.kind, namespace):
        if besides(stored.data):
            continue
        laid = overrides.get(stored.name, []) if stored.origin == UP else []
        if not any(override.spec.withdrawn for override in laid):
            found.append((stored, effective(info, stored.raw, laid) if laid else stored.raw))
    return found


def effective(info: KindInfo, raw: Raw, overrides: Iterable[LocalOverride]) -> Raw:
    """A copy with its overrides laid over it, by their names; one that does not fit is left out."""
    for override in sorted(overrides, key=lambda o: o.metadata.name):
        try:
            raw = laid_over(info, raw, patch_of(override))
        except Unfit:
            continue
    return raw


def _by_target(tx: Transaction, kind: str, namespace: str) -> dict[str, list[LocalOverride]]:
    found: dict[str, list[LocalOverride]] = {}
    for stored in tx.select(LOCAL_OVERRIDE.kind, namespace, origin=""):
        override = stored.typed(LocalOverride)
        if override.spec.target.kind == kind and override.metadata.deletion_timestamp is None:
            found.setdefault(override.spec.target.name, []).append(override)
    return found


def signed(user: str, by: str, before: str) -> None:
    """Nobody signs with another's name. Raises Refused."""
    if by not in ("", user, before):
        raise Refused(f"you are {user}, not {by}", "leave spec.by out or name yourself", field="spec.by")


# -- what becomes of one override


def management(tx: Transaction, cloud: str) -> Literal["", "managed", "unmanaged"]:
    """What the central cloud last said of this one: managed, unmanaged, or nothing ever."""
    told: list[Managed] = [
        s.typed(Management).spec.management_state
        for s in tx.select(BY_TYPE[Management].kind, cloud, origin=UP)
    ]
    return "managed" if "managed" in told else told[0] if told else ""


def speaks_of(review: OverrideReview, override: LocalOverride) -> bool:
    """Whether a review is of this override as it is now."""
    spec, meta = review.spec, override.metadata
    return (spec.override, spec.uid, spec.generation) == (meta.name, meta.uid, meta.generation)


def judge(
    override: LocalOverride,
    target: Raw | None,
    review: OverrideReview | None,
    now: str,
    made_against: Raw | None = None,
) -> Ended | LocalOverrideStatus:
    """What an override comes to, from its target and the review there is of it. Pure.

    `target` is the copy as the central cloud says it, None when there is none; `made_against` is the same
    when the override's spec was written, where that is known to be another.
    """
    what = f"{override.spec.target.kind}/{override.spec.target.name}"
    decision = review.spec.decision if review and speaks_of(review, override) else ""
    if decision == "revert":
        text = f"The override of {what} is gone: the central cloud has reverted it."
        return Ended("override-reverted", text + _said(review))
    status = msgspec.structs.replace(
        override.status, observed_generation=override.metadata.generation, review=decision
    )
    if target is None:
        if override.spec.withdrawn:
            return Ended("override-adopted", f"{what} is out of force: the central cloud has taken it away.")
        return _waiting(override, status, now)
    try:
        compared = _compare(override, target, made_against or target)
    except Unfit as error:
        fits = Condition(
            type="InForce",
            status="False",
            reason="DoesNotFit",
            message=f"It does not fit what the central cloud says now: {error}. Change it or remove it.",
        )
        return msgspec.structs.replace(
            status,
            in_force=False,
            central_generation=target["metadata"].get("generation", 0),
            conditions=set_condition(status.conditions, fits, now),
        )
    base, differences = compared
    if not differences:
        how = "has adopted it" if decision == "adopt" or _is_adopted(override) else "says the same now"
        return Ended("override-adopted", f"The override of {what} is over: the central cloud {how}.")
    return _standing(status, base, target, differences, now)


def _is_adopted(override: LocalOverride) -> bool:
    return override.status.review == "adopt"


def _said(review: OverrideReview | None) -> str:
    if review is None:
        return ""
    by = f" By {review.spec.by}." if review.spec.by else ""
    return by + (f" {review.spec.comment}" if review.spec.comment else "")


def _compare(
    override: LocalOverride, target: Raw, made_against: Raw
) -> tuple[OverrideBase, list[Difference]]:
    """The base of an override, and where the two sides differ in what it speaks of. Raises Unfit.

    What only a newer version knows is no difference: else nothing it adopts would ever be the same here.
    """
    info = BY_KIND[override.spec.target.kind]
    patch = patch_of(override)
    sides = (normal(info, target), laid_over(info, target, patch), normal(info, made_against))
    central, local, made = (_known(info, side) for side in sides)
    pointers = list(patches.leaves(patch))
    base = _base(override, override.status.base, made, pointers)
    differences = _differences(pointers, base, central["spec"], local["spec"])
    return base, [*_withdrawn(override, base, target["metadata"]), *differences]


def _withdrawn(override: LocalOverride, base: OverrideBase, now: Raw) -> list[Difference]:
    """That all of the target is out of force; whatever the central cloud changes of it then is a conflict."""
    if not override.spec.withdrawn:
        return []
    changed = (now.get("uid", ""), now.get("generation", 0)) != (base.uid, base.generation)
    state = '"in force"'
    return [
        Difference(path="", central=state, local='"withdrawn"', before=state, conflict=changed),
    ]


def _known(info: KindInfo, raw: Raw) -> Raw:
    """What this version knows of a resource."""
    return codec.encode(codec.decode(info.type, raw))


def _base(override: LocalOverride, base: OverrideBase | None, made: Raw, pointers: list[str]) -> OverrideBase:
    """The target as it was when the override was made, or made again against a later generation that it
    names. What it has come to speak of since is taken from `made`."""
    meta, seen = made["metadata"], override.spec.target.generation
    if base is None or seen > base.generation:
        base = OverrideBase(uid=meta.get("uid", ""), generation=meta.get("generation", 0))
    fresh = [p for p in pointers if p not in base.paths]
    kept = [p for p in pointers if p in base.paths]
    spec = patches.merge(patches.restricted(base.spec, kept), patches.restricted(made["spec"], fresh))
    return OverrideBase(uid=base.uid, generation=base.generation, paths=pointers, spec=spec)


def _differences(pointers: list[str], base: OverrideBase, central: Raw, local: Raw) -> list[Difference]:
    found = []
    for pointer in pointers:
        theirs, ours, before = (patches.at(side, pointer) for side in (central, local, base.spec))
        if theirs == ours:
            continue
        found.append(
            Difference(
                path=pointer,
                central=shown(theirs),
                local=shown(ours),
                before=shown(before),
                conflict=theirs != before,
            )
        )
    return found


def shown(value: object) -> str:
    """A value as JSON, shortened; empty when there is none."""
    if value is patches.ABSENT:
        return ""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def _standing(
    status: LocalOverrideStatus, base: OverrideBase, target: Raw, differences: list[Difference], now: str
) -> LocalOverrideStatus:
    conflicts = [d.path for d in differences if d.conflict]
    generation = target["metadata"].get("generation", 0)
    holds = Condition(type="InForce", status="True", reason="LaidOver", message="It is laid over its target.")
    if conflicts:
        named = ", ".join(path or "all of it" for path in conflicts[:5]) + (
            " and more" if len(conflicts) > 5 else ""
        )
        message = (
            f"The central cloud has changed {named} since; the override holds there. "
            "The central cloud adopts or reverts it, or the site changes or removes it."
        )
        conflict = Condition(type="Conflict", status="True", reason="ChangedAbove", message=message)
    else:
        message = "The central cloud has changed nothing of it since."
        conflict = Condition(type="Conflict", status="False", reason="Unchanged", message=message)
    conditions = set_condition(set_condition(status.conditions, holds, now), conflict, now)
    return msgspec.structs.replace(
        status,
        in_force=True,
        base=base,
        central_generation=generation,
        differences=differences[:MOST_SHOWN],
        conflicts=len(conflicts),
        conditions=conditions,
    )


def _waiting(override: LocalOverride, status: LocalOverrideStatus, now: str) -> LocalOverrideStatus:
    """The status of an override whose target is not there."""
    target = override.spec.target
    message = (
        f"The central cloud has taken {target.kind}/{target.name} away; the override waits for it. "
        "Make a resource of the site's own if it is still wanted, and remove the override."
    )
    waits = Condition(type="InForce", status="False", reason="TargetGone", message=message)
    return msgspec.structs.replace(
        status, in_force=False, central_generation=0, conditions=set_condition(status.conditions, waits, now)
    )
