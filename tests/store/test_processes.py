"""Several processes on one PostgreSQL: killed, cut off, their server restarted under them.

Each process writes and watches. Whatever happens, each watcher sees each revision once and in order, and
nothing that was acknowledged is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from roost.api.identity.directory import Directory
from roost.store import following, writer
from roost.store.errors import Unavailable
from roost.store.leases import acquire
from roost.store.session import Session, Sessions
from roost.store.statements import CHANNEL
from roost.store.store import Store
from roost.store.transaction import Change, Transaction
from tests.support import postgresql
from tests.support.postgresql import Server
from tests.support.stores import history, opened, raw

ROOT = Path(__file__).parents[2]
WITHIN = 90.0

WORKER = """
import asyncio, sys
from roost.store.errors import StoreError, Unavailable
from roost.store.store import Store
from tests.support.stores import raw

url, name, cursor = sys.argv[1], sys.argv[2], int(sys.argv[3])
told = None

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + chr(10))
    sys.stdout.flush()

def heard(changes):
    global told
    if changes and told is not None:
        assert changes[0].revision == told + 1, (told, changes[0].revision)
    told = changes[-1].revision if changes else None

async def open_store():
    while True:
        try:
            return await Store.open(url)
        except Unavailable:
            await asyncio.sleep(0.05)

async def watch(store):
    global cursor
    while True:
        try:
            async for batch in store.watch(cursor):
                for change in batch.changes:
                    say("seen", change.revision)
                cursor = batch.upto
        except Unavailable:
            await asyncio.sleep(0.05)

async def write(store, slot, going):
    n = 0
    while going():
        n += 1
        def work(tx):
            new = raw("Host", f"{name}-{slot}", spec={"location": str(n)})
            there = tx.find("Host", "harbor", new["metadata"]["name"])
            return (tx.replace(new) if there else tx.create(new)).revision
        try:
            say("wrote", await store.transact(work), f"{name}-{slot}", n)
        except Unavailable:
            await asyncio.sleep(0.05)

async def main():
    store = await open_store()
    store.subscribe(heard)
    say("ready")
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    watching = asyncio.create_task(watch(store))
    await asyncio.gather(*(write(store, slot, lambda: not over.done()) for slot in range(3)))
    final = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    say("quiet")
    last = int(await final)
    try:
        async with asyncio.timeout(60):
            while cursor < last:
                assert not watching.done(), watching
                await asyncio.sleep(0.02)
    except TimeoutError:
        sys.exit(f"stuck at {cursor} of {last}: the store is at {store.revision}, {store._following}")
    watching.cancel()
    await store.close()
    say("done")

asyncio.run(main())
"""


class Worker:
    """One process after the other under the same name: what they said, line by line."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.seen: list[int] = []
        self.wrote: list[tuple[int, str, str]] = []
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        cursor = self.seen[-1] if self.seen else 0
        command = [sys.executable, "-c", WORKER, self.url, f"{self.name}.{self.starts}", str(cursor)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        assert self.process.stdout is not None
        rest = self.process.stdout.read()
        self.process.communicate()
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):
                self._take(line.split())

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def read(self, *, until: Callable[[list[str]], bool]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._take(line.split())
            if until(line.split()):
                return
        raise AssertionError(f"{self.name} ended with {self.process.wait()}")

    def _take(self, words: list[str]) -> None:
        if words[0] == "seen":
            self.seen.append(int(words[1]))
        elif words[0] == "wrote":
            self.wrote.append((int(words[1]), words[2], words[3]))


@contextlib.contextmanager
def server() -> Iterator[Server]:
    made = Server({"fsync": "off", "full_page_writes": "off"})
    try:
        yield made
    finally:
        made.close()


def terminate(server: Server) -> None:
    """End all connections to all databases."""
    others = "pid <> pg_backend_pid() AND datname <> ''"
    server.administer(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2])
async def test_each_watcher_sees_each_revision_once_whatever_is_killed(seed: int) -> None:
    source = random.Random(seed)
    with server() as own:
        url = own.url(own.new_database())
        workers = [Worker(url, f"w{n}") for n in range(3)]
        try:
            for worker in workers:
                worker.read(until=lambda words: words[0] == "wrote")
            for step in range(10):
                event = source.choice(["kill", "kill", "terminate", "restart", "crash"])
                print("seed", seed, "step", step, event)
                if event == "kill":
                    worker = source.choice(workers)
                    worker.kill()
                    worker.start()
                elif event == "terminate":
                    terminate(own)
                elif event == "restart":
                    own.stop()
                    own.start()
                else:
                    own.kill()
                    own.start()
                for worker in workers:
                    count = source.randrange(1, 40)
                    _read_some(worker, count)
            for worker in workers:
                worker.say("stop")
                worker.read(until=lambda words: words[0] == "quiet")
            async with opened(url) as store:
                last, changes = store.revision, await history(store)
            for worker in workers:
                worker.say(str(last))
                worker.read(until=lambda words: words[0] == "done")
                assert worker.process.wait(30) == 0
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.communicate()
        assert [c.revision for c in changes] == list(range(1, last + 1))
        there = {c.revision: (c.name, c.stored().raw["spec"]["location"]) for c in changes}
        for worker in workers:
            assert worker.seen == list(range(1, last + 1)), worker.name
            assert worker.wrote
            for revision, name, number in worker.wrote:
                assert there[revision] == (name, number)


