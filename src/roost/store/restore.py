"""Put a snapshot in place of a database, and tell everybody that time went back.

Between the snapshot and the loss the lost database gave out revisions: in watches, in lists, in cursors
of the links. A restored database that counted on from the snapshot would give the same numbers to other
changes, and whoever holds an old one would silently miss what happened. So:

- It goes on from a revision beyond all that can have been given out (`go_on_from`): more a second than
  any database writes, for every second since the snapshot was taken, and beyond those of the database
  that is replaced. The revisions in between are known as lost: a watch, a page of a list or a look at the
  past from there is told that its revision has expired, and reads anew.
- It has a new identity. A cursor of a link names the identity of the sender's store beside the revision,
  so every peer is sent everything once, as to a newcomer, and drops what is no longer there.
- Its own cursors over its peers' streams are as old as the snapshot: peers send again what came since.
- Leases have run out, with epochs beyond those given out since: what the holders of the lost future
  still do is refused.
- The audit is the snapshot's, and its next record says that the store was restored.

Numbers of log entries go on from the snapshot, for they are without gaps; the links replace the entries
that bore them. History, so far as the snapshot holds it, stays.

Checked before anything is touched: the whole file (`snapshot.verify`), its schema, and that the database
is empty or may be replaced. SQLite: a new file is filled beside the old one and renamed over it, and the
old one is kept under another name. PostgreSQL: one transaction. Either way the database is the old
one or the restored one, at any moment. Nobody else may have it open; callers see to that for SQLite,
PostgreSQL is asked.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Table, func, insert, inspect, make_url, select, text, update
from sqlalchemy.exc import DatabaseError, OperationalError

from roost.model import chance, time
from roost.model.audit import Record
from roost.model.cloud import CLOUD
from roost.store import audit, database, migrating, snapshot
from roost.store.errors import StoreError
from roost.store.history import RESTORES, Restored
from roost.store.schema import SCHEMA_VERSION, counters, leases, properties
from roost.store.snapshot import Damaged, Header, Progress

STEP = 1_000_000
A_SECOND = 20_000
"""More changes than any database here writes in a second."""
RESTORES_KEPT = 16
VERB = "restore"
EPOCHS = 1_000_000
SPREAD_DIGITS = 5
"""Of the new identity, that say how far it jumps ahead: who restores one snapshot twice, onto bare disks and
by a clock that stands, is not given the same revisions and epochs twice."""
LEAVE_WITHIN = 10.0
"""Seconds in which PostgreSQL forgets connections that were closed."""
_ROWS = 500


class NotEmpty(StoreError):
    """There is a store already, and replacing it was not asked for."""

    def __init__(self, where: str, revision: int, resources: int) -> None:
        super().__init__(
            f"{where} holds a store already: {resources} resources at revision {revision}; "
            "say --replace to put the snapshot in its place"
        )
        self.where, self.revision, self.resources = where, revision, resources


class Unreadable(StoreError):
    """There is a file that can't be read, and replacing it was not asked for."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where} can't be read ({reason}); say --replace to put the snapshot in its place")
        self.where, self.reason = where, reason


class InUse(StoreError):
    """Somebody else has the database open."""

    def __init__(self, where: str, who: list[str]) -> None:
        super().__init__(f"{where} is in use by {', '.join(who)}; stop Roost there first")
        self.where, self.who = where, who


