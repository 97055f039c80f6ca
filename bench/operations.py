"""An operation over a whole fleet: what the engine adds to the sites' own time, and how fast it obeys.

Real are the store (SQLite with full sync, or PostgreSQL), the rows, the controller with its runner, the wish
that is written for each subcloud, and time. Not real are the sites: there is no link and no site. In their
stead a task in the same process sees what is written for a subcloud, waits for as long as that site takes,
and writes what its link would have brought: that it is managed. Each takes between 2 and 6 seconds; of each
fifty one never answers and is given up at its deadline of 20 seconds. What sites and links do on the two
processors of the machine is therefore not in these figures, and neither is what the other controllers of a
central cloud do.

The ideal is the time that the same sites take with a window that is always full: each next one begins at the
very moment at which one ends. Pausing and aborting are measured with a full window and everything else
waiting, from the write of the wish to the status that says that it is obeyed.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from tests.support import postgresql

from bench.figures import Row
from roost.engine.controller import Runner
from roost.fleet.operations.controller import SubcloudOperationController
from roost.model.cloud import SUBCLOUD, Cloud, CloudStatus, Subcloud, SubcloudSpec, SubcloudStatus
from roost.model.meta import Metadata
from roost.model.subcloud_operation import (
    SUBCLOUD_OPERATION,
    SubcloudOperation,
    SubcloudOperationSpec,
    SubcloudOperationStatus,
)
from roost.store.database import sqlite_url
from roost.store.store import Store
from roost.store.transaction import Transaction

WINDOW, DEADLINE, BUDGET = 500, 20, "5%"
DEAF_EACH = 50
"""Of so many one never answers."""
SHORTEST, LONGEST = 2.0, 6.0
TOGETHER = 500
LATEST = 3600.0
CENTRE = "central"


class Choice(msgspec.Struct, frozen=True):
    """What to measure."""

    subclouds: Sequence[int]
    engines: Sequence[str] = ("sqlite",)
    runs: int = 1


def measure(choice: Choice) -> list[Row]:
    """All rows of this module."""
    return [
        row
        for size in choice.subclouds
        for engine in choice.engines
        for row in _of(size, engine, choice.runs)
    ]


def _of(size: int, engine: str, runs: int) -> list[Row]:
    took: dict[str, list[float]] = {}
    for _ in range(runs):
        for what, value in _run(size, engine).items():
            took.setdefault(what, []).append(value)
    at = f"{engine}: {size:,} subclouds, window {WINDOW}"
    return [
        Row(
            room="operations",
            what=f"{at}, 2 % fail: from its start to its end",
            unit="s",
            runs=took["whole"],
            peer=took["ideal"],
            beside="ideal",
        ),
        Row(
            room="operations",
            what=f"{at}: its rows written, first step started",
            unit="s",
            runs=took["first"],
        ),
        Row(room="operations", what=f"{at}: pause obeyed", unit="ms", runs=took["pause"]),
        Row(
            room="operations", what=f"{at}: abort obeyed, all that wait ended", unit="ms", runs=took["abort"]
        ),
    ]


def _run(size: int, engine: str) -> dict[str, float]:
    if engine == "sqlite":
        with tempfile.TemporaryDirectory() as directory:
            return asyncio.run(_measured(sqlite_url(Path(directory) / "roost.db"), size))
    server = postgresql.Server({"synchronous_commit": "on"})
    try:
        return asyncio.run(_measured(server.url(server.new_database()), size))
    finally:
        server.close()


async def _measured(url: str, size: int) -> dict[str, float]:
    durations = durations_of(size)
    store = await Store.open(url)
    try:
        await _declare(store, sorted(durations))
        found = {"ideal": ideal([durations[name] or DEADLINE for name in sorted(durations)], WINDOW)}
        async with _working(store, durations):
            began = time.perf_counter()
            await _start(store, "whole", "manage")
            await _until(store, "whole", lambda status: status.steps.running > 0)
            found["first"] = time.perf_counter() - began
            status = await _until(store, "whole", lambda status: bool(status.finished_at))
            found["whole"] = time.perf_counter() - began
        deaf = sum(seconds == 0 for seconds in durations.values())
        if (status.phase, status.steps.failed, status.steps.done) != ("done", deaf, size - deaf):
            raise RuntimeError(f"it did not end as it should: {status}")
        async with _working(store, dict.fromkeys(durations, 0.0)):
            await _start(store, "obeys", "unmanage")
            full = min(WINDOW, size - deaf)
            await _until(store, "obeys", lambda status: status.steps.running >= full)
            found["pause"] = await _told(store, "paused", lambda status: status.phase == "paused")
            found["abort"] = await _told(store, "aborted", lambda status: status.phase == "aborting")
        return found
    finally:
        await store.close()


def durations_of(size: int) -> dict[str, float]:
    """How long each site takes, in seconds; 0: it never answers. The same in each run."""
    drawn = random.Random(5)
    return {
        f"site-{n:05}": 0.0 if n % DEAF_EACH == DEAF_EACH - 1 else drawn.uniform(SHORTEST, LONGEST)
        for n in range(size)
    }


def ideal(durations: Sequence[float], window: int) -> float:
    """Seconds until all have ended, when each begins at the moment at which there is room. Pure."""
    ends: list[float] = []
    now = last = 0.0
    for seconds in durations:
        if len(ends) == window:
            now = heapq.heappop(ends)
        heapq.heappush(ends, now + seconds)
        last = max(last, now + seconds)
    return last


async def _declare(store: Store, names: Sequence[str]) -> None:
    for first in range(0, len(names), TOGETHER):
        part = names[first : first + TOGETHER]

        def work(tx: Transaction, part: Sequence[str] = part) -> None:
            for name in part:
                status = SubcloudStatus(enrolled=True, availability="online")
                tx.save(Subcloud(metadata=Metadata(name=name), spec=SubcloudSpec(), status=status))
                tx.save(Cloud(metadata=Metadata(name=name)))

        await store.transact(work)


@asynccontextmanager
async def _working(store: Store, durations: dict[str, float]) -> AsyncIterator[None]:
    """The controller at work, and what stands for the sites."""
    runner = Runner(store, SubcloudOperationController(CENTRE))
    tasks = [asyncio.create_task(runner.run()), asyncio.create_task(_sites(store, durations))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sites(store: Store, durations: dict[str, float]) -> None:
    """Answer for each subcloud that is told something, after its time; what is due together is written so."""
    due: list[tuple[float, str, str]] = []
    changed = asyncio.Event()

    async def answer() -> None:
        while True:
            now = time.perf_counter()
            ready: list[tuple[float, str, str]] = []
            while due and due[0][0] <= now and len(ready) < TOGETHER:
                ready.append(heapq.heappop(due))
            if ready:
                await store.transact(lambda tx: _say(tx, ready))  # noqa: B023 - awaited at once
                continue
            changed.clear()
            try:
                async with asyncio.timeout(due[0][0] - now if due else None):
                    await changed.wait()
            except TimeoutError:
                continue

    async with asyncio.TaskGroup() as group:
        group.create_task(answer())
        async for batch in store.watch(store.revision):
            for change in batch.changes:
                seconds = durations.get(change.name, 0.0) if change.kind == SUBCLOUD.kind else 0.0
                if seconds:
                    told = change.stored().typed(Subcloud).spec.management_state
                    heapq.heappush(due, (time.perf_counter() + seconds, change.name, told))
                    changed.set()


def _say(tx: Transaction, ready: Sequence[tuple[float, str, str]]) -> None:
    for _, name, told in ready:
        copy = tx.load(Cloud, "", name)
        tx.report(msgspec.structs.replace(copy, status=CloudStatus(management_state=told)))  # type: ignore[arg-type]


async def _start(store: Store, name: str, action: str) -> None:
    spec = SubcloudOperationSpec(
        action=action,  # type: ignore[arg-type]
        max_parallel=WINDOW,
        failure_budget=BUDGET,
        deadline_seconds=DEADLINE if name == "whole" else int(LATEST),
    )
    await store.save(SubcloudOperation(metadata=Metadata(name=name), spec=spec))


async def _until(
    store: Store, name: str, holds: Callable[[SubcloudOperationStatus], bool]
) -> SubcloudOperationStatus:
    """The first status that is so."""
    async with asyncio.timeout(LATEST):
        revision, status = await store.read(
            lambda tx: (tx.revision, tx.load(SubcloudOperation, "", name).status)
        )
        if holds(status):
            return status
        async for batch in store.watch(revision):
            for change in batch.changes:
                if (change.kind, change.name) == (SUBCLOUD_OPERATION.kind, name):
                    status = change.stored().typed(SubcloudOperation).status
                    if holds(status):
                        return status
    raise RuntimeError(f"{name} never came so far")


async def _told(store: Store, field: str, holds: Callable[[SubcloudOperationStatus], bool]) -> float:
    """Milliseconds from the operator's word to the status that it is obeyed."""

    def work(tx: Transaction) -> None:
        current = tx.load(SubcloudOperation, "", "obeys")
        spec = msgspec.structs.replace(current.spec, paused=field == "paused", aborted=field == "aborted")
        tx.save(msgspec.structs.replace(current, spec=spec))

    began = time.perf_counter()
    await store.transact(work)
    status = await _until(store, "obeys", holds)
    took = (time.perf_counter() - began) * 1000
    if field == "aborted" and status.steps.waiting:
        raise RuntimeError(f"steps wait after the abort: {status.steps}")
    return took
