"""One process leads at a time, whatever becomes of the database and of the others; somebody soon does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from roost.engine import leadership
from roost.engine.clock import LoopClock
from roost.engine.leadership import ASK_EVERY, LEASE_SECONDS, MARGIN, Leadership, NotEnded, Term, decide
from roost.store.errors import Unavailable
from roost.store.leases import Lease, LeaseLost, acquire, find, under
from roost.store.store import Store
from tests.support.clock import START, on_fake_time, run
from tests.support.stores import new_database, opened

MINE, OTHER = Lease("active", "me", 3, 1e9), Lease("active", "you", 4, 1e9)
HELD = Term(3, 20.0)
FRESH = 100.0 + LEASE_SECONDS - MARGIN


@pytest.mark.parametrize(
    ("term", "answer", "asked", "now", "decided"),
    [
        (None, None, 100.0, 101.0, None),
        (None, OTHER, 100.0, 101.0, None),
        (None, MINE, 100.0, 101.0, Term(3, FRESH)),
        (HELD, MINE, 100.0, 101.0, Term(3, FRESH)),
        (Term(2, 200.0), MINE, 100.0, 101.0, Term(3, FRESH)),
        (None, MINE, 100.0, FRESH, None),
        (HELD, OTHER, 10.0, 11.0, None),
        (HELD, None, 10.0, 19.9, HELD),
        (HELD, None, 10.0, 20.0, None),
    ],
)
def test_what_an_answer_means(
    term: Term | None, answer: Lease | None, asked: float, now: float, decided: Term | None
) -> None:
    assert decide(term, answer, "me", asked, now) == decided


class Process:
    """A process whose way to the database can be cut (it fails) or hung (no answer comes)."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self.name = store, name
        self.way = "open"
        self.leads = False
        self.terms = 0
        self.task: asyncio.Task[None] | None = None

    async def transact(self, work: Any) -> Any:
        if self.way == "cut":
            raise Unavailable("cut")
        if self.way == "hung":
            await asyncio.Event().wait()
        return await self._store.transact(work)

    def start(self) -> None:
        if self.task is None:
            led: Any = Leadership(self, "active", self.name)  # type: ignore[arg-type]
            self.task = asyncio.ensure_future(led.run(self._lead))

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    async def kill(self) -> None:
        """As kill -9 does: nothing is given back."""
        self.way = "cut"
        await self.stop()
        self.way = "open"

    async def _lead(self) -> None:
        self.leads = True
        self.terms += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.leads = False


MOVES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["start", "stop", "kill", "cut", "hung", "open"]),
        st.floats(0.0, 15.0),
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(moves=MOVES)
def test_never_two_and_soon_one(moves: list[tuple[int, str, float]]) -> None:
    async def main() -> None:
        clock = LoopClock(START)
        with new_database() as url:
            async with opened(url, clock=clock, inline=True) as store:
                processes = [Process(store, name) for name in "abc"]
                watching = asyncio.ensure_future(_never_two(processes))
                for number, move, seconds in moves:
                    process = processes[number]
                    if move == "start":
                        process.start()
                    elif move in ("stop", "kill"):
                        await getattr(process, move)()
                    else:
                        process.way = move
                    await asyncio.sleep(seconds)
                for process in processes:
                    process.way = "open"
                    process.start()
                await asyncio.sleep(LEASE_SECONDS * 2 + ASK_EVERY)
                assert [p.leads for p in processes].count(True) == 1
                leader = next(p for p in processes if p.leads)
                terms = leader.terms
                await asyncio.sleep(100)
                assert leader.leads and leader.terms == terms, "nothing disturbs it"
                await leader.stop()
                await asyncio.sleep(ASK_EVERY * 1.5)
                assert [p.leads for p in processes].count(True) == 1, "a lease given back is taken soon"
                assert not watching.done()
                watching.cancel()
                for process in processes:
                    await process.stop()

    run(main())


async def _never_two(processes: list[Process]) -> None:
    while True:
        assert [p.leads for p in processes].count(True) <= 1
        await asyncio.sleep(0.1)


@on_fake_time
async def test_a_killed_leader_is_followed_within_its_lease() -> None:
    with new_database() as url:
        async with opened(url, clock=LoopClock(START), inline=True) as store:
            one, other = Process(store, "one"), Process(store, "other")
            one.start()
            await asyncio.sleep(1)
            other.start()
            await asyncio.sleep(60)
            assert one.leads and not other.leads
            await one.kill()
            await asyncio.sleep(LEASE_SECONDS + ASK_EVERY)
            assert other.leads
            await other.stop()


@on_fake_time
async def test_a_leader_without_a_database_stops_before_its_lease_is_over() -> None:
    with new_database() as url:
        async with opened(url, clock=LoopClock(START), inline=True) as store:
            for way in ("cut", "hung"):
                one = Process(store, way)
                one.start()
                await asyncio.sleep(1)
                assert one.leads
                one.way = way
                await asyncio.sleep(LEASE_SECONDS - MARGIN)
                assert not one.leads
                one.way = "open"
                await asyncio.sleep(LEASE_SECONDS)
                assert one.leads, "and goes on when it is back"
                await one.stop()


@on_fake_time
async def test_what_leads_and_fails_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise LookupError("by itself")

    async def stay() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            if over:
                return

    over: list[bool] = []
    monkeypatch.setattr(leadership, "END_WITHIN", 1.0)
    with new_database() as url:
        async with opened(url, clock=LoopClock(START), inline=True) as store:
            with pytest.raises(LookupError):
                await Leadership(store, "active", "me").run(fail)
            lease = await store.transact(lambda tx: acquire(tx, "active", "next", 1.0))
            assert lease.holder == "next", "it was given back"
            await asyncio.sleep(2)
            led = asyncio.ensure_future(Leadership(store, "active", "me").run(stay))
            await asyncio.sleep(ASK_EVERY)
            led.cancel()
            with pytest.raises(NotEnded):
                await led
            over.append(True)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()


@on_fake_time
async def test_a_late_write_of_a_former_leader_is_refused() -> None:
    with new_database() as url:
        async with opened(url, clock=LoopClock(START), inline=True) as store:
            mine = await store.transact(lambda tx: acquire(tx, "active", "me", 10))

            async def write(value: str) -> None:
                await store.transact(lambda tx: tx.set_property("by", value))

            with under(mine):
                await write("me")
                late = asyncio.ensure_future(_later(write))
            await asyncio.sleep(30)
            theirs = await store.transact(lambda tx: acquire(tx, "active", "you", 10))
            with under(theirs):
                await write("you")
            with pytest.raises(LeaseLost, match="passed from me to you"):
                await late
            assert await store.read(lambda tx: tx.property("by")) == "you"
            assert await store.read(lambda tx: find(tx, "nobody's")) is None
            await write("anybody")


async def _later(write: Any) -> None:
    await asyncio.sleep(60)
    await write("me, late")
