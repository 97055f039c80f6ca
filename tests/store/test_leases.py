"""Leases: one holder at a time, epochs that tell old holders from new."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from sqlalchemy import ClauseElement

from roost.engine.clock import LoopClock
from roost.model.host import Host
from roost.model.meta import Metadata
from roost.store import statements
from roost.store.leases import Lease, LeaseLost, acquire, release, under
from roost.store.session import Session
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


async def test_writes_under_a_lease_share_one_look_at_it_and_their_statements(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or each would be sent on its own, and the database asked five times for every write."""
    said = list[str]()
    command, first = Session.command, Session.first

    def told(self: Session, text: str) -> None:
        said.append(text)
        command(self, text)

    def asked(self: Session, statement: ClauseElement, values: Mapping[str, Any] | None = None) -> Any:
        if statement is statements.LEASE:
            said.append("lease")
        return first(self, statement, values) if values is not None else first(self, statement)

    async with opened(store_url) as store:
        lease = await take(store, "A", 3600)
        hosts = [Host(metadata=Metadata(name=f"h{n}", namespace="c")) for n in range(20)]
        await store.save(hosts[0])
        monkeypatch.setattr(Session, "command", told)
        monkeypatch.setattr(Session, "first", asked)
        with under(lease):
            await asyncio.gather(*(store.save(host) for host in hosts))
        # The first goes alone, and what comes meanwhile goes together.
        assert said.count("lease") == 2
        assert not [text for text in said if "SAVEPOINT" in text]


async def test_a_lease_that_passes_on_within_a_batch_stops_what_comes_after(store_url: str) -> None:
    async with opened(store_url) as store:
        lease = await take(store, "A", 3600)

        async def pass_on() -> None:
            await give_back(store, "A")

        def host(name: str) -> Host:
            return Host(metadata=Metadata(name=name, namespace="c"))

        with under(lease):
            before = [asyncio.ensure_future(store.save(host(f"before-{n}"))) for n in range(3)]
        passing = [asyncio.ensure_future(pass_on())]
        await asyncio.sleep(0)
        passing.append(asyncio.ensure_future(take_over(store)))
        await asyncio.sleep(0)
        with under(lease):
            after = [asyncio.ensure_future(store.save(host(f"after-{n}"))) for n in range(3)]
        found = await asyncio.gather(*before, *passing, *after, return_exceptions=True)
        assert [isinstance(one, LeaseLost) for one in found] == [False] * 5 + [True] * 3
        assert sorted(h.metadata.name for h in await store.every(Host)) == [f"before-{n}" for n in range(3)]


async def take_over(store: Store) -> None:
    await take(store, "B", 3600)
