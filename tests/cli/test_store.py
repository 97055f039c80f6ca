"""`roost store` on real homes and databases: beside a running store, instead of it, and on broken files."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from roost.cli import store as commands
from roost.cli.main import make_app, run
from roost.model.cloud import Cloud, CloudSpec
from roost.model.meta import Metadata
from roost.program import stores
from roost.program.home import Home, Settings
from roost.store import database
from tests.cli.conftest import Result
from tests.store.random_stores import hosts, live
from tests.support.stores import new_database, opened

Store = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose cloud has lived for a while."""
    monkeypatch.delenv("ROOST_DATABASE", raising=False)
    path = tmp_path / "home"
    made = Home(path)
    made.open()
    made.save_settings(Settings(role="cloud", cloud="harbor", host="controller-0"))
    made.close()
    asyncio.run(lived(database.sqlite_url(path / "cloud.db")))
    return path


async def lived(url: str, seed: int = 1, steps: int = 40, name: str = "harbor") -> dict[str, object]:
    async with opened(url) as store:
        if not await store.read(lambda tx: tx.select("Cloud")):
            await store.transact(lambda tx: tx.save(Cloud(metadata=Metadata(name=name), spec=CloudSpec())))
        await live(store, seed, steps)
        return dict(await hosts(store))


async def there(url: str) -> dict[str, object]:
    async with opened(url) as store:
        return dict(await hosts(store))


@pytest.fixture
def roost(home: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Store]:
    app = make_app()
    commands.register(app, stores.locate)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        code = run(app, ["store", *arguments])
        out, err = capsys.readouterr()
        return Result(code, out, err)

    yield call


def cloud(home: Path) -> str:
    return database.sqlite_url(home / "cloud.db")


def test_a_sound_store_is_told_sound(roost: Store, home: Path) -> None:
    done = roost("check", "--home", str(home))
    assert done.code == 0, done.err
    assert done.out.startswith("cloud: sound (schema ")
    body = json.loads(roost("check", "--home", str(home), "-o", "json").out)
    assert body["cloud"]["sound"] and body["cloud"]["findings"] == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM changes WHERE revision = 7", "the change before it is 6"),
        ("DELETE FROM changes WHERE revision > 30", "the last change kept is 30"),
        (
            "UPDATE changes SET data = replace(data, 'harbor', 'harbar') WHERE revision = 5",
            "was before is not",
        ),
        ("UPDATE resources SET data = '{}' WHERE name = 'h-1'", "it can't be read"),
        ("UPDATE resources SET uid = (SELECT max(uid) FROM resources)", "it has the uid of"),
        ("UPDATE resources SET name = 'x' WHERE name = 'h-1'", "name different resources"),
        ("UPDATE resources SET revision = 99999 WHERE name = 'h-1'", "is ahead of the store's"),
        ("DELETE FROM resources WHERE name = 'h-1'", "is not what its last change says"),
        ("DELETE FROM counters", "no revision or no identity"),
        ("INSERT INTO audit VALUES (1, '{\"verb\":\"get\"}', 'abc')", "record 1"),
    ],
)
def test_what_is_wrong_is_told(roost: Store, home: Path, damage: str, said: str) -> None:
    engine = database.open_engine(cloud(home))
    with engine.begin() as connection:
        assert connection.execute(text(damage)).rowcount
    engine.dispose()
    done = roost("check", "--home", str(home), "--quick")
    assert done.code == 1 and said in done.out, done
    assert "not sound" in done.out and "roost store restore" in done.err


