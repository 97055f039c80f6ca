"""Snapshots and restores: what comes back is what there was, on either database, and time that went back
is noticed by everybody."""

from __future__ import annotations

import asyncio
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from roost.model import time
from roost.store import checking, database, history, leases, restore, snapshot
from roost.store.errors import Compacted, NewerSchema
from roost.store.schema import SCHEMA_VERSION
from roost.store.schema import leases as leases_table
from roost.store.snapshot import Header
from tests.store.random_stores import hosts, live
from tests.store.test_migrations import content, load
from tests.support.stores import BACKENDS, new_database, opened, raw

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def quiet(*_: object) -> None:
    pass


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    engine = database.open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def take(url: str, path: Path, now: datetime = NOW) -> Header:
    with engine_of(url) as engine:
        return snapshot.write(engine, path, now, quiet, "0.1.0")


def put(url: str, path: Path, now: datetime = LATER) -> restore.Result:
    snapshot.verify(path, quiet)
    with engine_of(url) as engine:
        found = restore.present(engine)
    return restore.restore(url, path, found, now, quiet)


@pytest.mark.parametrize("source", sorted(BACKENDS))
@pytest.mark.parametrize("target", sorted(BACKENDS))
@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_what_comes_back_is_what_there_was(source: str, target: str, seed: int) -> None:
    async def run(first: str, second: str, directory: Path) -> None:
        async with opened(first, inline=True) as store:
            await live(store, seed)
            there, revision, identity = await hosts(store), store.revision, store.identity
        header = take(first, directory / "a.roost")
        assert (header.revision, header.identity) == (revision, identity)
        done = put(second, directory / "a.roost")
        with engine_of(first) as one, engine_of(second) as other:
            before, after = content(one), content(other)
            report = checking.check(other, "full", quiet)
        assert report.sound, report
        for table in ("resources", "changes", "cursors", "steps"):
            assert before[table] == after[table], table
        *former, told = after["audit"]
        assert former == before["audit"]
        record = msgspec.json.decode(told["data"])
        assert (record["verb"], record["code"], record["revision"]) == ("restore", 200, done.base)
        assert record["time"] == "2026-11-23T05:00:00.000Z" and header.taken_at in record["reason"]
        async with opened(second, inline=True) as store:
            assert await hosts(store) == there
            assert store.revision == done.base > revision
            assert store.identity == done.identity != identity
            await live(store, seed + 1, 10)
        with engine_of(second) as other:
            report = checking.check(other, "full", quiet)
        assert report.sound, report

    with new_database(source) as first, new_database(target) as second, tempfile.TemporaryDirectory() as at:
        asyncio.run(run(first, second, Path(at)))


async def test_a_snapshot_is_private_and_never_half(store_url: str, tmp_path: Path) -> None:
    async with opened(store_url) as store:
        await live(store, 1)
        path = tmp_path / "a.roost"
        take(store_url, path)  # while the store is in use
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(FileExistsError):
            take(store_url, path)

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with engine_of(store_url) as engine, pytest.raises(KeyboardInterrupt):
            snapshot.write(engine, tmp_path / "b.roost", NOW, interrupted)
    assert {name for name in names(tmp_path) if "db" not in name} == {"a.roost"}


async def test_damaged_snapshots_are_refused_before_anything_is_touched(tmp_path: Path) -> None:
    url, path = database.sqlite_url(tmp_path / "roost.db"), tmp_path / "a.roost"
    async with opened(url) as store:
        await live(store, 2)
    take(url, path)
    whole = path.read_bytes()
    assert snapshot.verify(path, quiet).header.revision > 10
    for size in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(snapshot.Damaged):
            snapshot.verify(path, quiet)
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(whole)
    lines = plain.splitlines(keepends=True)
    for changed in (
        plain.replace(b"rack 4", b"rack 5", 1),
        b"".join(lines[:5] + lines[6:]),
        b"".join([*lines[:5], lines[6], lines[5], *lines[7:]]),
        b"".join(lines[:-1]),
        plain + b"[1]\n",
        plain.replace(b'"table":"leases"', b'"table":"passwd"', 1),
        b"{}\n",
        b"not json\n" + plain,
    ):
        assert changed != plain
        path.write_bytes(zstandard.compress(changed))
        with pytest.raises(snapshot.Damaged):
            snapshot.verify(path, quiet)
    path.write_bytes(whole[:-3] + b"abc")
    with pytest.raises(snapshot.Damaged, match="nothing was changed"):
        snapshot.verify(path, quiet)


