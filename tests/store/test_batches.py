"""Units that share a database transaction read what a store would give that runs them one after another."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from roost.store import pending
from roost.store.pending import Pending
from roost.store.session import Session
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.clock import run
from tests.support.stores import new_database, raw

KINDS = ("Host", "Alarm")
NAMES = ("a.1", "a.2", "b.1")
STEPS = st.one_of(
    st.tuples(st.sampled_from(["put", "drop"]), st.sampled_from(KINDS), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(["all", "number"]), st.sampled_from(KINDS), st.just("")),
    st.tuples(st.just("prefix"), st.sampled_from(KINDS), st.sampled_from(["a.", "b."])),
    st.tuples(st.sampled_from(["property", "fail"]), st.just(""), st.just("")),
)
UNITS = st.lists(st.lists(STEPS, max_size=5), min_size=1, max_size=12)


class Model:
    """The same in plain dictionaries."""

    def __init__(self) -> None:
        self.rows: set[tuple[str, str]] = set()
        self.numbers: Counter[str] = Counter()

    def unit(self, steps: list[tuple[str, str, str]]) -> list[object] | None:
        """What a unit answers; None when it fails."""
        before, said = (set(self.rows), Counter(self.numbers)), list[object]()
        for what, kind, name in steps:
            if what == "fail":
                self.rows, self.numbers = before
                return None
            if what == "put":
                self.rows.add((kind, name))
            elif what == "drop":
                self.rows.discard((kind, name))
            elif what in ("all", "prefix"):
                found = sorted(n for k, n in self.rows if k == kind and n.startswith(name))
                said.append([*found, len(found)] if what == "all" else found)
            elif what == "number":
                self.numbers[kind] += 1
                said.append(self.numbers[kind])
        return said


def unit(steps: list[tuple[str, str, str]]) -> Any:
    """The same in a transaction."""

    def work(tx: Transaction) -> list[object]:
        said: list[object] = []
        for what, kind, name in steps:
            if what == "fail":
                raise LookupError
            if what == "put":
                if tx.find(kind, "harbor", name) is None:
                    tx.create(raw(kind, name))
            elif what == "drop":
                tx.drop(kind, "harbor", name)
            elif what == "all":
                said.append([*(s.name for s in tx.select(kind, "harbor")), tx.count(kind)])
            elif what == "prefix":
                said.append([s.name for s in tx.select(kind, "harbor", prefix=name)])
            elif what == "number":
                said.append(tx.next_number(kind))
            else:
                tx.set_property("word", "said")
        return said

    return work


@settings(max_examples=80, deadline=None)
@given(units=UNITS, again=UNITS)
def test_units_of_a_batch_are_as_good_as_one_after_another(units: list[Any], again: list[Any]) -> None:
    async def main() -> None:
        with new_database() as url:
            store, model = await Store.open(url), Model()
            try:
                for batch in (units, again):
                    answers = await asyncio.gather(
                        *(store.transact(unit(steps)) for steps in batch), return_exceptions=True
                    )
                    expected = [model.unit(steps) for steps in batch]
                    assert [None if isinstance(a, LookupError) else a for a in answers] == expected
                for kind in KINDS:
                    there = {s.name for s in await store.read(lambda tx, k=kind: tx.select(k, "harbor"))}  # type: ignore[misc]
                    assert there == {n for k, n in model.rows if k == kind}
            finally:
                await store.close()

    run(main())


async def test_units_that_ask_for_other_things_are_sent_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, real = [], Pending.send

    def send(self: Pending, session: Session) -> None:
        sent.append(len(self.rows))
        real(self, session)

    def settling(n: int) -> Any:
        def work(tx: Transaction) -> None:
            assert tx.select("Alarm", "harbor", prefix=f"host.h{n}.") == []
            assert tx.select("AlarmPolicy", "harbor") == []
            tx.create(raw("Alarm", f"host.h{n}.200.001"))
            tx.create(raw("LogEntry", f"log.{tx.next_number('log:harbor'):010d}"))

        return work

    monkeypatch.setattr(Pending, "send", send)
    await asyncio.gather(*(store.transact(settling(n)) for n in range(100)))
    # The first finds the writer idle and goes alone.
    assert sent[-1] == 198 and sum(sent) == 200


async def test_what_waits_for_a_batch_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    largest, real = [0], Pending.send

    def send(self: Pending, session: Session) -> None:
        largest.append(len(self.rows))
        real(self, session)

    monkeypatch.setattr(pending, "MOST", 10)
    monkeypatch.setattr(Pending, "send", send)
    works = [lambda tx, n=n: tx.create(raw("Host", f"h-{n}")) for n in range(60)]
    await asyncio.gather(*(store.transact(work) for work in works))
    assert max(largest) == 10
    assert await store.read(lambda tx: tx.count("Host")) == 60
