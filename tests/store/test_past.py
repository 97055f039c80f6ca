"""What was: the state at a revision and at a time, who changed what, names used again, and the limits."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from roost.model.codec import Raw
from roost.store import history
from roost.store.errors import FutureRevision
from roost.store.history import Gone, Key, NotThen, changed_paths, managers
from roost.store.schema import changes
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.store.random_stores import NAMES, live
from tests.support.stores import new_database, opened, raw

KEY = Key("Host", "harbor", "h")
START = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


async def at(store: Store, revision: int, key: Key = KEY) -> Raw:
    return await store.read(lambda tx: history.state_at(tx, key, revision))


async def dated(store: Store) -> None:
    """Change number N was recorded N minutes after the start."""
    start, minute = START.timestamp(), 60.0
    values = {"recorded_at": start + minute * changes.c.revision}

    def work(tx: Transaction) -> None:
        tx.wrote = True
        tx.connection.execute(update(changes).values(values))

    await store.transact(work)


async def drop_until(store: Store, revision: int) -> None:
    def work(tx: Transaction) -> None:
        tx.wrote = True
        tx.connection.execute(delete(changes).where(changes.c.revision <= revision))

    await store.transact(work)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), forgotten=st.integers(0, 70))
def test_every_state_is_told_as_it_was_or_said_to_be_gone(seed: int, forgotten: int) -> None:
    async def run(url: str) -> None:
        async with opened(url, inline=True) as store:
            after = await live(store, seed)
            last = store.revision
            forgotten_here = min(forgotten, last)
            await drop_until(store, forgotten_here)
            for revision, there in after.items():
                for name in NAMES:
                    key = Key("Host", "harbor", name)
                    try:
                        told = await at(store, revision, key)
                    except NotThen:
                        assert name not in there
                    except Gone as gone:
                        assert revision < forgotten_here and gone.oldest == forgotten_here
                    else:
                        then = copy.deepcopy(there[name])
                        if "resourceVersion" not in told["metadata"]:
                            then["metadata"].pop("resourceVersion")
                        assert told == then
            if forgotten_here == 0:
                await the_steps_lead_from_state_to_state(store)

    with new_database() as url:
        asyncio.run(run(url))


async def the_steps_lead_from_state_to_state(store: Store) -> None:
    for name in NAMES:
        key = Key("Host", "harbor", name)
        found = await store.read(lambda tx, k=key: history.steps(tx, k, limit=1000))  # type: ignore[misc]
        state: Raw = {}
        for step in reversed(found):
            assert step.before == state
            state = {} if step.type == "DELETED" else step.after
        present = await store.read(lambda tx, n=name: tx.find("Host", "harbor", n))  # type: ignore[misc]
        assert (present is not None) == bool(state)
        pages: list[history.Step] = []
        while True:
            before = pages[-1].revision if pages else 0
            page = await store.read(lambda tx, k=key, b=before: history.steps(tx, k, before=b, limit=3))  # type: ignore[misc]
            if not page:
                break
            pages += page
        assert pages == found


async def used_twice(store: Store) -> tuple[str, str]:
    """A name that two hosts had: revisions 1-2 and 4-5; deleted at 3. Their uids."""
    first = await store.transact(lambda tx: tx.create(raw("Host", "h", spec={"location": "a"})))
    await store.transact(lambda tx: tx.replace({**first.raw, "spec": {"location": "b"}}))
    await store.transact(lambda tx: tx.remove("Host", "harbor", "h"))
    second = await store.transact(lambda tx: tx.create(raw("Host", "h", spec={"location": "c"})))
    await store.transact(lambda tx: tx.replace({**second.raw, "spec": {"location": "d"}}))
    return first.uid, second.uid


async def test_a_name_used_again(store: Store) -> None:
    first, second = await used_twice(store)
    assert [(await at(store, n))["spec"]["location"] for n in (1, 2, 4, 5)] == ["a", "b", "c", "d"]
    with pytest.raises(NotThen, match="deleted at revision 3 and it was created at revision 4") as caught:
        await at(store, 3)
    assert (caught.value.last, caught.value.next) == (3, 4)
    with pytest.raises(NotThen, match="it was created at revision 1"):
        await at(store, 0)
    with pytest.raises(FutureRevision):
        await at(store, 6)
    one, other = Key("Host", "harbor", "h", first), Key("Host", "harbor", "h", second)
    assert (await at(store, 2, one))["spec"]["location"] == "b"
    assert (await at(store, 5, other))["spec"]["location"] == "d"
    for revision, key in ((5, one), (2, other)):
        with pytest.raises(NotThen):
            await at(store, revision, key)
    types = [(s.revision, s.type) for s in await store.read(lambda tx: history.steps(tx, KEY))]
    assert types == [(5, "MODIFIED"), (4, "ADDED"), (3, "DELETED"), (2, "MODIFIED"), (1, "ADDED")]
    mine = await store.read(lambda tx: history.steps(tx, one))
    assert [s.revision for s in mine] == [3, 2, 1]
    assert mine[0].after["spec"]["location"] == "b"  # the last state


async def test_times_lead_to_revisions(store: Store) -> None:
    await used_twice(store)

    async def reached(minutes: float) -> int:
        moment = (START + timedelta(minutes=minutes)).timestamp()
        return await store.read(lambda tx: history.revision_at(tx, moment))

    await dated(store)
    assert [await reached(m) for m in (1, 1.9, 2, 4.5, 500)] == [1, 1, 2, 4, 5]
    assert await reached(0.5) == 0
    await drop_until(store, 2)
    with pytest.raises(Gone) as caught:
        await reached(2)
    assert (caught.value.oldest, caught.value.since) == (2, START.timestamp() + 180)
    assert await reached(3) == 3


async def test_what_never_changed_since_is_told_though_its_change_is_gone(store: Store) -> None:
    await store.transact(lambda tx: tx.create(raw("Host", "h")))
    await store.transact(lambda tx: tx.create(raw("Host", "other")))
    await drop_until(store, 2)
    assert (await at(store, 1))["metadata"]["resourceVersion"] == "1"
    with pytest.raises(Gone, match="no longer kept"):
        await at(store, 1, Key("Host", "harbor", "other"))
    with pytest.raises(NotThen, match="no history that is kept knows of it"):
        await at(store, 2, Key("Host", "harbor", "never"))


@pytest.mark.parametrize(
    ("before", "after", "paths"),
    [
        ({}, {"a": 1}, ["a"]),
        ({"spec": {"a": 1, "b": 2}}, {"spec": {"a": 1, "b": 3}}, ["spec.b"]),
        ({"spec": {"a": 1}}, {"status": {"b": 3}}, ["spec", "status"]),
        ({"metadata": {"generation": 1, "labels": {}}}, {"metadata": {"generation": 2, "labels": {}}}, []),
        (
            {"c": [{"type": "Ready", "s": 1}, {"type": "Up", "s": 1}]},
            {"c": [{"type": "Up", "s": 1}, {"type": "Ready", "s": 2}]},
            ["c[Ready]"],
        ),
        ({"c": [{"name": "x"}]}, {"c": []}, ["c[x]"]),
        ({"c": [1, 2]}, {"c": [1]}, ["c"]),
        ({str(n): n for n in range(20)}, {}, [*map(str, range(12)), "..."]),
    ],
)
def test_changed_fields_in_short(before: Raw, after: Raw, paths: list[str]) -> None:
    assert changed_paths(before, after) == paths


def test_who_made_a_change() -> None:
    kubectl = {"manager": "kubectl", "operation": "Apply", "time": "1"}
    agent = {"manager": "agent", "operation": "Update", "time": "1"}
    before = {"metadata": {"managedFields": [kubectl, agent]}}
    after = {"metadata": {"managedFields": [kubectl, {**agent, "time": "2"}]}}
    assert managers(before, after) == ["agent"]
    assert managers({}, before) == ["agent", "kubectl"]
    assert managers({}, {"metadata": {}}) == []


def test_who_only_lost_fields_made_no_change() -> None:
    def shown(ada: Raw, patch: Raw) -> Raw:
        entries = [
            {"manager": "ada", "time": "1", "fieldsV1": ada},
            {"manager": "patch", "time": "1", "fieldsV1": patch},
        ]
        return {"metadata": {"managedFields": entries}}

    before = shown({"f:spec": {"f:a": {}, "f:b": {}}}, {"f:spec": {"f:c": {}}})
    taken = shown({"f:spec": {"f:b": {}}}, {"f:spec": {"f:a": {}, "f:c": {}}})
    assert managers(before, taken) == ["patch"]
    assert managers(taken, before) == ["ada"]
    assert managers(before, before) == []