async def test_a_newer_snapshot_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.roost"
    header = Header(
        format=snapshot.FORMAT, format_version=1, schema="9999", identity="i", revision=1, taken_at="", rows=0
    )
    path.write_bytes(zstandard.compress(msgspec.json.encode(header) + b"\n"))
    with pytest.raises(NewerSchema, match="9999"):
        snapshot.verify(path, quiet)


async def test_a_snapshot_of_an_older_schema_is_migrated(store_url: str, tmp_path: Path) -> None:
    with new_database() as old:
        load(old, "0001").dispose()
        assert take(old, tmp_path / "old.roost").schema == "0001"
    put(store_url, tmp_path / "old.roost")
    with engine_of(store_url) as engine:
        report = checking.check(engine, "full", quiet)
    assert report.sound and report.schema == SCHEMA_VERSION
    async with opened(store_url) as store:
        assert await hosts(store)


async def test_what_is_there_is_replaced_only_when_asked(store_url: str, tmp_path: Path) -> None:
    async with opened(store_url) as store:
        await live(store, 3)
        kept = await hosts(store)
        reached = store.revision
    take(store_url, tmp_path / "a.roost")
    found = restore.look(store_url)
    assert found.revision == reached
    with pytest.raises(restore.NotEmpty, match="say --replace"):
        restore.check_replaceable(store_url, found)
    async with opened(store_url) as store:
        await store.transact(lambda tx: tx.create(raw("Host", "lost")))
    done = put(store_url, tmp_path / "a.roost")
    async with opened(store_url) as store:
        assert await hosts(store) == kept
    if store_url.startswith("sqlite"):
        async with opened(database.sqlite_url(Path(done.kept))) as store:
            assert "lost" in await hosts(store)
    assert not [name for name in names(tmp_path) if "restoring" in name]


async def test_two_restores_of_one_second_keep_what_each_replaced(store_url: str, tmp_path: Path) -> None:
    async with opened(store_url) as store:
        await live(store, 3)
    take(store_url, tmp_path / "a.roost")
    kept = []
    for name in ("first", "second"):
        async with opened(store_url) as store:
            await store.transact(lambda tx, name=name: tx.create(raw("Host", name)))  # type: ignore[misc]
        kept.append(put(store_url, tmp_path / "a.roost").kept)
    if store_url.startswith("sqlite"):
        for name, path in zip(("first", "second"), kept, strict=True):
            async with opened(database.sqlite_url(Path(path))) as store:
                assert name in await hosts(store)


async def test_one_snapshot_restored_twice_gives_nothing_out_twice(store_url: str, tmp_path: Path) -> None:
    """Each time onto nothing, within one second: revisions and epochs of leases are others."""
    async with opened(store_url) as store:
        await live(store, 3)
        await store.transact(lambda tx: leases.acquire(tx, "active", "me", 10))
    take(store_url, tmp_path / "a.roost")
    given = []
    for number in range(2):
        with new_database("sqlite") as fresh:
            done = restore.restore(fresh, tmp_path / "a.roost", restore.Present(0, 0), NOW, quiet)
            async with opened(fresh) as store:
                lease = await store.transact(lambda tx: leases.acquire(tx, "active", "other", 10))
            given.append((number, done.base, lease.epoch))
    (_, first, one), (_, second, other) = given
    assert abs(first - second) >= restore.STEP and abs(one - other) > 1, given


async def test_a_failed_restore_leaves_the_database_as_it_was(store_url: str, tmp_path: Path) -> None:
    async with opened(store_url) as store:
        await live(store, 4)
        kept = await hosts(store)
    take(store_url, tmp_path / "a.roost")
    with engine_of(store_url) as engine:
        found = restore.present(engine)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore.restore(store_url, tmp_path / "a.roost", found, LATER, interrupted)
    async with opened(store_url) as store:
        assert await hosts(store) == kept
    assert not [name for name in names(tmp_path) if "restoring" in name or "replaced" in name]


