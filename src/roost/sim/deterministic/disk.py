"""A simulated disk of one node: what is committed on it stays, whatever becomes of the process.

A store's commits go through `SimulatedDisk.of(process)`. Each takes a while before it happens and a while
until it is answered, so a crash may fall before it, or after it and before the answer; in between SQLite
itself sees to it that all of a transaction is there or nothing. When power goes in the midst of a commit,
what was not synced is there in parts (`tearing`), and SQLite has to make of it what it can. A slow disk takes
longer; a full one refuses commits with SQLite's own words, and nothing is written. A dead process commits no
more, whoever asks it to.

Databases are real files of SQLite, in memory and without sync. Empty ones are copied from one that was made
once in this process, for making tables costs more than all else that a run does with a store's schema.

Every write of a store is one commit, and nothing else of a node is kept in files here: aspects of simulated
machines keep no memory on disk (`roost.sim.machine.SimulatedAspect`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast

from sqlalchemy import event

from roost.sim.deterministic.loop import Process, SimulatedDevice, SimulatedLoop
from roost.sim.deterministic.tearing import Files, torn
from roost.store import database, restore, snapshot
from roost.store.errors import StoreError
from roost.store.schema import metadata
from roost.store.snapshot import Header
from roost.store.writer import Writer, unavailable

T = TypeVar("T")
Row = tuple[Any, ...]
Rows = dict[str, list[dict[str, object]]]
QUICK = (0.0005, 0.004)
"""Seconds that a commit takes on a healthy disk."""


class SimulatedDisk:
    """The disk of a node, with its database in `path`."""

    def __init__(self, path: Path, chance: Random, content: bytes = b"") -> None:
        """`content` is that of a database; without, it is a new one."""
        self.path, self.chance = path, chance
        self.slow_seconds = 0.0
        self.is_full = False
        self._snapshot: Path | None = None
        self._reader: sqlite3.Connection | None = None
        self._snapshots = 0
        self._open: list[sqlite3.Connection] = []
        self.cut_power: Callable[[], None] | None = None
        """Called in the midst of the next commit, when there is something to call."""
        self._left: Files | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content or _empty())

    @property
    def url(self) -> str:
        """Of the database."""
        return database.sqlite_url(self.path, synced=False)

    def of(self, process: Process) -> SimulatedDevice:
        """What does the writes of a process."""
        return _Writing(self, process)

    def opening(self, writer: Writer) -> None:
        """A process opens the database: every connection it makes ends with it, whoever may hold it then."""

        def connected(connection: Any, _record: Any) -> None:
            self._open.append(connection)

        event.listen(writer.engine, "connect", connected)

    def tear(self, commit: Callable[[], object]) -> None:
        """Do a commit that power goes in the midst of: nobody hears of it, and it is there in parts."""
        cut, self.cut_power = self.cut_power, None
        before = Files.read(self.path)
        with contextlib.suppress(StoreError):
            commit()
        self._left = torn(before, Files.read(self.path), self.chance)
        if cut is not None:
            cut()

    def let_go(self) -> None:
        """Close what the process had open that is dead now, as its kernel does."""
        for connection in self._open:
            connection.close()
        self._open = []
        if self._left is not None:
            self.close()
            self._left.write(self.path)
            self._left = None

    def seconds(self) -> float:
        """How long half a commit takes now."""
        return self.chance.uniform(*QUICK) + self.slow_seconds * self.chance.uniform(0.25, 0.75)

    # -- what is on it

    def rows(self) -> Rows:
        """Everything that is committed, by table, in the order of keys."""
        return {table.name: self._table(table.name) for table in metadata.sorted_tables}

    def query(self, sql: str, *values: object) -> list[Row]:
        """What is committed, asked for in SQL that only reads: the quickest look."""
        if self._reader is None:
            # Not for reading alone: after a loss of power there is a log that nobody has looked through.
            self._reader = sqlite3.connect(f"file:{self.path}?mode=rw", uri=True)
            self._reader.execute("PRAGMA query_only=ON")
        return self._reader.execute(sql, values).fetchall()

    def _table(self, name: str) -> list[dict[str, object]]:
        columns = [column.name for column in metadata.tables[name].columns]
        return [dict(zip(columns, row, strict=True)) for row in self.query(_in_order(name))]

    def close(self) -> None:
        """Look no more, as before another file takes the place of this one."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # -- snapshots

    def take_snapshot(self, now: datetime) -> Header:
        """Take one by the product's own code, to be the one that is restored."""
        self._snapshots += 1
        path = self.path.with_suffix(f".{self._snapshots}.snapshot")
        engine = database.open_engine(self.url)
        try:
            header = snapshot.write(engine, path, now, _nobody_looks)
        finally:
            engine.dispose()
        self._snapshot = path
        return header

    @property
    def has_snapshot(self) -> bool:
        """Whether there is one to restore."""
        return self._snapshot is not None

    def restore(self, now: datetime) -> restore.Result:
        """Put the last snapshot in place of the database, which nobody may have open."""
        if self._snapshot is None:
            raise FileNotFoundError("no snapshot was taken")
        self.close()
        snapshot.verify(self._snapshot, _nobody_looks)
        engine = database.open_engine(self.url)
        try:
            found = restore.present(engine)
        finally:
            engine.dispose()
        return restore.restore(database.sqlite_url(self.path), self._snapshot, found, now, _nobody_looks)


class _Writing(SimulatedDevice):
    """Does the writes of one process on its node's disk, in simulated time."""

    def __init__(self, disk: SimulatedDisk, process: Process) -> None:
        self._disk, self._process = disk, process

    def run(self, loop: SimulatedLoop, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        future: asyncio.Future[T] = loop.create_future()
        if self._process.alive:
            wait, context = self._disk.seconds(), self._process.context
            loop.call_later(wait, self._do, loop, future, function, arguments, context=context)
        return future

    def _do(
        self,
        loop: SimulatedLoop,
        future: asyncio.Future[T],
        function: Callable[..., T],
        arguments: tuple[Any, ...],
    ) -> None:
        try:
            if not self._process.alive:
                return
            if self._disk.is_full and _is(function, Writer.commit):  # the rest needs no room
                raise unavailable(sqlite3.OperationalError("database or disk is full"))
            if self._disk.cut_power is not None and _is(function, Writer.commit):
                self._disk.tear(functools.partial(function, *arguments))
                return
            if _is(function, Writer.start):
                self._disk.opening(cast("Writer", getattr(function, "__self__", None)))
            answer = functools.partial(_succeed, future, function(*arguments))
        except Exception as error:
            answer = functools.partial(_fail, future, error)
        loop.call_later(self._disk.seconds(), answer, context=self._process.context)


def _is(function: Callable[..., object], method: Callable[..., object]) -> bool:
    """Whether this is the method, bound to whatever object."""
    return getattr(function, "__func__", None) is method


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _nobody_looks(_done: int, _of: int) -> None:
    return None


@functools.cache
def _in_order(table: str) -> str:
    columns = ", ".join(column.name for column in metadata.tables[table].columns)
    keys = ", ".join(column.name for column in metadata.tables[table].primary_key.columns)
    return f"SELECT {columns} FROM {table} ORDER BY {keys}"


@functools.cache
def _empty() -> bytes:
    """A database with today's tables and nothing in them."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "empty.db"
        engine = database.open_engine(database.sqlite_url(path, synced=False))
        try:
            database.migrate(engine)
        finally:
            engine.dispose()
        return path.read_bytes()
