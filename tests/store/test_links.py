"""Where links are: whose session counts, what readers learn, and what becomes of a process that is gone."""

from __future__ import annotations

import asyncio
from functools import partial

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roost.engine.clock import LoopClock
from roost.store import leases, links
from roost.store.links import Arrival, Process, Word
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.clock import START
from tests.support.stores import new_database, opened


async def claim(store: Store, process: str, *nodes: str) -> list[int]:
    arrivals = [Arrival(node=node, version="0.1.0") for node in nodes]
    return await store.transact(lambda tx: links.claim(tx, process, arrivals))


async def test_the_newest_session_is_the_one_that_counts(store: Store) -> None:
    (first,) = await claim(store, "a", "subcloud/x")
    (second,) = await claim(store, "b", "subcloud/x")
    assert second > first
    assert (await store.read(lambda tx: tx.stand("subcloud/x")))[1] == second

    await store.transact(lambda tx: links.end(tx, {"subcloud/x": first}))
    found = await store.read(lambda tx: links.find(tx, "subcloud/x"))
    assert found is not None and (found.state, found.process) == ("up", "b"), "the old one has no say"

    await store.transact(lambda tx: links.end(tx, {"subcloud/x": second}))
    found = await store.read(lambda tx: links.find(tx, "subcloud/x"))
    assert found is not None and (found.state, found.process) == ("down", "")


async def test_two_sessions_of_one_node_admitted_at_once(store: Store) -> None:
    numbers = await claim(store, "a", "subcloud/x", "subcloud/y", "subcloud/x")
    assert len(set(numbers)) == 3
    assert (await store.read(lambda tx: tx.stand("subcloud/x")))[1] == numbers[2]
    again = await claim(store, "a", "subcloud/x", "subcloud/z")
    assert (await store.read(lambda tx: tx.stand("subcloud/x")))[1] == again[0]


async def test_one_who_was_never_admitted_has_no_number(store: Store) -> None:
    assert await store.read(lambda tx: tx.stand("subcloud/x")) == (("", 0), 0)
    await store.transact(lambda tx: tx.set_cursor("subcloud/x", "store", 7))
    assert await store.read(lambda tx: tx.stand("subcloud/x")) == (("store", 7), 0)
    assert await store.read(lambda tx: links.find(tx, "subcloud/x")) is None


async def test_a_reader_learns_each_change_once(store: Store) -> None:
    x, y = await claim(store, "a", "subcloud/x", "subcloud/y")
    seen = await store.read(lambda tx: links.since(tx, 0))
    assert [(link.node, link.state) for link in seen] == [("subcloud/x", "up"), ("subcloud/y", "up")]
    assert seen[0].version == "0.1.0"
    at = seen[-1].changed
    assert await store.read(lambda tx: links.since(tx, at)) == []

    word = Word(node="subcloud/y", session=y, certificate_expires_at="2027-01-01T00:00:00Z", trouble="full")
    await store.transact(lambda tx: links.tell(tx, [word]))
    (told,) = await store.read(lambda tx: links.since(tx, at))
    assert (told.node, told.trouble, told.state, told.session) == ("subcloud/y", "full", "up", y)

    assert await store.transact(lambda tx: links.orphan(tx, ["a"])) == 2
    gone = await store.read(lambda tx: links.since(tx, told.changed))
    assert {(link.node, link.state) for link in gone} == {("subcloud/x", "orphan"), ("subcloud/y", "orphan")}
    assert x != y


def _introduce(tx: Transaction, name: str) -> None:
    leases.acquire(tx, links.PROCESS + name, name, 10.0)
    links.introduce(tx, Process(name=name, roles=["links"], links="192.0.2.1:7444"))


