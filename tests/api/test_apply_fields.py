"""Sets of fields, comparison, merge and ownership as pure functions: tables, and what holds for all."""

from __future__ import annotations

import copy
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from roost.api.apply import comparing, fields, managers, merging, migration
from roost.api.apply.fields import Fields
from roost.api.apply.managers import Conflicts, Writing
from roost.api.apply.shapes import SET, Sharing, shape_of
from roost.model.codec import Raw
from roost.model.firewall import FirewallPolicy
from roost.model.host import Host
from roost.model.meta import Part, Resource, doc

V = "test/v1"
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


class Port(Part, frozen=True, kw_only=True):
    number: int
    protocol: str = "TCP"
    names: Annotated[list[str], doc("Names.", list_type="set")] = []
    size: int = 1


class Inner(Part, frozen=True, kw_only=True):
    a: str = ""
    b: int = 7
    many: Annotated[dict[str, str], doc("Many.")] = {}


class ThingSpec(Part, frozen=True, kw_only=True):
    text: str = ""
    count: int | None = None
    inner: Inner = Inner(b=9)
    maybe: Inner | None = None
    whole: Annotated[Inner, doc("Whole.", map_type="atomic")] = Inner()
    ports: Annotated[list[Port], doc("Ports.", list_type="map", list_keys=("number", "protocol"))] = []
    tags: Annotated[list[str], doc("Tags.", list_type="set")] = []
    steps: Annotated[list[str], doc("Steps, in order.")] = []


class Thing(Resource, frozen=True, kw_only=True):
    spec: ThingSpec = ThingSpec()
    status: dict[str, str] = {}


SHAPE = shape_of(Thing)


def port(number: int, **rest: Any) -> Raw:
    return {"number": number, **rest}


def thing(**spec: Any) -> Raw:
    return {"apiVersion": V, "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}


def writing(manager: str, now: str = NOW) -> Writing:
    return Writing(manager, V, now)


def put(live: Raw, config: Raw, entries: list[Raw], manager: str, **options: Any) -> managers.Applied:
    return managers.apply(live, config, SHAPE, entries, writing(manager), **{"force": False, **options})


def begun(config: Raw, manager: str = "a") -> tuple[Raw, list[Raw]]:
    """An object that an applied configuration made, and its entries."""
    return config, managers.first_applied(config, SHAPE, writing(manager))


def owners(entries: list[Raw]) -> dict[str, Fields]:
    return {e["manager"]: e["fieldsV1"] for e in entries}


# -- shapes


def test_shapes_follow_the_declarations() -> None:
    spec = SHAPE.fields["spec"].shape
    assert [spec.fields[f].shape.sharing for f in ("whole", "steps", "text")] == [Sharing.LEAF] * 3
    assert spec.fields["tags"].shape is SET
    ports = spec.fields["ports"].shape
    assert ports.sharing is Sharing.ITEMS and [k for k, _ in ports.keys] == ["number", "protocol"]
    assert ports.keys[1][1] == "TCP"
    assert spec.fields["inner"].default == {"b": 9} or spec.fields["inner"].default == {"b": 9, "a": ""}
    metadata = SHAPE.fields["metadata"].shape
    assert metadata.fields["labels"].shape.sharing is Sharing.MAP
    assert metadata.fields["finalizers"].shape is SET
    assert metadata.fields["ownerReferences"].shape.item.sharing is Sharing.LEAF
    assert "uid" not in metadata.fields and "status" not in SHAPE.fields


def test_kinds_declare_what_is_natural() -> None:
    host = shape_of(Host).fields["spec"].shape
    assert host.fields["interfaces"].shape.keys[0][0] == "port"
    assert host.fields["interfaces"].shape.item.fields["networks"].shape is SET
    policy = shape_of(FirewallPolicy).fields["spec"].shape
    assert policy.fields["rules"].shape.sharing is Sharing.LEAF and policy.fields["networks"].shape is SET


# -- sets


tokens = st.sampled_from(["f:a", "f:b", 'k:{"n":1}', "v:2", "i:0"])
nodes: st.SearchStrategy[Fields] = st.recursive(
    st.just({}),
    lambda inner: st.tuples(st.dictionaries(tokens, inner, min_size=1, max_size=3), st.booleans()).map(
        lambda made: {".": {}, **made[0]} if made[1] else made[0]
    ),
    max_leaves=8,
)
sets = st.dictionaries(tokens, nodes, max_size=4)


def paths(of: Fields) -> set[fields.Path]:
    return set(fields.members(of))


@given(sets, sets)
def test_sets_do_what_sets_do(first: Fields, second: Fields) -> None:
    before = copy.deepcopy((first, second))
    one, two = paths(first), paths(second)
    assert paths(fields.union(first, second)) == one | two
    assert paths(fields.difference(first, second)) == one - two
    assert paths(fields.intersection(first, second)) == one & two
    below = {p for p in one if any(p[: len(q)] == q for q in two)}
    assert paths(fields.without(first, second)) == one - below
    assert (first, second) == before


@given(sets)
def test_a_set_goes_through_fields_v1_and_back(some: Fields) -> None:
    sent = msgspec.json.decode(msgspec.json.encode(some))
    assert fields.canonical(sent) == some
    assert fields.union(some, some) == some and paths(fields.difference(some, some)) == set()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("f:spec", "f:rules"), ".spec.rules"),
        (("f:spec", 'k:{"number":80,"protocol":"TCP"}', "f:size"), '.spec[number=80,protocol="TCP"].size'),
        (("f:tags", 'v:"x"'), '.tags[="x"]'),
        (("f:steps", "i:2"), ".steps[2]"),
    ],
)
def test_paths_as_messages_have_them(path: fields.Path, text: str) -> None:
    assert fields.text(path) == text


