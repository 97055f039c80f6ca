"""Snapshots: the whole database at one revision in a file, the same from SQLite and from PostgreSQL.

A file is one zstd stream of JSON lines: a header, then for each table a line that names its columns and a
line for each row, then an end with the number of rows and the SHA-256 of every line before it. So a file
that was cut short, changed or mixed up is found before anything is done with it.

Writing reads in one transaction that sees one state (SQLite in WAL mode; PostgreSQL at REPEATABLE READ),
so writers go on meanwhile. The file is made under another name with mode 0600, for it holds hashes of
secrets, put on disk and then renamed: under its name there is a whole snapshot, or none.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec
import zstandard
from sqlalchemy import Connection, Engine, MetaData, func, select, text

from roost.model import time
from roost.model.cloud import CLOUD
from roost.store.errors import NewerSchema, StoreError
from roost.store.schema import SCHEMA_VERSION, metadata

FORMAT = "roost-store-snapshot"
FORMAT_VERSION = 1
LONGEST_LINE = 64 * 1024 * 1024
TABLES = tuple(table.name for table in metadata.sorted_tables)
_LEVEL = 6
_ROWS = 500
_encode = msgspec.json.Encoder().encode

Progress = Callable[[int, int], None]
"""Told now and then: how many of how many rows are done."""


class Header(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a snapshot is of. `taken_at` is RFC 3339."""

    format: str
    format_version: int
    schema: str
    identity: str
    revision: int
    taken_at: str
    rows: int
    program: str = ""
    database: str = ""


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Begins the rows of a table."""

    table: str
    columns: list[str]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last line."""

    rows: int
    sha256: str


