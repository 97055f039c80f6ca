"""What a range of resources was, put together with what is there, is the state of that revision; on each
database. And the questions about what is there now."""

from __future__ import annotations

import random

import pytest

from roost.store import former, present
from roost.store.errors import Compacted, FutureRevision
from roost.store.former import Former, Key, Range
from roost.store.store import Store
from roost.store.transaction import Stored, Transaction
from tests.support.stores import new_database, opened, raw

KIND = "Host"
NAMESPACES = ("harbor", "hill")
NAMES = tuple("abcdef")


def state(tx: Transaction) -> dict[Key, str]:
    return {(s.namespace, s.name): content(s) for s in tx.select(KIND)}


def content(stored: Stored) -> str:
    """What tells two states apart. Not the revision: of what was undone it is one between."""
    metadata = stored.raw["metadata"]
    return f"{metadata['uid']} {metadata['generation']} {metadata['annotations']['note']}"


async def one_change(store: Store, dice: random.Random) -> None:
    namespace, name = dice.choice(NAMESPACES), dice.choice(NAMES)
    note = {"annotations": {"note": "x" * dice.randrange(200)}}

    def work(tx: Transaction) -> None:
        found = tx.find(KIND, namespace, name)
        if found is None:
            tx.create(raw(KIND, name, namespace, metadata=note, spec={}))
        elif dice.random() < 0.4:
            tx.remove(KIND, namespace, name)
        else:
            tx.replace({**found.raw, "metadata": {**found.raw["metadata"], **note}})

    await store.transact(work)


def then(tx: Transaction, within: Range, revision: int, size: int) -> dict[Key, str]:
    """The state of a revision within a range, read piece by piece."""
    found, after = dict[Key, str](), within.after
    for _ in range(100):
        asked = Range(kind=KIND, namespace=within.namespace, name=within.name, after=after, upto=within.upto)
        part = former.read(tx, asked, revision, size)
        now = {
            k: v
            for k, v in state(tx).items()
            if (not within.namespace or k[0] == within.namespace)
            and (not within.name or k[1] == within.name)
            and (after is None or k > after)
            and (part.upto is None or k <= part.upto)
        }
        gone_back = {k: None if s is None else content(s) for k, s in part.resources.items()}
        found |= {k: v for k, v in {**now, **gone_back}.items() if v is not None}
        if part.upto == within.upto:
            return found
        after = part.upto
    raise AssertionError("it never comes to the end")


@pytest.mark.parametrize("size", [1, 700, 1_000_000])
async def test_the_present_undone_is_the_past(store: Store, size: int) -> None:
    dice, states = random.Random(7), list[tuple[int, dict[Key, str]]]()
    for _ in range(40):
        states.append(await store.read(lambda tx: (tx.revision, state(tx))))
        await one_change(store, dice)
    ranges = [
        Range(kind=KIND),
        Range(kind=KIND, namespace="hill"),
        Range(kind=KIND, namespace="hill", name="b"),
        Range(kind=KIND, after=("harbor", "c"), upto=("hill", "d")),
    ]
    for revision, was in states:
        for within in ranges:
            found = await store.read(lambda tx: then(tx, within, revision, size))  # noqa: B023
            assert found == {
                k: v
                for k, v in was.items()
                if (not within.namespace or k[0] == within.namespace)
                and (not within.name or k[1] == within.name)
                and (within.after is None or k > within.after)
                and (within.upto is None or k <= within.upto)
            }


async def test_what_is_not_kept_is_told() -> None:
    with new_database() as url:
        async with opened(url, history=5) as store:
            dice = random.Random(3)
            for _ in range(1_300):
                await one_change(store, dice)
            whole = Range(kind=KIND)
            with pytest.raises(Compacted):
                await store.read(lambda tx: former.read(tx, whole, 1, 1_000))
            with pytest.raises(FutureRevision):
                await store.read(lambda tx: former.read(tx, whole, tx.revision + 1, 1_000))
            assert await store.read(lambda tx: former.read(tx, whole, tx.revision, 1_000)) == Former({}, None)


async def test_what_is_there_now(store: Store) -> None:
    for namespace in NAMESPACES:
        for name in NAMES:
            body = raw(KIND, name, namespace, spec={})
            made = await store.transact(lambda tx: tx.create(body))  # noqa: B023

    everywhere = await store.read(lambda tx: present.count_after(tx, (KIND,), "", ("harbor", "b")))
    assert everywhere == 10
    beyond = await store.read(lambda tx: present.count_after(tx, (KIND, "Alarm"), "hill", ("hill", "d")))
    assert beyond == 2
    uid = made.raw["metadata"]["uid"]
    assert await store.read(lambda tx: present.is_somewhere(tx, KIND, uid))
    assert not await store.read(lambda tx: present.is_somewhere(tx, "Alarm", uid))
    assert not await store.read(lambda tx: present.is_somewhere(tx, KIND, "another"))
