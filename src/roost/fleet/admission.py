"""What operators may not do to subclouds and shared intent, with reason and remedy."""

from __future__ import annotations

from typing import cast

from roost.engine.admission import Refused, Request, Rule
from roost.fleet import groups, reviewing
from roost.model.cloud import SUBCLOUD, Subcloud
from roost.model.fleet import SUBCLOUD_GROUP
from roost.store.transaction import Transaction


def rules(cloud: str) -> dict[str, list[Rule]]:
    """Rules by kind."""

    def subclouds(tx: Transaction, request: Request) -> None:
        if request.operation == "create":
            if cast(Subcloud, request.new).metadata.name == cloud:
                raise Refused(
                    f"{cloud} is this cloud", "choose another name for the subcloud", field="metadata.name"
                )
        elif request.operation == "delete":
            old = cast(Subcloud, request.old)
            if old.spec.management_state == "managed" and not old.status.moved_to:
                name = old.metadata.name
                raise Refused(f"{name} is managed", f"unmanage it first: roost subcloud unmanage {name}")

    return {SUBCLOUD.kind: [subclouds], SUBCLOUD_GROUP.kind: [groups.rule], **reviewing.rules(cloud)}
