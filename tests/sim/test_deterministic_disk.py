"""The simulated disk: what is committed stays; a crash falls before or after; a full disk; a dead process."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import msgspec
import pytest

from roost.model.cloud import Cloud, CloudSpec
from roost.model.meta import Metadata
from roost.sim.deterministic.clock import START
from roost.sim.deterministic.disk import SimulatedDisk
from roost.sim.deterministic.loop import Process, ProcessEnded, SimulatedLoop
from roost.store.errors import Unavailable
from roost.store.store import Store


def on_simulated_time(work: Callable[[], Awaitable[None]]) -> None:
    """Run something on a simulated loop."""
    loop = SimulatedLoop()

    async def all_of_it() -> None:
        await work()

    try:
        loop.run_until_complete(all_of_it())
    finally:
        loop.dispose()


async def opened(disk: SimulatedDisk, process: Process) -> Store:
    """The store on a disk, opened by a process."""
    return await process.within(
        Store.open(disk.url, clock=lambda: START, inline=True, writing=disk.of(process))
    )


def cloud(name: str) -> Cloud:
    return Cloud(metadata=Metadata(name=name), spec=CloudSpec(system_mode="standard"))


def names(disk: SimulatedDisk) -> list[object]:
    return [row["name"] for row in disk.rows()["resources"]]


def test_a_commit_takes_a_while_and_stays(tmp_path: Path) -> None:
    async def work() -> None:
        disk, process = SimulatedDisk(tmp_path / "a.db", Random(1)), Process("a")
        store = await opened(disk, process)
        began = asyncio.get_running_loop().time()
        await process.within(store.save(cloud("one")))
        quick = asyncio.get_running_loop().time() - began
        assert 0 < quick < 0.1
        disk.slow_seconds = 4.0
        await process.within(store.save(cloud("two")))
        assert asyncio.get_running_loop().time() - began - quick > 2.0
        process.kill()
        store.abandon()
        again = await opened(disk, Process("a"))
        assert [c.metadata.name for c in await again.every(Cloud)] == ["one", "two"]
        assert again.identity == store.identity
        await again.close()

    on_simulated_time(work)


def test_a_crash_falls_before_the_commit_or_between_it_and_its_answer(tmp_path: Path) -> None:
    """At every moment: never half, never answered and lost, and both other cases do occur."""
    seen = set()

    async def crash_after(seconds: float, number: int) -> None:
        disk, process = SimulatedDisk(tmp_path / f"{number}.db", Random(number)), Process("a")
        store = await opened(disk, process)
        answered: list[str] = []

        async def write() -> None:
            def both(tx: object) -> None:
                for name in ("one", "two"):
                    tx.save(cloud(name))  # type: ignore[attr-defined]

            await store.transact(both)
            answered.append("yes")

        task = asyncio.create_task(process.within(write()))
        await asyncio.sleep(seconds)
        process.kill()
        if answered:
            await task
        else:
            with pytest.raises(ProcessEnded):
                await task
        await asyncio.sleep(1)
        store.abandon()
        found = names(disk)
        assert found in ([], ["one", "two"])
        assert not answered or found
        seen.add((bool(answered), bool(found)))

    for number in range(40):
        on_simulated_time(lambda number=number: crash_after(number * 0.0002, number))  # type: ignore[misc]
    assert seen == {(False, False), (False, True), (True, True)}


def test_a_full_disk_refuses_in_the_databases_own_words(tmp_path: Path) -> None:
    async def work() -> None:
        disk, process = SimulatedDisk(tmp_path / "a.db", Random(1)), Process("a")
        store = await opened(disk, process)
        await process.within(store.save(cloud("one")))
        disk.is_full = True
        with pytest.raises(Unavailable, match="database or disk is full"):
            await process.within(store.save(cloud("two")))
        assert names(disk) == ["one"]
        assert [c.metadata.name for c in await store.every(Cloud)] == ["one"], "it can still be read"
        disk.is_full = False
        await process.within(store.save(cloud("three")))
        assert names(disk) == ["one", "three"]
        await process.within(store.close())

    on_simulated_time(work)


def test_what_is_left_of_a_commit_that_lost_its_power_is_all_of_it_or_nothing(tmp_path: Path) -> None:
    """Over many cuts, also in a log begun anew and while it is carried over: what was answered stays."""
    seen, carried = set(), set()

    async def cut_at(number: int) -> None:
        disk, process = SimulatedDisk(tmp_path / f"{number}.db", Random(number)), Process("a")
        store = await opened(disk, process)
        padding = {"note": "x" * 400_000} if number % 10 == 9 else {}

        def one(name: str) -> Cloud:
            return msgspec.structs.replace(cloud(name), metadata=Metadata(name=name, annotations=padding))

        answered = number % 10
        for at in range(answered):
            await process.within(store.save(one(f"cloud-{at}")))
        before = disk.path.read_bytes()

        def cut() -> None:
            carried.add(disk.path.read_bytes() != before)
            process.kill()

        disk.cut_power = cut
        with pytest.raises(ProcessEnded):
            await process.within(store.save(one("last")))
        store.abandon()
        disk.let_go()
        again = await opened(disk, Process("a"))
        found = [c.metadata.name for c in await again.every(Cloud)]
        assert found[:answered] == [f"cloud-{at}" for at in range(answered)]
        assert found[answered:] in ([], ["last"])
        seen.add(len(found) > answered)
        await again.save(cloud("next"))
        await again.close()
        with sqlite3.connect(disk.path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    for number in range(60):
        on_simulated_time(lambda number=number: cut_at(number))  # type: ignore[misc]
    assert seen == {False, True} and carried == {False, True}


def test_a_dead_process_commits_nothing_whoever_asks_it_to(tmp_path: Path) -> None:
    async def work() -> None:
        disk, process = SimulatedDisk(tmp_path / "a.db", Random(1)), Process("a")
        store = await opened(disk, process)
        process.kill()
        # From outside of the process, as a forgotten callback would.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await store.save(cloud("one"))
        assert names(disk) == []
        store.abandon()

    on_simulated_time(work)


def test_a_snapshot_is_restored_by_the_products_own_code(tmp_path: Path) -> None:
    async def work() -> None:
        disk, process = SimulatedDisk(tmp_path / "a.db", Random(1)), Process("a")
        store = await opened(disk, process)
        await process.within(store.save(cloud("one")))
        header = disk.take_snapshot(START)
        await process.within(store.save(cloud("two")))
        identity = store.identity
        await process.within(store.close())
        result = disk.restore(START)
        again = await opened(disk, Process("a"))
        assert names(disk) == ["one"]
        assert (header.revision, result.at) == (1, 1)
        assert again.identity != identity and again.revision > 1_000_000
        await again.close()

    on_simulated_time(work)
