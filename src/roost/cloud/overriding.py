"""What an override may say: rules for people, with reason and remedy.

What people do to an override that there is, also that they remove it, is told in the site's log within their
own write (so at the central cloud too); how overrides come about and end otherwise the controller tells.
"""

from __future__ import annotations

from typing import cast

from roost.engine.admission import Refused, Request, Rule
from roost.engine.faults import write_log
from roost.engine.overrides import OVERRIDABLE, Unfit, laid_over, management, normal, patch_of, signed
from roost.model import patches
from roost.model.override import LOCAL_OVERRIDE, LocalOverride
from roost.store.transaction import UP, Stored, Transaction

MOST = 500
"""Overrides that a site may have: more of them are no exceptions any more."""


def rules(cloud: str) -> dict[str, list[Rule]]:
    """Rules by kind."""

    def overrides(tx: Transaction, request: Request) -> None:
        old = cast(LocalOverride | None, request.old)
        if request.operation == "delete":
            if old is not None and old.metadata.deletion_timestamp is None:
                _tell(tx, cloud, old, "removed", f"is removed by {request.user}.")
            return
        new = cast(LocalOverride, request.new)
        signed(request.user, new.spec.by, old.spec.by if old else "")
        if old is None or old.spec.target != new.spec.target or _said(old) != _said(new):
            _told(tx, cloud, new)
        if old is not None and _named(old) != _named(new):
            remedy = "remove this override and make another"
            raise Refused("what is overridden can't change", remedy, field="spec.target")
        if old is None:
            _alone(tx, cloud, new)
        if old is None or _said(old) != _said(new):
            _fits(_target(tx, cloud, new), new)
        elif old.spec.target != new.spec.target:
            _target(tx, cloud, new)
        if old is not None and (old.spec.target != new.spec.target or _said(old) != _said(new)):
            _tell(tx, cloud, new, "changed", f"{_news(old, new)} by {request.user}: {new.spec.reason}")

    return {LOCAL_OVERRIDE.kind: [overrides]}


def _named(override: LocalOverride) -> tuple[str, str]:
    return override.spec.target.kind, override.spec.target.name


def _said(override: LocalOverride) -> tuple[object, ...]:
    """All that an override wants."""
    return override.spec.patch, override.spec.removes, override.spec.withdrawn


def _tell(tx: Transaction, cloud: str, override: LocalOverride, end: str, what: str) -> None:
    kind, name = _named(override)
    write_log(
        tx,
        cloud,
        event=f"override-{end}",
        severity="warning",
        entity=f"override={override.metadata.name}",
        text=f"The override of {kind}/{name} {what}",
    )


def _news(old: LocalOverride, new: LocalOverride) -> str:
    """What became of an override in words. Pure."""
    if new.spec.withdrawn and not old.spec.withdrawn:
        return "puts all of it out of force"
    if old.spec.withdrawn and not new.spec.withdrawn:
        return "no longer puts it out of force"
    before, now = patches.leaves(patch_of(old)), patches.leaves(patch_of(new))
    changed = [p for p in (*now, *before) if now.get(p, ...) != before.get(p, ...)]
    if not changed:
        return f"is held to against generation {new.spec.target.generation}"
    named = ", ".join(dict.fromkeys(changed))
    return f"is changed in {named[:500]}"


def _told(tx: Transaction, cloud: str, new: LocalOverride) -> None:
    if not new.spec.reason.strip() and management(tx, cloud) == "managed":
        raise Refused(
            "the central cloud manages this site and will want to know why",
            "give a reason: --reason, or spec.reason",
            field="spec.reason",
        )


def _target(tx: Transaction, cloud: str, new: LocalOverride) -> Stored:
    """The copy that is overridden. Raises Refused."""
    kind, name = _named(new)
    if kind not in OVERRIDABLE:
        known = ", ".join(sorted(OVERRIDABLE))
        raise Refused(f"{kind} can't be overridden", f"one of: {known}", field="spec.target.kind")
    found = tx.find(kind, cloud, name)
    if found is None:
        remedy = f"see: roost get {OVERRIDABLE[kind].plural}"
        raise Refused(f"there is no {kind} {name}", remedy, field="spec.target.name")
    if found.origin != UP:
        remedy = f"change it itself: kubectl edit {OVERRIDABLE[kind].singular} {name}"
        raise Refused(f"the home of {kind} {name} is here", remedy, field="spec.target.name")
    seen, meta = new.spec.target, found.raw["metadata"]
    if (seen.uid and seen.uid != found.uid) or (
        seen.generation and seen.generation != meta.get("generation", 0)
    ):
        raise Refused(
            f"{kind} {name} is at generation {meta.get('generation', 0)} by now, not {seen.generation}",
            "look at it again, and name that generation",
            field="spec.target.generation",
        )
    return found


def _alone(tx: Transaction, cloud: str, new: LocalOverride) -> None:
    """One override for a target, so that each field has one local word."""
    there = tx.every(LocalOverride, cloud)
    same = [o.metadata.name for o in there if _named(o) == _named(new)]
    if same:
        kind, name = _named(new)
        remedy = f"change that one: kubectl edit {LOCAL_OVERRIDE.singular} {same[0]}"
        raise Refused(f"{same[0]} overrides {kind} {name} already", remedy, field="spec.target")
    if len(there) >= MOST:
        raise Refused(f"there are {len(there)} overrides", "have the central cloud review them first")


def _fits(target: Stored, new: LocalOverride) -> None:
    info = OVERRIDABLE[target.kind]
    try:
        laid = laid_over(info, target.raw, patch_of(new))
        central = normal(info, target.raw)
    except Unfit as error:
        first = error.problems[0]
        raise Refused(
            f"it leaves no right {target.kind}: {first.field}: {first.reason}",
            first.remedy or f"see kubectl explain {info.plural}.spec",
            field=first.field.replace("spec", "spec.patch", 1),
        ) from error
    if laid["spec"] == central["spec"] and not new.spec.withdrawn:
        raise Refused(
            f"{target.kind} {target.name} says so already", "there is nothing to override", field="spec.patch"
        )