@pytest.mark.parametrize("bad", [[], "x", {"f:a": 1}, {"x:a": {}}, {"k:[]": {}}, {"k:{": {}}, {"i:x": {}}])
def test_what_is_no_set_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="not a"):
        fields.canonical(bad)


def test_keys_of_others_are_brought_to_our_form() -> None:
    assert fields.canonical({'k:{ "b":1, "a" : 2 }': {"f:x": {}}}) == {'k:{"a":2,"b":1}': {"f:x": {}}}


# -- what an object has, and what differs


def test_what_an_applied_configuration_claims() -> None:
    config = thing(
        text="x", ports=[port(80, names=["a"])], tags=["t"], steps=["1"], inner={"many": {"k": "v"}}
    )
    config["metadata"] |= {"labels": {"l": "1"}, "uid": "u"}
    assert comparing.applied(config, SHAPE) == {
        "f:metadata": {"f:labels": {"f:l": {}}},
        "f:spec": {
            "f:text": {},
            "f:ports": {
                'k:{"number":80,"protocol":"TCP"}': {".": {}, "f:number": {}, "f:names": {'v:"a"': {}}}
            },
            "f:tags": {'v:"t"': {}},
            "f:steps": {},
            "f:inner": {"f:many": {"f:k": {}}},
        },
    }


def test_what_a_plain_write_makes_its_own() -> None:
    body = thing(tags=["t"], whole={"a": "x"}, maybe={})
    body["metadata"]["labels"] = {"l": "1"}
    assert comparing.created(body, SHAPE) == {
        "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
        "f:spec": {".": {}, "f:tags": {".": {}, 'v:"t"': {}}, "f:whole": {}, "f:maybe": {}},
    }


