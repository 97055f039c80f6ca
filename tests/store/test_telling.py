"""What the store tells this process: subscribers, look-ups in the loop, the bounds of the queue."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from roost.store import store as store_module
from roost.store.errors import Overloaded, Unavailable
from roost.store.store import Store
from roost.store.transaction import Change, Transaction
from tests.support.stores import history, raw


def creating(name: str) -> Any:
    return lambda tx: tx.create(raw("Host", name, spec={}))


async def test_subscribers_know_before_the_writer_does(store: Store) -> None:
    told: list[int] = []
    end = store.subscribe(lambda changes: told.extend(c.revision for c in changes))

    async def write(name: str) -> None:
        stored = await store.transact(creating(name))
        assert stored.revision in told

    await asyncio.gather(*(write(f"h-{n}") for n in range(300)))
    assert told == list(range(1, 301))
    end()
    end()
    await write_unheard(store)
    assert told[-1] == 300


async def write_unheard(store: Store) -> None:
    await store.transact(creating("unheard"))


async def test_a_failing_subscriber_harms_nobody(store: Store) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def broken(_: list[Change]) -> None:
        raise LookupError("mine")

    told: list[Change] = []
    store.subscribe(broken)
    store.subscribe(told.extend)
    await store.transact(creating("a"))
    assert [c.name for c in told] == ["a"]
    assert [repr(f["exception"]) for f in failures] == ["LookupError('mine')"]


async def test_find_sees_what_was_acknowledged_and_waits_for_no_writer(store: Store) -> None:
    assert await store.find("Host", "harbor", "h") is None
    for n in range(30):
        made = await store.transact(creating(f"h-{n}"))
        found = await store.find("Host", "harbor", f"h-{n}")
        assert found is not None and (found.revision, found.data) == (made.revision, made.data)
    going, go_on = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        tx.create(raw("Host", "slow"))
        tx.count("Host")
        going.set()
        assert go_on.wait(60)

    writing = asyncio.ensure_future(store.transact(slow))
    await asyncio.to_thread(going.wait, 60)
    assert await store.find("Host", "harbor", "slow") is None, "it is not committed"
    assert await store.find("Host", "harbor", "h-3") is not None
    go_on.set()
    await writing
    assert await store.find("Host", "harbor", "slow") is not None
    await store.close()
    with pytest.raises(Unavailable):
        await store.find("Host", "harbor", "h")


async def test_the_queue_is_bounded_by_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "WAITING_BYTES", 1000)
    tasks = [asyncio.ensure_future(store.transact(creating(f"h-{n}"), size=300)) for n in range(20)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [r for r in results if isinstance(r, Overloaded)]
    assert 0 < len(refused) < 20
    assert all(r.bytes == 900 for r in refused)
    assert len(await history(store)) == 20 - len(refused)
    alone = await store.transact(creating("large"), size=5000)
    assert alone.revision, "what is larger than the bound goes alone"
    assert store._waiting_bytes == 0


async def test_a_row_refused_at_the_end_of_a_batch_is_found(store_url: str) -> None:
    """PostgreSQL refuses a name that is too long, when all is sent: only the unit that wrote it fails."""
    store = await Store.open(store_url)
    works = [creating(n) for n in ("one", "x" * 300, "two")]
    one, long, two = await asyncio.gather(*(store.transact(w) for w in works), return_exceptions=True)
    names = ["one", "two"]
    if store_url.startswith("postgresql"):
        assert isinstance(long, Unavailable) and "too long" in str(long)
        alone = (await asyncio.gather(store.transact(works[1]), return_exceptions=True))[0]
        assert isinstance(alone, Unavailable)
    else:
        names.insert(1, "x" * 300)
    assert [c.name for c in await history(store)] == names
    assert [c.revision for c in await history(store)] == list(range(1, len(names) + 1))
    assert not isinstance(one, BaseException) and not isinstance(two, BaseException)
    await store.close()


async def test_one_unit_writes_and_reads_in_turn(store: Store) -> None:
    """Writes are held back and read by key, by kind, by statement; others' in the same batch too."""

    def work(tx: Transaction) -> tuple[int, ...]:
        tx.create(raw("Host", "a", spec={"location": "1"}))
        tx.remove("Host", "harbor", "a")
        tx.create(raw("Host", "a", spec={"location": "2"}))
        first = tx.count("Host", "harbor")
        tx.replace(raw("Host", "a", spec={"location": "3"}))
        [found] = [s.raw["spec"]["location"] for s in tx.select("Host") if s.name == "a"]
        tx.remove("Host", "harbor", "a")
        tx.create(raw("Host", "b"))
        tx.remove("Host", "harbor", "b")
        assert tx.find("Host", "harbor", "a") is None
        rows = tx.connection.exec_driver_sql("SELECT count(*) FROM changes").scalar_one()
        return first, int(found), rows

    def torn(tx: Transaction) -> None:
        tx.create(raw("Host", "torn"))
        assert {s.name for s in tx.select("Host")} >= {"torn", "kept"}
        tx.remove("Host", "harbor", "kept")
        raise LookupError

    def last(tx: Transaction) -> list[str]:
        tx.next_number("log:x")
        tx.create(raw("Host", "last"))
        return [s.name for s in tx.select("Host")]

    results = await asyncio.gather(
        store.transact(creating("first")),
        store.transact(creating("kept")),
        store.transact(torn),
        store.transact(work),
        store.transact(last),
        return_exceptions=True,
    )
    assert isinstance(results[2], LookupError)
    assert results[3] == (3, 3, 9)
    assert results[4] == ["first", "kept", "last"]
    changes = await history(store)
    assert [c.revision for c in changes] == list(range(1, 11))
    assert sorted(s.name for s in await store.read(lambda tx: tx.select("Host"))) == ["first", "kept", "last"]


async def test_a_large_unit_is_sent_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.store.pending.MOST", 7)

    def many(tx: Transaction) -> None:
        for n in range(50):
            tx.create(raw("Host", f"h-{n}"))

    def too_many(tx: Transaction) -> None:
        many(tx)
        raise LookupError

    results = await asyncio.gather(
        store.transact(creating("a")), store.transact(too_many), store.transact(many), return_exceptions=True
    )
    assert isinstance(results[1], (LookupError, Unavailable))
    assert [c.revision for c in await history(store)] == list(range(1, 52))
