"""Whatever happens to a link, the two stores agree in the end.

Random histories of writes on both sides, cuts at any message, repeated batches, receivers that die
between applying and acknowledging, compaction, conflicts of names, restarts with an old cursor. Then
the link is left in peace, and a checker compares the stores.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roost.link import messages, node
from roost.link.messages import Acknowledge, Entries
from roost.link.node import Node
from roost.link.wire import MemoryConnection
from roost.model.codec import Raw
from roost.store.store import Store
from roost.store.transaction import Stored, Transaction
from tests.link.world import Link, put, put_all, resource, run, with_link

HARBOR = node.subcloud("harbor")
HOST = node.host("harbor", "c0")
NAMES = ["a", "b", "c"]

Step = tuple[Any, ...]
History = list[tuple[Step, float]]
steps = st.one_of(
    st.tuples(st.just("policy above"), st.sampled_from(NAMES), st.integers(0, 9)),
    st.tuples(st.just("policy below"), st.sampled_from(NAMES), st.integers(0, 9)),
    st.tuples(st.just("status below"), st.sampled_from(NAMES), st.integers(0, 9)),
    st.tuples(st.just("status above"), st.sampled_from(NAMES), st.integers(0, 9)),
    st.tuples(st.just("remove above"), st.sampled_from(NAMES)),
    st.tuples(st.just("remove below"), st.sampled_from(NAMES)),
    st.tuples(st.just("events"), st.integers(1, 40)),
    st.tuples(st.just("cut after"), st.integers(0, 12)),
    st.tuples(st.just("hold")),
    st.tuples(st.just("release")),
    st.tuples(st.just("settle")),
)
# After each step the link gets some time, or none.
histories = st.lists(st.tuples(steps, st.sampled_from([0.0, 0.0, 0.02, 0.5])), min_size=5, max_size=30)
unrest = st.fixed_dictionaries(
    {
        "repeat": st.sets(st.integers(0, 30), max_size=6),
        "lose answers": st.sets(st.integers(0, 30), max_size=4),
        "delay": st.sampled_from([0.0, 0.03]),
    }
)


class Weather:
    """What happens to frames: counted over all connections."""

    def __init__(self, link: Link, kind: dict[str, Any]) -> None:
        self.link, self.kind = link, kind
        self.batches = self.answers = 0
        self.cut_after = -1
        self.calm = False
        link.prepare = self.prepare

    def prepare(self, lower: MemoryConnection, upper: MemoryConnection) -> None:
        for end in (lower, upper):
            end.out.tamper = lambda frame, end=end: self.pass_on(frame, end)  # type: ignore[misc]
            end.out.delay = lambda: 0.0 if self.calm else self.kind["delay"]

    def pass_on(self, frame: bytes, end: MemoryConnection) -> list[bytes]:
        if self.calm:
            return [frame]
        if self.cut_after >= 0:
            self.cut_after -= 1
            if self.cut_after < 0:
                end.cut()
                return []
        message = messages.unpack(frame)
        if isinstance(message, Entries):
            self.batches += 1
            return [frame, frame] if self.batches in self.kind["repeat"] else [frame]
        if isinstance(message, Acknowledge):
            self.answers += 1
            # The receiver has it on disk and dies before it says so.
            if self.answers in self.kind["lose answers"]:
                end.cut()
                return []
        return [frame]


class World:
    """Carries out the steps, and remembers what it wrote."""

    def __init__(self, link: Link, weather: Weather) -> None:
        self.link, self.weather = link, weather
        self.events = 0

    async def step(self, step: Step) -> None:
        above, below = self.link.upper, self.link.lower
        match step:
            case ("policy above", name, value):
                await self.write(above, "", policy(name, spec={"networks": ["oam"], "order": value}))
            case ("policy below", name, value):
                await self.write(below, "", policy(name, spec={"networks": ["mgmt"], "order": value}))
            case ("status below", name, value):
                await self.observe(below, name, value)
            case ("status above", name, value):
                await self.annotate(above, name, value)
            case ("remove above", name):
                await self.remove(above, name)
            case ("remove below", name):
                await self.remove(below, name)
            case ("events", count):
                new = range(self.events + 1, self.events + count + 1)
                await put_all(below, [happened(n) for n in new])
                self.events += count
            case ("cut after", frames):
                self.weather.cut_after = frames
            case ("hold",):
                self.link.hold()
            case ("release",):
                self.link.release()
            case ("settle",):
                self.weather.cut_after = -1
                self.link.release()
                await self.link.settle()

    async def write(self, store: Store, origin: str, raw: Raw) -> None:
        """As the API does: only what has its home here may be changed here."""

        def work(tx: Transaction) -> None:
            current = tx.find(raw["kind"], raw["metadata"]["namespace"], raw["metadata"]["name"])
            if current is None:
                tx.create(raw)
            elif current.origin == origin:
                tx.replace({**current.raw, "spec": raw["spec"]})

        await store.transact(work)

    async def observe(self, store: Store, name: str, value: int) -> None:
        def work(tx: Transaction) -> None:
            current = tx.find("FirewallPolicy", "harbor", name)
            if current is not None:
                tx.replace({**current.raw, "status": {"hosts": value}})

        await store.transact(work)

    async def annotate(self, store: Store, name: str, value: int) -> None:
        def work(tx: Transaction) -> None:
            current = tx.find("FirewallPolicy", "harbor", name)
            if current is not None and current.origin == "":
                meta = {**current.raw["metadata"], "labels": {"value": str(value)}}
                tx.replace({**current.raw, "metadata": meta})

        await store.transact(work)

    async def remove(self, store: Store, name: str) -> None:
        def work(tx: Transaction) -> None:
            current = tx.find("FirewallPolicy", "harbor", name)
            if current is not None and current.origin == "":
                tx.remove("FirewallPolicy", "harbor", name)

        await store.transact(work)


def policy(name: str, **fields: Any) -> Raw:
    return resource("FirewallPolicy", "harbor", name, **fields)


def happened(number: int) -> Raw:
    return resource("LogEntry", "harbor", f"harbor-{number:05}", status={"sequence": number})


def part(raw: Raw, *, status: bool) -> Raw:
    meta = {k: v for k, v in raw["metadata"].items() if k != "resourceVersion"}
    return {k: v for k, v in {**raw, "metadata": meta}.items() if k != "status" or status}


async def everything(store: Store) -> dict[tuple[str, str], Stored]:
    def work(tx: Transaction) -> list[Stored]:
        return [*tx.select("FirewallPolicy"), *tx.select("LogEntry")]

    return {(s.kind, s.name): s for s in await store.read(work)}


async def check(link: Link, who: Node, events: int) -> None:
    """The two stores agree, as far as each is the home of what it has."""
    above, below = await everything(link.upper), await everything(link.lower)
    for key in above.keys() | below.keys():
        up, down = above.get(key), below.get(key)
        assert up is not None and down is not None, f"{key} is on one side only"
        match up.origin, down.origin:
            case "", "up":
                assert part(up.raw, status=False) == part(down.raw, status=False), key
                assert (up.raw.get("status") or {}) == (down.raw.get("status") or {}), key
            case origin, "" if origin == who.origin:
                assert part(up.raw, status=True) == part(down.raw, status=True), key
            case "", "":
                refused = {k[2] for k in link.sessions[0].intake.refused} if link.sessions else set()
                assert key[1] in refused, f"{key} has two homes and nobody was told"
            case origins:
                raise AssertionError(f"{key} has homes {origins}")
    told = [s for (kind, _), s in sorted(above.items()) if kind == "LogEntry"]
    assert [s.raw["status"]["sequence"] for s in told] == list(range(1, events + 1))
    assert [s.revision for s in told] == sorted(s.revision for s in told), "out of order"


async def live(link: Link, history: History, kind: dict[str, Any]) -> None:
    weather = Weather(link, kind)
    world = World(link, weather)
    await link.settle()
    for step, pause in history:
        await world.step(step)
        await asyncio.sleep(pause)
    weather.calm = True
    link.release()
    await link.settle()
    await check(link, link.node, world.events)


PROPERTY = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=True,
)


@PROPERTY
@given(histories, unrest)
def test_both_stores_agree_in_the_end(history: History, kind: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as path:
        run(lambda: with_link(Path(path), HARBOR, lambda link: live(link, history, kind)))


@PROPERTY
@given(histories, unrest)
def test_also_when_history_is_forgotten_meanwhile(history: History, kind: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as path:
        run(lambda: with_link(Path(path), HARBOR, lambda link: live(link, history, kind), history=8))


def test_a_conflict_heals_when_one_side_gives_way(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        link.hold()
        await put(link.upper, policy("web", spec={"networks": ["oam"]}))
        await put(link.lower, policy("web", spec={"networks": ["mgmt"]}))
        link.release()
        await link.settle()
        assert link.sessions
        lower, upper = link.sessions
        key = ("FirewallPolicy", "harbor", "web")
        assert "home here" in upper.outgoing.refused[key] and "home here" in lower.outgoing.refused[key]
        await link.lower.transact(lambda tx: tx.remove(*key))
        await link.settle()
        below = await everything(link.lower)
        assert below["FirewallPolicy", "web"].raw["spec"] == {"networks": ["oam"]}
        assert upper.outgoing.refused == {} and lower.outgoing.refused == {}

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_a_conflict_heals_when_the_upper_side_gives_way_while_cut(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        link.hold()
        for store in (link.upper, link.lower):
            await put(store, policy("web", spec={"networks": ["oam"]}))
        link.release()
        await link.settle()
        link.hold()
        await link.upper.transact(lambda tx: tx.remove("FirewallPolicy", "harbor", "web"))
        link.release()
        await link.settle()
        above = await everything(link.upper)
        assert above["FirewallPolicy", "web"].origin == HARBOR.origin

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_a_conflict_heals_though_nobody_remembers_how_it_was_solved(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        link.hold()
        for store in (link.upper, link.lower):
            await put(store, policy("web", spec={"networks": ["oam"]}))
        link.release()
        await link.settle()
        link.hold()
        await link.upper.transact(lambda tx: tx.remove("FirewallPolicy", "harbor", "web"))
        await put_all(link.upper, [resource("User", "", f"u{n}") for n in range(40)])
        link.release()
        await link.settle()
        above = await everything(link.upper)
        assert above["FirewallPolicy", "web"].origin == HARBOR.origin

    run(lambda: with_link(tmp_path, HARBOR, work, history=8))


def test_what_changes_during_a_snapshot_is_told_after_it(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await put_all(link.upper, [policy(f"p{n}", spec={"networks": ["oam"]}) for n in range(1100)])
        writes: list[asyncio.Task[Any]] = []

        def meddle(frame: bytes) -> list[bytes]:
            message = messages.unpack(frame)
            if isinstance(message, Entries) and message.snapshot in ("begin", "middle"):
                for name in ("p0", "p1099", f"new{len(writes)}"):
                    fresh = policy(name, spec={"networks": ["oam"], "order": 7})
                    writes.append(asyncio.create_task(put(link.upper, fresh)))
            return [frame]

        link.prepare = lambda lower, upper: setattr(upper.out, "tamper", meddle)
        await link.lower.transact(lambda tx: tx.set_cursor("up", "another store", 5))
        link.cut()
        await link.settle()
        await asyncio.gather(*writes)
        await link.settle()
        assert writes
        # One entry tells that the upper end goes on as another store.
        await check(link, HARBOR, 1)

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_a_store_made_anew_is_told_everything_and_loses_what_is_no_more(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await put_all(link.upper, [policy(f"p{n}", spec={"networks": ["oam"]}) for n in range(250)])
        await link.settle()
        assert len(await everything(link.lower)) == 250
        link.hold()

        def forget(tx: Transaction) -> None:
            tx.set_cursor("up", "another store", 5)
            tx.copy(policy("stale", spec={"networks": ["oam"]}), "up")

        await link.lower.transact(forget)
        await link.upper.transact(lambda tx: tx.remove("FirewallPolicy", "harbor", "p7"))
        link.release()
        await link.settle()
        names = {name for _, name in await everything(link.lower)}
        # And one entry tells that the upper end goes on as another store.
        assert names == {f"p{n}" for n in range(250)} - {"p7"} | {"log.0000000001"}

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_a_sender_that_forgot_the_history_meanwhile_starts_anew(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await link.settle()
        link.hold()
        await put_all(link.lower, [happened(n) for n in range(1, 41)])
        link.release()
        await link.settle()
        await check(link, HARBOR, 40)

    run(lambda: with_link(tmp_path, HARBOR, work, history=8))


def test_a_repeated_batch_is_acknowledged_and_changes_nothing(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        Weather(link, {"repeat": set(range(100)), "lose answers": set(), "delay": 0.0})
        link.cut()
        await link.settle()
        ends = len(link.ends)
        for n in range(3):
            await put(link.upper, policy("web", spec={"networks": ["oam"], "order": n}))
            await link.settle()
        assert len(link.ends) == ends
        assert link.lower.revision == 3

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_the_same_name_made_anew_keeps_nothing_of_the_old(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await put(link.upper, policy("web", spec={"networks": ["oam"]}))
        await link.settle()
        link.hold()
        await put(link.lower, policy("web", status={"hosts": 5}))
        await link.upper.transact(lambda tx: tx.remove("FirewallPolicy", "harbor", "web"))
        await put(link.upper, policy("web", spec={"networks": ["oam"]}))
        link.release()
        await link.settle()
        for store in (link.upper, link.lower):
            assert not (await everything(store))["FirewallPolicy", "web"].raw.get("status")

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_a_cursor_ahead_of_the_sender_starts_anew(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await put(link.upper, policy("web", spec={"networks": ["oam"]}))
        await link.lower.transact(lambda tx: tx.set_cursor("up", link.upper.identity, 999))
        await link.settle()
        assert set(await everything(link.lower)) == {("FirewallPolicy", "web")}

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_a_quiet_link_moves_its_cursor_past_what_does_not_concern_it(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await link.settle()
        await put_all(link.upper, [resource("User", "", f"u{n}") for n in range(1200)])
        await asyncio.sleep(200)
        cursor = await link.lower.read(lambda tx: tx.cursor("up"))
        assert cursor == (link.upper.identity, link.upper.revision)

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_a_host_sends_its_own_fields_and_keeps_hands_off_the_rest(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        machine = resource("Host", "harbor", "c0", spec={"location": "roof"})
        await put(link.upper, {**machine, "status": {"availability": "available"}})
        await put(link.upper, resource("HostConfiguration", "harbor", "c0", spec={}))
        await put(link.upper, resource("Host", "harbor", "c1", spec={}))
        await link.settle()
        assert await link.lower.read(lambda tx: [s.name for s in tx.select("Host")]) == ["c0"]
        mine = {"agent": {"version": "1"}, "availability": "failed"}
        await put(link.lower, {**machine, "spec": {"location": "cellar"}, "status": mine})
        await put(link.lower, resource("HostConfiguration", "harbor", "c0", status={"appliedGeneration": 1}))
        event = resource("LogEntry", "harbor", "c0-1", status={"source": "harbor/c0", "text": "up"})
        await put(link.lower, event)
        await put(link.lower, resource("Alarm", "harbor", "not-mine", status={}))
        await link.settle()
        above = await link.upper.get("Host", "harbor", "c0")
        assert above.raw["spec"] == {"location": "roof"}
        assert above.raw["status"] == {"availability": "available", "agent": {"version": "1"}}
        configuration = await link.upper.get("HostConfiguration", "harbor", "c0")
        assert configuration.raw["status"] == {"appliedGeneration": 1}
        assert (await link.upper.get("LogEntry", "harbor", "c0-1")).origin == HOST.origin
        assert await link.upper.read(lambda tx: tx.count("Alarm")) == 0

    run(lambda: with_link(tmp_path, HOST, work))


def test_the_refused_are_remembered_with_the_cursor(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        link.hold()
        for store in (link.upper, link.lower):
            await put(store, policy("web", spec={"networks": ["oam"]}))
        link.release()
        await link.settle()
        kept = await link.lower.read(lambda tx: tx.property("link-refused:up"))
        assert msgspec.json.decode(kept) == [["FirewallPolicy", "harbor", "web"]]

    run(lambda: with_link(tmp_path, HARBOR, work))