async def test_a_process_whose_lease_has_ended() -> None:
    clock = LoopClock(START)
    with new_database() as url:
        async with opened(url, clock=clock, inline=True) as store:
            for name in ("a", "b"):
                await store.transact(partial(_introduce, name=name))
            (number,) = await claim(store, "a", "subcloud/x")
            assert [p.name for p in await store.read(links.processes)] == ["a", "b"]
            assert await store.read(links.ended) == []

            await claim(store, "stranger", "subcloud/z")
            at = ["a", "stranger"]
            assert await store.read(lambda tx: links.ended(tx, at)) == ["stranger"], "it never had a lease"

            await store.transact(lambda tx: leases.release(tx, "process/a", "a"))
            assert await store.read(links.ended) == ["a"]
            assert await store.read(lambda tx: links.ended(tx, at)) == at
            assert await store.transact(lambda tx: links.bury(tx, at)) == 2
            assert [p.name for p in await store.read(links.processes)] == ["b"]
            assert await store.read(links.ended) == []
            assert not await store.transact(lambda tx: leases.renew(tx, "process/a", "a", 10.0))

            # It was only slow: it comes back and says what it has, but for what another has by now.
            (other,) = await claim(store, "b", "subcloud/y")
            lost = await store.transact(
                lambda tx: links.hold(tx, "a", {"subcloud/x": number, "subcloud/y": other - 1})
            )
            assert lost == {"subcloud/y"}
            found = await store.read(lambda tx: links.find(tx, "subcloud/x"))
            assert found is not None and (found.state, found.process, found.session) == ("up", "a", number)


async def test_a_lease_is_renewed_by_its_holder_alone(store: Store) -> None:
    await store.transact(lambda tx: leases.acquire(tx, "process/a", "a", 10.0))
    assert await store.transact(lambda tx: leases.renew(tx, "process/a", "a", 10.0))
    assert not await store.transact(lambda tx: leases.renew(tx, "process/a", "b", 10.0))


_MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.sampled_from("ab"), st.sampled_from("xy")),
        st.tuples(st.just("take"), st.integers(0, 9), st.just("")),
        st.tuples(st.just("end"), st.integers(0, 9), st.just("")),
        st.tuples(st.just("bury"), st.sampled_from("ab"), st.just("")),
        st.tuples(st.just("return"), st.sampled_from("ab"), st.just("")),
    ),
    max_size=25,
)


class _Story:
    """A store under moves, and what must hold after each."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sessions: list[tuple[str, str, int]] = []
        self.newest: dict[str, int] = {}
        self.known: dict[str, links.Link] = {}
        self.at = 0

    async def move(self, verb: str, which: str | int, node: str) -> None:
        if verb == "claim":
            (number,) = await claim(self.store, str(which), node)
            self.sessions.append((str(which), node, number))
            self.newest[node] = number
        elif verb in ("take", "end") and self.sessions:
            _, of, number = self.sessions[int(which) % len(self.sessions)]
            stands = (await self.store.read(lambda tx: tx.stand(of)))[1]
            assert (stands == number) == (self.newest[of] == number)
            if verb == "end":
                await self.store.transact(lambda tx: links.end(tx, {of: number}))
        elif verb == "bury":
            await self.store.transact(lambda tx: links.bury(tx, [str(which)]))
        elif verb == "return":
            own = {n: s for p, n, s in self.sessions if p == which}
            lost = await self.store.transact(lambda tx: links.hold(tx, str(which), own))
            assert lost == {n for n, s in own.items() if self.newest[n] != s}

    async def follow(self) -> None:
        for link in await self.store.read(lambda tx: links.since(tx, self.at)):
            self.known[link.node] = link
        self.at = max([self.at, *(link.changed for link in self.known.values())])
        rows = await self.store.read(lambda tx: links.since(tx, 0))
        assert {row.node: row for row in rows} == self.known


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moves=_MOVES)
def test_never_two_sessions_of_one_node(moves: list[tuple[str, str | int, str]]) -> None:
    """Whatever comes in which order, the last admitted session alone may take in, and readers who follow
    know where it is."""

    async def run(url: str) -> None:
        async with opened(url, inline=True) as store:
            story = _Story(store)
            for one in moves:
                await story.move(*one)
                await story.follow()

    with new_database() as url:
        asyncio.run(run(url))
