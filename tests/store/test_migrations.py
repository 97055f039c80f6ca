"""Migrations forward and back, with data: databases as earlier versions left them are kept as text."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, insert, select, text

from roost.store import checking, database, migrating
from roost.store.errors import NewerSchema
from roost.store.schema import SCHEMA_VERSION
from tests.support.stores import opened, raw

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = sorted(path.stem.removeprefix("schema-") for path in RECORDED.glob("schema-*.sql"))
Content = dict[str, list[dict[str, Any]]]


def content(engine: Engine) -> Content:
    """All rows of all tables but Alembic's own."""
    found = MetaData()
    with engine.connect() as connection:
        found.reflect(connection)
        return {
            table.name: [
                dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()
            ]
            for table in found.sorted_tables
            if table.name != "alembic_version"
        }


def recorded(version: str) -> Content:
    """The rows of a recorded database."""
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.executescript((RECORDED / f"schema-{version}.sql").read_text())
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")]
        for name in names
        if name != "alembic_version"
    }


def load(url: str, version: str) -> Engine:
    """A database as that version left it."""
    engine = database.open_engine(url)
    if engine.dialect.name == "sqlite":
        # To the letter, tables included.
        path = url.removeprefix("sqlite:///")
        engine.dispose()
        Path(path).unlink(missing_ok=True)
        plain = sqlite3.connect(path)
        plain.executescript((RECORDED / f"schema-{version}.sql").read_text())
        plain.close()
        return database.open_engine(url)
    with engine.begin() as connection:
        migrating.run(connection, version)
        found = MetaData()
        found.reflect(connection)
        for name, rows in recorded(version).items():
            if rows:
                connection.execute(insert(found.tables[name]), rows)
    return engine


def known(there: Content, before: Content) -> Content:
    """What is there, in the tables and columns of before, in one order."""
    return {
        name: sorted(
            ({c: row[c] for c in (rows[0] if rows else {})} for row in there[name]), key=lambda r: repr(r)
        )
        for name, rows in before.items()
    }


def test_each_earlier_version_is_recorded() -> None:
    assert [v for v in migrating.versions() if v < SCHEMA_VERSION] == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
async def test_forward_and_back_with_data(store_url: str, version: str) -> None:
    before = recorded(version)
    assert len(before["resources"]) > 5 and len(before["changes"]) > 10 and before["steps"]
    engine = load(store_url, version)
    assert known(content(engine), before) == known(before, before)

    assert migrating.migrate_to(engine, SCHEMA_VERSION) == (version, SCHEMA_VERSION)
    assert known(content(engine), before) == known(before, before)
    assert {row["recorded_at"] for row in content(engine)["changes"]} == {0.0}
    report = checking.check(engine, "full", lambda *_: None)
    assert report.sound and report.changes == len(before["changes"]), report

    assert migrating.migrate_to(engine, version) == (SCHEMA_VERSION, version)
    there = content(engine)
    assert set(there) == set(before)
    assert all(set(row) == set(before[name][0]) for name in before for row in there[name])
    assert known(there, before) == known(before, before)
    engine.dispose()

    async with opened(store_url) as store:
        assert store.revision == max(row["revision"] for row in before["changes"])
        await store.transact(lambda tx: tx.create(raw("Host", "after")))
        assert len(await store.read(lambda tx: tx.select("Host"))) == 4


def test_names_are_compared_by_bytes_after_migrating(store_url: str) -> None:
    engine = load(store_url, "0001")
    migrating.migrate_to(engine, SCHEMA_VERSION)
    with engine.begin() as connection:
        for name in ("a-b", "aa", "a.c", "B"):
            connection.execute(text("INSERT INTO properties VALUES (:n, '')"), {"n": name})
        rows = connection.execute(text("SELECT name FROM properties ORDER BY name")).scalars().all()
    assert [r for r in rows if len(r) < 4] == ["B", "a-b", "a.c", "aa"]
    engine.dispose()


def test_what_can_not_be_migrated_is_said(store_url: str) -> None:
    engine = database.open_engine(store_url)
    with pytest.raises(migrating.UnknownVersion, match=r"there is no schema 7777; .* 0001, 0002"):
        migrating.migrate_to(engine, "7777")
    with pytest.raises(migrating.NoSchema, match="holds no store of Roost"):
        migrating.migrate_to(engine, SCHEMA_VERSION)
    with engine.begin() as connection:
        database.create_tables(connection)
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerSchema, match="schema 9999"):
        migrating.migrate_to(engine, SCHEMA_VERSION)
    assert re.fullmatch(r"\d{4}", SCHEMA_VERSION)
    engine.dispose()
