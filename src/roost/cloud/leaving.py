"""A site that leaves its central cloud: what came from there becomes its own.

`spec.standsAlone` of the Cloud says that it leaves. Once the link is given up (program's part), each copy
from above becomes a resource of the site as it is in force, with its overrides laid over it. Copies have
names with a dot that nobody may give, so it gets one of the site's own (`baseline.central` becomes
`baseline-central`); if the site is ever joined again, copies come anew beside it, and nobody's word is
overwritten.

It can be done again at any time: without copies there is nothing to do.
"""

from __future__ import annotations

from typing import cast

import msgspec

from roost.engine.admission import Refused, Request, Rule
from roost.engine.faults import write_log
from roost.engine.overrides import management, stored_in_force
from roost.link.intake import refused_property
from roost.model.cloud import Cloud
from roost.model.kind import Flow, KindInfo
from roost.model.meta import GROUP, Owner
from roost.model.override import LOCAL_OVERRIDE
from roost.model.registry import KINDS
from roost.store.transaction import HERE, UP, Transaction

LONGEST_NAME = 63


def rule(cloud: str) -> Rule:
    """Only a site with a central cloud leaves one, and a managed site that is linked is let go first.

    That a site rejoins is told in its log here, in the operator's own write.
    """

    def leaves(tx: Transaction, request: Request) -> None:
        if request.operation != "update":
            return
        old, new = cast(Cloud, request.old), cast(Cloud, request.new)
        if new.spec.stands_alone == old.spec.stands_alone or new.metadata.name != cloud:
            return
        if not new.spec.stands_alone:
            text = f"{cloud} stands alone no more: {request.user} has it dial its central cloud again."
            write_log(
                tx, cloud, event="cloud-rejoins", entity=f"cloud={cloud}", severity="warning", text=text
            )
            return
        if not (old.status.upper or _has_joined(tx, cloud)):
            raise Refused(
                f"{cloud} has no central cloud to leave",
                "say it to the site that is meant: roost --cloud NAME subcloud leave",
                field="spec.standsAlone",
            )
        if management(tx, cloud) == "managed" and old.status.upper_connected:
            upper = old.status.upper or "the central cloud"
            raise Refused(
                f"{upper} manages this site and is linked to it",
                f"have it let the site go there first: roost subcloud unmanage {cloud}",
                field="spec.standsAlone",
            )

    return leaves


def _has_joined(tx: Transaction, cloud: str) -> bool:
    """Whether a central cloud has ever said something, and was not left since."""
    return management(tx, cloud) != "" or tx.cursor(UP) != ("", 0)


def stands_alone(tx: Transaction, cloud: str) -> bool:
    """Whether the operator wants this cloud to stand alone."""
    found = tx.seek(Cloud, "", cloud)
    return found is not None and found.spec.stands_alone


def take_over(tx: Transaction, cloud: str) -> int:
    """Make what came from above this cloud's own, if it stands alone; how many resources that are.

    The link must be given up before: what it still brought would be taken over as well.
    """
    if not stands_alone(tx, cloud):
        return 0
    taken = keep_as_own(tx, cloud)
    for info in KINDS:
        if info.flow not in (Flow.BOTH, Flow.DOWN):
            continue
        for stored in tx.select(info.kind, cloud, origin=UP):
            tx.drop(stored.kind, stored.namespace, stored.name)
    for stored in tx.select(LOCAL_OVERRIDE.kind, cloud, origin=HERE):
        # What was withdrawn is not in force, and so is not kept.
        if stored.raw["spec"].get("withdrawn"):
            tx.remove(stored.kind, cloud, stored.name)
    tx.drop_cursor(UP)
    tx.drop_property(refused_property(UP))
    current = tx.load(Cloud, "", cloud)
    status = msgspec.structs.replace(current.status, upper="", upper_connected=False)
    if status != current.status:
        tx.report(msgspec.structs.replace(current, status=status))
        named = f" It keeps as its own: {', '.join(taken)}." if taken else ""
        text = f"{cloud} stands alone: it has left {current.status.upper or 'its central cloud'}.{named}"
        write_log(tx, cloud, event="cloud-alone", entity=f"cloud={cloud}", severity="warning", text=text)
    return len(taken)


def keep_as_own(tx: Transaction, cloud: str) -> list[str]:
    """Make copies from above the cloud's own, as they are in force; their kinds and new names."""
    kinds = [i for i in KINDS if i.flow is Flow.BOTH and i.spec_owner is Owner.OPERATOR]
    return [made for info in kinds for made in _own(tx, info, cloud)]


def _own(tx: Transaction, info: KindInfo, cloud: str) -> list[str]:
    """Copies of a kind as the cloud's own resources, as they are in force; their new names."""
    made = []
    for stored, raw in stored_in_force(tx, info, cloud):
        if stored.origin != UP:
            continue
        fresh = _free(tx, info.kind, cloud, stored.name)
        labels = raw["metadata"].get("labels", {}).items()
        kept = {k: v for k, v in labels if not k.startswith(f"{GROUP}/")}
        own = {k: v for k, v in raw.items() if k != "status"}
        own["metadata"] = {"name": fresh, "namespace": cloud, **({"labels": kept} if kept else {})}
        tx.drop(info.kind, cloud, stored.name)
        for override in tx.select(LOCAL_OVERRIDE.kind, cloud, origin=HERE):
            target = override.raw["spec"]["target"]
            if (target["kind"], target["name"]) == (info.kind, stored.name):
                tx.remove(override.kind, cloud, override.name)
        tx.create(own)
        made.append(f"{info.kind}/{fresh}")
    return made


def _free(tx: Transaction, kind: str, cloud: str, name: str) -> str:
    """A name that people may give, made from a copy's, that nothing has yet."""
    base = name.replace(".", "-")[: LONGEST_NAME - 4].strip("-")
    candidates = [base, *(f"{base}-{n}" for n in range(2, 1000))]
    return next(c for c in candidates if tx.find(kind, cloud, c) is None)
