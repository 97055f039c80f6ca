"""Open a database by URL and bring its schema to this version.

An empty database gets today's tables at once; an older one is migrated by Alembic, which is only
imported then. A database of a newer version is refused and left untouched.
On PostgreSQL a process that starts waits for another that is making tables.
SQLite runs in WAL mode with full sync: what was answered is on disk. Simulations, whose stores nobody
needs after a power cut, may ask for a URL without sync (`sqlite_url`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    NullPool,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.util import LRUCache

from roost.store.errors import NewerSchema
from roost.store.schema import SCHEMA_VERSION, metadata

VERSIONS = Path(__file__).parent / "migrations" / "versions"


_POSTGRESQL = {
    "connect_timeout": 10,
    # A peer that is gone without a word is found out; a writer that is stuck lets go of the lock.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "options": "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s -c statement_timeout=120s"
    # What is asked often finds its rows, and their order, in an index; what has none is read through all
    # the same. Until a table's statistics are there, and they come a minute late, the planner would rather
    # read and sort all of a kind for each page of a list.
    " -c enable_bitmapscan=off -c enable_seqscan=off -c enable_sort=off -c jit=off",
}
_STORE_LARGE = """
ALTER TABLE resources SET (toast_tuple_target = 8160);
DO $$ BEGIN
  EXECUTE 'ALTER TABLE resources ALTER data SET COMPRESSION lz4';
  EXECUTE 'ALTER TABLE changes ALTER data SET COMPRESSION lz4, ALTER previous SET COMPRESSION lz4';
EXCEPTION WHEN feature_not_supported OR syntax_error THEN NULL;
END $$
"""
"""Present objects up to 8 KB stay in their rows as they are, where PostgreSQL would compress from 2 KB on:
they are read far more often than written. What is larger, and history, is compressed with LZ4 where there is
that (from PostgreSQL 14 on, if built so), in a fraction of the time and nearly as small."""
_START_LOCK = 0x726F6F7374
_COMPILED = LRUCache[Any, Any](500)
_UNSYNCED = "?synchronous=OFF"


def sqlite_url(path: Path, *, synced: bool = True) -> str:
    """URL of a SQLite file. Without `synced` a power cut may lose or damage it: for simulations only."""
    return f"sqlite:///{path}" + ("" if synced else _UNSYNCED)


def open_engine(url: str) -> Engine:
    """An engine for `url`. SQLite files are made with mode 0600, for they hold hashes of secrets.

    Connections are kept by who uses them (`session`), not by a pool.
    """
    if not url.startswith("sqlite"):
        return create_engine(url, poolclass=NullPool, connect_args=_settings(make_url(url)))
    synced = not url.endswith(_UNSYNCED)
    url = url.removesuffix(_UNSYNCED)
    path = url.removeprefix("sqlite:///")
    Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    Path(path).touch(mode=0o600)
    # Connecting makes no file: a database that was moved away is missed, not replaced by an empty one.
    target = f"file:{quote(path)}?mode=rw"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(target, uri=True, timeout=10, check_same_thread=False)

    engine = create_engine(
        url, poolclass=NullPool, creator=connect, execution_options={"compiled_cache": _COMPILED}
    )
    engine.dialect = _sqlite_dialect()
    event.listen(engine, "connect", _prepare_sqlite if synced else _prepare_unsynced)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _settings(url: URL) -> dict[str, Any]:
    return {name: value for name, value in _POSTGRESQL.items() if name not in url.query}


def parameters(engine: Engine) -> dict[str, Any]:
    """How psycopg itself reaches the database of an engine."""
    return {**_settings(engine.url), **engine.dialect.create_connect_args(engine.url)[1]}


def file_of(engine: Engine) -> tuple[int, int] | None:
    """Which file the path of a SQLite database leads to now; None when to none, or it is no file."""
    if engine.dialect.name != "sqlite" or engine.url.database in (None, "", ":memory:"):
        return None
    try:
        # Asked at every commit, where pathlib alone would cost a tenth of what a write does.
        found = os.stat(engine.url.database)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino


@cache
def _sqlite_dialect() -> Dialect:
    """One for all stores of a process: compiled statements, almost a megabyte of them, are kept per
    dialect."""
    engine = create_engine("sqlite://")
    engine.connect().close()
    engine.dispose()
    return engine.dialect


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    if cursor.execute("PRAGMA page_count").fetchone()[0] == 0:
        # Possible in an empty file only, and in this order: objects of some 2 KB do not waste half of their
        # pages, of which a list then reads half as many; room that history leaves can be given back in steps.
        cursor.execute("PRAGMA page_size=8192")
        cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "cache_size=-2000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_unsynced(connection: Any, record: Any) -> None:
    _prepare_sqlite(connection, record)
    connection.execute("PRAGMA synchronous=OFF")


def _begin_sqlite(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN")


def reading(engine: Engine) -> dict[str, Any]:
    """What a connection is set to so that one transaction reads one state of the database."""
    if engine.dialect.name == "sqlite":
        return {}
    # Which begins with a command of its own (`Session.snapshot`).
    return {"autocommit": True}


def finding(engine: Engine) -> dict[str, Any]:
    """What a connection is set to on which each look-up stands by itself, and waits for nobody."""
    return {} if engine.dialect.name == "sqlite" else {"autocommit": True}


@contextlib.contextmanager
def starting(engine: Engine) -> Iterator[None]:
    """Keeps other processes that start on the same PostgreSQL waiting, for tables are made once."""
    if engine.dialect.name == "sqlite":
        yield
        return
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '120s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _START_LOCK})
        yield


def migrate(engine: Engine) -> None:
    """Bring the schema to this version. Raises NewerSchema, leaving the database as it is."""
    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
        found = ""
        if "alembic_version" in tables:
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""
        connection.rollback()
    if found == SCHEMA_VERSION:
        return
    if found > SCHEMA_VERSION:
        raise NewerSchema(found, SCHEMA_VERSION)
    if not found and "resources" not in tables:
        with engine.begin() as connection:
            create_tables(connection)
        return
    upgrade(engine)


def create_tables(connection: Connection) -> None:
    """Today's tables in an empty database."""
    metadata.create_all(connection)
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:v)"), {"v": SCHEMA_VERSION})
    if connection.dialect.name == "postgresql":
        connection.execute(text(_STORE_LARGE))


def upgrade(engine: Engine) -> None:
    """Run the migrations from whatever version the database has, in one transaction."""
    from roost.store import migrating

    with engine.begin() as connection:
        migrating.run(connection, SCHEMA_VERSION)
