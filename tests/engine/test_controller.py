"""The runner: feeds keys from history without a gap, and survives what its store and controller do."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence

import pytest
import structlog

from roost.engine import controller as controller_module
from roost.engine.controller import TOGETHER, Key, Runner, StoreController
from roost.engine.queue import WorkQueue
from roost.store import recent
from roost.store.errors import Unavailable
from roost.store.store import Store
from roost.store.transaction import Change, Transaction
from roost.store.writer import Unit, Writer
from tests.support.clock import on_fake_time
from tests.support.stores import new_database, opened, raw


class Copier(StoreController):
    """Keeps a property per host that equals its location: what it saw last."""

    name = "copier"

    def __init__(self) -> None:
        self.attempts: list[tuple[str, float]] = []
        self.bad: set[str] = set()

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.kind == "Host":
            yield (change.namespace, change.name)

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [(s.namespace, s.name) for s in tx.select("Host")]

    async def reconcile(self, store: Store, key: Key) -> float | None:
        self.attempts.append((key[1], asyncio.get_running_loop().time()))
        if key[1] in self.bad:
            raise LookupError("not today")
        return await super().reconcile(store, key)

    def decide(self, tx: Transaction, key: Key) -> float | None:
        host = tx.find("Host", *key)
        tx.set_property(f"copy:{key[1]}", host.raw["spec"]["location"] if host else "gone")
        return None


async def put(store: Store, name: str, location: str) -> None:
    def work(tx: Transaction) -> None:
        new = raw("Host", name, spec={"location": location})
        tx.replace(new) if tx.find("Host", "harbor", name) else tx.create(new)

    await store.transact(work)


async def copied(store: Store, name: str) -> str:
    return await store.read(lambda tx: tx.property(f"copy:{name}"))


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@on_fake_time
async def test_what_was_there_and_what_changes_is_looked_at() -> None:
    with new_database() as url:
        async with opened(url, inline=True) as store:
            await put(store, "old", "attic")
            task = asyncio.create_task(Runner(store, Copier()).run())
            await asyncio.sleep(1)
            assert await copied(store, "old") == "attic"
            for location in ("a", "b", "c"):
                await put(store, "new", location)
            await store.transact(lambda tx: tx.remove("Host", "harbor", "old"))
            await asyncio.sleep(1)
            assert (await copied(store, "new"), await copied(store, "old")) == ("c", "gone")
            await ended(task)


@on_fake_time
async def test_a_change_during_work_is_worked_on_again() -> None:
    class Slow(Copier):
        async def reconcile(self, store: Store, key: Key) -> float | None:
            seen = await store.read(lambda tx: tx.get("Host", *key).raw["spec"]["location"])
            await asyncio.sleep(5)
            await store.transact(lambda tx: tx.set_property(f"copy:{key[1]}", seen))
            return None

    with new_database() as url:
        async with opened(url, inline=True) as store:
            await put(store, "h", "before")
            task = asyncio.create_task(Runner(store, Slow()).run())
            await asyncio.sleep(2)
            await put(store, "h", "after")
            await asyncio.sleep(4)
            assert await copied(store, "h") == "before"
            await asyncio.sleep(5)
            assert await copied(store, "h") == "after"
            await ended(task)


@on_fake_time
async def test_a_failing_key_backs_off_alone_and_its_failure_is_told() -> None:
    controller = Copier()
    controller.bad = {"bad"}
    with new_database() as url, structlog.testing.capture_logs() as logs:
        async with opened(url, inline=True) as store:
            await put(store, "bad", "x")
            task = asyncio.create_task(Runner(store, controller, workers=1).run())
            await asyncio.sleep(600)
            tries = [moment for name, moment in controller.attempts if name == "bad"]
            assert 10 < len(tries) < 40
            gaps = [b - a for a, b in itertools.pairwise(tries)]
            assert max(gaps) <= 60.1 and gaps[-1] > gaps[0]
            await put(store, "good", "y")
            await asyncio.sleep(0.1)
            assert await copied(store, "good") == "y"
            controller.bad = set()
            await asyncio.sleep(61)
            assert await copied(store, "bad") == "x"
            await ended(task)
    assert {(log["event"], log["key"]) for log in logs} == {("reconcile failed", "harbor/bad")}
    assert "not today" in logs[0]["error"]


@on_fake_time
async def test_after_compaction_everything_is_looked_at() -> None:
    """A burst larger than the history that is kept, while the runner can't follow."""
    with new_database() as url:
        async with opened(url, inline=True, history=20) as store:
            controller = Copier()
            for n in range(30):
                await put(store, f"h{n}", "a")
            task = asyncio.create_task(Runner(store, controller).run())
            await asyncio.sleep(1)

            def burst(tx: Transaction) -> None:
                for n in range(30):
                    for location in ("b", "c"):
                        tx.replace(raw("Host", f"h{n}", spec={"location": location}))
                tx.remove("Host", "harbor", "h7")

            await store.transact(burst)
            await asyncio.sleep(10)
            assert [await copied(store, f"h{n}") for n in range(30) if n != 7] == ["c"] * 29
            await ended(task)


