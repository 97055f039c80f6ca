"""The schema: migrations lead where today's tables are, and a newer database is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, inspect, make_url, text

from roost.store import database
from roost.store.errors import NewerSchema, Unavailable
from roost.store.schema import SCHEMA_VERSION, metadata
from roost.store.store import Store
from tests.support.stores import new_database, opened, raw


def described(engine: Engine) -> dict[str, Any]:
    """Tables, columns, keys and indexes as the database has them."""
    look = inspect(engine)
    return {
        table: {
            "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(table)],
            "key": look.get_pk_constraint(table)["constrained_columns"],
            "indexes": sorted((i["name"] or "", tuple(i["column_names"])) for i in look.get_indexes(table)),
        }
        for table in look.get_table_names()
    }


def test_migrations_and_tables_agree(store_url: str) -> None:
    with new_database(make_url(store_url).get_backend_name()) as another:
        _compare(database.open_engine(store_url), database.open_engine(another))


def _compare(migrated: Engine, made: Engine) -> None:
    database.upgrade(migrated)
    database.migrate(made)
    assert described(migrated) == described(made)
    assert set(described(made)) == {*metadata.tables, "alembic_version"}
    for engine in (migrated, made):
        with engine.connect() as connection:
            assert (
                connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == SCHEMA_VERSION
            )
        engine.dispose()


def test_the_latest_migration_is_the_known_version() -> None:
    files = sorted(p.name for p in database.VERSIONS.glob("[0-9]*.py"))
    assert files[-1].startswith(SCHEMA_VERSION)


def test_downgrade_takes_everything_away(store_url: str) -> None:
    engine = database.open_engine(store_url)
    database.upgrade(engine)
    config = Config()
    config.set_main_option("script_location", str(database.VERSIONS.parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert set(described(engine)) == {"alembic_version"}
    database.upgrade(engine)
    assert "resources" in described(engine)
    engine.dispose()


async def test_a_newer_database_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "roost.db"
    async with opened(database.sqlite_url(path)) as store:
        await store.transact(lambda tx: tx.create(raw("Host", "h")))
    engine = database.open_engine(database.sqlite_url(path))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    before = path.read_bytes()
    with pytest.raises(NewerSchema) as caught:
        await Store.open(database.sqlite_url(path))
    assert (caught.value.found, caught.value.known) == ("9999", SCHEMA_VERSION)
    assert path.read_bytes() == before
    assert not path.with_name("roost.db-wal").exists()


async def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "roost.db"
    path.write_bytes(b"not a database at all, only text" * 200)
    with pytest.raises(Unavailable, match="not a database"):
        await Store.open(database.sqlite_url(path))


def test_alembic_and_the_orm_cost_no_memory(tmp_path: Path) -> None:
    """Migrations are rare: what only they need is imported by them alone."""
    program = f"""
import asyncio, sys
from roost.store.store import Store
async def main():
    store = await Store.open("sqlite:///{tmp_path}/roost.db")
    await store.close()
asyncio.run(main())
heavy = [m for m in ("alembic", "mako", "sqlalchemy.orm", "sqlalchemy.ext") if m in sys.modules]
sys.exit(repr(heavy) if heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_a_new_database_is_laid_out_for(store_url: str) -> None:
    """Objects of a few kilobytes lie whole in their rows, and room that is free can be given back."""
    engine = database.open_engine(store_url)
    database.migrate(engine)
    with engine.connect() as connection:

        def asked(sql: str) -> object:
            return connection.execute(text(sql)).scalar()

        if engine.dialect.name == "sqlite":
            assert (asked("PRAGMA page_size"), asked("PRAGMA auto_vacuum")) == (8192, 2)
        else:
            options = asked(
                "SELECT array_to_string(reloptions, ',') FROM pg_class WHERE relname = 'resources'"
            )
            assert options == "toast_tuple_target=8160"
    engine.dispose()
