"""Watch: exactly the changes after a revision, in order, once each, or a clear word that they are gone."""

from __future__ import annotations

import asyncio
import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from roost.store import recent
from roost.store.errors import Compacted, FutureRevision, Unavailable
from roost.store.store import Store
from roost.store.transaction import Change, Transaction
from tests.support.stores import history, new_database, opened, raw


def write(name: str, number: int) -> object:
    def work(tx: Transaction) -> int:
        found = tx.find("Host", "harbor", name)
        new = raw("Host", name, spec={"location": f"row {number}"})
        stored = tx.replace(new) if found else tx.create(new)
        return stored.revision

    return work


async def fill(store: Store, count: int, writer: str = "w") -> list[int]:
    return [await store.transact(write(f"{writer}-{n % 5}", n)) for n in range(count)]  # type: ignore[arg-type]


async def collect(store: Store, after: int, upto: int, pause: float = 0.0) -> list[Change]:
    found: list[Change] = []
    async for batch in store.watch(after):
        found += batch.changes
        if batch.upto >= upto:
            return found
        await asyncio.sleep(pause)
    return found


async def test_every_watcher_sees_each_change_once_under_concurrent_writers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fast and slow watchers from several revisions, with a ring so small that all must read the table."""
    monkeypatch.setattr(recent, "RECENT_BYTES", 2_000)
    writers, each = 8, 60
    await fill(store, 20)
    total = 20 + writers * each
    watchers = [
        asyncio.create_task(collect(store, after, total, pause))
        for after in (0, 7, 20)
        for pause in (0.0, 0.002)
    ]
    acknowledged = await asyncio.gather(*(fill(store, each, f"w{n}") for n in range(writers)))
    async with asyncio.timeout(60):
        seen = await asyncio.gather(*watchers)
    assert sorted(r for revisions in acknowledged for r in revisions) == list(range(21, total + 1))
    for after, changes in zip((0, 0, 7, 7, 20, 20), seen, strict=True):
        assert [c.revision for c in changes] == list(range(after + 1, total + 1))
    kept = store._recent.kept
    assert len(kept) < total, "the ring was meant to overflow"
    assert store._recent.bytes == sum(len(c.data) + len(c.previous) for c in kept)


async def test_late_watchers_start_from_snapshots_while_writers_write(store: Store) -> None:
    """Snapshot, then watch from its revision: the two meet without a gap, however far ahead it is."""

    async def follower() -> None:
        for _ in range(30):
            count, revision = await store.read(lambda tx: (len(tx.select("Host")), tx.revision))
            async for batch in store.watch(revision, idle=0.01):
                for change in batch.changes:
                    count += {"ADDED": 1, "DELETED": -1, "MODIFIED": 0}[change.type]
                revision = batch.upto
                break
            expected = await store.read(
                lambda tx, at=revision: at <= tx.revision  # type: ignore[misc]
            )
            assert expected and count > 0

    await fill(store, 5)
    async with asyncio.timeout(60):
        await asyncio.gather(*(fill(store, 60, f"w{n}") for n in range(4)), *(follower() for _ in range(4)))


async def test_a_snapshot_ahead_of_the_loop_is_no_future(store: Store) -> None:
    """The writer has committed and the loop does not know yet: watching from there waits for it."""
    await fill(store, 3)
    store._recent.revision = 2  # As between the commit and its word to the loop.
    assert (await store.changes(3)).changes == []
    with pytest.raises(FutureRevision) as caught:
        await store.changes(4)
    assert (caught.value.after, caught.value.current) == (4, 3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), history_kept=st.integers(5, 60), ring=st.sampled_from([1, 700, 10**6]))
def test_from_any_revision_all_or_compacted(seed: int, history_kept: int, ring: int) -> None:
    async def main() -> None:
        with new_database() as url, pytest.MonkeyPatch.context() as patch:
            patch.setattr(recent, "RECENT_BYTES", ring)
            async with opened(url, inline=True, history=history_kept) as store:
                source = random.Random(seed)
                await fill(store, source.randrange(1, 150))
                gone = store._compacted
                for after in range(store.revision + 1):
                    if after < gone:
                        with pytest.raises(Compacted) as caught:
                            await store.changes(after)
                        assert caught.value.oldest == gone
                        continue
                    found = await history(store, after)
                    assert [c.revision for c in found] == list(range(after + 1, store.revision + 1))
                kept = await store.read(
                    lambda tx: tx.connection.exec_driver_sql("SELECT count(*) FROM changes")
                )
                assert kept is not None
                assert store.revision - gone <= history_kept * 5 // 4 + 1

    asyncio.run(main())


async def test_history_is_bounded_and_known_after_reopening(store_url: str) -> None:
    async with opened(store_url, history=40) as store:
        await fill(store, 200)
        compacted = store._compacted
        assert 140 <= compacted <= 160
    async with opened(store_url, history=40) as store:
        assert store._compacted == compacted
        with pytest.raises(Compacted):
            await store.changes(compacted - 1)
        assert len(await history(store, compacted)) == 200 - compacted


async def test_a_slow_watcher_is_told_that_it_fell_behind(store_url: str) -> None:
    async with opened(store_url, history=20) as store:
        await fill(store, 5)
        watcher = store.watch(0)
        assert (await anext(watcher)).upto == 5
        await fill(store, 100)
        with pytest.raises(Compacted):
            await anext(watcher)


async def test_a_failed_commit_compacts_nothing(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loop believes of history follows the disk, not the attempt."""
    async with opened(store_url, history=20) as store:
        await fill(store, 25)
        assert store._compacted == 0

        def broken(tx: Transaction) -> None:
            tx.create(raw("Host", "late"))
            tx.connection.exec_driver_sql("SELECT * FROM nowhere")

        with pytest.raises(Unavailable):
            await store.transact(broken)
        assert store._compacted == 0
        assert len(await history(store)) == 25