DIFFERENCES: list[tuple[Raw, Raw, list[str], list[str]]] = [
    ({}, {}, [], []),
    ({"text": "a"}, {"text": "b"}, [".spec.text"], []),
    ({}, {"text": ""}, [], []),
    ({"text": "a"}, {}, [".spec.text"], []),
    ({}, {"count": 1}, [".spec.count"], []),
    ({"count": 1}, {}, [], [".spec.count"]),
    ({}, {"inner": {"b": 9}}, [], []),
    ({}, {"inner": {}}, [".spec.inner", ".spec.inner.b"], []),
    ({"inner": {"a": "x"}}, {"inner": {"a": "x", "b": 7}}, [], []),
    ({"maybe": {"a": "x"}}, {"maybe": {"a": "x", "b": 8}}, [".spec.maybe.b"], []),
    ({"tags": ["a", "b"]}, {"tags": ["b", "a"]}, [], []),
    ({"tags": ["a", "b"]}, {"tags": ["b", "c"]}, ['.spec.tags[="c"]'], ['.spec.tags[="a"]']),
    ({"steps": ["a", "b"]}, {"steps": ["b", "a"]}, [".spec.steps"], []),
    ({"tags": ["a"]}, {}, [], [".spec.tags"]),
    ({"tags": ["a"]}, {"tags": []}, [], ['.spec.tags[="a"]']),
    ({"tags": []}, {}, [], []),
    ({"whole": {"a": "x"}}, {"whole": {"a": "y"}}, [".spec.whole"], []),
    ({"whole": {"a": "x"}}, {"whole": {"b": 7, "a": "x", "many": {}}}, [], []),
    (
        {"ports": [port(1, size=2), port(2)]},
        {"ports": [port(2, protocol="TCP"), port(1, size=3)]},
        ['.spec.ports[number=1,protocol="TCP"].size'],
        [],
    ),
    ({"ports": [port(1)]}, {"ports": [port(1, size=1)]}, [], []),
    (
        {"ports": [port(1)]},
        {"ports": [port(1, protocol="UDP")]},
        [
            '.spec.ports[number=1,protocol="UDP"]',
            '.spec.ports[number=1,protocol="UDP"].number',
            '.spec.ports[number=1,protocol="UDP"].protocol',
        ],
        ['.spec.ports[number=1,protocol="TCP"]'],
    ),
    ({"future": {"a": 1, "b": [1]}}, {"future": {"a": 2, "b": [1]}}, [".spec.future.a"], []),
]


@pytest.mark.parametrize(("old", "new", "changed", "removed"), DIFFERENCES)
def test_differences(old: Raw, new: Raw, changed: list[str], removed: list[str]) -> None:
    found = comparing.compare(thing(**old), thing(**new), SHAPE)
    assert [fields.text(p) for p in fields.members(found.changed)] == changed
    assert [fields.text(p) for p in fields.members(found.removed)] == removed


def test_duplicates_are_told_with_their_paths() -> None:
    body = thing(tags=["a", "b", "a"], ports=[port(1), port(1, protocol="TCP"), port(2, names=["x", "x"])])
    found = [(p.field, p.reason) for p in comparing.duplicates(body, SHAPE)]
    assert found == [
        ("spec.tags[2]", 'Duplicate value: "a"'),
        ("spec.ports[1]", 'Duplicate value: {"number":1,"protocol":"TCP"}'),
        ("spec.ports[2].names[1]", 'Duplicate value: "x"'),
    ]


# -- merge


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [
        ("abc", "b", "abc"),
        ("abc", "x", "abcx"),
        ("abc", "ca", "bca"),
        ("abc", "xb", "axbc"),
        ("abcd", "dxb", "acdxb"),
        ("", "ab", "ab"),
        ("ab", "", "ab"),
    ],
)
def test_lists_are_joined_in_the_order_applied(live: str, applied: str, merged: str) -> None:
    assert "".join(merging.merge(list(live), list(applied), SET)) == merged


def test_items_are_joined_by_their_keys() -> None:
    live = thing(ports=[port(1, size=5), port(2, size=6)])
    config = thing(ports=[port(2, protocol="TCP", names=["n"])])
    assert merging.merge(live, config, SHAPE)["spec"]["ports"] == [
        port(1, size=5),
        port(2, size=6, protocol="TCP", names=["n"]),
    ]


def test_a_part_of_an_omitted_default_keeps_the_rest_of_it() -> None:
    assert merging.merge(thing(), thing(inner={"a": "x"}), SHAPE)["spec"]["inner"]["b"] == 9


# -- apply


def test_what_is_no_longer_applied_goes() -> None:
    live, entries = begun(thing(text="x", tags=["a", "b"], ports=[port(1), port(2)], maybe={"a": "y"}))
    body, after = put(live, thing(tags=["a"], ports=[port(1)]), entries, "a")
    assert body["spec"] == {"tags": ["a"], "ports": [port(1)]}
    assert owners(after)["a"]["f:spec"] == {
        "f:tags": {'v:"a"': {}},
        "f:ports": {'k:{"number":1,"protocol":"TCP"}': {".": {}, "f:number": {}}},
    }


def test_what_others_own_stays() -> None:
    live, entries = begun(thing(text="x", tags=["a", "b"], ports=[port(1, size=3)]))
    shared = put(live, thing(text="x", tags=["b"], ports=[port(1)]), entries, "b")
    body, after = put(shared.body, thing(), shared.entries, "a")
    assert body["spec"] == {"text": "x", "tags": ["b"], "ports": [port(1)]}
    assert set(owners(after)) == {"b"} or owners(after)["a"] == {"f:spec": {}}


