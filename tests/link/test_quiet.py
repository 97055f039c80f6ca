"""Silence on a link: what it means, and that it is found in time without anyone being found lost who is not.

On a fake clock, but for what the kernel does.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from roost.link import messages, node
from roost.link.errors import LinkError
from roost.link.messages import Acknowledge, Entries, Heartbeat, HeartbeatEcho, Hello
from roost.link.quiet import Quiet
from roost.link.rhythm import Rhythm
from roost.link.session import Session
from roost.link.watch import Watch
from roost.link.wire import MemoryConnection, Way, memory_pair
from roost.store.store import Store
from tests.link.test_session import Stranger
from tests.link.world import TIMING, Link, clock, put, resource, run, until, with_link

HARBOR = node.subcloud("harbor")
USUAL = Rhythm(1.0, 4.0)
SLOW = Rhythm(20.0, 40.0)


# -- the judgement


def judged(rhythm: Rhythm, way: Way, *, silent: float, said: float = 0.0, listens: bool = True) -> str:
    """Of a peer that was heard at 100, and to which something was said `said` seconds ago, if that."""
    quiet = Quiet(USUAL, lambda: way)
    quiet.rhythm = rhythm
    quiet.hears(100.0)
    if listens:
        quiet.listens(100.0)
    now = 100.0 + silent
    if said:
        quiet.spoke(now - said)
    return quiet.lost(now)


ANSWERED, FAR = Way(), Way(round_trip=0.6)
LOST: list[tuple[str, dict[str, Any], str]] = [
    ("heard just now", {"rhythm": USUAL, "way": ANSWERED, "silent": 1.0}, ""),
    ("silent, and a beat is late", {"rhythm": USUAL, "way": ANSWERED, "silent": 3.9}, ""),
    ("silent", {"rhythm": USUAL, "way": ANSWERED, "silent": 4.0}, "nothing was heard for 4 s"),
    ("silent on a long way", {"rhythm": USUAL, "way": FAR, "silent": 4.5}, ""),
    ("too silent for that", {"rhythm": USUAL, "way": FAR, "silent": 7.7}, "nothing was heard for 7.6 s"),
    ("on the longest way", {"rhythm": USUAL, "way": Way(round_trip=9.0), "silent": 13.9}, ""),
    ("silent as it may be", {"rhythm": SLOW, "way": ANSWERED, "silent": 39.0}, ""),
    ("silent at a slow rhythm", {"rhythm": SLOW, "way": ANSWERED, "silent": 40.0}, "nothing was heard"),
    ("nobody listened", {"rhythm": USUAL, "way": ANSWERED, "silent": 50.0, "listens": False}, ""),
    ("said and it has arrived", {"rhythm": SLOW, "way": ANSWERED, "silent": 20.0, "said": 15.0}, ""),
    (
        "said and it does not arrive",
        {"rhythm": SLOW, "way": Way(unanswered=8.1), "silent": 20.0, "said": 8.5},
        "what was sent did not arrive for 8.1 s",
    ),
    ("it may yet", {"rhythm": SLOW, "way": Way(unanswered=7.0), "silent": 20.0, "said": 8.5}, ""),
    (
        "it may yet, on a long way",
        {"rhythm": SLOW, "way": Way(round_trip=0.6, unanswered=9.0), "silent": 20.0, "said": 9.5},
        "",
    ),
    (
        "and nobody listened",
        {"rhythm": SLOW, "way": Way(unanswered=9.0), "silent": 20.0, "said": 9.5, "listens": False},
        "what was sent did not arrive for 9 s",
    ),
]


@pytest.mark.parametrize("facts, reason", [c[1:] for c in LOST], ids=[c[0] for c in LOST])
def test_who_is_lost(facts: dict[str, Any], reason: str) -> None:
    found = judged(**facts)
    assert found.startswith(reason) if reason else not found


def test_the_kernel_is_asked_only_about_who_is_silent() -> None:
    asked = list[int]()

    def way() -> Way:
        asked.append(1)
        return Way()

    quiet = Quiet(USUAL, way)
    for second in range(100):
        quiet.hears(float(second))
        quiet.listens(float(second))
        quiet.spoke(second + 0.5)
        assert not quiet.lost(second + 1.0)
        assert second + 1.0 < quiet.due(second + 1.0) <= second + 5.0
    assert not asked


# -- two sessions


class Rhythmic(Link):
    """A link whose upper end wants a rhythm; counts what passes, and when."""

    rhythm = SLOW

    def __init__(self, link: Link) -> None:
        super().__init__(link.node, link.lower, link.upper)
        self.passed: list[tuple[float, str, str]] = []
        self.prepare = self._listen

    def _listen(self, lower: MemoryConnection, upper: MemoryConnection) -> None:
        for name, end in (("lower", lower), ("upper", upper)):
            end.out.tamper = functools.partial(self._note, name)

    def _note(self, of: str, frame: bytes) -> list[bytes]:
        what = type(messages.unpack(frame)).__name__
        self.passed.append((asyncio.get_running_loop().time(), of, what))
        return [frame]

    def session(self, store: Store, feed: Any, connection: MemoryConnection, side: Any) -> Session:
        return Session(
            connection,
            store,
            feed,
            side=side,
            node=self.node,
            name="central",
            timing=TIMING,
            clock=clock,
            rhythm=lambda: self.rhythm,
        )

    def count(self, what: type[Any], of: str) -> int:
        return sum(passed[1:] == (of, what.__name__) for passed in self.passed)


def with_rhythm(path: Path, work: Callable[[Rhythmic], Awaitable[None]]) -> None:
    async def both(link: Link) -> None:
        link.hold()
        rhythmic = Rhythmic(link)
        rhythmic.start()
        try:
            await rhythmic.settle()
            await work(rhythmic)
        finally:
            await rhythmic.stop()

    run(lambda: with_link(path, HARBOR, both))


def test_a_lower_end_beats_as_seldom_as_the_upper_one_wants(tmp_path: Path) -> None:
    async def work(link: Rhythmic) -> None:
        link.passed.clear()
        await asyncio.sleep(200)
        assert 9 <= link.count(Heartbeat, "lower") <= 11
        assert link.count(HeartbeatEcho, "upper") == link.count(Heartbeat, "lower")
        assert link.ends == []
        # The fleet has become small, which is heard with the next beat.
        link.rhythm = Rhythm(TIMING.heartbeat, TIMING.lost_after)
        await asyncio.sleep(21)
        link.passed.clear()
        await asyncio.sleep(20)
        assert 18 <= link.count(Heartbeat, "lower") <= 21
        assert link.ends == []

    with_rhythm(tmp_path, work)


def test_at_rest_a_session_is_one_task(tmp_path: Path) -> None:
    async def work(link: Rhythmic) -> None:
        await put(link.lower, resource("LogEntry", "harbor", "e", status={"sequence": 1}))
        await link.settle()
        await asyncio.sleep(5)
        assert link.sessions
        for session in link.sessions:
            assert session._tasks is not None and not session._tasks._tasks

    with_rhythm(tmp_path, work)


@pytest.mark.parametrize("silent", ["both", "lower", "upper"])
def test_silence_ends_the_link_when_it_is_longer_than_the_rhythm_allows(tmp_path: Path, silent: str) -> None:
    async def work(link: Rhythmic) -> None:
        await asyncio.sleep(45)
        assert link.connected
        began, lower, upper = asyncio.get_running_loop().time(), *link.connected
        for name, end in (("lower", lower), ("upper", upper)):
            if silent in (name, "both"):
                end.out.tamper = lambda _: []
        await until(lambda: bool(link.ends), within=120)
        took = asyncio.get_running_loop().time() - began
        assert SLOW.silence - SLOW.every - 1 < took < SLOW.silence + SLOW.every + 2, took
        assert link.ends[0].startswith("nothing was heard for ")

    with_rhythm(tmp_path, work)


@pytest.mark.parametrize("end", [0, 1], ids=["lower", "upper"])
def test_what_does_not_arrive_is_found_long_before_the_next_beat(tmp_path: Path, end: int) -> None:
    async def work(link: Rhythmic) -> None:
        await asyncio.sleep(45)
        assert link.connected
        for one in link.connected:
            one.out.tamper = lambda _: []
            # What a socket asks its kernel for.
            asyncio.get_running_loop().call_later(8, setattr, one, "way", Way(unanswered=8.0))
        began = asyncio.get_running_loop().time()
        if end:
            await put(link.upper, resource("FirewallPolicy", "harbor", "web", spec={"networks": ["oam"]}))
        else:
            await put(link.lower, resource("LogEntry", "harbor", "e", status={"sequence": 1}))
        await until(lambda: bool(link.ends), within=60)
        took = asyncio.get_running_loop().time() - began
        assert 8 <= took < 10, took
        assert link.ends[0].startswith("what was sent did not arrive")

    with_rhythm(tmp_path, work)


@pytest.mark.parametrize("end", ["lower", "upper"])
def test_trouble_is_told_at_once_and_not_with_the_next_beat(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(link: Rhythmic) -> None:
        await asyncio.sleep(45)
        assert link.sessions
        lower, upper = link.sessions
        store, peer = (link.lower, upper) if end == "lower" else (link.upper, lower)
        monkeypatch.setattr(store, "_trouble", "the disk is full")
        await until(lambda: peer.beating.trouble == "the disk is full", within=3)
        # What ends sooner than a word holds is shown when that is over.
        monkeypatch.setattr(store, "_trouble", "")
        await asyncio.sleep(3)
        assert peer.beating.trouble == "the disk is full"
        await until(lambda: peer.beating.trouble == "", within=6)
        assert link.ends == []

    with_rhythm(tmp_path, work)


# -- neighbours of other versions


async def lasting(stranger: Stranger, *features: str) -> tuple[float, float]:
    """What a lower end of these features is told in an echo, and how long its silence is borne after that."""
    await stranger.hello(features=list(features))
    await stranger.hear(Hello)
    await stranger.say(Heartbeat(sequence=1))
    every = (await stranger.hear(HeartbeatEcho)).every
    began = asyncio.get_running_loop().time()
    assert "nothing was heard" in await asyncio.wait_for(stranger.outcome, 120)
    return every, asyncio.get_running_loop().time() - began


@pytest.mark.parametrize(
    "features, every, seconds",
    [((), 0.0, TIMING.lost_after), (("rhythm", "telepathy"), SLOW.every, SLOW.silence)],
    ids=["older", "today's"],
)
def test_only_who_knows_of_rhythms_is_slowed(
    tmp_path: Path, features: tuple[str, ...], every: float, seconds: float
) -> None:
    async def work(link: Link) -> None:
        link.hold()
        told, lasted = await lasting(Stranger(Rhythmic(link)), *features)
        assert told == every
        assert lasted == pytest.approx(seconds, abs=0.5)

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_an_older_upper_end_is_beaten_to_as_ever(tmp_path: Path) -> None:
    """It says nothing of a rhythm in its echoes."""

    async def work(link: Link) -> None:
        link.hold()
        mine, theirs = memory_pair(HARBOR)
        session = link.session(link.lower, link.lower_feed, mine, "lower")

        async def older() -> list[float]:
            beats = list[float]()
            hello = messages.unpack(await theirs.receive())
            assert isinstance(hello, Hello) and "rhythm" in hello.features
            said = {"store_id": "old", "taken_store_id": hello.store_id, "taken_revision": 0}
            numbers = {"protocol_min": 1, "protocol_max": 1, "version": "0.1.0", "node": "central"}
            await theirs.send(messages.pack(Hello(**numbers, **said)))  # type: ignore[arg-type]
            while len(beats) < 30:
                match messages.unpack(await theirs.receive()):
                    case Heartbeat(sequence=sequence):
                        beats.append(asyncio.get_running_loop().time())
                        await theirs.send(messages.pack(HeartbeatEcho(sequence=sequence)))
                    case Entries(number=number, upto=upto):
                        await theirs.send(messages.pack(Acknowledge(number=number, upto=upto)))
            return beats

        upper = asyncio.create_task(older())
        await session.greet()
        running = asyncio.create_task(session.run())
        beats = await asyncio.wait_for(upper, 60)
        assert beats[-1] - beats[0] == pytest.approx(29 * TIMING.heartbeat, abs=4)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(lambda: with_link(tmp_path, HARBOR, work))


# -- many on one watch


class Silent:
    """The upper end of a link whose lower end says hello, beats if it does, and nothing else."""

    def __init__(self, link: Link, number: int, watch: Watch) -> None:
        self.mine, theirs = memory_pair(node.subcloud(f"site-{number}"))
        self.session = Session(
            theirs,
            link.upper,
            link.upper_feed,
            side="upper",
            node=node.subcloud(f"site-{number}"),
            name="central",
            timing=TIMING,
            clock=clock,
            watch=watch,
            rhythm=lambda: SLOW,
        )
        self.beats, self.ended = number % 2 == 0, 0.0
        self.tasks = [asyncio.create_task(self._upper()), asyncio.create_task(self._lower(number))]

    async def _upper(self) -> None:
        try:
            await self.session.greet()
            await self.session.run()
        except LinkError:
            self.ended = asyncio.get_running_loop().time()

    async def _lower(self, number: int) -> None:
        hello = Hello(
            protocol_min=1,
            protocol_max=1,
            version="0.1.0",
            node=f"subcloud/site-{number}",
            store_id="s",
            taken_store_id="",
            taken_revision=0,
            features=["rhythm"],
        )
        await self.mine.send(messages.pack(hello))
        sequence = 0
        while True:
            sequence += 1
            if self.beats or sequence == 1:
                await self.mine.send(messages.pack(Heartbeat(sequence=sequence)))
            await asyncio.sleep(SLOW.every)


def test_the_silent_ones_of_many_are_found_in_time_and_only_they(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        link.hold()
        watch = Watch(most=20)
        many = [Silent(link, number, watch) for number in range(200)]
        await asyncio.sleep(3 * SLOW.silence)
        assert all(0 < one.ended < SLOW.silence + 5 for one in many if not one.beats)
        assert not any(one.ended for one in many if one.beats)
        assert watch.watched == 100
        for one in many:
            for task in one.tasks:
                task.cancel()
        await asyncio.gather(*(task for one in many for task in one.tasks), return_exceptions=True)
        assert watch.watched == 0

    run(lambda: with_link(tmp_path, HARBOR, work))
