"""The store by itself, on a SQLite file with full sync, beside the sqlite3 module with the same settings.

The plain peer inserts rows of the same size and commits: it checks nothing, keeps no history and tells
nobody, so it is the ceiling of this disk and of SQLite under Python.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path

from bench.figures import RUNS, Row
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec, FirewallRule
from roost.model.meta import Metadata
from roost.store.database import sqlite_url
from roost.store.store import BATCH, Store

SINGLE = 500
BATCHED = 5000


def measure() -> list[Row]:
    """All rows of this module."""
    rows: dict[str, list[float]] = {"single": [], "batched": [], "watch": []}
    peer: dict[str, list[float]] = {"single": [], "batched": []}
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as directory:
            size = asyncio.run(_ours(Path(directory), rows))
            _theirs(Path(directory), size, peer)
    return [
        Row(
            room="store",
            what="commits one after the other, on disk before the answer",
            unit="1/s",
            runs=rows["single"],
            peer=peer["single"],
        ),
        Row(
            room="store",
            what=f"writes at once, up to {BATCH} in a commit",
            unit="1/s",
            runs=rows["batched"],
            peer=peer["batched"],
        ),
        Row(
            room="store",
            what="changes through a watch from the beginning, read from disk",
            unit="1/s",
            runs=rows["watch"],
        ),
    ]


async def _ours(directory: Path, rows: dict[str, list[float]]) -> int:
    store = await Store.open(sqlite_url(directory / "roost.db"))
    try:
        began = time.perf_counter()
        for n in range(SINGLE):
            await store.save(_policy(f"single-{n}"))
        rows["single"].append(SINGLE / (time.perf_counter() - began))
        began = time.perf_counter()
        await asyncio.gather(*(store.save(_policy(f"batched-{n}")) for n in range(BATCHED)))
        rows["batched"].append(BATCHED / (time.perf_counter() - began))
        size = len((await store.get("FirewallPolicy", "bench", "single-0")).data)
    finally:
        await store.close()
    rows["watch"].append(await _watched(directory))
    return size


async def _watched(directory: Path) -> float:
    """Changes a second that a watch from the beginning gets, of a store just opened: all from its table."""
    store = await Store.open(sqlite_url(directory / "roost.db"))
    try:
        began, seen = time.perf_counter(), 0
        async for batch in store.watch(0):
            seen += len(batch.changes)
            if seen == SINGLE + BATCHED:
                break
        return seen / (time.perf_counter() - began)
    finally:
        await store.close()


def _theirs(directory: Path, size: int, rows: dict[str, list[float]]) -> None:
    connection = sqlite3.connect(directory / "plain.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE rows (name TEXT PRIMARY KEY, data TEXT NOT NULL)")
    data = "x" * size
    began = time.perf_counter()
    for n in range(SINGLE):
        _insert(connection, [(f"single-{n}", data)])
    rows["single"].append(SINGLE / (time.perf_counter() - began))
    began = time.perf_counter()
    for first in range(0, BATCHED, BATCH):
        many = [(f"batched-{n}", data) for n in range(first, min(first + BATCH, BATCHED))]
        _insert(connection, many)
    rows["batched"].append(BATCHED / (time.perf_counter() - began))
    connection.close()


def _insert(connection: sqlite3.Connection, rows: list[tuple[str, str]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for row in rows:
        connection.execute("INSERT INTO rows VALUES (?, ?)", row)
    connection.execute("COMMIT")


def _policy(name: str) -> FirewallPolicy:
    rule = FirewallRule(action="allow", protocol="tcp", ports=["22", "443"], peers=["192.0.2.0/24"])
    spec = FirewallPolicySpec(networks=["oam"], rules=[rule, rule])
    return FirewallPolicy(metadata=Metadata(name=name, namespace="bench"), spec=spec)
