"""Garbage collection: the decision by tables, on random graphs to the end, and the controller on a store."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.engine import admission, garbage
from roost.engine.admission import Refused
from roost.engine.clock import LoopClock
from roost.engine.controller import Runner
from roost.engine.events import EventController
from roost.engine.garbage import Action, Do, GarbageController, Standing, decide
from roost.engine.ownership import FOREGROUND, ORPHAN, Graph, Node, Reference
from roost.model.codec import Raw
from roost.store import present
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.clock import START, on_fake_time
from tests.support.stores import CLOUD, new_database, opened, raw

LIVING, WAITING, GONE, UNKNOWN = Standing.LIVING, Standing.WAITING, Standing.GONE, Standing.UNKNOWN


def node(uid: str, *owners: str, deleting: str = "", blocks: bool = True) -> Node:
    references = tuple(Reference(o, "Host", o, blocks) for o in owners)
    return Node(uid, ("Host", CLOUD, uid), references, deleting)


def graph(*nodes: Node) -> Graph:
    made = Graph()
    for each in nodes:
        made.put(each)
    return made


@pytest.mark.parametrize(
    ("standing", "action"),
    [
        ({}, Action(Do.NOTHING)),
        ({"a": LIVING}, Action(Do.NOTHING)),
        ({"a": UNKNOWN}, Action(Do.NOTHING)),
        ({"a": GONE}, Action(Do.DELETE)),
        ({"a": GONE, "b": GONE}, Action(Do.DELETE)),
        ({"a": GONE, "b": LIVING}, Action(Do.FORGET, frozenset("a"))),
        ({"a": GONE, "b": UNKNOWN}, Action(Do.FORGET, frozenset("a"))),
        ({"a": WAITING}, Action(Do.DELETE)),
        ({"a": WAITING, "b": LIVING}, Action(Do.FORGET, frozenset("a"))),
        ({"a": WAITING, "b": GONE}, Action(Do.DELETE)),
    ],
)
def test_what_owners_mean(standing: dict[str, Standing], action: Action) -> None:
    assert decide(node("x", *standing), standing, Graph()) == action


def test_what_is_being_deleted_anyway_is_left_alone() -> None:
    assert decide(node("x", "a", deleting="yes"), {"a": GONE}, Graph()).do is Do.NOTHING


def test_dependents_first_when_an_owner_waits_and_more_depend_on_this_one() -> None:
    leaf = node("leaf", "x")
    assert decide(node("x", "a"), {"a": WAITING}, graph(leaf)).do is Do.DELETE_FOREGROUND
    assert decide(node("x", "a"), {"a": GONE}, graph(leaf)).do is Do.DELETE
    free = node("leaf", "x", blocks=False)
    assert decide(node("x", "a"), {"a": WAITING}, graph(free)).do is Do.DELETE


def test_a_waiting_owner_goes_when_nothing_blocks_it() -> None:
    owner = node("x", deleting=FOREGROUND)
    assert decide(owner, {}, graph(owner, node("d", "x"))).do is Do.NOTHING
    assert decide(owner, {}, graph(owner, node("d", "x", blocks=False))).do is Do.RELEASE
    assert decide(owner, {}, graph(owner)).do is Do.RELEASE
    assert decide(node("x", deleting=ORPHAN), {}, Graph()).do is Do.ORPHAN


def test_a_circle_of_those_that_wait_is_broken() -> None:
    a, b = node("a", "b", deleting=FOREGROUND), node("b", "a", deleting=FOREGROUND)
    assert decide(a, {"b": WAITING}, graph(a, b)).do is Do.RELEASE
    tail = node("c", "b", deleting=FOREGROUND)
    assert decide(node("b", deleting=FOREGROUND), {}, graph(node("b", deleting=FOREGROUND), tail)).do is (
        Do.NOTHING
    )


def test_the_graph_forgets_what_no_longer_matters() -> None:
    made = graph(node("a", "o"), node("b", "o"))
    assert [n.uid for n in made.dependents("o")] == ["a", "b"]
    made.put(node("a"))
    made.drop("b")
    assert (made.dependents("o"), len(made)) == ([], 0)


class World:
    """Resources as the store would have them, collected one by one in whatever order."""

    def __init__(self, owners: list[set[int]], blocks: list[bool]) -> None:
        self.nodes = {
            str(n): node(str(n), *(str(o) for o in of), blocks=b)
            for n, (of, b) in enumerate(zip(owners, blocks, strict=True))
        }
        self.deleted: list[str] = []
        self.asked: set[str] = set()

    def delete(self, uid: str, how: str) -> None:
        """As somebody outside asks."""
        if uid not in self.nodes or self.nodes[uid].deleting:
            return
        self.asked.add(uid)
        if how:
            self._put(uid, deleting=how)
        else:
            del self.nodes[uid]

    def step(self, uid: str) -> bool:
        """Look at one resource; whether anything was done."""
        known = Graph()
        for each in self.nodes.values():
            known.put(each)
        current = self.nodes[uid]
        standing = {r.uid: self._stands(r.uid) for r in current.owners}
        action = decide(current, standing, known)
        match action.do:
            case Do.NOTHING:
                return False
            case Do.DELETE | Do.DELETE_FOREGROUND:
                assert LIVING not in standing.values(), "deleted although an owner lives"
                assert not current.deleting
                self.deleted.append(uid)
                if action.do is Do.DELETE:
                    del self.nodes[uid]
                else:
                    self._put(uid, deleting=FOREGROUND)
            case Do.FORGET:
                self._forget(uid, action.owners)
            case Do.RELEASE:
                del self.nodes[uid]
            case Do.ORPHAN:
                for dependent in known.dependents(uid):
                    self._forget(dependent.uid, frozenset({uid}))
                self.nodes.pop(uid, None)
        return True

    def _stands(self, uid: str) -> Standing:
        if uid not in self.nodes:
            return GONE
        return WAITING if self.nodes[uid].deleting == FOREGROUND else LIVING

    def _put(self, uid: str, deleting: str) -> None:
        self.nodes[uid] = Node(uid, self.nodes[uid].where, self.nodes[uid].owners, deleting)

    def _forget(self, uid: str, owners: frozenset[str]) -> None:
        before = self.nodes[uid]
        kept = tuple(r for r in before.owners if r.uid not in owners)
        self.nodes[uid] = Node(uid, before.where, kept, before.deleting)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to eight resources that own one another however, circles and themselves included."""
    size = draw(st.integers(1, 8))
    owners = draw(st.lists(st.sets(st.integers(0, size - 1), max_size=3), min_size=size, max_size=size))
    blocks = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return World(owners, blocks)


