"""The fleet's alarms are added up from what has changed, and are right whatever came before."""

from __future__ import annotations

import asyncio

import hypothesis.strategies as st
import msgspec
from hypothesis import given, settings

from roost.engine.queue import RESOLUTION
from roost.fleet import counts as counts_module
from roost.fleet.counts import FleetCountsController, Totals, stands_for
from roost.fleet.summing import PAUSE, SUMS
from roost.model.cloud import AlarmCounts, Cloud, CloudStatus, FleetCounts, Subcloud
from roost.model.meta import Metadata
from roost.store.transaction import Transaction
from tests.fleet.centre import CENTRE, Centre, centre
from tests.support.clock import on_fake_time

NAMES = st.sampled_from(["a", "b", "c"])
ALARMS = st.builds(
    AlarmCounts, critical=st.integers(0, 9), major=st.integers(0, 9), suppressed=st.integers(0, 9)
)
BELOW = st.builds(
    FleetCounts,
    subclouds=st.integers(0, 9),
    clouds=st.integers(0, 99),
    clouds_with_critical=st.integers(0, 9),
    alarms=ALARMS,
)
COUNTS = st.builds(stands_for, ALARMS, st.none() | BELOW)


@settings(max_examples=200)
@given(moves=st.lists(st.tuples(NAMES, st.none() | COUNTS), max_size=30))
def test_the_running_sum_is_the_sum(moves: list[tuple[str, FleetCounts | None]]) -> None:
    totals, known = Totals(), dict[str, FleetCounts]()
    for name, counts in moves:
        totals.put(name, counts)
        known.pop(name, None)
        if counts is not None:
            known[name] = counts
    told = totals.told()
    assert (told is None) is (not known)
    if told is not None:
        assert told.subclouds == len(known)
        assert told.clouds == sum(c.clouds for c in known.values())
        assert told.clouds_with_critical == sum(c.clouds_with_critical for c in known.values())
        for field in AlarmCounts.__struct_fields__:
            assert getattr(told.alarms, field) == sum(getattr(c.alarms, field) for c in known.values())


def test_a_subcloud_stands_for_itself_and_all_below_it() -> None:
    own = AlarmCounts(critical=1, minor=2)
    assert stands_for(own, None) == FleetCounts(subclouds=1, clouds=1, clouds_with_critical=1, alarms=own)
    below = FleetCounts(subclouds=4, clouds=9, clouds_with_critical=3, alarms=AlarmCounts(critical=5))
    assert stands_for(own, below) == FleetCounts(
        subclouds=1, clouds=10, clouds_with_critical=4, alarms=AlarmCounts(critical=6, minor=2)
    )
    # One of an older version says nothing of other levels.
    older = FleetCounts(subclouds=4, clouds_with_critical=3)
    assert stands_for(AlarmCounts(), older).clouds == 5


async def told(c: Centre, name: str, **counts: int) -> None:
    """A subcloud tells of its alarms."""
    status = CloudStatus(alarms=AlarmCounts(**counts))
    raw = msgspec.to_builtins(Cloud(metadata=Metadata(name=name, uid=f"u-{name}"), status=status))
    await c.store.transact(lambda tx: tx.copy({"kind": "Cloud", **raw}, f"down:subcloud/{name}"))


async def fleet(c: Centre) -> FleetCounts | None:
    return (await c.store.load(Cloud, "", CENTRE)).status.fleet


@on_fake_time
async def test_subclouds_are_counted_at_their_own_and_summed_here() -> None:
    async with centre() as c:
        await c.store.save(Cloud(metadata=Metadata(name=CENTRE)))
        c.work()
        await asyncio.sleep(1)
        assert await fleet(c) is None
        for name in ("harbor", "valley", "ridge"):
            await c.declare(name)
        await told(c, "harbor", critical=2, warning=1)
        await told(c, "valley", critical=1, suppressed=3)
        await told(c, "stranger", critical=7)
        await asyncio.sleep(1)
        assert (await c.subcloud("harbor")).alarms == AlarmCounts(critical=2, warning=1)
        assert await fleet(c) == FleetCounts(
            subclouds=3,
            clouds=3,
            clouds_with_critical=2,
            alarms=AlarmCounts(critical=3, warning=1, suppressed=3),
        )
        await told(c, "harbor", acknowledged=1, major=1)
        await asyncio.sleep(1)
        await c.stop()
        await told(c, "ridge", minor=4)
        c.work()
        await asyncio.sleep(1)
        await c.store.transact(lambda tx: tx.remove("Subcloud", "", "valley"))
        await asyncio.sleep(1)
        assert await fleet(c) == FleetCounts(
            subclouds=2, clouds=2, alarms=AlarmCounts(major=1, minor=4, acknowledged=1)
        )


@on_fake_time
async def test_one_change_reads_one_cloud_and_many_at_once_are_written_together() -> None:
    async with centre() as c:
        await c.store.save(Cloud(metadata=Metadata(name=CENTRE)))
        names = [f"s{n:03}" for n in range(200)]

        def declare(tx: Transaction) -> None:
            for name in names:
                tx.save(Subcloud(metadata=Metadata(name=name)))

        await c.store.transact(declare)
        controller = FleetCountsController(CENTRE)
        c.start([controller])
        await asyncio.sleep(1)
        looked: list[str] = []
        real = counts_module.read

        def read(tx: Transaction, some: list[str]) -> object:
            looked.extend(some)
            return real(tx, some)

        counts_module.read = read  # type: ignore[assignment]
        try:
            await told(c, "s007", critical=1)
            await asyncio.sleep(1)
            assert looked == ["s007"]
            before = c.store.revision
            for name in names:
                await told(c, name, critical=1)
            await asyncio.sleep(2)
        finally:
            counts_module.read = real
        found = await fleet(c)
        assert found is not None and found.clouds_with_critical == 200
        assert c.store.revision - before <= 199 + 3, "the sum is written now and then, not for each"


@on_fake_time
async def test_what_is_left_of_a_pause_is_never_too_little_to_wait_for() -> None:
    """A wait below the queue's resolution is over at once: it would be given back for ever, at one moment."""
    async with centre() as c:
        await c.store.save(Cloud(metadata=Metadata(name=CENTRE)))
        controller = FleetCountsController(CENTRE)
        await controller.reconcile(c.store, SUMS)
        await asyncio.sleep(PAUSE - RESOLUTION / 2)
        assert await controller.reconcile(c.store, SUMS) is None
        left = await controller.reconcile(c.store, SUMS)
        assert left is not None and left > RESOLUTION
