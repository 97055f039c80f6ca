"""Group commit, what it isolates and what it refuses; resources of the store besides history."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert

from roost.model.host import Host
from roost.model.meta import Metadata
from roost.store import schema
from roost.store import store as store_module
from roost.store.errors import AlreadyExists, Conflict, NotFound, Overloaded, Unavailable
from roost.store.schema import counters
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.stores import history, opened, raw


def creating(name: str) -> Any:
    return lambda tx: tx.create(raw("Host", name, spec={}))


async def test_a_failing_unit_undoes_only_itself_and_leaves_no_gap(store: Store) -> None:
    def failing(n: int) -> Any:
        def work(tx: Transaction) -> None:
            tx.create(raw("Host", f"bad-{n}"))
            tx.set_property("touched", str(n))
            raise LookupError(n)

        return work

    works = [failing(n) if n % 3 == 0 else creating(f"good-{n}") for n in range(60)]
    results = await asyncio.gather(*(store.transact(w) for w in works), return_exceptions=True)
    for n, result in enumerate(results):
        if n % 3 == 0:
            assert isinstance(result, LookupError) and result.args == (n,)
        else:
            assert not isinstance(result, BaseException) and result.name == f"good-{n}"
    assert [c.revision for c in await history(store)] == list(range(1, 41))
    assert await store.read(lambda tx: tx.property("touched")) == ""


async def test_a_row_the_database_refuses_undoes_only_itself(store: Store) -> None:
    """One unit that breaks a rule of the tables does not take its batch with it."""

    def twice(tx: Transaction) -> None:
        tx.create(raw("Host", "bad"))
        for _ in range(2):
            tx.connection.execute(insert(counters).values(name="twice", value=1))

    works = [creating("one"), twice, creating("two")]
    one, bad, two = await asyncio.gather(*(store.transact(w) for w in works), return_exceptions=True)
    assert isinstance(bad, Unavailable)
    assert (one.revision, two.revision) == (1, 2)  # type: ignore[union-attr]


async def test_no_exception_of_work_stops_the_writer(store: Store) -> None:
    def stops(tx: Transaction) -> object:
        return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await store.transact(stops)
    await store.transact(creating("after"))


async def test_a_broken_batch_keeps_nothing_and_the_next_goes_on(store: Store) -> None:
    def broken(tx: Transaction) -> None:
        tx.connection.exec_driver_sql("SELECT * FROM nowhere")

    results = await asyncio.gather(
        store.transact(creating("with")), store.transact(broken), return_exceptions=True
    )
    assert isinstance(results[1], Unavailable)
    await store.transact(creating("after"))
    names = {s.name for s in await store.read(lambda tx: tx.select("Host"))}
    kept = not isinstance(results[0], BaseException)
    assert names == ({"with", "after"} if kept else {"after"})
    assert [c.revision for c in await history(store)] == list(range(1, len(names) + 1))


async def test_units_of_one_batch_see_each_other(store: Store) -> None:
    """Counting through concurrent transactions loses nothing: units run one after another."""

    async def count() -> int:
        return await store.transact(lambda tx: tx.next_number("log:harbor"))

    numbers = await asyncio.gather(*(count() for _ in range(400)))
    assert sorted(numbers) == list(range(1, 401))


async def test_overload_is_refused_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "WAITING", 3)
    tasks = [asyncio.ensure_future(store.transact(creating(f"h-{n}"))) for n in range(20)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [r for r in results if isinstance(r, Overloaded)]
    assert 0 < len(refused) < 20
    assert all(r.waiting == 3 for r in refused)
    assert len(await history(store)) == 20 - len(refused)


async def test_a_caller_that_gives_up_breaks_nothing(store: Store) -> None:
    tasks = [asyncio.ensure_future(store.transact(creating(f"h-{n}"))) for n in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(r, asyncio.CancelledError) for r in results) == 1
    await store.transact(creating("after"))
    changes = await history(store)
    assert [c.revision for c in changes] == list(range(1, len(changes) + 1))


async def test_closing_answers_who_waits(store: Store) -> None:
    tasks = [asyncio.ensure_future(store.transact(creating(f"h-{n}"))) for n in range(600)]
    await asyncio.sleep(0)
    await store.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(results) == 600
    refused = [r for r in results if isinstance(r, BaseException)]
    assert all(isinstance(r, Unavailable) for r in refused)
    assert len(refused) < 600, "what was being written is finished"


async def test_reads_may_not_write(store: Store) -> None:
    with pytest.raises(RuntimeError, match="must not write"):
        await store.read(creating("h"))
    assert store.revision == 0
    assert await store.read(lambda tx: tx.count("Host")) == 0


async def test_errors_carry_what_they_are_about(store: Store) -> None:
    made = await store.transact(creating("h"))
    with pytest.raises(AlreadyExists) as exists:
        await store.transact(creating("h"))
    assert (exists.value.kind, exists.value.namespace, exists.value.name) == ("Host", "harbor", "h")
    with pytest.raises(NotFound) as missing:
        await store.get("Host", "harbor", "g")
    assert missing.value.name == "g"
    with pytest.raises(Conflict) as conflict:
        await store.transact(lambda tx: tx.remove("Host", "harbor", "h", expected_uid="other"))
    assert (conflict.value.expected, conflict.value.actual) == ("uid other", f"uid {made.uid}")
    with pytest.raises(Conflict):
        await store.transact(lambda tx: tx.remove("Host", "harbor", "h", expected="77"))
    with pytest.raises(Conflict):
        await store.transact(lambda tx: tx.replace(raw("Host", "h", metadata={"uid": "other"})))
    await store.transact(lambda tx: tx.remove("Host", "harbor", "h", expected_uid=made.uid, expected="1"))


async def test_what_the_server_gives_can_not_be_brought(store: Store) -> None:
    brought = {"uid": "mine", "generation": 40, "creationTimestamp": "x", "deletionTimestamp": "x"}
    made = await store.transact(lambda tx: tx.create(raw("Host", "h", spec={"a": 1}, metadata=brought)))
    metadata = made.raw["metadata"]
    assert metadata["uid"] != "mine" and metadata["generation"] == 1
    assert metadata["creationTimestamp"] != "x" and "deletionTimestamp" not in metadata
    brought |= {"uid": made.uid}
    changed = await store.transact(lambda tx: tx.replace(raw("Host", "h", spec={"a": 2}, metadata=brought)))
    now = changed.raw["metadata"]
    assert (now["uid"], now["creationTimestamp"], now["generation"]) == (
        made.uid,
        metadata["creationTimestamp"],
        2,
    )
    assert "deletionTimestamp" not in now


async def test_save_and_report_keep_fields_this_version_does_not_know(store: Store) -> None:
    newer = raw(
        "Host", "h", spec={"location": "a", "colour": "red"}, status={"mood": 1}, metadata={"aura": 2}
    )
    await store.transact(lambda tx: tx.create(newer))
    host = await store.load(Host, "harbor", "h")
    await store.save(msgspec.structs.replace(host, spec=msgspec.structs.replace(host.spec, location="b")))
    working = msgspec.structs.replace(host, status=msgspec.structs.replace(host.status, task="unlock"))
    await store.transact(lambda tx: tx.report(working))
    stored = (await store.get("Host", "harbor", "h")).raw
    assert (stored["spec"]["location"], stored["spec"]["colour"]) == ("b", "red")
    assert (stored["status"]["task"], stored["status"]["mood"]) == ("unlock", 1)
    assert stored["metadata"]["aura"] == 2


async def test_save_of_what_is_there_changes_nothing(store: Store) -> None:
    host = await store.save(Host(metadata=Metadata(name="h", namespace="harbor")))
    revision = store.revision
    assert await store.save(host) == host
    assert await store.transact(lambda tx: tx.report(host)) == host
    assert store.revision == revision


async def test_select_by_prefix_page_and_origin(store: Store) -> None:
    names = ["host.a.200.001", "host.a.200.005", "host.a-b.200.001", "host.b.200.001", "host.a"]

    def work(tx: Transaction) -> None:
        for name in names:
            tx.create(raw("Alarm", name))
        tx.copy(raw("Alarm", "host.a.far", "valley"), "down:subcloud/valley")

    await store.transact(work)

    def look(tx: Transaction) -> Any:
        pages, after = [], None
        while page := tx.select("Alarm", after=after, limit=2):
            pages += [(s.namespace, s.name) for s in page]
            after = pages[-1]
        mine = [s.name for s in tx.select("Alarm", "harbor", origin="", prefix="host.a.")]
        far = [s.name for s in tx.select("Alarm", origin="down:subcloud/valley")]
        return pages, mine, far, tx.count("Alarm"), tx.count("Alarm", "harbor")

    pages, mine, far, total, here = await store.read(look)
    assert pages == sorted([("harbor", n) for n in names] + [("valley", "host.a.far")])
    assert mine == ["host.a.200.001", "host.a.200.005"]
    assert (far, total, here) == (["host.a.far"], 6, 5)


async def test_cursors_properties_and_numbers(store: Store) -> None:
    long = "down:host/" + "c" * 63 + "/" + "h" * 63

    def work(tx: Transaction) -> None:
        assert tx.cursor(long) == ("", 0)
        tx.set_cursor(long, "s1", 5)
        tx.set_cursor(long, "s1", 2**40)
        assert tx.cursor(long) == ("s1", 2**40)
        assert tx.property("link-refused:" + long) == ""
        tx.set_property("link-refused:" + long, "a")
        tx.set_property("link-refused:" + long, "b")
        assert tx.property("link-refused:" + long) == "b"
        assert [tx.next_number("log:" + long) for _ in range(3)] == [1, 2, 3]
        assert tx.next_number("log:other") == 1

    await store.transact(work)
    assert await store.read(lambda tx: tx.cursor(long)) == ("s1", 2**40)
    await store.transact(lambda tx: tx.drop_cursor(long))
    assert await store.read(lambda tx: tx.cursor(long)) == ("", 0)
    assert store.revision == 0, "none of these is a change of a resource"


async def test_the_names_fit_their_columns() -> None:
    """SQLite does not mind, PostgreSQL does: the longest names we make are within the columns' lengths."""
    cloud = host = "x" * 63
    assert len(f"log:{cloud}/{host}") <= schema.counters.c.name.type.length  # type: ignore[attr-defined]
    assert len(f"link-refused:down:host/{cloud}/{host}") <= schema.properties.c.name.type.length  # type: ignore[attr-defined]
    assert len(f"down:host/{cloud}/{host}") <= schema.resources.c.origin.type.length  # type: ignore[attr-defined]


