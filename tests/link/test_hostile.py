"""Nodes with valid certificates that mean harm: refused, counted, alarmed; the others go on. Real TLS."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from roost.engine.controller import Runner
from roost.link import conduct, door, node
from roost.link.budget import ASKED, ENTRIES, ENTRY_BYTES, PATIENCE, UNBIDDEN, Budget, Rate
from roost.link.conduct import CLEAR_AFTER, Conduct, ConductController
from roost.link.door import ADDRESS_ARRIVING, Door
from roost.link.errors import Refused
from roost.link.lower import LowerLink
from roost.link.outgoing import BATCH_BYTES, BATCH_ENTRIES
from roost.model.fault import Alarm
from roost.model.host import HOST
from roost.store.store import Store
from tests.link import test_tls
from tests.link.test_tls import Site, arrives, until
from tests.link.world import put, resource, run
from tests.support.stores import CLOUD, World, raw, world

WITHIN = 60.0
MEMORY = 200
"""MiB that one hostile node may cost: what docs/security.md states."""

RIDGE = node.subcloud("ridge")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.close()


@asynccontextmanager
async def besieged(site: Site, attack: str) -> AsyncIterator[list[int]]:
    """An upper end with an honest node (harbor), a hostile one (ridge) in a process of its own, and alarms.

    In the end the list has how often it dialled, was refused, and sent.
    """
    await site.start()
    await put(site.store, resource("Subcloud", "", "ridge", spec={}))
    controller = ConductController("central", site.upper.conduct)
    runner = Runner(site.store, controller)
    site.upper.conduct.listen(lambda who: runner.wake(controller.key(who)))
    await site.joined()
    await site.enrol(await site.token(subject="ridge"), directory="ridge")
    running = asyncio.create_task(runner.run())
    command = (sys.executable, "-m", "roost.sim.hostile", str(site.path / "ridge"), attack)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    done: list[int] = []
    try:
        yield done
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(WITHIN):
            printed, _ = await process.communicate()
        done += map(int, printed.split())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def resident() -> float:
    """MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


async def alarm(store: Store) -> Alarm:
    """The alarm against ridge, once it is there."""
    deadline = asyncio.get_running_loop().time() + WITHIN
    while True:
        found = [a for a in await store.every(Alarm, "central") if a.status.alarm_id == "280.201"]
        if found:
            return found[0]
        assert asyncio.get_running_loop().time() < deadline, "no alarm was raised"
        await asyncio.sleep(0.05)


async def goes_on(site: Site, lower: LowerLink, name: str) -> None:
    """The honest node's link carries both ways."""
    await put(site.store, resource("FirewallPolicy", "harbor", name, spec={"networks": ["oam"]}))
    await arrives(lower._store, "FirewallPolicy", "harbor", name, WITHIN)
    await put(lower._store, resource("LogEntry", "harbor", f"log.{name}", status={"text": name}))
    await arrives(site.store, "LogEntry", "harbor", f"log.{name}", WITHIN)


ATTACKS = {
    "heartbeats": "floods",
    "calls": "floods",
    "batches": "breaks the protocol",
    "huge": "breaks the protocol",
    "nonsense": "breaks the protocol",
    "claims": "claims what is not its own",
    "dials": "dials too often",
}


@pytest.mark.parametrize("attack, what", ATTACKS.items(), ids=ATTACKS.keys())
async def test_who_misuses_its_link_is_alarmed_and_the_others_go_on(
    site: Site, attack: str, what: str
) -> None:
    async with besieged(site, attack) as done:
        before = resident()
        raised = await alarm(site.store)
        assert raised.metadata.name == "link.subcloud.ridge.280.201"
        assert raised.status.entity == "subcloud=ridge"
        assert f"ridge {what} on its link since 20" in raised.status.reason
        await goes_on(site, site.lowers[0], "web")
        assert site.upper.conduct.nodes() == [RIDGE]
        assert not await site.store.find("LogEntry", "valley", "forged")
        assert resident() - before < MEMORY
    assert done[0] >= 1