async def test_postgresql_in_use_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "postgresql" not in BACKENDS:
        pytest.skip("no PostgreSQL here")
    monkeypatch.setattr(restore, "LEAVE_WITHIN", 0.2)
    with new_database("postgresql") as url:
        async with opened(url) as store:
            await live(store, 5, 5)
            take(url, tmp_path / "a.roost")
            with pytest.raises(restore.InUse, match="stop Roost there first"):
                put(url, tmp_path / "a.roost")


async def test_revisions_of_the_lost_future_are_recognised(store_url: str, tmp_path: Path) -> None:
    async with opened(store_url) as store:
        await live(store, 6)
        known = store.revision
        take(store_url, tmp_path / "a.roost")
        await live(store, 7)
        future, identity = store.revision, store.identity
        lease = await store.transact(lambda tx: leases.acquire(tx, "other", "n", 30))
    done = put(store_url, tmp_path / "a.roost")
    assert done.base > future and done.at == known
    async with opened(store_url) as store:
        assert store.identity != identity
        for after in (known, known + 1, future, done.base - 1):
            with pytest.raises(Compacted):
                await store.changes(after)
        assert (await store.changes(done.base)).changes == []
        first = await store.transact(lambda tx: tx.create(raw("Host", "first")))
        assert first.revision == done.base + 1
        for after in (known, future, done.base - 1):
            with pytest.raises(Compacted):
                await store.changes(after)
        assert [c.revision for c in (await store.changes(done.base)).changes] == [done.base + 1]
        taken = await store.transact(lambda tx: leases.acquire(tx, "controllers", "new", 30))
        assert (taken.holder, taken.epoch > lease.epoch + 1000) == ("new", True)

        key = history.Key("Host", "harbor", "first")
        with pytest.raises(history.Gone):
            await store.read(lambda tx: history.state_at(tx, key, future))
        assert await store.read(lambda tx: history.state_at(tx, key, done.base + 1))


async def test_the_past_before_a_restore_can_be_told(store_url: str, tmp_path: Path) -> None:
    async with opened(store_url) as store:
        await live(store, 8)
        there, known = await hosts(store), store.revision
        take(store_url, tmp_path / "a.roost")
        await live(store, 9)
        future = store.revision
    put(store_url, tmp_path / "a.roost")
    async with opened(store_url) as store:
        for name, raw_then in there.items():
            key = history.Key("Host", "harbor", name)
            assert await store.read(lambda tx, k=key: history.state_at(tx, k, known)) == raw_then  # type: ignore[misc]
            with pytest.raises(history.Gone, match="was restored at"):
                await store.read(lambda tx, k=key: history.state_at(tx, k, future))  # type: ignore[misc]


@given(
    revision=st.integers(0, 10**12),
    replaced=st.integers(0, 10**12),
    age=st.integers(-(10**6), 10**8),
)
def test_a_restored_store_goes_on_beyond_all_that_was_given_out(
    revision: int, replaced: int, age: int
) -> None:
    header = Header(
        format=snapshot.FORMAT,
        format_version=1,
        schema=SCHEMA_VERSION,
        identity="i",
        revision=revision,
        taken_at=time.stamp(NOW - timedelta(seconds=age)),
        rows=0,
    )
    base = restore.go_on_from(header, replaced, NOW)
    assert base >= revision + max(age, 0) * 20_000 + restore.STEP
    assert base >= replaced + restore.STEP and base % restore.STEP == 0


async def test_an_empty_database_has_nothing_to_snapshot(store_url: str, tmp_path: Path) -> None:
    with pytest.raises(snapshot.Empty):
        take(store_url, tmp_path / "a.roost")
    assert not (tmp_path / "a.roost").exists()


async def test_leases_have_run_out(store_url: str, tmp_path: Path) -> None:
    async with opened(store_url) as store:
        await store.transact(lambda tx: leases.acquire(tx, "controllers", "old", 1e9))
    take(store_url, tmp_path / "a.roost")
    put(store_url, tmp_path / "a.roost")
    with engine_of(store_url) as engine, engine.connect() as connection:
        rows = connection.execute(select(leases_table.c.expires_at)).scalars().all()
    assert rows == [0.0]
