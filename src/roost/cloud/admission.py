"""What operators may not do to hosts, networks and operations of a cloud, with reason and remedy."""

from __future__ import annotations

from typing import cast

import msgspec

from roost.cloud import leaving, overriding, suppressing
from roost.cloud.power import admission as powering
from roost.engine.admission import Refused, Request, Rule
from roost.model.cloud import CLOUD, Cloud
from roost.model.host import HOST, Host
from roost.model.operation import OPERATION, Operation
from roost.store.transaction import Transaction


def rules(cloud: str, this_host: str) -> dict[str, list[Rule]]:
    """Rules by kind. `this_host` runs this cloud's controllers; empty when none of its hosts does."""
    return {
        HOST.kind: [_one_host_in_a_simplex(cloud), _life_of_hosts(cloud, this_host), powering.rule],
        OPERATION.kind: [_operations(cloud)],
        CLOUD.kind: [_clouds(cloud), leaving.rule(cloud)],
        **overriding.rules(cloud),
        **suppressing.rules(cloud),
    }


def _one_host_in_a_simplex(cloud: str) -> Rule:
    def rule(tx: Transaction, request: Request) -> None:
        if request.operation != "create":
            return
        mode = tx.load(Cloud, "", cloud).spec.system_mode
        most = {"simplex": 1, "duplex": 2}.get(mode)
        if most is not None and tx.count(HOST.kind, cloud) >= most:
            raise Refused(
                f"a {mode} cloud has at most {most} host{'s' if most > 1 else ''}",
                f"set spec.systemMode of cloud {cloud} to a larger mode first",
            )

    return rule


def _life_of_hosts(cloud: str, this_host: str) -> Rule:
    def rule(tx: Transaction, request: Request) -> None:
        if request.operation == "delete":
            _delete(cast(Host, request.old), this_host)
        elif request.operation == "update":
            _update(tx, cast(Host, request.old), cast(Host, request.new), cloud, this_host)

    return rule


def _delete(host: Host, this_host: str) -> None:
    name = host.metadata.name
    if name == this_host:
        raise Refused(f"{name} runs this cloud", "delete it from another controller")
    if host.status.administrative != "locked":
        raise Refused(f"{name} is unlocked", f"lock it first: roost host lock {name}")


def _update(tx: Transaction, old: Host, new: Host, cloud: str, this_host: str) -> None:
    name = old.metadata.name
    locks = old.spec.administrative_state == "unlocked" and new.spec.administrative_state == "locked"
    mode = tx.load(Cloud, "", cloud).spec.system_mode
    if locks and name == this_host and mode != "simplex" and not new.spec.force_lock:
        raise Refused(
            f"{name} is the active controller",
            "lock another host, or force it and accept that the cloud's control goes with it: "
            f"roost host lock --force {name}",
            field="spec.administrativeState",
        )
    if locks and mode != "simplex" and not new.spec.force_lock and not _another_controller(tx, old, cloud):
        raise Refused(
            f"{name} is the last controller in service",
            "unlock another controller first, or force it and accept that nothing controls the cloud: "
            f"roost host lock --force {name}",
            field="spec.administrativeState",
        )
    if old.spec.personalities != new.spec.personalities and old.status.administrative != "locked":
        raise Refused(
            f"personalities of {name} change only while it is locked",
            f"lock it first: roost host lock {name}",
            field="spec.personalities",
        )


def _another_controller(tx: Transaction, host: Host, cloud: str) -> bool:
    """Whether a host may be locked without taking the last controller that serves out of service."""
    if "controller" not in host.spec.personalities or host.status.operational != "enabled":
        return True
    return any(
        other.metadata.name != host.metadata.name
        and "controller" in other.spec.personalities
        and other.spec.administrative_state == "unlocked"
        and other.status.operational == "enabled"
        for other in tx.every(Host, cloud)
    )


def _operations(cloud: str) -> Rule:
    def rule(tx: Transaction, request: Request) -> None:
        if request.operation == "create":
            _new_operation(tx, cast(Operation, request.new), cloud)
        elif request.operation == "update":
            old, new = cast(Operation, request.old), cast(Operation, request.new)
            told = msgspec.structs.replace(old.spec, paused=new.spec.paused, aborted=new.spec.aborted)
            if told != new.spec:
                raise Refused(
                    "what an operation does can't change once it exists",
                    "abort it (spec.aborted: true) and create another",
                    field="spec.action",
                )
            if old.status.finished_at and old.spec != new.spec:
                raise Refused("the operation has ended", "create another", field="spec")

    return rule


def _new_operation(tx: Transaction, operation: Operation, cloud: str) -> None:
    name, action = operation.spec.host, operation.spec.action
    if action in ("lock", "force-lock", "unlock"):
        raise Refused(
            f"{action} is started by the host's spec",
            f"use: roost host {action.removeprefix('force-')} {name}",
            field="spec.action",
        )
    if action == "swact":
        raise Refused(
            "this version has no standby controller to switch to",
            "lock and unlock hosts instead; swact comes with high availability",
            field="spec.action",
        )
    if operation.metadata.name.startswith(("lock-", "force-lock-", "unlock-")):
        raise Refused(
            "names that begin with lock-, force-lock- or unlock- are the cloud's own",
            f"choose another name, as reboot-{name}",
            field="metadata.name",
        )
    host = tx.seek(Host, cloud, name)
    if host is None:
        raise Refused(f"there is no host {name}", "see: roost host list", field="spec.host")
    if host.status.administrative != "locked":
        raise Refused(
            f"{name} is unlocked", f"lock it before a {action}: roost host lock {name}", field="spec.host"
        )
    powering.check(operation, host)
    busy = [
        o.metadata.name
        for o in tx.every(Operation, cloud)
        if o.spec.host == name and not o.status.finished_at
    ]
    if busy:
        raise Refused(f"{busy[0]} is at work on {name}", f"wait for it: roost operation watch {busy[0]}")


def _clouds(cloud: str) -> Rule:
    def rule(tx: Transaction, request: Request) -> None:
        if request.operation == "create":
            raise Refused("a cloud is made by starting it", "run `roost up` on its first controller")
        if request.operation == "delete":
            raise Refused("a cloud can't delete itself", "stop it: the operator's machine keeps its state")
        new = cast(Cloud, request.new)
        most = {"simplex": 1, "duplex": 2}.get(new.spec.system_mode)
        if most is not None and tx.count(HOST.kind, cloud) > most:
            raise Refused(
                f"the cloud has more hosts than a {new.spec.system_mode} cloud takes",
                "delete hosts first",
                field="spec.systemMode",
            )

    return rule
