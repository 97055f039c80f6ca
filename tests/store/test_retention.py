"""How much of the past is kept: the bounds, the steps, and what they cost nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from roost.store import database, retention
from roost.store.errors import Compacted
from roost.store.retention import Kept, Limits, Old, goes, is_due
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.stores import history, opened, raw

DAY = 86_400.0
NOW = 100 * DAY


@given(
    times=st.lists(st.sampled_from([0.0, 1 * DAY, 50 * DAY, 99 * DAY]), min_size=1, max_size=40),
    number=st.integers(0, 50),
    size=st.integers(0, 400),
    extra=st.integers(0, 30),
)
def test_what_goes_is_the_oldest_and_no_more_than_is_over(
    times: list[float], number: int, size: int, extra: int
) -> None:
    limits = Limits(number=number, size=size, age=10 * DAY)
    old = [Old(n + 1, 10, at) for n, at in enumerate(times)]
    kept = Kept(after=0, number=len(old) + extra, size=10 * (len(old) + extra))
    left = goes(old, kept, limits, NOW)
    gone = left.after
    assert 0 <= gone <= len(old) and left.number == kept.number - gone and left.size == kept.size - 10 * gone
    over = [o for o in old[gone:] if 0 < o.recorded_at < NOW - limits.age]
    assert not over
    if gone < len(old):
        assert left.number <= number and left.size <= size
    if gone:
        too_old = any(0 < o.recorded_at < NOW - limits.age for o in old[gone - 1 :])
        assert too_old or left.number + 1 > number or left.size + 10 > size


@pytest.mark.parametrize(
    ("kept", "due"),
    [
        (Kept(after=0, number=20_500), False),
        (Kept(after=0, number=20_501), True),
        (Kept(after=0, size=64 * 1024 * 1024), False),
        (Kept(after=0, size=70 * 1024 * 1024), True),
        (Kept(after=0, oldest_at=NOW - 90 * DAY), False),
        (Kept(after=0, oldest_at=NOW - 91 * DAY), True),
        (Kept(after=10**9, number=3), False),
    ],
)
def test_steps_begin_past_a_slack(kept: Kept, due: bool) -> None:  # noqa: FBT001
    assert is_due(kept, Limits(), NOW) is due


async def write(store: Store, count: int, start: int = 0) -> None:
    names = [f"h-{n}" for n in range(start, start + count)]

    def making(name: str) -> Callable[[Transaction], object]:
        return lambda tx: tx.create(raw("Host", name))

    await asyncio.gather(*(store.transact(making(name)) for name in names))


async def test_old_changes_go_by_their_age(store_url: str) -> None:
    now = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
    async with opened(store_url, clock=lambda: now) as store:
        await write(store, 10)
        now += timedelta(days=89)
        await write(store, 5, 10)
        assert len(await history(store)) == 15
        now += timedelta(days=3)
        await write(store, 1, 15)
        with pytest.raises(Compacted) as caught:
            await store.changes(0)
        assert caught.value.oldest == 10
        assert len(await history(store, 10)) == 6


async def test_a_step_drops_a_bounded_number(store_url: str) -> None:
    async with opened(store_url) as store:
        await write(store, 700)
    engine = database.open_engine(store_url)
    with engine.begin() as connection:
        kept = retention.look(connection, 700)
        assert (kept.after, kept.number) == (0, 700) and kept.oldest_at > 0
        left = retention.step(connection, kept, 700, Limits(number=10), time.time())
        assert (left.after, left.number) == (retention.STEP, 700 - retention.STEP)
        assert left == retention.look(connection, 700)
        # What somebody else has dropped meanwhile is noticed.
        assert retention.step(connection, kept, 700, Limits(number=200), time.time()) == left
    engine.dispose()


async def test_compacting_beside_a_store_in_use(store_url: str) -> None:
    async with opened(store_url) as store:
        await write(store, 1200)
        seen: list[int] = []
        engine = database.open_engine(store_url)
        work = asyncio.to_thread(retention.compact, engine, Limits(number=20), seen.append)
        writing = asyncio.create_task(write(store, 100, 1200))
        done = await work
        await writing
        engine.dispose()
        assert len(seen) >= 2 and all(0 < b - a <= retention.STEP for a, b in pairwise(seen))
        assert done.dropped >= 1180
        assert len(await history(store, store.revision - 20)) == 20
        await write(store, 5, 1300)
        assert len(await store.read(lambda tx: tx.select("Host"))) == 1305
    async with opened(store_url) as store:
        assert store.revision == 1305
        with pytest.raises(Compacted):
            await store.changes(5)


async def test_room_is_given_back(tmp_path: Path) -> None:
    url = database.sqlite_url(tmp_path / "roost.db")
    async with opened(url) as store:
        await write(store, 1500)
    engine = database.open_engine(url)
    done = retention.compact(engine, Limits(number=0), lambda _: None)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA freelist_count")).scalar() == 0
    engine.dispose()
    assert done.kept == 0 and done.freed > 300_000