def test_defaults_go_with_the_struct_that_was_applied() -> None:
    live, entries = begun(thing(maybe={"a": "x"}))
    live = thing(maybe={"a": "x", "b": 7})
    body, _ = put(live, thing(text="y"), entries, "a")
    assert body["spec"] == {"text": "y"}


def test_what_nobody_owns_stays() -> None:
    live, entries = begun(thing(inner={"a": "x"}))
    live = thing(inner={"a": "x", "b": 3}, text="platform")
    live["metadata"]["labels"] = {"platform": "1"}
    body, _ = put(live, thing(), entries, "a")
    assert body["spec"] == {"inner": {"b": 3}, "text": "platform"}
    assert body["metadata"]["labels"] == {"platform": "1"}


def test_an_item_goes_whole_though_others_changed_a_field_of_it() -> None:
    live, entries = begun(thing(ports=[port(1)]))
    touched = thing(ports=[port(1, size=4)])
    entries = managers.updated(live, touched, SHAPE, entries, writing("edit"))
    body, after = put(touched, thing(text="x"), entries, "a")
    assert body["spec"] == {"text": "x"}
    assert "edit" not in owners(after)


def test_conflicts_name_manager_and_path() -> None:
    live, entries = begun(thing(text="x", tags=["a"], count=1))
    with pytest.raises(Conflicts) as raised:
        put(live, thing(text="y"), entries, "b")
    only = 'Apply failed with 1 conflict: conflict with "a": .spec.text'
    assert raised.value.message == only
    assert raised.value.causes() == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "a"', "field": ".spec.text"}
    ]
    entries = managers.updated(
        live, live | {"spec": {**live["spec"], "count": 2}}, SHAPE, entries, writing("e")
    )
    with pytest.raises(Conflicts) as raised:
        put(thing(text="x", tags=["a"], count=2), thing(text="y", count=3), entries, "b")
    assert raised.value.message == (
        "Apply failed with 2 conflicts: "
        f'conflicts with "a":\n- .spec.text\nconflicts with "e" using {V}:\n- .spec.count'
    )


def test_force_takes_and_equal_values_are_shared() -> None:
    live, entries = begun(thing(text="x", count=1))
    body, after = put(live, thing(text="y", count=1), entries, "b", force=True)
    assert body["spec"] == {"text": "y", "count": 1}
    assert owners(after) == {
        "a": {"f:spec": {"f:count": {}}},
        "b": {"f:spec": {"f:count": {}, "f:text": {}}},
    }


def test_a_default_that_is_left_out_is_the_same_value() -> None:
    _, entries = begun(thing(maybe={"a": "x", "b": 7}))
    stored = thing(maybe={"a": "x"})
    body, after = put(stored, thing(maybe={"b": 7}), entries, "b")
    assert comparing.compare(stored, body, SHAPE).changed == {}
    with pytest.raises(Conflicts):
        put(stored, thing(maybe={"b": 8}), after, "c")


def test_time_moves_only_with_a_change() -> None:
    live, entries = begun(thing(text="x"))
    same = managers.apply(live, live, SHAPE, entries, writing("a", LATER), force=False)
    assert same.entries == entries and same.body == live
    changed = managers.apply(live, thing(text="z"), SHAPE, entries, writing("a", LATER), force=False)
    assert changed.entries[0]["time"] == LATER


def test_an_untracked_object_was_there_before() -> None:
    body, after = put(thing(text="x", count=1), thing(text="x"), [], "a")
    assert owners(after)["before-first-apply"] == {"f:spec": {".": {}, "f:text": {}, "f:count": {}}}
    assert after[1]["operation"] == "Update" and after[0]["operation"] == "Apply"
    with pytest.raises(Conflicts, match="1 conflicts"):
        put(body, thing(text="y"), [], "a")


# -- plain writes


