"""Stored text and the revision spliced into it: the same object as decoding and encoding gives."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from sqlalchemy import update

from roost.store import encoding
from roost.store.schema import resources
from roost.store.store import Store
from roost.store.transaction import Change, Stored, Transaction
from tests.support.stores import history, raw

TEXTS = st.text(st.sampled_from('a"\\{}:,é漢\n/'), max_size=8)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(-5, 5), st.none(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["Host", "Alarm"]), "metadata": st.dictionaries(TEXTS, VALUES, max_size=3)},
    optional={
        "apiVersion": st.one_of(st.just("roost.edge/v1"), TEXTS),
        "spec": VALUES,
        "status": VALUES,
        '","kind":"Host","metadata":{': VALUES,
    },
)


@given(OBJECTS, st.integers(0, 2**60), st.randoms())
def test_the_spliced_revision_is_the_decoded_one(given: dict[str, Any], revision: int, source: Any) -> None:
    members = list(given.items())
    source.shuffle(members)
    shuffled = dict(members)
    for stored in (shuffled, encoding.ordered(shuffled)):
        data = encoding.text(stored)
        expected = {**given, "metadata": {**given["metadata"], "resourceVersion": str(revision)}}
        assert msgspec.json.decode(encoding.with_revision(given["kind"], data, revision)) == expected


@given(st.lists(st.tuples(OBJECTS, st.integers(0, 2**60), st.booleans()), max_size=6))
def test_a_list_is_its_objects_whatever_way_they_are_stored(
    given: list[tuple[dict[str, Any], int, bool]],
) -> None:
    stored = [
        (one["kind"], encoding.text(encoding.ordered(one) if ordered else one), revision)
        for one, revision, ordered in given
    ]
    joined = encoding.with_revisions(stored)
    assert joined == b",".join(encoding.with_revision(*one) for one in stored)
    found = msgspec.json.decode(b"[%b]" % joined)
    assert [o["metadata"].pop("resourceVersion") for o in found] == [
        str(revision) for _, revision, _ in given
    ]
    for one, _, _ in given:
        one["metadata"].pop("resourceVersion", None)
    assert found == [one for one, _, _ in given]


@given(OBJECTS)
def test_the_head_comes_first_and_nothing_is_lost(given: dict[str, Any]) -> None:
    given["metadata"]["resourceVersion"] = "7"
    found = encoding.ordered(given)
    head = [k for k in ("apiVersion", "kind", "metadata") if k in given]
    assert list(found)[: len(head)] == head
    bare = {k: v for k, v in given["metadata"].items() if k != "resourceVersion"}
    assert found == {**given, "metadata": bare}
    assert given["metadata"]["resourceVersion"] == "7", "what was given stays as it is"


@pytest.mark.parametrize(
    ("data", "inside"),
    [
        ('{"apiVersion":"v","kind":"Host","metadata":{"name":"a"}}', 44),
        ('{"apiVersion":"v","kind":"Host","metadata":{}}', 44),
        ('{"kind":"Host","apiVersion":"v","metadata":{"name":"a"}}', 0),
        ('{"apiVersion":"v","kind":"Other","metadata":{"name":"a"}}', 0),
        ('{"metadata":{"name":"a"},"apiVersion":"v","kind":"Host"}', 0),
        ('{"apiVersion":"\\"","kind":"Host","metadata":{"name":"a"}}', 0),
    ],
)
def test_only_a_head_that_is_known_is_spliced(data: str, inside: int) -> None:
    assert encoding._inside_metadata("Host", data) == inside
    decoded = msgspec.json.decode(encoding.with_revision("Host", data, 5))
    assert decoded["metadata"].pop("resourceVersion") == "5"
    assert decoded == msgspec.json.decode(data)


async def test_every_way_to_write_stores_text_that_is_spliced(store: Store) -> None:
    turned = {
        "spec": {"location": "a"},
        "metadata": {"name": "h", "namespace": "harbor", "finalizers": ["x"]},
    }
    turned |= {"kind": "Host", "apiVersion": "roost.edge/v1"}

    def work(tx: Transaction) -> None:
        made = tx.create(turned)
        tx.replace({**made.raw, "spec": {"location": "b"}})
        tx.remove("Host", "harbor", "h")
        tx.copy(dict(reversed(raw("Host", "far", spec={}).items())), "down:a")
        tx.drop("Host", "harbor", "far")

    await store.transact(work)
    for change in await history(store):
        assert encoding._inside_metadata(change.kind, change.data)
        stored = change.stored()
        assert msgspec.json.decode(change.encoded) == stored.raw == msgspec.json.decode(stored.encoded)
        assert stored.raw["metadata"]["resourceVersion"] == str(change.revision)


async def test_a_row_in_another_order_is_the_same_object(store: Store) -> None:
    """As an older version wrote them: nothing has to be rewritten, nothing counts as a change."""
    data = (
        '{"spec":{},"metadata":{"name":"h","namespace":"harbor"},"kind":"Host","apiVersion":"roost.edge/v1"}'
    )

    def work(tx: Transaction) -> Stored:
        tx.copy(raw("Host", "h", spec={}), "up")
        tx.connection.execute(update(resources).values(data=data))
        return tx.get("Host", "harbor", "h")

    old = await store.transact(work)
    assert old.data == data
    assert msgspec.json.decode(old.encoded) == old.raw
    again = await store.transact(lambda tx: tx.copy(raw("Host", "h", spec={}), "up"))
    assert (again.revision, store.revision) == (1, 1)


def test_a_change_of_text_from_elsewhere() -> None:
    change = Change(9, "ADDED", "Host", "", "h", "", '{"metadata": {}}')
    assert msgspec.json.decode(change.encoded) == {"metadata": {"resourceVersion": "9"}}
