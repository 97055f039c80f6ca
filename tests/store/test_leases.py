"""Leases: one holder at a time, epochs that tell old holders from new."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from roost.engine.clock import LoopClock
from roost.store.leases import Lease, acquire, release
from roost.store.store import Store
from tests.support.clock import START, run
from tests.support.stores import new_database, opened

MOVES = st.one_of(
    st.tuples(st.just("acquire"), st.sampled_from("AB"), st.integers(1, 20)),
    st.tuples(st.just("release"), st.sampled_from("AB"), st.just(0)),
    st.tuples(st.just("pass"), st.just(""), st.integers(1, 15)),
)


async def take(store: Store, holder: str, seconds: float) -> Lease:
    return await store.transact(lambda tx: acquire(tx, "active", holder, seconds))


async def give_back(store: Store, holder: str) -> None:
    await store.transact(lambda tx: release(tx, "active", holder))


@settings(max_examples=60, deadline=None)
@given(moves=st.lists(MOVES, max_size=25))
def test_one_holder_and_rising_epochs(moves: list[tuple[str, str, int]]) -> None:
    async def main() -> None:
        clock = LoopClock(START)
        with new_database() as url:
            async with opened(url, clock=clock, inline=True) as store:
                holder, until, epoch = "", 0.0, 0
                for move, who, number in moves:
                    now = clock().timestamp()
                    if move == "pass":
                        clock.jump(number)
                    elif move == "release":
                        await give_back(store, who)
                        until = 0.0 if holder == who else until
                    else:
                        lease = await take(store, who, number)
                        if holder in ("", who) or until <= now:
                            epoch += holder != who
                            holder, until = who, now + number
                        assert (lease.holder, lease.epoch, lease.expires_at) == (holder, epoch, until)

    run(main())


async def test_a_lease_survives_its_process(store_url: str) -> None:
    async with opened(store_url) as store:
        first = await take(store, "A", 3600)
    async with opened(store_url) as store:
        seen = await take(store, "B", 3600)
        assert seen == first
        await give_back(store, "B")
        assert (await take(store, "B", 1)).holder == "A", "only the holder can give it back"
        await give_back(store, "A")
        assert ((await take(store, "B", 1)).holder, first.epoch + 1) == ("B", 2)
