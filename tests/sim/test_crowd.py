"""Simulated sites by the thousand: their streams are whole whatever happens, and a real centre takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from websockets.asyncio.client import ClientConnection

from roost.link import pki, sockets
from roost.link.lower import Backoff
from roost.link.messages import Entries, Entry, Key
from roost.link.node import subcloud
from roost.link.pki import Authority
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.fault import Alarm
from roost.model.firewall import FirewallPolicy, FirewallPolicySpec
from roost.model.fleet import SubcloudSelector
from roost.model.host import Host
from roost.model.meta import Metadata
from roost.sim.cloud import SimulatedCloud, World
from roost.sim.crowd import enrolling
from roost.sim.crowd.crowd import Crowd, Plan
from roost.sim.crowd.enrolling import Identities, address_of
from roost.sim.crowd.script import Action, BadScript, Step, chosen, parse
from roost.sim.crowd.stream import FIRST, Stream
from roost.sim.fleet import BACKOFF, TIMING
from roost.sim.subcloud import site_name
from roost.store.transaction import Transaction

CENTRE = "central"


# -- streams


def entry(name: str, value: int | None) -> Entry:
    if value is None:
        return Entry(type="deleted", kind="Alarm", namespace="s", name=name)
    return Entry(type="object", kind="Alarm", namespace="s", name=name, data=b"%d" % value)


class Receiver:
    """What a centre does with a stream."""

    def __init__(self) -> None:
        self.held: dict[Key, bytes] = {}
        self.at: tuple[str, int] = ("", 0)
        self._seen: set[Key] = set()

    def take(self, batch: Entries, store_id: str) -> None:
        if batch.snapshot in ("begin", "end") and batch.number == 1:
            self._seen = set()
        if batch.snapshot == "none":
            assert self.at[0] == store_id and batch.upto >= self.at[1]
        for one in batch.entries:
            self._seen.add(one.key)
            if one.type == "deleted":
                self.held.pop(one.key, None)
            else:
                self.held[one.key] = one.data
        if batch.snapshot == "end":
            self.held = {k: v for k, v in self.held.items() if k in self._seen}
        if batch.snapshot in ("none", "end"):
            self.at = (store_id, batch.upto)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from("abcdef"), st.none() | st.integers(0, 9)),
        st.sampled_from([("send",), ("lost",), ("unacknowledged",), ("begin",), ("forget",)]),
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 450))
def test_a_stream_is_whole_whatever_happens_to_its_sessions(
    steps: list[tuple[object, ...]], size: int
) -> None:
    base = [entry(f"base-{n}", n) for n in range(size)]
    stream, receiver, truth = Stream("one", lambda: base), Receiver(), {e.key: e.data for e in base}
    stream.begin(*receiver.at)
    for step in steps:
        match step:
            case ("say", str(name), value):
                said = entry(name, value)  # type: ignore[arg-type]
                stream.say(said)
                truth.pop(said.key, None)
                if said.type != "deleted":
                    truth[said.key] = said.data
            case ("begin",):
                stream.begin(*receiver.at)
            case ("forget",):
                receiver = Receiver()
                stream.begin(*receiver.at)
            case (how,):
                batch = stream.due()
                if batch is not None:
                    if how != "lost":
                        receiver.take(batch, "one")
                    if how == "send":
                        stream.acknowledge(batch.number)
                    else:
                        stream.begin(*receiver.at)
    while (batch := stream.due()) is not None:
        assert stream.due() is None, "one at a time"
        assert len(batch.entries) <= 200
        receiver.take(batch, "one")
        stream.acknowledge(batch.number)
    assert receiver.held == truth
    assert receiver.at == ("one", stream.revision) and stream.in_step and stream.taken >= FIRST


def test_what_is_over_is_forgotten_once_it_is_known() -> None:
    stream = Stream("one", list)
    stream.begin("one", 1)
    for number in range(100):
        stream.say(entry("a", number))
        stream.say(entry("a", None))
        batch = stream.due()
        assert batch is not None and len(batch.entries) == 1
        stream.acknowledge(batch.number)
    assert stream._changed == {}


# -- scripts


def test_a_script_is_its_steps_in_order() -> None:
    text = b"- {at: 30, action: mend}\n- {at: 10, action: cut, share: 0.5}\n- {action: change, rate: 9}\n"
    assert [(s.at, s.action) for s in parse(text)] == [(0, "change"), (10, "cut"), (30, "mend")]
    assert parse(b"[]") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"action: cut", "array"),
        (b"- {action: explode}", "explode"),
        (b"- {action: cut, shares: 1}", "shares"),
        (b"- {action: cut, share: 2}", "share"),
        (b"- {at: -1, action: cut}", "at"),
        (b"- [", "YAML"),
        (b"\xff\xfe\x00", "YAML"),
    ],
)
def test_what_is_no_script_is_told(text: bytes, words: str) -> None:
    with pytest.raises(BadScript, match=words):
        parse(text)


@given(st.floats(0, 1), st.integers(0, 5000), st.integers(1, 5000))
def test_a_share_is_spread_and_the_same_in_all_processes(share: float, first: int, sites: int) -> None:
    step = Step(action="cut", share=share, first=first, sites=sites)
    whole = list(chosen(step, range(10_000)))
    parts = [*chosen(step, range(4000)), *chosen(step, range(4000, 10_000))]
    assert whole == parts and all(first <= number < first + sites for number in whole)
    meant = min(sites, 10_000 - first)
    assert abs(len(whole) - share * meant) <= 2 + 0.05 * meant


def test_each_site_has_an_address_of_its_own() -> None:
    addresses = {address_of(number) for number in range(200_000)}
    assert len(addresses) == 200_000 and not any(a.startswith("127.0.") for a in addresses)


# -- at a real centre


class Place:
    """A real centre, and a crowd that dials it over TLS."""

    def __init__(self, centre: SimulatedCloud, crowd: Crowd) -> None:
        self.centre, self.crowd = centre, crowd

    def do(self, action: Action, **said: object) -> None:
        self.crowd.do(Step(action=action, **said))  # type: ignore[arg-type]

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        try:
            async with asyncio.timeout(60):
                while not await holds():  # noqa: ASYNC110 - a real store is asked
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{what}: {self.crowd.standing()} {self.crowd.heard.last_failure}") from None

    async def online(self) -> int:
        found = await self.centre.store.every(Subcloud)
        return [s.status.availability for s in found].count("online")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    count, hosts = 12, 2
    now = datetime.now(UTC)
    authority = Authority.open(tmp_path / "pki", CENTRE, now)
    world = World(
        directory=tmp_path,
        authority=authority,
        clock=lambda: datetime.now(UTC),
        timing=TIMING,
        backoff=BACKOFF,
    )
    centre = SimulatedCloud(world, CENTRE, addresses=(("127.0.0.1", 0),))
    await centre.open()
    centre.start()
    identities = Identities(tmp_path / "sites")

    def declare(tx: Transaction) -> None:
        for number in range(count):
            spec = SubcloudSpec(management_state="managed")
            tx.save(Subcloud(metadata=Metadata(name=site_name(number)), spec=spec))

    await centre.store.transact(declare)
    for number in range(count):
        name = site_name(number)
        request = pki.request(identities.key)
        certificate = authority.sign_node(request, subcloud(name), now, pki.NODE_LIFETIME)
        identities.keep(name, certificate, authority.certificate_pem)

    async def dial(number: int, name: str) -> ClientConnection:
        where = ("127.0.0.1", centre.upper.ports[0])
        return await enrolling.dial(where, number, identities.context(name), sockets.LINK_PATH)

    plan = Plan(first=0, count=count, hosts=hosts, heartbeat=0.5, backoff=Backoff(first=0.05, cap=0.2))
    crowd = Crowd(plan, dial)
    crowd.begin()
    try:
        yield Place(centre, crowd)
    finally:
        await crowd.end()
        await centre.close()


async def test_a_real_centre_takes_them_and_what_befalls_them(place: Place) -> None:
    store, count = place.centre.store, 12

    async def settled() -> bool:
        standing = place.crowd.standing()
        return standing["inStep"] == count and await place.online() == count

    async def mirrored() -> bool:
        hosts = await store.every(Host)
        return len(hosts) == 2 * count and all(h.status.inventory is not None for h in hosts)

    await place.until("all are online", settled)
    await place.until("their hosts are mirrored", mirrored)

    def share(tx: Transaction) -> None:
        spec = FirewallPolicySpec(networks=["oam"], subclouds=SubcloudSelector())
        tx.save(FirewallPolicy(metadata=Metadata(name="base", namespace=CENTRE), spec=spec))

    await store.transact(share)

    async def in_force() -> bool:
        status = (await store.load(FirewallPolicy, CENTRE, "base")).status
        return (status.in_sync, status.hosts) == (count, 2 * count)

    await place.until("a shared policy is in force", in_force)

    async def alarms(wanted: int) -> bool:
        return sum(a.metadata.namespace != CENTRE for a in await store.every(Alarm)) == wanted

    place.do("alarms", count=3)
    await place.until("alarms are mirrored", lambda: alarms(3 * count))
    place.do("cut", first=0, sites=6)
    place.do("clear")

    async def half() -> bool:
        found = await store.every(Subcloud)
        return [s.status.availability for s in found].count("offline") == 6

    await place.until("those that are cut are offline, the others tell", half)
    assert await alarms(3 * 6)
    place.do("mend", first=0, sites=6)
    await place.until("they are back", settled)
    await place.until("and have told what was over meanwhile", lambda: alarms(0))


async def test_those_that_behave_badly_are_thrown_out_and_the_others_stay(place: Place) -> None:
    count = 12

    async def settled() -> bool:
        return await place.online() == count and place.crowd.standing()["inStep"] == count

    await place.until("all are online", settled)
    assert place.crowd.heard.dialled == count
    place.do("nonsense", first=3, sites=1)

    async def thrown_out() -> bool:
        return place.crowd.heard.dialled > count

    await place.until("who talks nonsense is thrown out", thrown_out)
    place.do("claim", first=4, sites=1)
    place.do("log", first=5, sites=1, count=5)
    place.do("change", first=6, sites=2, rate=50.0, seconds=0.5)

    async def told() -> bool:
        standing = place.crowd.standing()
        return standing["inStep"] >= count - 1 and standing["entries"] >= 3 * count + 20

    await place.until("the others go on", told)
    hosts = await place.centre.store.every(Host)
    assert {h.metadata.namespace for h in hosts} == {site_name(n) for n in range(count)}, "no claim was taken"


async def test_an_older_version_is_taken_too(place: Place) -> None:
    async def settled() -> bool:
        return place.crowd.standing()["inStep"] == 12

    await place.until("all are linked", settled)
    place.do("old", first=0, sites=2)

    async def seen() -> bool:
        found = await place.centre.store.every(Subcloud)
        return [s.status.version for s in found].count("0.0.1") == 2

    await place.until("their version is known", seen)