@on_fake_time
async def test_more_keys_than_the_queue_takes_are_all_looked_at() -> None:
    with new_database() as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(controller_module, "WorkQueue", lambda: WorkQueue(limit=8))
        async with opened(url, inline=True) as store:
            names = [f"h{n:02}" for n in range(30)]
            for name in names:
                await put(store, name, "a")
            runner = Runner(store, Copier())
            task = asyncio.create_task(runner.run())
            await asyncio.sleep(10)
            assert [await copied(store, name) for name in names] == ["a"] * 30

            def lose(tx: Transaction) -> None:
                for name in names:
                    tx.set_property(f"copy:{name}", "")

            await store.transact(lose)
            runner.wake(*(("harbor", name) for name in names))
            await asyncio.sleep(controller_module.LOOK_SECONDS + 15)
            assert [await copied(store, name) for name in names] == ["a"] * 30
            await ended(task)


@on_fake_time
async def test_a_store_that_fails_is_asked_again() -> None:
    controller = Copier()
    failures = 3

    def flaky(tx: Transaction) -> Iterable[Key]:
        nonlocal failures
        if failures:
            failures -= 1
            raise Unavailable("disk full")
        return Copier.all_keys(controller, tx)

    controller.all_keys = flaky  # type: ignore[method-assign]
    with new_database() as url, structlog.testing.capture_logs() as logs:
        async with opened(url, inline=True) as store:
            await put(store, "h", "a")
            task = asyncio.create_task(Runner(store, controller).run())
            await asyncio.sleep(10)
            assert await copied(store, "h") == "a"
            await ended(task)
    assert [log["reason"] for log in logs] == ["the database failed: disk full; nothing was written"] * 3


@on_fake_time
async def test_a_closed_store_ends_nothing_but_the_watch() -> None:
    with new_database() as url:
        async with opened(url, inline=True) as store:
            task = asyncio.create_task(Runner(store, Copier()).run())
            await asyncio.sleep(1)
            await store.close()
            await asyncio.sleep(100)
            assert not task.done()
            await ended(task)


async def test_nothing_is_lost_with_real_threads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers, runner and the store's own threads, with a ring that overflows all the time."""
    monkeypatch.setattr(recent, "RECENT_BYTES", 500)
    task = asyncio.create_task(Runner(store, Copier()).run())

    async def writer(name: str) -> None:
        for n in range(40):
            await put(store, f"{name}-{n % 4}", str(n))

    await asyncio.gather(*(writer(f"w{n}") for n in range(4)))
    wanted = {f"w{n}-{m}": str(36 + m) for n in range(4) for m in range(4)}
    async with asyncio.timeout(30):
        while {name: await copied(store, name) for name in wanted} != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await ended(task)


@on_fake_time
async def test_a_controller_that_can_not_read_a_change_is_fed_again() -> None:
    """A runner shares its process with others: it must not end for what one controller meets."""

    class Stumbling(Copier):
        stumbled = False

        def concerned(self, change: Change) -> Iterable[Key]:
            if not self.stumbled:
                self.stumbled = True
                raise ValueError("a field of a newer version")
            return super().concerned(change)

    with new_database() as url:
        async with opened(url, inline=True) as store:
            controller = Stumbling()
            running = asyncio.ensure_future(Runner(store, controller).run())
            await asyncio.sleep(1)
            await put(store, "a", "north")
            await asyncio.sleep(20)
            assert not running.done()
            assert controller.stumbled
            assert await copied(store, "a") == "north"
            await ended(running)


async def test_keys_that_are_worked_on_together_are_committed_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Settling(StoreController):
        name = "settling"
        at_work = most = done = 0
        over = asyncio.Event()

        def all_keys(self, tx: Transaction) -> list[Key]:
            return [("harbor", f"h-{n}") for n in range(200)]

        def concerned(self, change: Change) -> list[Key]:
            return []

        def decide(self, tx: Transaction, key: Key) -> float | None:
            tx.set_property(f"copy:{key[1]}", "done")
            return None

        async def reconcile(self, store: Store, key: Key) -> float | None:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
            await super().reconcile(store, key)
            self.at_work -= 1
            self.done += 1
            if self.done == 200:
                self.over.set()
            return None

    commits, real = [0], Writer.commit

    def commit(self: Writer, batch: Sequence[Unit]) -> list[Change]:
        commits.append(len(batch))
        return real(self, batch)

    monkeypatch.setattr(Writer, "commit", commit)
    with new_database() as url:
        async with opened(url) as store:
            controller = Settling()
            task = asyncio.create_task(Runner(store, controller).run())
            async with asyncio.timeout(60):
                await controller.over.wait()
            assert await copied(store, "h-199") == "done"
            await ended(task)
    assert controller.most == 2 * TOGETHER
    assert len(commits) < 40 and max(commits) <= 2 * TOGETHER