def _read_some(worker: Worker, count: int) -> None:
    left = count

    def enough(words: list[str]) -> bool:
        nonlocal left
        left -= words[0] == "wrote"
        return left <= 0

    worker.read(until=enough)


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    with postgresql.database() as url:
        yield url


@contextlib.asynccontextmanager
async def pair(url: str) -> AsyncIterator[tuple[Store, Store]]:
    async with opened(url) as one, opened(url) as other:
        yield one, other


async def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not ready():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def creating(name: str) -> Callable[[Transaction], Any]:
    return lambda tx: tx.create(raw("Host", name, spec={}))


async def test_another_process_is_heard_at_once(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL", 3600.0)
    async with pair(postgresql_url) as (one, other):
        told: list[Change] = []
        end = other.subscribe(told.extend)
        watcher = other.watch(0)
        first = asyncio.ensure_future(anext(watcher))
        await one.transact(creating("a"))
        assert [c.name for c in (await asyncio.wait_for(first, WITHIN)).changes] == ["a"]
        assert [c.name for c in told] == ["a"] and other.revision == 1
        await asyncio.gather(
            *(s.transact(creating(f"{n}")) for n in range(40) for s in (one, other) if n % 2 == (s is one))
        )
        await until(lambda: one.revision == other.revision == 41)
        assert [c.revision for c in told] == list(range(1, 42))
        end()
        await one.transact(creating("z"))
        await until(lambda: other.revision == 42)
        assert len(told) == 41
        found = await other.find("Host", "harbor", "z")
        assert found is not None and found.revision == 42


async def test_strangers_words_on_the_channel_do_no_harm(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "POLL", 3600.0)
    async with pair(postgresql_url) as (one, other):
        with psycopg.connect(postgresql.shared().conninfo(one._engine.url.database or "")) as connection:
            for word in ("", "hello", "-1", "\u00b2", "9" * 30, "9" * 5000):
                connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, word])
        await one.transact(creating("a"))
        await until(lambda: other.revision == 1)


