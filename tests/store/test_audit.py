"""The audit: chained records, written with what they tell of, pruned without losing the chain."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.model.audit import HIDDEN, Broken, Changed, Entry, Head, Record, chain, differences, verify
from roost.store import audit
from roost.store.errors import NotFound
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.stores import BACKENDS, new_database, opened, raw

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)

RECORDS = st.lists(
    st.builds(
        Record,
        user=st.text(max_size=8),
        verb=st.sampled_from(["create", "update", "delete"]),
        code=st.integers(200, 599),
        changes=st.lists(
            st.builds(
                Changed,
                path=st.text(max_size=8),
                old=st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                new=st.integers(-(2**53), 2**53) | st.just(msgspec.UNSET),
            ),
            max_size=2,
        ),
    ),
    min_size=2,
    max_size=12,
)


@contextlib.asynccontextmanager
async def at(backend: str, **options: Any) -> AsyncIterator[Store]:
    """A store on a new database."""
    with new_database(backend) as url:
        async with opened(url, **options) as store:
            yield store


async def everything(store: Store, after: int = 0) -> list[Entry]:
    return await store.read(lambda tx: audit.entries_after(tx.connection, after, 100_000))


@given(RECORDS)
def test_what_was_chained_verifies_and_ends_at_its_head(records: list[Record]) -> None:
    entries, head = chain(Head(), records)
    assert verify(Head(), entries) == head
    assert head.offset == sum(len(e.data.encode()) for e in entries)
    middle = len(records) // 2
    _, between = chain(Head(), records[:middle])
    assert verify(between, chain(between, records[middle:])[0], [between]) == head


@given(RECORDS, st.data())
def test_any_change_of_a_record_is_found(records: list[Record], data: st.DataObject) -> None:
    entries, _ = chain(Head(), records)
    at = data.draw(st.integers(0, len(entries) - 1))
    text = entries[at].data
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]
    entries[at] = msgspec.structs.replace(entries[at], data=changed)
    with pytest.raises(Broken) as found:
        verify(Head(), entries)
    assert found.value.sequence == at + 1


@given(RECORDS, st.data())
def test_any_removal_or_swap_is_found_unless_it_is_the_end(
    records: list[Record], data: st.DataObject
) -> None:
    entries, head = chain(Head(), records)
    at = data.draw(st.integers(0, len(entries) - 2))
    without = entries[:at] + entries[at + 1 :]
    with pytest.raises(Broken):
        verify(Head(), without)
    swapped = [*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]]
    with pytest.raises(Broken):
        verify(Head(), swapped)
    renumbered = [Entry(n, e.data, e.digest) for n, e in enumerate(without, 1)]
    with pytest.raises(Broken):
        verify(Head(), renumbered)
    with pytest.raises(Broken) as found:
        verify(Head(), entries[:-1], [head])
    assert found.value.sequence == len(entries)


@given(RECORDS, st.data())
def test_a_chain_that_was_made_anew_does_not_pass_a_head_noted_earlier(
    records: list[Record], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(records) - 1))
    noted = chain(Head(), records[: at + 1])[1]
    forged = [*records]
    forged[at] = msgspec.structs.replace(forged[at], user=forged[at].user + "x")
    entries, _ = chain(Head(), forged)
    verify(Head(), entries)
    with pytest.raises(Broken, match="noted"):
        verify(Head(), entries, [noted])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3),
    st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3),
)
def test_differences_are_told_when_there_are_any(old: dict[str, object], new: dict[str, object]) -> None:
    found, more = differences({"spec": old}, {"spec": new})
    strict = msgspec.json.Encoder(order="sorted").encode
    # 1, True and 1.0 are one to ==, and are told apart where they stand alone.
    assert not more
    if old != new:
        assert found
    if strict(old) == strict(new):
        assert not found


def test_differences_name_the_fields_and_cut_what_is_long() -> None:
    old = {"metadata": {"name": "a", "labels": {"x/y.z": "1"}, "generation": 1}, "spec": {"n": 1, "gone": []}}
    new = {"metadata": {"name": "a", "labels": {"x/y.z": "2"}, "generation": 2}, "spec": {"n": "a" * 999}}
    assert differences(old, new)[0] == [
        Changed(path='metadata.labels."x/y.z"', old="1", new="2"),
        Changed(path="spec.n", old=1, new="a" * 256 + "... (+743)"),
        Changed(path="spec.gone", old=[]),
    ]


def test_differences_are_bounded_in_number_and_bytes() -> None:
    many, more = differences({}, {"spec": {f"k{n:04}": n for n in range(1000)}})
    assert len(many) == 64 and more == 936
    long, more = differences({}, {"spec": {f"k{n:04}": "v" * 5000 for n in range(1000)}})
    assert len(msgspec.json.encode(long)) < 16 * 1024 and len(long) + more == 1000


def test_secret_fields_are_named_and_never_shown() -> None:
    found, _ = differences(
        {"data": {"a": "s3cret"}},
        {"data": {"a": "0ther", "b": "n3w"}},
        lambda path: path[0] == "data",
    )
    assert found == [Changed(path="data.a", old=HIDDEN, new=HIDDEN), Changed(path="data.b", new=HIDDEN)]


@pytest.mark.parametrize("backend", sorted(BACKENDS))
async def test_a_record_is_written_with_its_write_or_not_at_all(backend: str) -> None:
    async with at(backend) as store:

        def good(tx: Transaction) -> None:
            stored = tx.create(raw("Host", "kept"))
            tx.audit(Record(verb="create", name="kept", revision=stored.revision))

        def bad(tx: Transaction) -> None:
            tx.create(raw("Host", "undone"))
            tx.audit(Record(verb="create", name="undone"))
            raise NotFound("Host", "", "undone")

        await store.transact(good)
        with pytest.raises(NotFound):
            await store.transact(bad)
        found = await everything(store)
        head = await store.read(lambda tx: audit.head(tx.connection))
        assert verify(Head(), found) == head and head.sequence == 1
        record = msgspec.json.decode(found[0].data, type=Record)
        assert (record.name, record.revision, record.time[:2]) == ("kept", store.revision, "20")


async def test_an_author_signs_every_transaction_of_its_context() -> None:
    class Ada:
        def sign(self, tx: Transaction) -> None:
            for change in tx.changes:
                tx.audit(Record(user="ada", name=change.name, revision=change.revision))

    async with at("sqlite") as store:
        token = audit.AUTHOR.set(Ada())
        try:
            await store.transact(lambda tx: [tx.create(raw("Host", n)) for n in ("a", "b")])
        finally:
            audit.AUTHOR.reset(token)
        await store.transact(lambda tx: tx.create(raw("Host", "c")))
        found = [msgspec.json.decode(e.data, type=Record) for e in await everything(store)]
        assert [(r.user, r.name, r.revision) for r in found] == [("ada", "a", 1), ("ada", "b", 2)]


@pytest.mark.parametrize("backend", sorted(BACKENDS))
async def test_what_is_past_the_limits_goes_and_the_rest_verifies(backend: str) -> None:
    now = NOW
    async with at(backend, clock=lambda: now) as store:
        store._writer.trail = audit.Trail(audit.Limits(bytes=40_000, age=timedelta(days=10)))

        async def add(count: int) -> None:
            def work(tx: Transaction) -> None:
                for n in range(count):
                    tx.audit(Record(user="ada", verb="update", name=f"h{n}"))

            await store.transact(work)

        for _ in range(10):
            await add(200)
        found = await everything(store)
        anchor = await store.read(lambda tx: audit.read_anchor(tx.connection))
        assert anchor.sequence > 1000 and found[0].sequence == anchor.sequence + 1
        head = await store.read(lambda tx: audit.head(tx.connection))
        assert verify(anchor.head, found) == head
        assert head.offset - anchor.offset < 40_000 * 2
        told = [r for e in found if (r := msgspec.json.decode(e.data, type=Record)).verb == audit.PRUNE]
        assert told and told[-1].resource == "audit" and str(anchor.sequence) in told[-1].reason
        now += timedelta(days=11)
        await add(1)
        left = await everything(store)
        anchor = await store.read(lambda tx: audit.read_anchor(tx.connection))
        assert [msgspec.json.decode(e.data, type=Record).verb for e in left] == ["update", audit.PRUNE]
        verify(anchor.head, left)


WRITER = """
import asyncio, sys
from roost.model.audit import Record
from roost.store.store import Store
from tests.support.stores import raw