async def test_the_database_is_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "deep"
    async with opened(f"sqlite:///{directory}/roost.db") as store:
        await store.transact(creating("h"))
        for file in directory.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_a_portion_is_bounded_by_bytes(store: Store) -> None:
    """All of it fits, or it is one larger resource; that it was cut is told, bytes are not letters."""

    def work(tx: Transaction) -> None:
        for name, letter in (("a", "x"), ("b", "é"), ("c", "x"), ("d", "x")):
            tx.create({**raw("Alarm", name), "spec": {"text": letter * 40_000}})

    await store.transact(work)

    def portions(tx: Transaction, size: int) -> list[list[str]]:
        found, after, cut = list[list[str]](), None, True
        while cut:
            part, cut = tx.portion("Alarm", "harbor", after, limit=3, size=size)
            found.append([s.name for s in part])
            after = (part[-1].namespace, part[-1].name)
        return found

    assert await store.read(lambda tx: portions(tx, 1)) == [["a"], ["b"], ["c"], ["d"]]
    assert await store.read(lambda tx: portions(tx, 100_000)) == [["a"], ["b"], ["c", "d"]]
    assert await store.read(lambda tx: portions(tx, 130_000)) == [["a", "b"], ["c", "d"]]
    assert await store.read(lambda tx: portions(tx, 1_000_000)) == [["a", "b", "c"], ["d"]]
    assert await store.read(lambda tx: tx.portion("Alarm", "a", ("harbor", "a"), limit=3, size=1)) == (
        [],
        False,
    )
