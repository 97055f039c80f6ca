"""Events fade: by age, by number, and those of our own are counted."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from roost.engine import events
from roost.engine.events import EventController, last_seen, note
from roost.model import time
from roost.model.codec import Raw
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.clock import START, on_fake_time
from tests.support.stores import CLOUD, raw, world


def event(name: str, **parts: Any) -> Raw:
    body = raw("Event", name, involvedObject={"kind": "Host", "name": "h1"}, **parts)
    return {**body, "apiVersion": "v1"}


async def names(store: Store) -> list[str]:
    return await store.read(lambda tx: [s.name for s in tx.select("Event")])


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({}, -100),
        ({"lastTimestamp": time.seconds(START)}, 0),
        ({"eventTime": "2026-03-01T11:59:59.500000Z"}, -0.5),
        ({"lastTimestamp": time.seconds(START - timedelta(hours=3))}, -10800),
        ({"lastTimestamp": time.seconds(START + timedelta(days=3))}, -100),
        ({"lastTimestamp": time.seconds(START - timedelta(hours=3)), "eventTime": time.stamp(START)}, 0),
        (
            {
                "eventTime": time.stamp(START - timedelta(hours=3)),
                "series": {"count": 3, "lastObservedTime": time.stamp(START)},
            },
            0,
        ),
    ],
)
def test_when_it_happened_last(told: Raw, seconds: float) -> None:
    made = {"metadata": {"creationTimestamp": time.seconds(START - timedelta(seconds=100))}, **told}
    assert (last_seen(made, START) - START).total_seconds() == seconds


@on_fake_time
async def test_an_event_goes_an_hour_after_it_last_happened() -> None:
    async with world() as made:
        made.start([EventController()])
        await made.store.transact(lambda tx: tx.create(event("once")))
        await made.store.transact(lambda tx: tx.create(event("twice")))
        await made.store.transact(lambda tx: tx.create(event("copy"), "down:subcloud/x"))
        await asyncio.sleep(1800)

        def again(tx: Transaction) -> None:
            found = tx.get("Event", CLOUD, "twice").raw
            tx.replace({**found, "count": 2, "lastTimestamp": time.seconds(tx.now)})

        await made.store.transact(again)
        await asyncio.sleep(1810)
        assert await names(made.store) == ["copy", "twice"]
        await asyncio.sleep(1800)
        assert await names(made.store) == ["copy"]


@on_fake_time
async def test_the_oldest_go_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEPT", 10)
    monkeypatch.setattr(events, "SHED", 4)
    monkeypatch.setattr(events, "COUNTED", 1)
    async with world() as made:
        made.start([EventController()])
        await asyncio.sleep(1)
        for n in range(12):
            await made.store.transact(lambda tx, n=n: tx.create(event(f"e{n:02}")))  # type: ignore[misc]
            await asyncio.sleep(1)
        assert await names(made.store) == [f"e{n:02}" for n in range(5, 12)]


@on_fake_time
async def test_they_are_counted_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEPT", 10)
    monkeypatch.setattr(events, "SHED", 4)
    monkeypatch.setattr(events, "COUNTED", 5)
    counted: list[int] = []
    count = Transaction.count

    def counting(tx: Transaction, *given: Any) -> int:
        counted.append(count(tx, *given))
        return counted[-1]

    monkeypatch.setattr(Transaction, "count", counting)
    most = 0
    async with world() as made:
        made.start([EventController()])
        await asyncio.sleep(1)
        for n in range(40):
            await made.store.transact(lambda tx, n=n: tx.create(event(f"e{n:02}")))  # type: ignore[misc]
            await asyncio.sleep(1)
            most = max(most, len(await names(made.store)))
        left = await names(made.store)
    assert counted == [1, 6, 11, 11, 11, 11, 11, 11] and most <= 10 + 5
    assert left == [f"e{n:02}" for n in range(40 - len(left), 40)]


@on_fake_time
async def test_the_same_note_again_is_counted() -> None:
    async with world() as made:
        about = await made.store.transact(lambda tx: tx.create(raw("Host", "h1", spec={})))
        for text in ("one", "one", "two"):
            await made.store.transact(lambda tx, t=text: note(tx, CLOUD, about, "Odd", t))  # type: ignore[misc]
            await asyncio.sleep(5)
        found = await made.store.read(lambda tx: [s.raw for s in tx.select("Event")])
        assert sorted((e["message"], e["count"]) for e in found) == [("one", 2), ("two", 1)]
        (one,) = [e for e in found if e["message"] == "one"]
        assert one["involvedObject"]["uid"] == about.uid and one["type"] == "Warning"
        assert one["firstTimestamp"] < one["lastTimestamp"]
