"""Steps of operations over subclouds as rows: found by index and limited, moved one by one and at once."""

from __future__ import annotations

import pytest

from roost.model.subcloud_operation import LONGEST_MESSAGE, SUBCLOUD_OPERATION
from roost.store import subcloud_steps
from roost.store.store import Store
from roost.store.subcloud_steps import SubcloudStep
from roost.store.transaction import Transaction

MANY = 3000


def made(operation: str = "op", number: int = 6) -> list[SubcloudStep]:
    return [SubcloudStep(operation, n, stage=n // 4, subcloud=f"s{n}") for n in range(number)]


async def changed(store: Store, *steps: SubcloudStep) -> None:
    await store.transact(lambda tx: subcloud_steps.change(tx, steps))


async def test_steps_wait_in_their_order_and_stage(store: Store) -> None:
    await store.transact(lambda tx: subcloud_steps.add(tx, [*made(), *made("other")]))
    first = await store.read(lambda tx: subcloud_steps.waiting(tx, "op", 0, 2))
    assert [s.number for s in first] == [0, 1] and first[0] == made()[0]
    await changed(store, *(SubcloudStep("op", n, 0, f"s{n}", state="running", deadline=9.0) for n in (0, 1)))
    assert [s.number for s in await store.read(lambda tx: subcloud_steps.waiting(tx, "op", 0, 9))] == [2, 3]
    assert [s.number for s in await store.read(lambda tx: subcloud_steps.waiting(tx, "op", 1, 9))] == [4, 5]
    assert await store.read(lambda tx: subcloud_steps.counts(tx, "op")) == {
        (0, "waiting"): 2,
        (0, "running"): 2,
        (1, "waiting"): 2,
    }
    assert await store.read(lambda tx: subcloud_steps.counts(tx, "other")) == {
        (0, "waiting"): 4,
        (1, "waiting"): 2,
    }


async def test_begun_steps_are_found_by_subcloud_and_deadline(store: Store) -> None:
    steps = made()
    await store.transact(lambda tx: subcloud_steps.add(tx, steps))
    now = await store.read(lambda tx: tx.now.timestamp())
    await changed(
        store,
        SubcloudStep("op", 0, 0, "s0", state="running", deadline=now + 3600),
        SubcloudStep("op", 1, 0, "s1", state="running", deadline=now - 5),
        SubcloudStep("op", 2, 0, "s2", state="offline", deadline=now - 1),
        SubcloudStep("op", 3, 0, "s3", state="done", deadline=now - 9, ended_at=now),
    )
    names = ["s0", "s2", "s3", "s4", "nobody"]
    found = await store.read(lambda tx: subcloud_steps.open_at(tx, "op", names))
    assert [s.subcloud for s in found] == ["s0", "s2"]
    late = await store.read(lambda tx: subcloud_steps.overdue(tx, "op", 10))
    assert {s.subcloud for s in late} == {"s1", "s2"}
    assert len(await store.read(lambda tx: subcloud_steps.overdue(tx, "op", 1))) == 1
    assert await store.read(lambda tx: subcloud_steps.next_deadline(tx, "op")) == pytest.approx(now - 5)
    assert await store.read(lambda tx: subcloud_steps.next_deadline(tx, "other")) is None
    begun = await store.read(lambda tx: subcloud_steps.begun(tx, "op", after=0, limit=5))
    assert [s.subcloud for s in begun] == ["s1", "s2"]


async def test_thousands_move_by_one_statement(store: Store) -> None:
    await store.transact(lambda tx: subcloud_steps.add(tx, made(number=MANY)))

    def failed(tx: Transaction) -> None:
        subcloud_steps.change(
            tx,
            (
                SubcloudStep("op", n, n // 4, f"s{n}", "failed", 2, 9.0, 1.0, 3.0, "Offline", f"at {n}")
                for n in range(100)
            ),
        )

    await store.transact(failed)
    (cause,) = await store.read(lambda tx: subcloud_steps.causes(tx, "op", 5))
    assert (cause.reason, cause.count, cause.first.subcloud, cause.first.message) == (
        "Offline",
        100,
        "s0",
        "at 0",
    )
    aborted = await store.transact(
        lambda tx: subcloud_steps.move(tx, "op", ["waiting", "offline"], "aborted")
    )
    assert aborted == MANY - 100
    again = await store.transact(lambda tx: subcloud_steps.move(tx, "op", ["failed"], "waiting"))
    assert again == 100
    (first,) = await store.read(lambda tx: subcloud_steps.page(tx, "op", limit=1))
    assert first == SubcloudStep("op", 0, 0, "s0"), "as never tried"
    (last,) = await store.read(lambda tx: subcloud_steps.page(tx, "op", after=MANY - 2, limit=5))
    assert last.state == "aborted" and last.ended_at > 0
    assert await store.read(lambda tx: subcloud_steps.causes(tx, "op", 5)) == []


async def test_pages_select_by_field(store: Store) -> None:
    await store.transact(lambda tx: subcloud_steps.add(tx, made()))
    long = "x" * (LONGEST_MESSAGE + 1)
    await changed(store, SubcloudStep("op", 3, 0, "s3", "failed", reason="Offline", message=long))
    found = await store.read(lambda tx: subcloud_steps.page(tx, "op", limit=9, where={"state": "failed"}))
    assert [(s.subcloud, len(s.message)) for s in found] == [("s3", LONGEST_MESSAGE)]
    where = {"subcloud": "s1", "state": "waiting"}
    (only,) = await store.read(lambda tx: subcloud_steps.page(tx, "op", limit=9, where=where))
    assert only.number == 1


async def test_steps_go_with_their_operation(store: Store) -> None:
    await store.transact(lambda tx: subcloud_steps.add(tx, [*made(), *made("other")]))
    await store.transact(lambda tx: subcloud_steps.forget(tx, "op"))
    assert await store.read(lambda tx: subcloud_steps.page(tx, "op", limit=9)) == []
    assert len(await store.read(lambda tx: subcloud_steps.page(tx, "other", limit=9))) == 6
    await store.transact(lambda tx: subcloud_steps.forget_orphans(tx, SUBCLOUD_OPERATION.kind))
    assert await store.read(lambda tx: subcloud_steps.page(tx, "other", limit=9)) == []


async def test_what_fails_moves_nothing(store: Store) -> None:
    await store.transact(lambda tx: subcloud_steps.add(tx, made()))

    def work(tx: Transaction) -> None:
        subcloud_steps.move(tx, "op", ["waiting"], "aborted")
        raise RuntimeError("died")

    with pytest.raises(RuntimeError):
        await store.transact(work)
    assert {s.state for s in await store.read(lambda tx: subcloud_steps.page(tx, "op", limit=9))} == {
        "waiting"
    }
