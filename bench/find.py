"""Questions to a central cloud that knows a large fleet, beside plain lists of all that is asked about.

The store is filled with what simulated sites tell (`sim.crowd.things`): 20,000 subclouds, their clouds, two
hosts each with their inventories, and some alarms. Then Roost's API server alone (`bench.door`) is asked over
TLS on one connection. What a question stands beside is the list of all objects of its kind, whole, which is
what a client without questions would take and look through itself; the client here does not even decode it.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from tests.support import postgresql

from bench.client import Client
from bench.figures import RUNS, Row, percentile
from bench.servers import Server, door_of
from roost.model.cloud import Subcloud, SubcloudSpec, SubcloudStatus
from roost.model.codec import Raw
from roost.model.meta import Metadata
from roost.sim.crowd import things
from roost.store.database import sqlite_url
from roost.store.store import Store
from roost.store.transaction import Transaction

SITES = 20_000
HOSTS = 2
WITH_ALARMS = 10
"""Every so many sites have alarms: one of each of two severities."""
FILLED_AT_ONCE = 100
WRITES = 200
V1 = "/apis/roost.edge/v1"

QUESTIONS: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
    "hosts that have failed (1 in 500)": ("hosts", ("availability=failed",), {}),
    "hosts of much memory that are not available": ("hosts", ("memory>=64Gi", "availability!=available"), {}),
    "hosts of a model of processor, first 1,000": ("hosts", ("cpu.model~gold",), {}),
    "hosts in a group of 400 subclouds": ("hosts", (), {"inGroup": "g7", "show": "availability"}),
    "hosts in subclouds of a region (1 in 4), counted": (
        "hosts",
        (),
        {"inSubclouds": "region=north", "countBy": "availability"},
    ),
    "hosts counted by availability": ("hosts", (), {"countBy": "availability"}),
    "processors and memory of all hosts by model": (
        "hosts",
        (),
        {"countBy": "cpu.model", "sum": "threads,memory"},
    ),
    "critical alarms of an id": ("alarms", ("severity=critical", "id=100.104"), {}),
    "subclouds out of sync below a version": ("subclouds", ("sync=out-of-sync", "version<0.2"), {}),
    "versions in use": ("subclouds", (), {"countBy": "version"}),
}


def measure() -> list[Row]:
    """All rows of this module."""
    rows = []
    for name, opened in (("SQLite", _sqlite), ("PostgreSQL", _postgresql)):
        if name == "PostgreSQL" and postgresql.programs() is None:
            continue
        with opened() as server:
            rows += asyncio.run(_measure(name, server))
    return rows


@contextlib.contextmanager
def _sqlite() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as directory:
        url = sqlite_url(Path(directory) / "roost.db")
        asyncio.run(fill(url))
        with door_of("SQLite", Path(directory), url) as server:
            yield server


@contextlib.contextmanager
def _postgresql() -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.closing(postgresql.Server({"shared_buffers": "128MB"})) as database,
    ):
        url = database.url(database.new_database())
        asyncio.run(fill(url))
        with door_of("PostgreSQL", Path(directory), url) as server:
            yield server


async def fill(url: str) -> None:
    """Put a fleet into a database."""
    store = await Store.open(url)
    try:
        for first in range(0, SITES, FILLED_AT_ONCE):
            some = range(first, min(first + FILLED_AT_ONCE, SITES))
            await store.transact(partial(_sites, numbers=some))
    finally:
        await store.close()


def _sites(tx: Transaction, numbers: range) -> None:
    for number in numbers:
        site = f"site-{number:05}"
        tx.save(_subcloud(site, number))
        for entry in things.base(site, HOSTS):
            raw = msgspec.json.decode(entry.data)
            if entry.kind == "Host" and number % 500 == 0:
                raw["status"]["availability"] = "failed"
            tx.copy(raw, f"down:{site}")
        if number % WITH_ALARMS == 0:
            for n, severity in enumerate(("critical", "minor")):
                alarm: Raw = msgspec.json.decode(things.alarm(site, n, severity=severity).data)  # type: ignore[arg-type]
                tx.copy(alarm, f"down:{site}")


def _subcloud(site: str, number: int) -> Subcloud:
    region = ("north", "south", "east", "west")[number % 4]
    status = SubcloudStatus(
        enrolled=True,
        availability="online",
        sync="out-of-sync" if number % 200 == 0 else "in-sync",
        version=f"0.{number % 3}.0",
    )
    metadata = Metadata(name=site, labels={"region": region})
    spec = SubcloudSpec(management_state="managed", group=f"g{number % 50}", location=f"Site {number}")
    return Subcloud(metadata=metadata, spec=spec, status=status)


def path(plural: str, where: tuple[str, ...], query: dict[str, str]) -> str:
    """The request of a question."""
    pairs = [("where", text) for text in where or ("",)] + list(query.items())
    return f"{V1}/{plural}?" + "&".join(f"{name}={quote(value)}" for name, value in pairs)


async def _measure(name: str, server: Server) -> list[Row]:
    asked: dict[str, list[float]] = {what: [] for what in QUESTIONS}
    listed: dict[str, list[float]] = {plural: [] for plural, _, _ in QUESTIONS.values()}
    found: dict[str, int] = {}
    writes: dict[str, list[float]] = {"alone": [], "beside": []}
    memory: list[float] = []
    async with Client(server.access) as client:
        for _ in range(RUNS):
            for plural, times in listed.items():
                times.append((await _timed(client, f"{V1}/{plural}"))[0])
            for what, question in QUESTIONS.items():
                took, answer = await _timed(client, path(*question))
                asked[what].append(took)
                found[what] = len(msgspec.json.decode(answer)["rows"])
            memory.append(server.memory()["roost"])
            writes["alone"].append(await _writes(client))
            writes["beside"].append(await _writes_beside(server, client))
    rows = [
        Row(
            room="find",
            what=f"{name}: {what}; rows: {found[what]:,}",
            unit="ms",
            runs=asked[what],
            peer=listed[QUESTIONS[what][0]],
            beside="list of all",
            goal="below 1,000",
        )
        for what in QUESTIONS
    ]
    what = f"{name}: 99th percentile of writes while questions are asked without a pause"
    rows.append(
        Row(
            room="find",
            what=what,
            unit="ms",
            runs=writes["beside"],
            peer=writes["alone"],
            beside="no questions",
        )
    )
    rows.append(
        Row(
            room="find",
            what=f"{name}: memory of the API server after lists and questions",
            unit="MiB",
            runs=memory,
        )
    )
    return rows


async def _timed(client: Client, at: str) -> tuple[float, bytes]:
    began = time.perf_counter()
    answer = await client.good("GET", at)
    return (time.perf_counter() - began) * 1000, answer


async def _writes(client: Client) -> float:
    """The 99th percentile of writes one after the other, in ms."""
    taken = []
    for n in range(WRITES):
        body: Any = {"metadata": {"labels": {"turn": str(time.monotonic_ns())}}}
        began = time.perf_counter()
        await client.good(
            "PATCH", f"{V1}/subclouds/site-{n:05}", msgspec.json.encode(body), "application/merge-patch+json"
        )
        taken.append((time.perf_counter() - began) * 1000)
    return percentile(taken, 0.99)


async def _writes_beside(server: Server, client: Client) -> float:
    ends = asyncio.Event()

    async def ask() -> None:
        async with Client(server.access) as other:
            while not ends.is_set():
                await other.good("GET", path(*QUESTIONS["hosts counted by availability"]))

    asking = asyncio.create_task(ask())
    try:
        return await _writes(client)
    finally:
        ends.set()
        await asking
