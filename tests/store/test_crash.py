"""Real processes and real failures: killed writers, full disks, databases that can't be written."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from roost.store import database
from roost.store.errors import Compacted, Unavailable
from roost.store.store import Store
from tests.store.test_history import replay
from tests.support.stores import history, opened, raw

ROOT = Path(__file__).parents[2]

WRITER = """
import asyncio, sys
from roost.store.store import Store
from tests.support.stores import raw

async def main(url, name):
    store = await Store.open(url, history=300)
    out = sys.stdout.buffer
    async def write(n):
        def work(tx):
            number = tx.next_number("log:" + name)
            new = raw("Host", f"{name}-{n}", spec={"location": str(number)})
            stored = tx.replace(new) if tx.find("Host", "harbor", f"{name}-{n}") else tx.create(new)
            return stored.revision, number
        while True:
            revision, number = await store.transact(work)
            out.write(b"%d %d %d\\n" % (n, revision, number))
            out.flush()
    await asyncio.gather(*(write(n) for n in range(6)))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.timeout(300)
async def test_every_acknowledged_write_survives_kill_9(store_url: str) -> None:
    """The writer is killed after a random number of answers; the next one goes on from the same database."""
    source = random.Random(7)
    newest = 0
    for round in range(6):
        writer = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
            [sys.executable, "-c", WRITER, store_url, f"round{round}"], stdout=subprocess.PIPE, cwd=ROOT
        )
        acknowledged: dict[int, tuple[int, int]] = {}
        try:
            assert writer.stdout is not None
            for _ in range(source.randrange(1, 250)):
                slot, revision, number = map(int, writer.stdout.readline().split())
                acknowledged[slot] = (revision, number)
        finally:
            writer.send_signal(signal.SIGKILL)
            rest, _ = writer.communicate(timeout=30)
        for line in rest.splitlines(keepends=True):
            if line.endswith(b"\n"):
                slot, revision, number = map(int, line.split())
                acknowledged[slot] = (revision, number)
        async with opened(store_url, history=300) as store:
            newest_acknowledged = max(r for r, _ in acknowledged.values())
            assert store.revision >= newest_acknowledged > newest
            newest = store.revision
            for slot, (revision, number) in acknowledged.items():
                stored = await store.get("Host", "harbor", f"round{round}-{slot}")
                assert stored.revision >= revision
                assert int(stored.raw["spec"]["location"]) >= number
            changes = await history(store, store._compacted)
            assert [c.revision for c in changes] == list(range(store._compacted + 1, newest + 1))
            if store._compacted == 0:
                replay(changes)
            latest = {(c.name, c.data) for c in changes}
            for stored in await store.read(lambda tx: tx.select("Host")):
                assert stored.revision <= store._compacted or (stored.name, stored.data) in latest


