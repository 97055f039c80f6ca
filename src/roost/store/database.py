"""Open a database by URL and bring its schema to this version.

An empty database gets today's tables at once; an older one is migrated by Alembic, which is only
imported then. A database of a newer version is refused and left untouched.
SQLite runs in WAL mode with full sync: what was answered is on disk. Simulations, whose stores nobody
needs after a power cut, may ask for a URL without sync (`sqlite_url`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event, inspect, text
from sqlalchemy.util import LRUCache

from roost.store.errors import NewerSchema
from roost.store.schema import SCHEMA_VERSION, metadata

VERSIONS = Path(__file__).parent / "migrations" / "versions"


_COMPILED = LRUCache[Any, Any](500)
_UNSYNCED = "?synchronous=OFF"


def sqlite_url(path: Path, *, synced: bool = True) -> str:
    """URL of a SQLite file. Without `synced` a power cut may lose or damage it: for simulations only."""
    return f"sqlite:///{path}" + ("" if synced else _UNSYNCED)


def open_engine(url: str, *, pool_size: int = 3) -> Engine:
    """An engine for `url`. SQLite files are made with mode 0600, for they hold hashes of secrets."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=pool_size, pool_pre_ping=True)
    synced = not url.endswith(_UNSYNCED)
    url = url.removesuffix(_UNSYNCED)
    path = url.removeprefix("sqlite:///")
    if path and path != url:
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        Path(path).touch(mode=0o600)
    engine = create_engine(
        url,
        pool_size=pool_size,
        connect_args={"timeout": 10, "check_same_thread": False},
        execution_options={"compiled_cache": _COMPILED},
    )
    engine.dialect = _sqlite_dialect()
    event.listen(engine, "connect", _prepare_sqlite if synced else _prepare_unsynced)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def file_of(engine: Engine) -> tuple[int, int] | None:
    """Which file the path of a SQLite database leads to now; None when to none, or it is no file."""
    path = engine.url.database or ""
    if engine.dialect.name != "sqlite" or path in ("", ":memory:"):
        return None
    try:
        found = Path(path).stat()
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
        # Possible in an empty file only: room that history leaves can be given back in steps.
        cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "cache_size=-2000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_unsynced(connection: Any, record: Any) -> None:
    _prepare_sqlite(connection, record)
    connection.execute("PRAGMA synchronous=OFF")


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get("roost_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


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


def upgrade(engine: Engine) -> None:
    """Run the migrations from whatever version the database has, in one transaction."""
    from roost.store import migrating

    with engine.begin() as connection:
        migrating.run(connection, SCHEMA_VERSION)