def test_a_plain_write_takes_what_it_changes() -> None:
    live, entries = begun(thing(text="x", count=1, tags=["a"]))
    new = thing(text="y", tags=["b"])
    after = managers.updated(live, new, SHAPE, entries, writing("e", LATER))
    # The list that is left without the member that was removed is nobody's.
    assert owners(after) == {"e": {"f:spec": {"f:text": {}, "f:tags": {'v:"b"': {}}}}}
    assert after[0]["time"] == LATER
    again = managers.updated(new, thing(text="z", tags=["b"]), SHAPE, after, writing("e", NOW))
    assert owners(again) == owners(after) and again[0]["time"] == NOW
    assert managers.updated(new, new, SHAPE, after, writing("other")) is after
    assert managers.updated(live, new, SHAPE, [], writing("e")) == []


def test_the_oldest_plain_writes_become_one() -> None:
    live, entries = thing(), managers.updated({}, thing(), SHAPE, [], writing("m"))
    for n in range(15):
        new = thing(inner={"many": {**live["spec"].get("inner", {}).get("many", {}), f"k{n}": "v"}})
        stamp = f"2026-01-{n + 1:02}T00:00:00Z"
        entries = managers.updated(live, new, SHAPE, entries, writing(f"m{n:02}", stamp))
        live = new
    assert len(entries) == 10
    names = [e["manager"] for e in entries]
    assert names == ["ancient-changes", *(f"m{n:02}" for n in range(6, 15))]
    everything: Fields = {}
    for entry in entries:
        everything = fields.union(everything, entry["fieldsV1"])
    assert all(f"f:k{n}" in everything["f:spec"]["f:inner"]["f:many"] for n in range(15))


def test_entries_of_versions_that_are_gone_go() -> None:
    live, entries = begun(thing(text="x"))
    entries = [{**entries[0], "apiVersion": "test/v0"}]
    assert owners(managers.updated(live, thing(text="y"), SHAPE, entries, writing("e"))) == {
        "e": {"f:spec": {"f:text": {}}}
    }


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (None, None),
        ([], []),
        ([{}], []),
        ("x", None),
        ([1], None),
        ([{"manager": "a"}], None),
        ([{"manager": "a", "operation": "Apply", "fieldsType": "FieldsV2"}], None),
        ([{"manager": "a", "operation": "Apply", "fieldsV1": {"x": 1}}], None),
        ([{"manager": "a" * 129, "operation": "Apply", "fieldsV1": {}}], None),
        (
            [{"manager": "a", "operation": "Apply", "apiVersion": V, "time": NOW, "fieldsV1": {"f:a": {}}}],
            [
                {
                    "manager": "a",
                    "operation": "Apply",
                    "apiVersion": V,
                    "time": NOW,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:a": {}},
                }
            ],
        ),
    ],
)
def test_entries_that_are_sent(sent: Any, taken: Any) -> None:
    assert managers.given(sent) == taken


# -- kubectl's client-side apply


def test_what_the_last_client_side_apply_set_is_its_own() -> None:
    last = msgspec.json.encode(thing(text="x", count=1)).decode()
    live = thing(text="x", count=2)
    live["metadata"]["annotations"] = {migration.LAST_APPLIED: last}
    assert migration.own(live, SHAPE) == {"f:spec": {"f:text": {}}}
    followed = migration.followed(live, thing(text="y"))
    written = followed["metadata"]["annotations"][migration.LAST_APPLIED]
    assert msgspec.json.decode(written) == thing(text="y") and written.endswith("\n")
    assert migration.followed(thing(), thing(text="y")) == thing()
    live["metadata"]["annotations"][migration.LAST_APPLIED] = "{"
    assert migration.own(live, SHAPE) == {}


# -- what holds for all

words = st.sampled_from(["", "x", "y"])
many = st.dictionaries(st.sampled_from(["k", "l"]), words, max_size=2)
inners = st.fixed_dictionaries({}, optional={"a": words, "b": st.integers(7, 9), "many": many})
ports = st.lists(
    st.fixed_dictionaries(
        {"number": st.integers(1, 3)},
        optional={
            "protocol": st.sampled_from(["TCP", "UDP"]),
            "size": st.integers(1, 3),
            "names": st.lists(st.sampled_from("ab"), unique=True, max_size=2),
        },
    ),
    max_size=3,
    unique_by=lambda p: (p["number"], p.get("protocol", "TCP")),
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "text": words,
        "count": st.integers(1, 2),
        "inner": inners,
        "maybe": inners,
        "whole": inners,
        "ports": ports,
        "tags": st.lists(st.sampled_from("abc"), unique=True, max_size=3),
        "steps": st.lists(st.sampled_from("ab"), max_size=2),
    },
)
things = specs.map(lambda spec: thing(**spec))