def test_a_corrupt_page_is_told(roost: Store, home: Path) -> None:
    asyncio.run(there(cloud(home)))  # folds the log into the file
    with (home / "cloud.db").open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for page in range(2, size // 4096, 3):
            file.seek(page * 4096)
            file.write(b"\xff" * 512)
    done = roost("check", "--home", str(home))
    assert done.code == 1, done
    assert "malformed" in done.err or "file" in done.out
    (home / "cloud.db").write_bytes(b"no database at all" * 999)
    done = roost("check", "--home", str(home))
    assert done.code == 1 and "not a database" in done.err and "roost store restore" in done.err


def test_compacting_keeps_what_is_asked_for(roost: Store, home: Path) -> None:
    before = (home / "cloud.db").stat().st_size
    done = roost("compact", "--home", str(home), "--keep", "5")
    assert done.code == 0 and ", 5 kept" in done.out, done
    assert (home / "cloud.db").stat().st_size < before
    assert roost("check", "--home", str(home)).code == 0
    assert "0 changes dropped" in roost("compact", "--home", str(home), "--keep", "5").out
    assert roost("compact", "--home", str(home), "--keep", "-1").code == 2


def test_a_snapshot_and_back(roost: Store, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "monday.roost"
    kept = asyncio.run(there(cloud(home)))
    done = roost("snapshot", str(file), "--home", str(home))
    assert done.code == 0 and "rows at revision" in done.out, done
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "is there already" in roost("snapshot", str(file), "--home", str(home)).err
    asyncio.run(lived(cloud(home), seed=2))
    refused = roost("restore", str(file), "--home", str(home))
    assert refused.code == 1 and "say --replace" in refused.err
    done = roost("restore", str(file), "--home", str(home), "--replace")
    assert done.code == 0 and "it goes on from revision" in done.out, done
    assert "is kept as" in done.err
    assert asyncio.run(there(cloud(home))) == kept
    assert roost("check", "--home", str(home)).code == 0


def test_from_sqlite_to_postgresql_by_the_command(roost: Store, home: Path, tmp_path: Path) -> None:
    kept = asyncio.run(there(cloud(home)))
    file, where = tmp_path / "a.roost", tmp_path / "url"
    assert roost("snapshot", str(file), "--home", str(home)).code == 0
    with new_database("postgresql") as url:
        where.write_text(url + "\n")
        done = roost("restore", str(file), "--database", str(where))
        assert done.code == 0, done
        assert asyncio.run(there(url)) == kept
        for command in (["check"], ["compact", "--keep", "3"], ["check"], ["snapshot", str(tmp_path / "b")]):
            done = roost(*command, "--database", str(where))
            assert done.code == 0, done


def test_a_snapshot_of_another_cloud_is_refused(roost: Store, home: Path, tmp_path: Path) -> None:
    kept, other, agents = asyncio.run(there(cloud(home))), tmp_path / "other", tmp_path / "agent"
    for path, settings in (
        (other, Settings(role="cloud", cloud="ridge")),
        (agents, Settings(role="agent", cloud="harbor", host="h")),
    ):
        made = Home(path)
        made.open()
        made.save_settings(settings)
        made.close()
    asyncio.run(lived(cloud(other), name="ridge"))
    asyncio.run(agent_lived(database.sqlite_url(agents / "agent.db")))
    for path in (other, agents):
        assert roost("snapshot", str(path / "a.roost"), "--home", str(path)).code == 0
    for path, said in ((other, "of cloud ridge"), (agents, "of a host's agent")):
        done = roost("restore", str(path / "a.roost"), "--home", str(home), "--replace")
        assert done.code == 1 and said in done.err and "this home is of cloud harbor" in done.err, done
    done = roost("restore", str(other / "a.roost"), "--home", str(agents), "--replace")
    assert done.code == 1 and "this home is of a host's agent" in done.err, done
    assert asyncio.run(there(cloud(home))) == kept
    assert roost("restore", str(agents / "a.roost"), "--home", str(agents), "--replace").code == 0


async def agent_lived(url: str) -> None:
    async with opened(url) as store:
        await live(store, 1, 10)


def test_a_damaged_database_is_replaced_and_kept(roost: Store, home: Path, tmp_path: Path) -> None:
    """What the manual says of a malformed file must work as it says."""
    file, kept = tmp_path / "a.roost", asyncio.run(there(cloud(home)))
    assert roost("snapshot", str(file), "--home", str(home)).code == 0
    (home / "cloud.db").write_bytes(b"no database at all" * 999)
    refused = roost("restore", str(file), "--home", str(home))
    assert refused.code == 1 and "say --replace" in refused.err, refused
    done = roost("restore", str(file), "--home", str(home), "--replace")
    assert done.code == 0 and "is kept as" in done.err, done
    assert asyncio.run(there(cloud(home))) == kept
    (before,) = home.glob("cloud.db.replaced-*")
    assert before.read_bytes().startswith(b"no database at all")


def test_a_running_roost_is_not_restored_under(roost: Store, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.roost"
    running = Home(home)
    running.open()
    try:
        assert roost("snapshot", str(file), "--home", str(home)).code == 0
        assert roost("check", "--home", str(home)).code == 0
        for command in (["restore", str(file), "--replace"], ["migrate", "--to", "0001"]):
            done = roost(*command, "--home", str(home))
            assert done.code == 1 and "already runs" in done.err, done
    finally:
        running.close()


def test_nonsense_is_refused_in_words(roost: Store, home: Path, tmp_path: Path) -> None:
    assert "is no home of Roost" in roost("check", "--home", str(tmp_path / "nowhere")).err
    assert not (tmp_path / "nowhere").exists()
    file = tmp_path / "junk"
    file.write_bytes(b"junk")
    done = roost("restore", str(file), "--home", str(home), "--replace")
    assert done.code == 1 and "no whole snapshot" in done.err and "nothing was changed" in done.err
    assert "can't be read" in roost("restore", str(tmp_path / "none"), "--home", str(home)).err
    file.write_text("sqlite:///x")
    assert roost("check", "--database", str(file)).code == 2


def test_back_to_an_older_schema_and_a_newer_one(roost: Store, home: Path) -> None:
    assert "migrated from" in roost("migrate", "--to", "0001", "--home", str(home)).out
    older = roost("check", "--home", str(home))
    assert older.code == 1 and "roost store migrate" in older.err
    assert "migrated from 0001" in roost("migrate", "--home", str(home)).out
    assert roost("check", "--home", str(home)).code == 0
    assert "there is no schema 0042" in roost("migrate", "--to", "0042", "--home", str(home)).err


def up(home: Path) -> subprocess.CompletedProcess[str]:
    """`roost up` as a process, which is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "roost.program", "up", "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_an_older_program_refuses_a_newer_store(home: Path) -> None:
    engine = database.open_engine(cloud(home))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    before = (home / "cloud.db").read_bytes()
    done = up(home)
    assert done.returncode == 1, done
    assert "the database has schema 9999, this version of Roost knows" in done.stderr
    assert "start the newer version" in done.stderr
    assert "Traceback" not in done.stderr
    assert (home / "cloud.db").read_bytes() == before


def test_starting_on_a_damaged_store_says_what_to_do(home: Path) -> None:
    (home / "cloud.db").write_bytes(b"no database at all" * 999)
    for part in ("-wal", "-shm"):
        (home / f"cloud.db{part}").unlink(missing_ok=True)
    done = up(home)
    assert done.returncode == 1, done
    assert "not a database" in done.stderr and "roost store restore" in done.stderr
    assert "Traceback" not in done.stderr