async def test_who_takes_nothing_is_given_up_and_alarmed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is more for it than fits into every buffer on the way."""
    patient = msgspec.structs.replace(test_tls.TIMING, send_within=1, acknowledge_within=2)
    monkeypatch.setattr(test_tls, "TIMING", patient)
    noise = random.Random(1)
    await site.start()
    for n in range(100):
        text = noise.randbytes(100_000).hex()
        await put(site.store, resource("FirewallPolicy", "ridge", f"p{n}", spec={"x": text}))
    await site.upper.stop()
    async with besieged(site, "deaf"):
        raised = await alarm(site.store)
        assert "ridge takes nothing on its link" in raised.status.reason
        await goes_on(site, site.lowers[0], "web")


async def test_connections_that_say_nothing_keep_nobody_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "ADDRESS_ARRIVING", 100)
    async with besieged(site, "half_open") as done:
        await until(lambda: site.upper.door.turned_away > 200, WITHIN)
        assert site.upper.door.arriving <= 100 + 5
        await site.lowers[0].stop()
        again = await site.lower()
        await until(lambda: again.state.connected, WITHIN)
        await goes_on(site, again, "web")
    assert done[0] > 300


async def test_who_dials_too_often_is_kept_out_before_tls(site: Site) -> None:
    async with besieged(site, "dials") as done:
        await until(lambda: site.upper.door.turned_away > 50, WITHIN)
        await site.lowers[0].stop()
        again = await site.lower()
        await until(lambda: again.state.connected, WITHIN)
    assert done[1] > 50


async def test_a_deleted_node_is_told_to_stay_away_and_logged_once(site: Site) -> None:
    async def admit(who: Any) -> None:
        raise Refused("unknown", f"{who} is not declared", "enrol it anew", retry_after=3600)

    await site.start(admit=admit)
    await site.enrol(await site.token())
    with structlog.testing.capture_logs() as logs:
        link = await site.lower()
        for tries in range(1, 4):
            await until(lambda t=tries: link._refusals == t, WITHIN)  # type: ignore[misc]
            assert link.state.next_dial and "is not declared; enrol it anew" in link.state.error
            wait = (link.state.next_dial - link._clock()).total_seconds()
            assert 25 * 2 ** (tries - 1) < wait <= 60 * 2 ** (tries - 1)
            link.dial_now()
    told = [one for one in logs if one["event"] == "link.not-admitted"]
    assert len(told) == 1


# -- the parts


def test_an_honest_site_that_catches_up_is_never_held_back() -> None:
    """A snapshot of 10,000 resources and a day's 20,000 changes at once, in batches as they are sent."""
    budget, batches = Budget(ENTRIES, ENTRY_BYTES), 30_000 // BATCH_ENTRIES
    assert not any(budget.charge(n * 0.01, BATCH_ENTRIES, BATCH_BYTES / 2) for n in range(batches))
    acknowledged = Budget(ASKED)
    assert not any(acknowledged.charge(n * 0.001, 1) for n in range(batches))


def test_a_flood_is_slowed_to_its_rate_and_found_out() -> None:
    budget, now, sent = Budget(UNBIDDEN), 0.0, 0
    while budget.short_for(now) <= PATIENCE:
        now += budget.charge(now, 1) + 0.00001
        sent += 1
    assert sent < UNBIDDEN.burst + UNBIDDEN.per_second * now + 1
    assert now < PATIENCE + 12
    now += UNBIDDEN.burst / UNBIDDEN.per_second
    assert budget.charge(now, 1) == 0 and budget.short_for(now) == 0


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 50)), max_size=50))
def test_no_more_passes_than_the_rate_allows(steps: list[tuple[float, int]]) -> None:
    rate = Rate(burst=20, per_second=5)
    budget, now, passed = Budget(rate), 0.0, 0
    for pause, amount in steps:
        now += pause
        now += budget.charge(now, amount)
        passed += amount
        assert passed <= rate.burst + rate.per_second * now + 1e-6