class Damaged(StoreError):
    """The file is no whole snapshot."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is no whole snapshot: {reason}; take another file, nothing was changed")
        self.path, self.reason = path, reason


class Empty(StoreError):
    """There is no store to take a snapshot of."""

    def __init__(self, where: str) -> None:
        super().__init__(f"{where} holds no store of Roost: it was never started")
        self.where = where


# -- writing


def write(engine: Engine, path: Path, now: datetime, progress: Progress, program: str = "") -> Header:
    """Write a snapshot of the database to `path`, which must not be there yet.

    Raises Empty, NewerSchema, FileExistsError, OSError, SQLAlchemyError; then there is no file.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    unfinished = path.with_name(f".{path.name}.unfinished-{os.getpid()}")
    try:
        with _created(unfinished) as file:
            header = _write(engine, file, now, progress, program)
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a renaming, never takes the place of a file that came meanwhile.
        os.link(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_directory(path.parent)
    return header


def _created(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def sync_directory(path: Path) -> None:
    """Put names in a directory on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(engine: Engine, file: IO[bytes], now: datetime, progress: Progress, program: str) -> Header:
    options: dict[str, Any] = {"stream_results": True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        found = reflected(connection)
        header = _header(connection, found, now, program)
        digest, written = hashlib.sha256(), 0
        with zstandard.ZstdCompressor(level=_LEVEL).stream_writer(file, closefd=False) as stream:

            def put(value: Any) -> None:
                line = _encode(value) + b"\n"
                digest.update(line)
                stream.write(line)

            put(header)
            for table in (found.tables[name] for name in TABLES if name in found.tables):
                put(Columns(table=str(table.name), columns=[str(c.name) for c in table.columns]))
                query = select(table).order_by(*table.primary_key.columns)
                for page in connection.execute(query).partitions(_ROWS):
                    for row in page:
                        put(list(row))
                    written += len(page)
                    progress(written, header.rows)
            stream.write(_encode(End(rows=written, sha256=digest.hexdigest())) + b"\n")
    return header


def reflected(connection: Connection) -> MetaData:
    """The tables that the database has, of those that this version knows, as it has them."""
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name in TABLES)
    return found


def _header(connection: Connection, found: MetaData, now: datetime, program: str) -> Header:
    where = connection.engine.url.render_as_string(hide_password=True)
    if "resources" not in found.tables:
        raise Empty(where)
    schema = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    if schema > SCHEMA_VERSION:
        raise NewerSchema(schema, SCHEMA_VERSION)
    counted = [
        select(func.count()).select_from(found.tables[name]) for name in TABLES if name in found.tables
    ]
    counters, properties = found.tables["counters"], found.tables["properties"]
    revision = select(counters.c.value).where(counters.c.name == "revision")
    identity = select(properties.c.value).where(properties.c.name == "store-id")
    return Header(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        schema=schema,
        identity=connection.execute(identity).scalar() or "",
        revision=connection.execute(revision).scalar() or 0,
        taken_at=time.stamp(now),
        rows=sum(connection.execute(query).scalar_one() for query in counted),
        program=program,
        database=connection.dialect.name,
    )


# -- reading


class Verified(msgspec.Struct, frozen=True):
    """A whole snapshot, and the clouds whose home it is: one, or none where it is of a host's agent."""

    header: Header
    clouds: list[str]


def verify(path: Path, progress: Progress) -> Verified:
    """Read all of a snapshot and check that it is whole. Raises Damaged, NewerSchema, OSError."""
    header, clouds = None, list[str]()
    for header, table, row in rows(path, progress):  # noqa: B007 - any of them will do
        if table == "resources" and (row.get("kind"), row.get("origin")) == (CLOUD.kind, ""):
            clouds.append(str(row.get("name")))
    return Verified(header or read_header(path), clouds)


def read_header(path: Path) -> Header:
    """What a file is a snapshot of. Raises Damaged, NewerSchema, OSError."""
    with path.open("rb") as file:
        return _parse_header(path, next(_lines(path, file), b""))


def rows(path: Path, progress: Progress) -> Iterator[tuple[Header, str, dict[str, Any]]]:
    """The rows of a snapshot with their tables. Only once all were given it is known to be whole.

    Raises Damaged, NewerSchema, OSError.
    """
    with path.open("rb") as file:
        lines = _lines(path, file)
        first = next(lines, b"")
        header = _parse_header(path, first)
        digest, done, table = hashlib.sha256(first), 0, Columns(table="", columns=[])
        for line in lines:
            kind = line[:1]
            if line.startswith(b'{"rows":'):
                _check_end(path, line, done, digest.hexdigest(), header)
                if next(lines, b""):
                    raise Damaged(path, "something follows its end")
                progress(done, header.rows)
                return
            digest.update(line)
            if kind == b"{":
                table = _part(path, line, Columns)
                if table.table not in TABLES:
                    raise Damaged(path, f"it holds a table {table.table[:60]!r} that is not known")
                continue
            values = _part(path, line, list[Any])
            if not table.table or len(values) != len(table.columns):
                raise Damaged(path, f"row {done + 1} does not fit its table")
            done += 1
            if done % _ROWS == 0:
                progress(done, header.rows)
            yield header, table.table, dict(zip(table.columns, values, strict=True))
        raise Damaged(path, "its end is missing")


def _lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    stream = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, closefd=False))
    while True:
        try:
            line = stream.readline(LONGEST_LINE)
        except zstandard.ZstdError as error:
            raise Damaged(path, f"it can't be unpacked ({error})") from error
        if not line:
            return
        if not line.endswith(b"\n"):
            raise Damaged(path, "it ends within a line, or has one that is too long")
        yield line


def _parse_header(path: Path, line: bytes) -> Header:
    header: Header = _part(path, line, Header)
    if header.format != FORMAT:
        raise Damaged(path, f"it is a {header.format[:60]!r}")
    if header.format_version > FORMAT_VERSION or header.schema > SCHEMA_VERSION:
        raise NewerSchema(header.schema, SCHEMA_VERSION)
    if not 0 <= header.revision < 2**62:
        raise Damaged(path, f"it says revision {header.revision}")
    return header


def _check_end(path: Path, line: bytes, done: int, digest: str, header: Header) -> None:
    end = _part(path, line, End)
    if end.rows != done or header.rows != done:
        raise Damaged(path, f"it holds {done} rows and should hold {end.rows}")
    if end.sha256 != digest:
        raise Damaged(path, "its SHA-256 is not that of its content")


def _part(path: Path, line: bytes, type: Any) -> Any:
    try:
        return msgspec.json.decode(line, type=type)
    except msgspec.MsgspecError as error:
        raise Damaged(path, f"a line is not understood ({error})") from error