class Result(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a restore did. `kept` is the file of the former database, empty when there was none."""

    taken_at: str
    at: int
    base: int
    rows: int
    identity: str
    kept: str = ""


class Present(msgspec.Struct, frozen=True):
    """What a database holds before a restore."""

    revision: int
    resources: int
    clouds: list[str] = []
    """Those whose home it is."""
    epochs: dict[str, int] = {}
    """Of its leases, by name."""
    damaged: str = ""
    """Why SQLite can't read what is there; empty when it can."""


def go_on_from(header: Header, replaced: int, now: datetime) -> int:
    """The revision at which the restored database goes on: a million's multiple beyond all given out."""
    try:
        age = max(now - time.parse(header.taken_at), timedelta())
    except ValueError:
        age = timedelta()
    beyond = max(header.revision + int(age.total_seconds() * A_SECOND), replaced)
    return (beyond // STEP + 2) * STEP


def present(engine: Engine) -> Present:
    """What a database holds; zeros when it holds no store."""
    if not inspect(engine).has_table("resources"):
        return Present(0, 0)
    with engine.connect() as connection:
        tables = snapshot.reflected(connection).tables
        counted = select(func.count()).select_from(tables["resources"])
        names = tables["counters"].c
        revision = select(names.value).where(names.name == "revision")
        held = tables["resources"].c
        homes = select(held.name).where(held.kind == CLOUD.kind, held.origin == "").order_by(held.name)
        taken = tables["leases"].c
        return Present(
            revision=connection.execute(revision).scalar() or 0,
            resources=connection.execute(counted).scalar_one(),
            clouds=[str(row[0]) for row in connection.execute(homes)],
            epochs={row[0]: row[1] for row in connection.execute(select(taken.name, taken.epoch))},
        )


def look(url: str) -> Present:
    """As `present`; a file of SQLite that is damaged is no reason to restore nothing in its place."""
    engine = database.open_engine(url)
    try:
        return present(engine)
    except DatabaseError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        return Present(0, 0, damaged=str(error.orig))
    finally:
        engine.dispose()


def check_replaceable(url: str, found: Present) -> None:
    """Raises NotEmpty when a database holds anything, Unreadable when nobody can say."""
    where = make_url(url).render_as_string(hide_password=True)
    if found.damaged:
        raise Unreadable(where, found.damaged)
    if found.resources or found.revision:
        raise NotEmpty(where, found.revision, found.resources)


def restore(url: str, path: Path, found: Present, now: datetime, progress: Progress) -> Result:
    """Put the snapshot in `path`, verified by now, in place of the database, which holds `found`.

    Raises Damaged, InUse, OSError, SQLAlchemyError; then the database is as it was.
    """
    header = snapshot.read_header(path)
    if url.startswith("sqlite"):
        return _into_file(url, path, header, found, now, progress)
    engine = database.open_engine(url)
    try:
        _check_alone(engine)
        with engine.begin() as connection:
            _clear(connection)
            return _fill(connection, path, header, found, now, progress)
    finally:
        engine.dispose()


def _into_file(
    url: str, path: Path, header: Header, found: Present, now: datetime, progress: Progress
) -> Result:
    target = Path(url.removeprefix("sqlite:///"))
    fresh = target.with_name(f"{target.name}.restoring-{os.getpid()}")
    kept = target.with_name(f"{target.name}.replaced-{now.strftime('%Y%m%dT%H%M%SZ')}")
    try:
        engine = database.open_engine(database.sqlite_url(fresh))
        try:
            with engine.begin() as connection:
                done = _fill(connection, path, header, found, now, progress)
            with engine.connect() as connection:
                # One file, for a log beside it would not be renamed with it.
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
        finally:
            engine.dispose()
        if found.damaged:
            kept = _set_aside(target, kept)
        elif not target.exists() or not (found.revision or found.resources):
            _drop_database(target)
            kept = Path()
        else:
            _fold(target)
            kept = _linked(target, kept)
        fresh.replace(target)
        snapshot.sync_directory(target.parent)
    finally:
        for part in ("", "-wal", "-shm", "-journal"):
            fresh.with_name(fresh.name + part).unlink(missing_ok=True)
    return msgspec.structs.replace(done, kept=str(kept) if kept.name else "")


def _set_aside(target: Path, kept: Path) -> Path:
    """Keep a damaged database as it is, its log beside it, for those who may still read something of it."""
    name = _linked(target, kept)
    for part in ("-wal", "-shm"):
        beside = target.with_name(target.name + part)
        if beside.exists():
            beside.replace(name.with_name(name.name + part))
    return name


def _linked(target: Path, wanted: Path) -> Path:
    """Give the former database a name that none has yet: another restore may have been in this second, or the
    clock was set back to it."""
    name, number = wanted, 1
    while True:
        try:
            os.link(target, name)
        except FileExistsError:
            number += 1
            name = wanted.with_name(f"{wanted.name}-{number}")
        else:
            return name


def _fold(target: Path) -> None:
    """Bring what the log holds into the file, so that the file alone is the database."""
    engine = database.open_engine(database.sqlite_url(target))
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            mode = connection.exec_driver_sql("PRAGMA journal_mode=DELETE").scalar()
        if mode != "delete":
            raise InUse(str(target), ["another process"])
    except OperationalError as error:
        if getattr(error.orig, "sqlite_errorname", "") == "SQLITE_BUSY":
            raise InUse(str(target), ["another process"]) from error
        raise
    finally:
        engine.dispose()


def _drop_database(target: Path) -> None:
    for part in ("", "-wal", "-shm"):
        target.with_name(target.name + part).unlink(missing_ok=True)


def _check_alone(engine: Engine) -> None:
    """Raises InUse. Connections that were closed just now may be seen for a moment yet."""
    query = text(
        "SELECT coalesce(nullif(application_name, ''), 'a program') || ' at ' "
        "|| coalesce(host(client_addr), 'this machine') FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    deadline = monotonic() + LEAVE_WITHIN
    with engine.connect() as connection:
        while others := [str(row[0]) for row in connection.execute(query)]:
            if monotonic() > deadline:
                raise InUse(engine.url.render_as_string(hide_password=True), sorted(set(others)))
            # A transaction goes on seeing what it saw first.
            connection.rollback()
            sleep(0.05)


def _clear(connection: Connection) -> None:
    """Take away the tables of a store. Others in the same database stay."""
    snapshot.reflected(connection).drop_all(connection)
    connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def _fill(
    connection: Connection, path: Path, header: Header, found: Present, now: datetime, progress: Progress
) -> Result:
    if header.schema == SCHEMA_VERSION:
        database.create_tables(connection)
    else:
        migrating.run(connection, header.schema)
    tables = snapshot.reflected(connection).tables
    rows = ((table, row) for _, table, row in snapshot.rows(path, progress))
    _insert(connection, path, dict(tables), rows)
    if header.schema != SCHEMA_VERSION:
        migrating.run(connection, SCHEMA_VERSION)
    return _go_on(connection, header, found, now)


def _insert(
    connection: Connection, path: Path, tables: dict[str, Table], rows: Iterator[tuple[str, dict[str, Any]]]
) -> None:
    while page := list(islice(rows, _ROWS)):
        for name in dict.fromkeys(table for table, _ in page):
            if name not in tables:
                raise Damaged(path, f"its schema has no table {name}")
            values = [row for table, row in page if table == name]
            if set(values[0]) - set(tables[name].columns.keys()):
                raise Damaged(path, f"its schema has other columns in {name}")
            connection.execute(insert(tables[name]), values)


def _go_on(connection: Connection, header: Header, found: Present, now: datetime) -> Result:
    """Make it another store that remembers where it comes from."""
    identity = chance.uuid()
    place = int(identity[:SPREAD_DIGITS], 16)
    base = go_on_from(header, found.revision, now) + place * STEP
    said = {row[0]: row[1] for row in connection.execute(select(properties))}
    former = msgspec.json.decode(said[RESTORES], type=list[Restored]) if RESTORES in said else []
    this = Restored(
        at=header.revision,
        base=base,
        time=time.seconds(now),
        snapshot_of=header.identity,
        taken_at=header.taken_at,
    )
    words = {
        "store-id": identity,
        RESTORES: msgspec.json.encode([*former, this][-RESTORES_KEPT:]).decode(),
    }
    connection.execute(properties.delete().where(properties.c.name.in_(words)))
    connection.execute(insert(properties), [{"name": n, "value": v} for n, v in words.items()])
    connection.execute(counters.delete().where(counters.c.name == "revision"))
    connection.execute(insert(counters), [{"name": "revision", "value": base}])
    told = Record(
        time=audit.moment(now),
        verb=VERB,
        resource="store",
        code=200,
        revision=base,
        reason=f"restored from a snapshot of {header.taken_at}, revision {header.revision} of store "
        f"{header.identity}; what was done since then is gone, from the audit too",
    )
    audit.append(connection, told)
    for name, epoch in connection.execute(select(leases.c.name, leases.c.epoch)).all():
        beyond = max(epoch, found.epochs.get(name, 0)) + EPOCHS * (1 + place)
        connection.execute(update(leases).where(leases.c.name == name).values(expires_at=0.0, epoch=beyond))
    return Result(
        taken_at=header.taken_at, at=header.revision, base=base, rows=header.rows, identity=identity
    )