async def test_unwanted_changes_move_the_cursor(store: Store) -> None:
    await fill(store, 4)
    batch = await anext(store.watch(0, lambda change: change.name == "w-2"))
    assert ([c.name for c in batch.changes], batch.upto) == (["w-2"], 4)


async def test_idle_gives_empty_batches_and_closing_ends_the_watch(store: Store) -> None:
    await fill(store, 1)
    batches = []
    async for batch in store.watch(1, idle=0.001):
        batches.append(batch)
        if len(batches) == 3:
            await store.close()
    assert all((b.changes, b.upto) == ([], 1) for b in batches)
    assert 3 <= len(batches) <= 4
    with pytest.raises(Unavailable):
        await store.read(lambda tx: tx.revision)
    with pytest.raises(Unavailable):
        await store.transact(lambda tx: tx.revision)


async def test_changes_made_by_another_process_leave_no_gap(store_url: str) -> None:
    """Two stores on one database: what the ring holds has no gaps, so nothing is lost."""
    async with opened(store_url) as one, opened(store_url) as other:
        await fill(one, 3, "one")
        await fill(other, 3, "other")
        await fill(one, 3, "more")
        assert [c.revision for c in await history(one)] == list(range(1, 10))
        assert [c.revision for c in await history(one, 2)] == list(range(3, 10))


async def test_history_is_bounded_by_bytes_too(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large objects that change often must not fill the disk with what they were."""
    monkeypatch.setattr("roost.store.writer.HISTORY_BYTES", 20_000)
    async with opened(store_url) as store:
        for n in range(60):
            annotations = {"padding": f"{n:04d}" * 250}
            await store.transact(
                lambda tx, a=annotations: tx.copy(raw("Host", "one", metadata={"annotations": a}), "up")  # type: ignore[misc]
            )
        kept = await store.read(
            lambda tx: tx.connection.exec_driver_sql(
                "SELECT count(*), sum(length(data) + length(previous)) FROM changes"
            ).one()
        )
        with pytest.raises(Compacted):
            await store.changes(0)
        oldest = store.revision - kept[0]
        assert [c.revision for c in (await store.changes(oldest)).changes][-1] == store.revision
    assert 1 <= kept[0] < 60
    assert kept[1] <= 25_000
    async with opened(store_url) as store:
        with pytest.raises(Compacted):
            await store.changes(0)
