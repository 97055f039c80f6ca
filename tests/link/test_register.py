"""Where links are, as one process writes it and the active one reads it: on a clock that tests drive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from roost.engine.clock import LoopClock
from roost.link.errors import TakenOver
from roost.link.flow import Upward
from roost.link.intake import Intake
from roost.link.lower import in_turn
from roost.link.messages import Entries
from roost.link.node import subcloud
from roost.link.register import LEASE_SECONDS, Register
from roost.link.roster import LOOK_EVERY, Roster
from roost.store import links
from roost.store.errors import Unavailable
from roost.store.links import Arrival, Link, Process
from roost.store.store import Store
from tests.support import clock as fake
from tests.support.clock import START, on_fake_time, until
from tests.support.stores import new_database

NODE = subcloud("harbor")


class SharedStore(Store):
    """A store of which several processes are taken to be users."""

    is_shared = True


class World:
    """One store, registers of several processes on it, and a roster that reads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seen: list[tuple[str, str, bool]] = []
        self.superseded: list[tuple[str, str]] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def process(self, name: str) -> Register:
        register = Register(
            self.store,
            Process(name=name, links=f"{name}:1"),
            lambda node: self.superseded.append((name, node)),
        )
        await register.begin()
        self.resume(name, register)
        return register

    def resume(self, name: str, register: Register) -> None:
        self.tasks[name] = asyncio.ensure_future(register.run())

    def freeze(self, name: str) -> None:
        """As a process that is killed, or stands still."""
        self.tasks.pop(name).cancel()

    def read(self) -> Roster:
        roster = Roster(self.store, self._changed)
        self.tasks["roster"] = asyncio.ensure_future(roster.run())
        return roster

    def _changed(self, link: Link, known: bool) -> None:  # noqa: FBT001 - as the roster tells it
        self.seen.append((link.node, link.state, known))

    async def stop(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    with new_database() as url:
        store = await SharedStore.open(url, clock=LoopClock(START), inline=True)
        made = World(store)
        try:
            yield made
        finally:
            await made.stop()
            await store.close()


def arrival(name: str) -> Arrival:
    return Arrival(node=f"subcloud/{name}", version="0.1.0", certificate_expires_at="2027-01-01T00:00:00Z")


@on_fake_time
async def test_a_roster_follows_links_that_come_and_go() -> None:
    async with world() as it:
        one = await it.process("one")
        early = await one.claim(arrival("early"))
        roster = it.read()
        await until(lambda: it.seen == [("subcloud/early", "up", True)])
        late = await one.claim(arrival("late"))
        await until(lambda: ("subcloud/late", "up", False) in it.seen)
        assert late > early
        assert roster.counts == {"one": 2}
        assert [p.name for p in roster.processes] == ["one"]
        one.ended("subcloud/early", early)
        await until(lambda: it.seen[-1] == ("subcloud/early", "down", False))
        assert roster.counts == {"one": 1}
        one.told("subcloud/late", late, certificate_expires_at="2027-01-01T00:00:00Z", trouble="")
        await asyncio.sleep(3 * LOOK_EVERY)
        assert len(it.seen) == 3, "what was known already is not written again"
        one.told("subcloud/late", late, certificate_expires_at="2027-01-01T00:00:00Z", trouble="disk full")
        await until(lambda: len(it.seen) == 4)


@on_fake_time
async def test_many_that_come_at_once_are_written_together() -> None:
    async with world() as it:
        one = await it.process("one")
        numbers = await asyncio.gather(*(one.claim(arrival(f"s{n}")) for n in range(1200)))
        assert len(set(numbers)) == 1200
        roster = it.read()
        await until(lambda: roster.counts == {"one": 1200})


@on_fake_time
async def test_links_of_a_process_that_died_are_orphans_when_its_lease_is_over() -> None:
    async with world() as it:
        one, two = await it.process("one"), await it.process("two")
        await one.claim(arrival("a"))
        await two.claim(arrival("b"))
        roster = it.read()
        await until(lambda: len(it.seen) == 2)
        it.freeze("one")
        await asyncio.sleep(LEASE_SECONDS - 3.0)
        assert len(it.seen) == 2, "its lease still holds"
        await until(lambda: it.seen[-1] == ("subcloud/a", "orphan", False), 3.0 + 2 * LOOK_EVERY)
        assert roster.counts == {"two": 1}
        assert [p.name for p in roster.processes] == ["two"]
        # It dials the other one.
        await two.claim(arrival("a"))
        await until(lambda: it.seen[-1] == ("subcloud/a", "up", False))


@on_fake_time
async def test_who_dials_another_process_before_the_lease_is_over_is_never_missed() -> None:
    async with world() as it:
        one, two = await it.process("one"), await it.process("two")
        await one.claim(arrival("a"))
        it.read()
        await until(lambda: len(it.seen) == 1)
        it.freeze("one")
        await two.claim(arrival("a"))
        await asyncio.sleep(3 * LEASE_SECONDS)
        assert {state for _, state, _ in it.seen} == {"up"}


@on_fake_time
async def test_a_process_that_stood_still_has_what_nobody_else_has() -> None:
    async with world() as it:
        one, two = await it.process("one"), await it.process("two")
        for name in ("a", "b"):
            await one.claim(arrival(name))
        roster = it.read()
        it.freeze("one")
        await two.claim(arrival("b"))
        await until(lambda: roster.counts == {"two": 1}, 3 * LEASE_SECONDS)
        it.resume("one", one)
        await until(lambda: roster.counts == {"one": 1, "two": 1})
        assert it.superseded == [("one", "subcloud/b")]
        assert set(one.sessions) == {"subcloud/a"}
        assert [p.name for p in roster.processes] == ["one", "two"]


@on_fake_time
async def test_a_process_that_ends_in_good_order_is_gone_at_once() -> None:
    async with world() as it:
        one = await it.process("one")
        await one.claim(arrival("a"))
        it.read()
        await until(lambda: len(it.seen) == 1)
        it.freeze("one")
        await one.end()
        await until(lambda: it.seen[-1] == ("subcloud/a", "orphan", False), 2 * LOOK_EVERY)


@on_fake_time
async def test_a_process_of_the_same_name_begins_with_nothing() -> None:
    """As on SQLite, where one process follows another."""
    async with world() as it:
        former = await it.process("one")
        await former.claim(arrival("a"))
        it.freeze("one")
        await it.process("one")
        roster = it.read()
        await until(lambda: it.seen == [("subcloud/a", "orphan", True)])
        assert roster.counts == {}


@on_fake_time
async def test_what_can_not_be_written_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as it:
        one = await it.process("one")
        number = await one.claim(arrival("a"))

        async def fails(*_: object, **__: object) -> None:
            raise Unavailable("disk full")

        with monkeypatch.context() as patched:
            patched.setattr(it.store, "transact", fails)
            with pytest.raises(Unavailable):
                await one.claim(arrival("b"))
            one.ended("subcloud/a", number)
            await asyncio.sleep(20)
        await asyncio.sleep(2)
        found = await it.store.read(lambda tx: links.find(tx, "subcloud/a"))
        assert found is not None and found.state == "down"
        assert await it.store.read(lambda tx: links.find(tx, "subcloud/b")) is None


# -- fencing


class Race:
    """Sessions of one node, each at a process of its own, that take in side by side."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sessions: list[tuple[Intake, int]] = []
        self.ended: set[int] = set()
        self.cursors: list[int] = []

    async def admit(self) -> None:
        intake = Intake(self.store, Upward(NODE), str(NODE))
        (number,) = await self.store.transact(
            lambda tx: links.claim(tx, f"p{len(self.sessions)}", [Arrival(node=str(NODE))])
        )
        intake.session = number
        _, at = await intake.load()
        self.sessions.append((intake, at))

    async def take(self, which: int) -> None:
        """A session takes its next batch in: only the newest can."""
        index = which % len(self.sessions)
        intake, at = self.sessions[index]
        first = intake.number == 0 and at == 0
        batch = Entries(
            number=intake.number + 1, entries=[], upto=at + 1, snapshot="end" if first else "none"
        )
        try:
            await intake.take(batch, "site")
        except TakenOver:
            assert index < len(self.sessions) - 1, "the newest is never refused"
            return
        assert index == len(self.sessions) - 1, "an older one is always refused"
        self.sessions[index] = (intake, at + 1)
        _, cursor = await self.store.read(lambda tx: tx.cursor(str(NODE)))
        self.cursors.append(cursor)


@settings(max_examples=50, deadline=None)
@given(moves=st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=20))
def test_only_the_newest_session_takes_in_and_cursors_never_go_back(moves: list[int | None]) -> None:
    async def story() -> None:
        with new_database() as url:
            store = await Store.open(url, inline=True)
            try:
                race = Race(store)
                await race.admit()
                for move in moves:
                    if move is None:
                        await race.admit()
                    else:
                        await race.take(move)
                assert race.cursors == list(range(1, len(race.cursors) + 1)), "it neither goes back nor skips"
            finally:
                await store.close()

    fake.run(story())


@on_fake_time
async def test_a_session_without_its_number_waits() -> None:
    async with world() as it:
        intake = Intake(it.store, Upward(NODE), str(NODE))
        intake.session = 0
        await intake.load()
        taking = asyncio.ensure_future(
            intake.take(Entries(number=1, entries=[], upto=1, snapshot="end"), "site")
        )
        await asyncio.sleep(60)
        assert not taking.done()
        (intake.session,) = await it.store.transact(
            lambda tx: links.claim(tx, "one", [Arrival(node=str(NODE))])
        )
        assert await taking == []
        assert await it.store.read(lambda tx: tx.cursor(str(NODE))) == ("site", 1)


# -- who dials where


@given(st.lists(st.integers(0, 9), unique=True, max_size=5), st.text("abc-", min_size=1, max_size=9))
def test_a_node_dials_all_and_begins_at_its_own(ports: list[int], name: str) -> None:
    endpoints = [f"192.0.2.1:{port}" for port in ports]
    order = in_turn(endpoints, name)
    assert sorted(order) == sorted(endpoints)
    assert order == in_turn(endpoints, name)


def test_nodes_are_spread_over_the_endpoints() -> None:
    first = [in_turn(["a", "b"], f"subcloud/site-{n:04}")[0] for n in range(1000)]
    assert 400 < first.count("a") < 600