def everyones(entries: list[Raw]) -> Fields:
    found: Fields = {}
    for entry in entries:
        found = fields.union(found, entry["fieldsV1"])
    return found


def stored(body: Raw) -> Raw:
    """What the store would have: through the structs, which fill in and leave out defaults."""
    made = msgspec.to_builtins(
        msgspec.convert({k: v for k, v in body.items() if k in ("metadata", "spec")}, Thing)
    )
    return {
        "apiVersion": V,
        "kind": "Thing",
        "metadata": made.get("metadata", {}),
        "spec": made.get("spec", {}),
    }


@given(things, things)
def test_applying_twice_changes_nothing(first: Raw, config: Raw) -> None:
    live, entries = begun(first)
    once = put(stored(live), config, entries, "b", force=True)
    twice = managers.apply(stored(once.body), config, SHAPE, once.entries, writing("b", LATER), force=False)
    assert comparing.compare(stored(once.body), twice.body, SHAPE) == comparing.NOTHING
    assert twice.entries == once.entries
    assert stored(twice.body) == stored(once.body)


@given(things, things)
def test_applying_nothing_removes_exactly_what_one_alone_owned(first: Raw, config: Raw) -> None:
    live, entries = begun(first)
    once = put(live, config, entries, "b", force=True)
    gone = put(once.body, thing(), once.entries, "b")
    there, left = (paths(comparing.created(body, SHAPE)) for body in (once.body, gone.body))
    theirs = paths(everyones(gone.entries))
    mine = fields.difference(owners(once.entries).get("b", {}), owners(once.entries).get("a", {}))
    for path in paths(mine) & left - {("f:spec",)}:
        assert any(other[: len(path)] == path for other in theirs), path
    holders = {path for path in there if any(p != path and p[: len(path)] == path for p in there)}
    for path in theirs & there - holders:
        assert path in left, path


@given(things, things)
def test_a_merge_invents_nothing(live: Raw, config: Raw) -> None:
    before = copy.deepcopy((live, config))
    merged = merging.merge(live, config, SHAPE)
    assert (live, config) == before

    def values(value: Any) -> set[str]:
        if isinstance(value, dict):
            return {v for inner in value.values() for v in values(inner)}
        if isinstance(value, list):
            return {v for inner in value for v in values(inner)}
        return {repr(value)}

    # 9 and 7 are defaults: they stand for a struct that was left out.
    assert values(merged) <= values(live) | values(config) | {"9", "7", "'t'"}
    claimed = comparing.applied(config, SHAPE)
    assert paths(claimed) <= paths(comparing.created(merged, SHAPE)) | {("f:spec",)}


@given(things, things)
def test_every_changed_field_has_the_writer_as_owner(first: Raw, new: Raw) -> None:
    live, entries = begun(first)
    assume(entries)
    after = managers.updated(live, new, SHAPE, entries, writing("e"))
    changed = comparing.compare(live, new, SHAPE)
    assert paths(owners(after).get("e", {})) == paths(changed.changed)
    for path in fields.members(changed.removed):
        assert not any(p[: len(path)] == path for p in paths(everyones(after)))
    kept = fields.without(fields.difference(owners(entries).get("a", {}), changed.changed), changed.removed)
    assert paths(owners(after).get("a", {})) == paths(kept)


@given(things, things, things)
def test_two_appliers_keep_what_each_applies(first: Raw, second: Raw, third: Raw) -> None:
    """Whatever is applied last, by force, is in the object; and the other loses only what it took."""
    live, entries = begun(first)
    for manager, config in (("b", second), ("a", third), ("b", second)):
        body, entries = put(stored(live), config, entries, manager, force=True)
        live = body
        assert comparing.compare(live, merging.merge(live, config, SHAPE), SHAPE) == comparing.NOTHING
        assert paths(comparing.applied(config, SHAPE)) == paths(owners(entries).get(manager, {}))


@given(things, things)
def test_a_difference_is_none_only_between_equals(first: Raw, second: Raw) -> None:
    found = comparing.compare(first, second, SHAPE)
    back = comparing.compare(second, first, SHAPE)
    assert (found == comparing.NOTHING) == (back == comparing.NOTHING)
    if stored(first) == stored(second):
        assert found == comparing.NOTHING