FULL = """
import asyncio, resource, signal, sys
from roost.store.errors import Compacted, Unavailable
from roost.store.store import Store
from tests.support.stores import history, raw

async def main(url):
    store = await Store.open(url)
    await store.transact(lambda tx: tx.create(raw("Host", "first")))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (240_000, unlimited[1]))
    kept, refused = [], 0
    for n in range(40):
        big = raw("Host", f"h-{n}", spec={"location": "x" * 20_000})
        try:
            await store.transact(lambda tx: tx.create(big))
            kept.append(f"h-{n}")
        except Unavailable as error:
            assert "nothing was written" in str(error) and "full" in str(error), error
            refused += 1
    assert refused > 5 and kept, (refused, kept)
    assert {s.name for s in await store.read(lambda tx: tx.select("Host"))} == {"first", *kept}
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    await store.transact(lambda tx: tx.create(raw("Host", "after")))
    names = {s.name for s in await store.read(lambda tx: tx.select("Host"))}
    assert names == {"first", "after", *kept}, names
    changes = await history(store)
    assert [c.revision for c in changes] == list(range(1, len(kept) + 3)), [c.revision for c in changes]
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


def test_a_full_disk_refuses_and_the_store_goes_on_afterwards(tmp_path: Path) -> None:
    """SQLite's files may not grow past a limit, as on a full disk; then the limit goes away."""
    url = database.sqlite_url(tmp_path / "roost.db")
    done = subprocess.run(
        [sys.executable, "-c", FULL, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


async def test_a_locked_database_is_unavailable_and_then_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds the write lock longer than we wait."""
    url = database.sqlite_url(tmp_path / "roost.db")
    prepare = database._prepare_sqlite

    def impatient(connection: object, record: object) -> None:
        prepare(connection, record)
        connection.execute("PRAGMA busy_timeout=50")  # type: ignore[attr-defined]

    monkeypatch.setattr(database, "_prepare_sqlite", impatient)
    async with opened(url) as store:
        other = database.open_engine(url)
        with other.connect() as connection:
            connection.exec_driver_sql("UPDATE counters SET value = value")
            with pytest.raises(Unavailable, match="locked"):
                await store.transact(lambda tx: tx.create(raw("Host", "h")))
            assert await store.read(lambda tx: tx.count("Host")) == 0, "reading goes on"
            connection.rollback()
        other.dispose()
        await store.transact(lambda tx: tx.create(raw("Host", "h")))
        assert [c.revision for c in await history(store)] == [1]


async def test_a_database_that_becomes_read_only_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    url = database.sqlite_url(tmp_path / "roost.db")
    async with opened(url) as store:
        await store.transact(lambda tx: tx.create(raw("Host", "h")))

        await store._in(store._writing_thread, lambda: _forbid(store, "ON"))
        with pytest.raises(Unavailable, match=r"readonly.*let the user that runs Roost write"):
            await store.transact(lambda tx: tx.create(raw("Host", "g")))
        assert await store.read(lambda tx: tx.count("Host")) == 1
        await store._in(store._writing_thread, lambda: _forbid(store, "OFF"))
        await store.transact(lambda tx: tx.create(raw("Host", "g")))


def _forbid(store: Store, setting: str) -> None:
    session = store._writer._sessions.take()
    session.command(f"PRAGMA query_only={setting}")
    store._writer._sessions.give(session)


async def test_a_place_where_no_file_can_be_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="file"):
        await Store.open(database.sqlite_url(tmp_path / "file" / "roost.db"))
    assert (tmp_path / "file").read_text() == ""


async def test_a_database_whose_file_is_deleted_takes_no_more_writes(tmp_path: Path) -> None:
    path = tmp_path / "roost.db"
    async with opened(database.sqlite_url(path)) as store:
        await store.transact(lambda tx: tx.create(raw("Host", "h")))
        path.rename(tmp_path / "away.db")
        with pytest.raises(Unavailable, match=r"roost\.db was deleted or replaced"):
            await store.transact(lambda tx: tx.create(raw("Host", "g")))
        assert await store.read(lambda tx: tx.count("Host")) == 1
        (tmp_path / "away.db").rename(path)
        await store.transact(lambda tx: tx.create(raw("Host", "g")))
        assert [c.revision for c in await history(store)] == [1, 2]


async def test_a_damaged_page_refuses_and_the_rest_is_served(tmp_path: Path) -> None:
    """Part of the table is overwritten: what lies elsewhere is read, and what to do is said."""
    path = tmp_path / "roost.db"
    async with opened(database.sqlite_url(path)) as store:
        for n in range(60):
            new = raw("Host", f"h-{n:02d}", spec={"location": f"place {n:02d} " + "x" * 900})
            await store.transact(lambda tx, new=new: tx.create(new))  # type: ignore[misc]
    data, page = bytearray(path.read_bytes()), 8192
    found = [at for at in range(0, len(data), page) if b'"place 30 ' in data[at : at + page]]
    for at in found:
        data[at : at + page] = b"\xff" * page
    path.write_bytes(data)
    async with opened(database.sqlite_url(path)) as store:
        with pytest.raises(Compacted):
            await store.changes(0)
        first = await store.find("Host", "harbor", "h-00")
        assert first is not None and first.raw["spec"]["location"].startswith("place 00")
        for read in (lambda tx: tx.select("Host"), lambda tx: tx.get("Host", "harbor", "h-30")):
            with pytest.raises(Unavailable, match=r"malformed.*restore a snapshot"):
                await store.read(read)
        with pytest.raises(Unavailable, match="restore a snapshot"):
            await store.find("Host", "harbor", "h-30")
        with pytest.raises(Unavailable, match="restore a snapshot"):
            await store.transact(lambda tx: tx.remove("Host", "harbor", "h-30"))
        await store.transact(lambda tx: tx.replace(raw("Host", "h-00", spec={"location": "moved"})))
        moved = await store.find("Host", "harbor", "h-00")
        assert moved is not None and moved.raw["spec"]["location"] == "moved"


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "roost.db"
    path.write_bytes(b"junk" * 5000)
    with pytest.raises(Unavailable, match=r"roost\.db: file is not a database"):
        await Store.open(database.sqlite_url(path))
