"""What the store remembers of outlets, on every database."""

from __future__ import annotations

from roost.cloud.outlets import memory
from roost.cloud.outlets.memory import ENTERPRISE, Memory
from roost.engine.faults import settle
from roost.model.alarms import Fault
from roost.model.outlet import Missed
from roost.store.store import Store

FAULT = Fault(alarm_id="100.101", severity="major", entity="host=h", reason="x")


async def test_position_and_debts_are_kept_and_forgotten(store: Store) -> None:
    kept = Memory(sending=9, owes="x", missed=Missed(number=3), generation=2)
    assert await store.read(lambda tx: memory.recall(tx, "u1")) == ("", 0, Memory())
    for uid in ("u1", "u2"):
        await store.transact(lambda tx: memory.remember(tx, uid, "s", 7, kept))  # noqa: B023
    assert await store.read(lambda tx: memory.recall(tx, "u1")) == ("s", 7, kept)
    await store.transact(lambda tx: memory.forget_others(tx, {"u2"}))
    assert await store.read(lambda tx: memory.recall(tx, "u1")) == ("", 0, Memory())
    assert await store.read(lambda tx: memory.recall(tx, "u2")) == ("s", 7, kept)


async def test_what_waits_and_what_was_missed_is_counted(store: Store) -> None:
    before = await store.read(lambda tx: tx.revision)
    await store.transact(lambda tx: settle(tx, "harbor", "host.h", [FAULT]))
    await store.transact(lambda tx: settle(tx, "harbor", "host.h", []))
    after = await store.read(lambda tx: tx.revision)
    assert await store.read(lambda tx: memory.waiting(tx, before)) == 4
    assert await store.read(lambda tx: memory.waiting(tx, after)) == 0
    missed = await store.read(lambda tx: memory.missed_between(tx, before, after))
    assert (missed.number, missed.major, missed.cleared, missed.revisions) == (2, 1, 1, after - before)
    assert await store.read(memory.oldest_kept) <= before


async def test_an_engine_keeps_its_identity_and_counts_its_starts(store: Store) -> None:
    first, second = [await store.transact(memory.snmp_engine) for _ in range(2)]
    assert first.id == second.id and (first.boots, second.boots) == (1, 2)
    # RFC 3411, 5: the enterprise's number with the first bit set, and which form the rest has.
    assert int.from_bytes(first.id[:4], "big") == ENTERPRISE | 1 << 31 and first.id[4] == 5
    assert 5 <= len(first.id) <= 32
