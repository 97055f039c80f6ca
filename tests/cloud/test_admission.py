"""What operators may not do, each with its reason and remedy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from roost.cloud.admission import rules
from roost.engine.admission import Refused, Request
from roost.model.cloud import Cloud, CloudSpec
from roost.model.host import Host, HostSpec, HostStatus
from roost.model.meta import Metadata, Resource
from roost.model.operation import Operation, OperationSpec, OperationStatus
from roost.model.registry import BY_TYPE
from roost.store.transaction import Transaction
from tests.support.clock import run
from tests.support.stores import CLOUD, World, world


def cloud(mode: str) -> Cloud:
    return Cloud(metadata=Metadata(name=CLOUD), spec=CloudSpec(system_mode=mode))  # type: ignore[arg-type]


def host(name: str = "h", has: str = "locked", **spec: Any) -> Host:
    return Host(
        metadata=Metadata(name=name, namespace=CLOUD),
        spec=HostSpec(**spec),
        status=HostStatus(administrative=has),  # type: ignore[arg-type]
    )


def operation(
    name: str = "op", action: str = "reboot", to: str = "h", ended: str = "", **spec: Any
) -> Operation:
    return Operation(
        metadata=Metadata(name=name, namespace=CLOUD),
        spec=OperationSpec(action=action, host=to, **spec),  # type: ignore[arg-type]
        status=OperationStatus(finished_at=ended),
    )


def verdict(
    operation: str, old: Resource | None, new: Resource | None, *there: Resource, this_host: str = ""
) -> Refused | None:
    """What the rules say of a write, among resources that are there."""

    async def main() -> Refused | None:
        async with world() as w:
            return await ask(w)

    async def ask(w: World) -> Refused | None:
        def work(tx: Transaction) -> Refused | None:
            for resource in there:
                tx.save(resource)
            subject = new or old
            assert subject is not None
            info = BY_TYPE[type(subject)]
            request = Request(operation=operation, info=info, user="ada", old=old, new=new)  # type: ignore[arg-type]
            try:
                for rule in rules(CLOUD, this_host)[info.kind]:
                    rule(tx, request)
            except Refused as refused:
                return refused
            return None

        return await w.store.transact(work)

    return run(main())


def serving(name: str, *personalities: str) -> Host:
    spec = HostSpec(administrative_state="unlocked", personalities=list(personalities))  # type: ignore[arg-type]
    status = HostStatus(administrative="unlocked", operational="enabled", availability="available")
    return Host(metadata=Metadata(name=name, namespace=CLOUD), spec=spec, status=status)


UNLOCKED = {"administrative_state": "unlocked"}
A, B, W = serving("a", "controller"), serving("b", "controller"), serving("w", "worker")
LOCKED_A = msgspec.structs.replace(A, spec=HostSpec(personalities=["controller"]))
FORCED_A = msgspec.structs.replace(A, spec=HostSpec(personalities=["controller"], force_lock=True))
LOCKED_W = msgspec.structs.replace(W, spec=HostSpec(personalities=["worker"]))
STANDARD = cloud("standard")

TABLE: list[tuple[str, Resource | None, Resource | None, list[Resource], str, str]] = [
    # How many hosts a cloud has.
    ("create", None, host("a"), [cloud("simplex")], "", ""),
    ("create", None, host("b"), [cloud("simplex"), host("a")], "at most 1 host;", "systemMode"),
    ("create", None, host("b"), [cloud("duplex"), host("a")], "", ""),
    ("create", None, host("c"), [cloud("duplex"), host("a"), host("b")], "at most 2 hosts", "systemMode"),
    ("create", None, host("c"), [STANDARD, host("a"), host("b")], "", ""),
    ("update", STANDARD, cloud("simplex"), [STANDARD, host("a"), host("b")], "more hosts", "delete hosts"),
    ("update", cloud("simplex"), cloud("duplex"), [cloud("simplex"), host("a")], "", ""),
    ("create", None, cloud("simplex"), [], "made by starting it", "roost up"),
    ("delete", cloud("simplex"), None, [cloud("simplex")], "can't delete itself", "stop it"),
    # The life of hosts.
    ("delete", host(), None, [STANDARD], "", ""),
    ("delete", host(has="unlocked"), None, [STANDARD], "is unlocked", "roost host lock h"),
    ("delete", host("this"), None, [STANDARD], "runs this cloud", "another controller"),
    ("update", host("this", **UNLOCKED), host("this"), [STANDARD], "active controller", "--force this"),
    ("update", host("this", **UNLOCKED), host("this", force_lock=True), [STANDARD], "", ""),
    ("update", host("this", **UNLOCKED), host("this"), [cloud("simplex")], "", ""),
    ("update", host(**UNLOCKED), host(), [STANDARD], "", ""),
    # The last controller that serves.
    ("update", A, LOCKED_A, [STANDARD, A, B, W], "", ""),
    ("update", A, LOCKED_A, [STANDARD, A, W], "last controller in service", "--force a"),
    ("update", A, LOCKED_A, [STANDARD, A, host("b", "unlocked", **UNLOCKED)], "last controller", "--force a"),
    ("update", A, FORCED_A, [STANDARD, A, W], "", ""),
    ("update", A, LOCKED_A, [cloud("simplex"), A], "", ""),
    ("update", W, LOCKED_W, [STANDARD, A, W], "", ""),
    ("update", host(), host(personalities=["storage"]), [STANDARD], "", ""),
    (
        "update",
        host(has="unlocked"),
        host(personalities=["storage"]),
        [STANDARD],
        "only while",
        "lock it first",
    ),
    # Operations.
    ("create", None, operation(), [host()], "", ""),
    ("create", None, operation(), [], "no host h", "roost host list"),
    ("create", None, operation(), [host(has="unlocked")], "is unlocked", "lock it before"),
    ("create", None, operation(), [host(), operation("other")], "other is at work", "operation watch other"),
    ("create", None, operation(), [host(), operation("other", ended="t")], "", ""),
    ("create", None, operation(), [host(), operation("other", to="g")], "", ""),
    ("create", None, operation(action="lock"), [host()], "by the host's spec", "roost host lock h"),
    ("create", None, operation(action="force-lock"), [host()], "by the host's spec", "roost host lock h"),
    ("create", None, operation(action="unlock"), [host()], "by the host's spec", "roost host unlock h"),
    ("create", None, operation(action="swact"), [host()], "no standby", "high availability"),
    ("create", None, operation("lock-h-1-1"), [host()], "the cloud's own", "another name"),
    ("create", None, operation("unlock-h-3-x"), [host()], "the cloud's own", "another name"),
    ("create", None, operation("force-lock-h-1-1"), [host()], "the cloud's own", "another name"),
    ("update", operation(), operation(paused=True), [host()], "", ""),
    ("update", operation(), operation(to="g"), [host()], "can't change", "abort it"),
    ("update", operation(ended="t"), operation(paused=True), [host()], "has ended", "create another"),
    ("update", operation(ended="t"), operation(ended="t"), [host()], "", ""),
]


@pytest.mark.parametrize(("action", "old", "new", "there", "reason", "remedy"), TABLE)
def test_a_refusal_says_why_and_what_to_do(
    action: str, old: Resource | None, new: Resource | None, there: list[Resource], reason: str, remedy: str
) -> None:
    refused = verdict(action, old, new, *there, this_host="this")
    if not reason:
        assert refused is None, refused
        return
    assert refused is not None, "it was allowed"
    assert reason in f"{refused.reason};" and remedy in refused.remedy
    if refused.field:
        body: Any = msgspec.to_builtins(new)
        for part in refused.field.split("."):
            assert part in body, f"{refused.field} names no field"
            body = body[part]