async def main(url, name):
    store = await Store.open(url)
    out = sys.stdout.buffer
    async def write(n):
        count = 0
        while True:
            count += 1
            def work(tx):
                stored = tx.create(raw("Host", f"{name}-{n}-{count}"))
                tx.audit(Record(verb="create", name=stored.name, revision=stored.revision))
                return stored.revision
            revision = await store.transact(work)
            out.write(b"%d\\n" % revision)
            out.flush()
    await asyncio.gather(*(write(n) for n in range(4)))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.parametrize("backend", sorted(BACKENDS))
async def test_after_kill_9_every_write_has_its_record_and_every_record_its_write(
    backend: str,
) -> None:
    with new_database(backend) as url:
        await _killed(url)


async def _killed(url: str) -> None:
    for round in range(4):
        writer = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
            [sys.executable, "-c", WRITER, url, f"r{round}"], stdout=subprocess.PIPE, cwd=ROOT
        )
        try:
            assert writer.stdout is not None
            answered = [int(writer.stdout.readline()) for _ in range(40 + 37 * round)]
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate(timeout=30)
        async with opened(url) as store:
            hosts = await store.read(lambda tx: {(s.name, s.revision) for s in tx.select("Host")})
            entries = await everything(store)
            records = [msgspec.json.decode(e.data, type=Record) for e in entries]
            assert {(r.name, r.revision) for r in records} == hosts
            assert set(answered) <= {r.revision for r in records}
            assert verify(Head(), entries) == await store.read(lambda tx: audit.head(tx.connection))


@pytest.mark.parametrize("backend", sorted(BACKENDS))
async def test_several_processes_on_one_database_make_one_chain(backend: str) -> None:
    with new_database(backend) as url:
        await _together(url)


async def _together(url: str) -> None:
    async with opened(url):
        pass
    writers = [
        subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
            [sys.executable, "-c", WRITER, url, f"w{n}"], stdout=subprocess.PIPE, cwd=ROOT
        )
        for n in range(2)
    ]
    try:
        for _ in range(30):
            for writer in writers:
                assert writer.stdout is not None and writer.stdout.readline()
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate(timeout=30)
    async with opened(url) as store:
        entries = await everything(store)
        names = {msgspec.json.decode(e.data, type=Record).name.partition("-")[0] for e in entries}
        assert names == {"w0", "w1"}
        verify(Head(), entries)