@settings(max_examples=400, deadline=None)
@given(worlds(), st.data())
def test_in_the_end_nothing_has_only_owners_that_are_gone(world: World, data: st.DataObject) -> None:
    uids = sorted(world.nodes)
    deletions = st.tuples(st.sampled_from(uids), st.sampled_from(["", FOREGROUND, ORPHAN]))
    for uid, how in data.draw(st.lists(deletions, max_size=4)):
        world.delete(uid, how)
        for looked_at in data.draw(st.lists(st.sampled_from(uids), max_size=4)):
            if looked_at in world.nodes:
                world.step(looked_at)
    for _ in range(4 * len(uids) + 4):
        order = data.draw(st.permutations(sorted(world.nodes)))
        if not sum(world.step(uid) for uid in order if uid in world.nodes):
            break
    else:
        pytest.fail("it never comes to rest")
    for left in world.nodes.values():
        assert not left.deleting, "nothing waits for ever"
        assert not left.owners or any(r.uid in world.nodes for r in left.owners)
        assert all(r.uid in world.nodes for r in left.owners), "no reference leads nowhere"
    assert world.asked.isdisjoint(world.nodes)


def owned(name: str, *owners: Raw, kind: str = "Host", **metadata: Any) -> Raw:
    """A raw resource with owners."""
    references = [
        {
            "apiVersion": o["apiVersion"],
            "kind": o["kind"],
            "name": o["metadata"]["name"],
            "uid": o["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        for o in owners
    ]
    return raw(kind, name, metadata={"ownerReferences": references, **metadata}, spec={})


async def add(store: Store, body: Raw, origin: str = "") -> Raw:
    stored = await store.transact(lambda tx: tx.create(body, origin))
    return stored.raw


async def names(store: Store, kind: str = "Host") -> list[str]:
    return await store.read(lambda tx: [s.name for s in tx.select(kind)])


async def delete(store: Store, name: str, finalizer: str = "") -> None:
    """As the API does it for a propagation policy."""

    def work(tx: Transaction) -> None:
        if finalizer:
            found = tx.get("Host", CLOUD, name).raw
            tx.replace({**found, "metadata": {**found["metadata"], "finalizers": [finalizer]}})
        tx.remove("Host", CLOUD, name)

    await store.transact(work)


class Collecting:
    """A store with the collector at work."""

    def __init__(self, store: Store, *rules: admission.Rule) -> None:
        self._controller = GarbageController(CLOUD, {"Host": rules})
        self._task = asyncio.create_task(Runner(store, self._controller).run())

    async def __aenter__(self) -> GarbageController:
        await asyncio.sleep(1)
        return self._controller

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@on_fake_time
async def test_dependents_follow_their_owner_down_the_chain() -> None:
    with new_database() as url:
        async with opened(url, inline=True) as store, Collecting(store):
            a = await add(store, raw("Host", "a", spec={}))
            b = await add(store, owned("b", a))
            await add(store, owned("c", b))
            await add(store, owned("d", a, await add(store, raw("Host", "other", spec={}))))
            await asyncio.sleep(1)
            assert await names(store) == ["a", "b", "c", "d", "other"]
            await delete(store, "a")
            await asyncio.sleep(1)
            assert await names(store) == ["d", "other"]
            left = await store.read(lambda tx: tx.get("Host", CLOUD, "d").raw["metadata"]["ownerReferences"])
            assert [r["name"] for r in left] == ["other"]


@on_fake_time
async def test_what_was_left_behind_is_found_at_the_start() -> None:
    with new_database() as url:
        async with opened(url, inline=True) as store:
            a = await add(store, raw("Host", "a", spec={}))
            await add(store, owned("b", a))
            await delete(store, "a")
            assert await names(store) == ["b"]
            async with Collecting(store):
                assert await names(store) == []


@on_fake_time
async def test_foreground_waits_for_what_blocks_it() -> None:
    with new_database() as url:
        async with opened(url, inline=True) as store, Collecting(store):
            a = await add(store, raw("Host", "a", spec={}))
            b = await add(store, owned("b", a))
            await add(store, owned("c", b, finalizers=["example.org/wait"]))
            await delete(store, "a", FOREGROUND)
            await asyncio.sleep(1)
            assert await names(store) == ["a", "b", "c"]

            def finish(tx: Transaction) -> None:
                found = tx.get("Host", CLOUD, "c").raw
                tx.replace({**found, "metadata": {**found["metadata"], "finalizers": []}})

            await store.transact(finish)
            await asyncio.sleep(1)
            assert await names(store) == []


@on_fake_time
async def test_orphans_stay_without_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "TOGETHER", 3)
    with new_database() as url:
        async with opened(url, inline=True) as store, Collecting(store):
            a = await add(store, raw("Host", "a", spec={}))
            for n in range(10):
                await add(store, owned(f"b{n}", a))
            await delete(store, "a", ORPHAN)
            await asyncio.sleep(1)
            found = await store.read(lambda tx: [s.raw["metadata"] for s in tx.select("Host")])
            assert [m["name"] for m in found] == [f"b{n}" for n in range(10)]
            assert not any("ownerReferences" in m for m in found)


@on_fake_time
async def test_owners_that_cannot_be_looked_for_count_as_living_and_are_told_of() -> None:
    with new_database() as url:
        async with opened(url, inline=True) as store, Collecting(store):
            far = await add(store, raw("Host", "far", "elsewhere", spec={}))
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u-1"}}
            await add(store, owned("a", far))
            await add(store, owned("b", pod))
            await asyncio.sleep(1)
            assert sorted(await names(store)) == ["a", "b", "far"]
            events = await store.read(lambda tx: [s.raw for s in tx.select("Event")])
            assert {e["involvedObject"]["name"] for e in events} == {"a", "b"}
            assert all(e["reason"] == "OwnerUnknown" and "count as living" in e["message"] for e in events)


@on_fake_time
async def test_one_look_everywhere_serves_all_dependents(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    is_somewhere = present.is_somewhere

    def counted(tx: Transaction, kind: str, uid: str) -> bool:
        looked.append(uid)
        return is_somewhere(tx, kind, uid)

    monkeypatch.setattr(present, "is_somewhere", counted)
    with new_database() as url:
        async with opened(url, inline=True) as store, Collecting(store):
            a = await add(store, raw("Host", "a", spec={}))
            for n in range(10):
                await add(store, owned(f"b{n}", a))
            await delete(store, "a")
            await asyncio.sleep(1)
            assert await names(store) == []
            assert looked == [a["metadata"]["uid"]]


@on_fake_time
async def test_copies_are_left_to_their_home() -> None:
    with new_database() as url:
        async with opened(url, inline=True) as store, Collecting(store):
            a = await add(store, raw("Host", "a", spec={}))
            await add(store, owned("copy", a), origin="down:subcloud/x")
            await delete(store, "a")
            await asyncio.sleep(1)
            assert await names(store) == ["copy"]


@on_fake_time
async def test_what_the_rules_refuse_stays_until_they_allow_it() -> None:
    allowed = False

    def rule(_tx: Transaction, request: admission.Request) -> None:
        assert request.operation == "delete"
        if not allowed:
            raise Refused("it is unlocked", "lock it first")

    with new_database() as url:
        async with opened(url, inline=True) as store, Collecting(store, rule) as controller:
            a = await add(store, raw("Host", "a", spec={}))
            await add(store, owned("b", a))
            await delete(store, "a")
            await asyncio.sleep(1)
            assert await names(store) == ["b"]
            (event,) = await store.read(lambda tx: [s.raw for s in tx.select("Event")])
            assert event["reason"] == "OwnersGone" and "lock it first" in event["message"]
            assert len(controller._refusals) == 1
            allowed = True
            await asyncio.sleep(61)
            assert await names(store) == [] and len(controller._refusals) == 0


@on_fake_time
async def test_what_stays_refused_is_tried_ever_more_seldom_and_told_of_all_the_while() -> None:
    tries, loop = list[float](), asyncio.get_running_loop()

    def rule(_tx: Transaction, request: admission.Request) -> None:
        tries.append(loop.time())
        raise Refused("it is unlocked", "lock it first")

    with new_database() as url:
        async with opened(url, clock=LoopClock(START), inline=True) as store, Collecting(store, rule):
            forgetting = asyncio.create_task(Runner(store, EventController()).run())
            a = await add(store, raw("Host", "a", spec={}))
            await add(store, owned("b", a))
            await asyncio.sleep(1)
            await delete(store, "a")
            for _ in range(48):
                await asyncio.sleep(1800)
                (event,) = await store.read(lambda tx: [s.raw for s in tx.select("Event")])
                assert "lock it first" in event["message"]
            pauses = [round(later - former) for former, later in pairwise(tries)]
            assert pauses[:6] == [60, 120, 240, 480, 960, 1800] and set(pauses[6:]) == {1800}
            assert event["count"] == len(tries)
            # Its own change has it tried at once; that is no news, and no reason to wait longer or shorter.
            await asyncio.sleep(100)
            before = len(tries)
            for n in range(20):
                await store.transact(lambda tx: relabel(tx, "b", str(n)))  # noqa: B023
                await asyncio.sleep(1)
            assert len(tries) == before + 20
            (event,) = await store.read(lambda tx: [s.raw for s in tx.select("Event")])
            assert event["count"] == before
            forgetting.cancel()
            await asyncio.gather(forgetting, return_exceptions=True)


def relabel(tx: Transaction, name: str, value: str) -> None:
    found = tx.get("Host", CLOUD, name).raw
    tx.replace({**found, "metadata": {**found["metadata"], "labels": {"n": value}}})


@on_fake_time
async def test_a_new_resource_of_the_same_name_is_not_the_owner() -> None:
    with new_database() as url:
        async with opened(url, inline=True) as store:
            a = await add(store, raw("Host", "a", spec={}))
            await add(store, owned("b", a))
            await delete(store, "a")
            await add(store, raw("Host", "a", spec={}))
            async with Collecting(store):
                assert await names(store) == ["a"]