def test_the_door_counts_by_address_and_mistrusts_for_a_while() -> None:
    door = Door()
    leave = [door.enter("192.0.2.1", 0.0) for _ in range(ADDRESS_ARRIVING)]
    assert all(leave) and door.enter("192.0.2.1", 0.0) is None
    other = door.enter("192.0.2.2", 0.0)
    assert other is not None
    for done in (*leave, other):
        assert done is not None
        done()
    assert door.arriving == 0
    door.mistrust("192.0.2.1", 0.0)
    let_in = sum(door.enter("192.0.2.1", n / 100) is not None for n in range(1000))
    assert 5 <= let_in <= 15
    assert all(door.enter("192.0.2.2", n / 100) is not None for n in range(100))
    assert all(door.enter("192.0.2.1", 61.0 + n / 100) is not None for n in range(100))


def test_the_alarm_says_what_and_since_when_and_clears_when_the_node_behaves() -> None:
    async def work() -> None:
        async with world() as made:
            await made.store.transact(lambda tx: tx.create(raw(HOST.kind, "worker-0", spec={})))
            book = watched(made)
            who = node.host(CLOUD, "worker-0")
            await asyncio.sleep(CLEAR_AFTER + 1)
            for _ in range(3):
                book.complain(who, "floods", "heartbeats")
            await asyncio.sleep(1)
            (one,) = await made.store.every(Alarm, CLOUD)
            assert one.status.entity == "host=worker-0" and one.status.severity == "major"
            assert "worker-0 floods on its link since" in one.status.reason
            await asyncio.sleep(CLEAR_AFTER - 10)
            book.complain(who, "floods", "heartbeats")
            await asyncio.sleep(CLEAR_AFTER - 10)
            assert len(await made.store.every(Alarm, CLOUD)) == 1
            await asyncio.sleep(20)
            assert await made.store.every(Alarm, CLOUD) == []

    run(work)


def test_a_restart_clears_no_alarm_of_what_it_could_not_see() -> None:
    async def work() -> None:
        async with world() as made:
            await made.store.transact(lambda tx: tx.create(raw(HOST.kind, "worker-0", spec={})))
            watched(made).complain(node.host(CLOUD, "worker-0"), "breaks the protocol", "nonsense")
            await asyncio.sleep(1)
            await made.stop()
            watched(made)
            await asyncio.sleep(1)
            (one,) = await made.store.every(Alarm, CLOUD)
            assert one.status.stale_since
            await asyncio.sleep(CLEAR_AFTER + 1)
            assert await made.store.every(Alarm, CLOUD) == []

    run(work)


def test_a_node_that_is_gone_has_no_alarm() -> None:
    async def work() -> None:
        async with world() as made:
            await made.store.transact(lambda tx: tx.create(raw(HOST.kind, "worker-0", spec={})))
            book = watched(made)
            book.complain(node.host(CLOUD, "worker-0"), "floods", "")
            book.complain(node.host(CLOUD, "nobody"), "floods", "")
            await asyncio.sleep(1)
            assert len(await made.store.every(Alarm, CLOUD)) == 1
            await made.store.transact(lambda tx: tx.remove(HOST.kind, CLOUD, "worker-0"))
            await asyncio.sleep(1)
            assert await made.store.every(Alarm, CLOUD) == []

    run(work)


def watched(made: World) -> Conduct:
    """A book of conduct with its controller at work, as a process has it."""
    book = Conduct(made.clock, asyncio.get_running_loop().time)
    controller = ConductController(CLOUD, book)
    made.start([controller])
    book.listen(lambda who: made._runners[controller.name].wake(controller.key(who)))
    return book


def test_the_book_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(conduct, "NODES", 10)
        async with world() as made:
            book = Conduct(made.clock, asyncio.get_running_loop().time)
            for n in range(100):
                book.complain(node.subcloud(f"s{n}"), "floods", "x" * 1000)
            assert [n.name for n in book.nodes()] == [f"s{n}" for n in range(90, 100)]

    run(work)