async def test_what_nobody_foresaw_is_begun_again(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = [RuntimeError("odd"), ValueError("odder")]
    listen = following._listen

    async def fails_at_first(*given: Any) -> None:
        if left:
            raise left.pop()
        await listen(*given)

    monkeypatch.setattr(following, "_listen", fails_at_first)
    monkeypatch.setattr(following, "POLL", 3600.0)
    async with pair(postgresql_url) as (one, other):
        await until(lambda: not left)
        await one.transact(creating("a"))
        await until(lambda: other.revision == 1)
        await other.transact(creating("b"))
    assert "beginning again" in capsys.readouterr().out


async def test_who_hears_nothing_for_good_does_not_go_on_with_what_he_knew(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError("odd")

    async with opened(postgresql_url) as store:
        await store.transact(creating("a"))
        directory = Directory(store)
        await directory.current()
        told: list[int] = []
        store.subscribe(lambda changes: told.append(len(changes)))
        watcher = store.watch(store.revision)
        waiting = asyncio.ensure_future(anext(watcher))
        await asyncio.sleep(0)
        monkeypatch.setattr(following, "_follow", fails)
        monkeypatch.setattr(following, "TRIES", 2)
        terminated = asyncio.ensure_future(following.follow(store._engine, store._hear, store._catch_up))
        terminated.add_done_callback(store._deafened)
        with pytest.raises(Unavailable, match="no longer hears"):
            await asyncio.wait_for(waiting, WITHIN)
        assert told == [0], "changes may have been missed"
        for asked in (
            store.read(lambda tx: tx.revision),
            store.find("Host", "harbor", "a"),
            store.transact(creating("b")),
            store.changes(0),
            directory.current(),
        ):
            with pytest.raises(Unavailable, match="restart it"):
                await asked
        assert isinstance(terminated.exception(), RuntimeError)
    assert "has ended" in capsys.readouterr().out


async def test_what_was_not_heard_is_polled(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notification that never comes: the channel is another's."""
    monkeypatch.setattr(following, "CHANNEL", "deaf")
    monkeypatch.setattr(following, "POLL", 0.05)
    async with pair(postgresql_url) as (one, other):
        await one.transact(creating("a"))
        await until(lambda: other.revision == 1)


async def test_a_commit_tells_what_others_wrote_before(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without hearing of each other at all: the lock brings the others' changes."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("roost.store.store.follow", never)
    async with pair(postgresql_url) as (one, other):
        told: list[list[int]] = []
        other.subscribe(lambda changes: told.append([c.revision for c in changes]))
        await one.transact(creating("a"))
        await one.transact(creating("b"))
        await other.transact(creating("c"))
        assert told == [[1, 2, 3]]
        with pytest.raises(LookupError):
            await one.transact(_failing)
        assert one.revision == 3, "also when the unit itself fails"
        monkeypatch.setattr(writer, "MISSED", 2)
        for n in range(5):
            await one.transact(creating(f"more-{n}"))
        await other.transact(creating("d"))
        assert told[1:] == [[]], "more was missed than is told: read anew"
        assert (other.revision, [c.revision for c in await history(other)]) == (9, list(range(1, 10)))


def _failing(tx: Transaction) -> None:
    tx.create(raw("Host", "never"))
    raise LookupError


async def test_history_that_another_process_dropped_is_known_to_be_gone(postgresql_url: str) -> None:
    async with opened(postgresql_url, history=20) as one, opened(postgresql_url, history=20) as other:
        for n in range(100):
            await (one if n % 3 else other).transact(creating(f"h-{n}"))
        await until(lambda: one.revision == other.revision == 100)
        kept = await one.read(lambda tx: tx.history(0, 1000))
        assert 20 <= len(kept) <= 26
        for store in (one, other):
            assert [c.revision for c in await history(store, kept[0].revision - 1)] == [
                c.revision for c in kept
            ]


async def test_lost_connections_are_replaced(postgresql_url: str) -> None:
    """Writers, readers, the one who looks up and the one who listens: all their connections are ended."""
    async with pair(postgresql_url) as (one, other):
        await one.transact(creating("a"))
        for n in range(3):
            terminate(postgresql.shared())
            assert await one.find("Host", "harbor", "a")
            assert await one.read(lambda tx: tx.count("Host")) == n + 1
            await one.transact(creating(f"b-{n}"))
            await until(lambda n=n: other.revision == n + 2)  # type: ignore[misc]


async def test_a_connection_lost_while_it_commits_does_not_leave_the_outcome_open(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(postgresql_url) as store:
        commit = Session.commit
        cut = [True]

        def before(session: Session) -> None:
            if cut.pop() if cut else False:
                terminate(postgresql.shared())
            commit(session)

        def after(session: Session) -> None:
            commit(session)
            if cut.pop() if cut else False:
                session.raw.close()
                raise psycopg.OperationalError("the answer was lost")

        monkeypatch.setattr(Session, "commit", before)
        with pytest.raises(Unavailable, match="nothing was written") as caught:
            await store.transact(creating("a"))
        assert caught.value.known
        assert await store.find("Host", "harbor", "a") is None
        cut.append(True)
        monkeypatch.setattr(Session, "commit", after)
        assert (await store.transact(creating("a"))).revision == 1
        assert [c.revision for c in await history(store)] == [1]
        cut.append(True)
        monkeypatch.setattr(writer, "RESOLVE_WITHIN", 0.0)
        monkeypatch.setattr(Sessions, "fresh", _refusing)
        with pytest.raises(Unavailable, match="not known") as unsure:
            await store.transact(creating("b"))
        assert not unsure.value.known


def _refusing(_: object) -> Session:
    raise psycopg.OperationalError("the server is away")


async def test_a_lease_goes_by_the_clock_of_the_database(postgresql_url: str) -> None:
    """A process whose own clock is wrong takes nobody's lease, and gives none for too long."""
    here = time.time()
    async with pair(postgresql_url) as (one, other):
        lease = await one.transact(lambda tx: acquire(tx, "active", "A", 60))
        assert abs(lease.expires_at - here - 60) < WITHIN
        with psycopg.connect(postgresql.shared().conninfo(one._engine.url.database or "")) as connection:
            connection.execute("UPDATE leases SET expires_at = extract(epoch FROM clock_timestamp()) + 0.2")
        clocks = await asyncio.gather(*(s.transact(lambda tx: tx.now) for s in (one, other)))
        assert all(abs(c.timestamp() - time.time()) < WITHIN for c in clocks)
        taken = "A"
        deadline = time.monotonic() + WITHIN
        while taken == "A" and time.monotonic() < deadline:
            taken = (await other.transact(lambda tx: acquire(tx, "active", "B", 60))).holder
        assert taken == "B"


async def test_one_held_lock_is_no_wait_for_ever(postgresql_url: str) -> None:
    """Another process sits on the lock of the revision."""
    async with opened(postgresql_url + "&options=-c%20lock_timeout%3D100ms") as store:
        with psycopg.connect(postgresql.shared().conninfo(store._engine.url.database or "")) as connection:
            connection.execute("SELECT value FROM counters FOR UPDATE")
            with pytest.raises(Unavailable, match="lock timeout"):
                await store.transact(creating("a"))
            assert await store.find("Host", "harbor", "a") is None, "reading goes on"
        await store.transact(creating("a"))
