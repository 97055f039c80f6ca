"""Ownership: a merge moves only what its writer owns."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.meta import Owner
from roost.model.ownership import merge, status_owners
from roost.model.registry import BY_KIND, KINDS

VALUES = st.one_of(st.integers(0, 3), st.none(), st.lists(st.integers(0, 2), max_size=2))


@st.composite
def objects(draw: st.DrawFn, info: KindInfo) -> Raw:
    fields = [*status_owners(info), "newerField"]
    made: Raw = {"kind": info.kind, "metadata": {"name": "x", "labels": {"v": str(draw(st.integers(0, 9)))}}}
    for part in ("spec", "status"):
        if draw(st.booleans()):
            keys = fields if part == "status" else ["a", "b"]
            made[part] = draw(st.dictionaries(st.sampled_from(keys), VALUES, max_size=5))
    return made


@settings(max_examples=300, deadline=None)
@given(data=st.data(), info=st.sampled_from(KINDS), writer=st.sampled_from(Owner))
def test_only_the_writers_fields_move(data: st.DataObject, info: KindInfo, writer: Owner) -> None:
    current, incoming = data.draw(objects(info)), data.draw(objects(info))
    merged = merge(info, current, incoming, writer)
    assert {k: v for k, v in merged.items() if k not in ("spec", "status")} == {
        k: v for k, v in current.items() if k not in ("spec", "status")
    }
    spec = incoming if info.spec_owner is writer and "spec" in incoming else current
    assert merged.get("spec") == spec.get("spec")
    owners = status_owners(info)
    before, brought, after = (o.get("status") or {} for o in (current, incoming, merged))
    for field in {*before, *brought, *after} if owners else ():
        mine = owners.get(field, info.status_owner) is writer
        source: dict[str, Any] = brought if mine else before
        assert after.get(field, "absent") == source.get(field, "absent"), field
    assert merge(info, merged, incoming, writer) == merged


def test_the_host_owns_what_it_observes_and_nothing_else() -> None:
    owners = status_owners(BY_KIND["Host"])
    assert {f for f, o in owners.items() if o is Owner.HOST} == {
        "inventory",
        "inventoryObservedAt",
        "readings",
        "agent",
        "health",
        "drain",
    }
    assert set(status_owners(BY_KIND["HostConfiguration"]).values()) == {Owner.HOST}
    assert BY_KIND["HostConfiguration"].spec_owner is Owner.CLOUD


def test_a_status_that_is_null_is_an_empty_one() -> None:
    info = BY_KIND["Host"]
    merged = merge(info, {"status": {"task": "x", "agent": {}}}, {"status": None}, Owner.HOST)
    assert merged == {"status": {"task": "x"}}
