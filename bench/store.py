"""The store by itself on both databases, with full sync, beside their bare drivers with the same settings.

The plain peers insert rows of the same size and commit: they check nothing, keep no history and tell
nobody, so they are the ceiling of this disk and of the database under Python. PostgreSQL's rows are left out
where there is no server.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from tests.support import postgresql

from bench.figures import RUNS, Row
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec, FirewallRule
from roost.model.meta import Metadata
from roost.store.database import sqlite_url
from roost.store.store import BATCH, Store

SINGLE = 500
BATCHED = 5000

_WHAT = {
    "single": ("commits one after the other, on disk before the answer", "1/s"),
    "single processor": ("processor time of such a commit in the store's process", "us"),
    "batched": (f"writes at once, up to {BATCH} in a commit", "1/s"),
    "batched processor": ("processor time of such a write in the store's process", "us"),
    "find": ("look-ups of one resource, one after the other", "1/s"),
    "watch": ("changes through a watch from the beginning, read from disk", "1/s"),
}
Figures = dict[str, list[float]]
Peer = Callable[[str, int, Figures], None]


def measure() -> list[Row]:
    """All rows of this module."""
    rows = _rows("SQLite", _sqlite, _plain_sqlite)
    if postgresql.programs() is not None:
        rows += _rows("PostgreSQL", _postgresql, _plain_postgresql)
    return rows


def _rows(name: str, database: Callable[[], contextlib.AbstractContextManager[str]], peer: Peer) -> list[Row]:
    ours: Figures = {key: [] for key in _WHAT}
    theirs: Figures = {key: [] for key in _WHAT}
    for _ in range(RUNS):
        with database() as url:
            peer(url, asyncio.run(_ours(url, ours)), theirs)
    return [
        Row(room="store", what=f"{name}: {what}", unit=unit, runs=ours[key], peer=theirs[key])
        for key, (what, unit) in _WHAT.items()
    ]


@contextlib.contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        yield sqlite_url(Path(directory) / "roost.db")


@contextlib.contextmanager
def _postgresql() -> Iterator[str]:
    server = postgresql.Server({"synchronous_commit": "on"})
    try:
        yield server.url(server.new_database())
    finally:
        server.close()


async def _ours(url: str, rows: Figures) -> int:
    store = await Store.open(url)
    try:
        began, used = time.perf_counter(), time.process_time()
        for n in range(SINGLE):
            await store.save(_policy(f"single-{n}"))
        rows["single"].append(SINGLE / (time.perf_counter() - began))
        rows["single processor"].append((time.process_time() - used) / SINGLE * 1e6)
        began, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*(store.save(_policy(f"batched-{n}")) for n in range(BATCHED)))
        rows["batched"].append(BATCHED / (time.perf_counter() - began))
        rows["batched processor"].append((time.process_time() - used) / BATCHED * 1e6)
        began = time.perf_counter()
        for n in range(BATCHED):
            found = await store.find("FirewallPolicy", "bench", f"batched-{n}")
        rows["find"].append(BATCHED / (time.perf_counter() - began))
    finally:
        await store.close()
    rows["watch"].append(await _watched(url))
    return len(found.data) if found else 0


async def _watched(url: str) -> float:
    """Changes a second that a watch from the beginning gets, of a store just opened: all from its table."""
    store = await Store.open(url)
    try:
        began, seen = time.perf_counter(), 0
        async for batch in store.watch(0):
            seen += len(batch.changes)
            if seen == SINGLE + BATCHED:
                break
        return seen / (time.perf_counter() - began)
    finally:
        await store.close()


def _plain_sqlite(url: str, size: int, rows: Figures) -> None:
    directory = Path(url.removeprefix("sqlite:///")).parent
    connection = sqlite3.connect(directory / "plain.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")

    def insert(many: list[tuple[str, str]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO plain VALUES (?, ?)", many)
        connection.execute("COMMIT")

    def find(name: str) -> Any:
        return connection.execute("SELECT data FROM plain WHERE name = ?", (name,)).fetchone()

    connection.execute("CREATE TABLE plain (name TEXT PRIMARY KEY, data TEXT NOT NULL)")
    _theirs(insert, find, size, rows)
    connection.close()


def _plain_postgresql(url: str, size: int, rows: Figures) -> None:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:

        def insert(many: list[tuple[str, str]]) -> None:
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO plain VALUES (%s, %s)", many)
            connection.commit()

        def find(name: str) -> Any:
            row = connection.execute("SELECT data FROM plain WHERE name = %s", (name,)).fetchone()
            connection.commit()
            return row

        connection.execute("CREATE TABLE plain (name TEXT PRIMARY KEY, data TEXT NOT NULL)")
        connection.commit()
        _theirs(insert, find, size, rows)


def _theirs(
    insert: Callable[[list[tuple[str, str]]], None], find: Callable[[str], Any], size: int, rows: Figures
) -> None:
    data = "x" * size
    began, used = time.perf_counter(), time.process_time()
    for n in range(SINGLE):
        insert([(f"single-{n}", data)])
    rows["single"].append(SINGLE / (time.perf_counter() - began))
    rows["single processor"].append((time.process_time() - used) / SINGLE * 1e6)
    began, used = time.perf_counter(), time.process_time()
    for first in range(0, BATCHED, BATCH):
        insert([(f"batched-{n}", data) for n in range(first, min(first + BATCH, BATCHED))])
    rows["batched"].append(BATCHED / (time.perf_counter() - began))
    rows["batched processor"].append((time.process_time() - used) / BATCHED * 1e6)
    began = time.perf_counter()
    for n in range(BATCHED):
        find(f"batched-{n}")
    rows["find"].append(BATCHED / (time.perf_counter() - began))


def _policy(name: str) -> FirewallPolicy:
    rule = FirewallRule(action="allow", protocol="tcp", ports=["22", "443"], peers=["192.0.2.0/24"])
    spec = FirewallPolicySpec(networks=["oam"], rules=[rule, rule])
    return FirewallPolicy(metadata=Metadata(name=name, namespace="bench"), spec=spec)
