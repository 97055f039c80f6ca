"""Large messages in parts: put together as they were, bounded, and no link dies of its own load."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from roost.link import messages
from roost.link.errors import BadMessage
from roost.link.messages import FRAME_LIMIT, CallBody, Entries, HeartbeatEcho, Hello, Part
from roost.link.node import subcloud
from roost.link.parts import PART, Collected, lane, parts
from roost.link.wire import MemoryConnection, Way
from roost.model.codec import Raw
from tests.link.world import TIMING, Link, put, resource, run, until, with_link

HARBOR = subcloud("harbor")


@given(some.binary(min_size=1, max_size=5 * PART), some.sampled_from(("stream", "calls")))
def test_a_frame_comes_together_as_it_was(frame: bytes, of: str) -> None:
    collected = Collected()
    pieces = [collected.take(part) for part in parts(frame, of)]  # type: ignore[arg-type]
    assert pieces[-1] == frame and set(pieces[:-1]) <= {None}
    assert all(len(part.data) <= PART for part in parts(frame, of))  # type: ignore[arg-type]


def test_two_lanes_do_not_mix_and_what_was_given_up_is_dropped() -> None:
    collected = Collected()
    assert (
        lane(CallBody(call=1, data=b"")) == "calls"
        and lane(Entries(number=1, entries=[], upto=1)) == "stream"
    )
    stream, calls = list(parts(b"s" * 3 * PART, "stream")), list(parts(b"c" * 2 * PART, "calls"))
    assert collected.take(stream[0]) is None
    assert collected.take(calls[0]) is None
    assert collected.take(stream[0]) is None, "begun anew"
    assert collected.take(calls[1]) == b"c" * 2 * PART
    assert collected.take(stream[1]) is None
    assert collected.take(stream[2]) == b"s" * 3 * PART


@pytest.mark.parametrize(
    "bad",
    [
        [Part(lane="stream", data=b"x")],
        [Part(lane="stream", data=b"", first=True)],
        [Part(lane="stream", data=bytes(FRAME_LIMIT), first=True), Part(lane="stream", data=b"x")],
        [Part(lane="stream", data=b"x", first=True, last=True), Part(lane="stream", data=b"x")],
    ],
    ids=["no beginning", "empty", "too large", "after the end"],
)
def test_what_makes_no_frame_is_refused(bad: list[Part]) -> None:
    collected = Collected()
    with pytest.raises(BadMessage):
        for part in bad:
            collected.take(part)


def test_a_peer_of_an_older_version_gets_frames_whole(tmp_path: Path) -> None:
    seen: list[str] = []

    def prepare(lower: MemoryConnection, upper: MemoryConnection) -> None:
        def older(frame: bytes) -> list[bytes]:
            message = messages.unpack(frame)
            seen.append(type(message).__name__)
            if isinstance(message, Hello):
                plain = msgspec.structs.replace(message, features=["again", "calls", "digest"])
                return [messages.pack(plain)]
            return [frame]

        lower.out.tamper = upper.out.tamper = older

    async def work(link: Link) -> None:
        link.prepare = prepare
        link.cut()
        await put(link.lower, noise("big", 100_000))
        await link.settle()
        assert link.upper._snapshot(lambda tx: tx.find("FirewallPolicy", "harbor", "big")) is not None
        assert "Part" not in seen and "Entries" in seen

    run(lambda: with_link(tmp_path, HARBOR, work))


@pytest.mark.parametrize("rate", [125_000, 12_500], ids=["1 Mbit/s", "100 kbit/s"])
def test_no_link_dies_of_its_own_load(tmp_path: Path, rate: int) -> None:
    """What is sent first passes first. A heartbeat would wait behind a megabyte for as long as that takes."""
    echoes: list[float] = []

    def prepare(lower: MemoryConnection, upper: MemoryConnection) -> None:
        for end in (lower, upper):
            end.send = narrow(end.send, rate)  # type: ignore[method-assign, assignment]

        def note(frame: bytes) -> list[bytes]:
            if isinstance(messages.unpack(frame), HeartbeatEcho):
                echoes.append(asyncio.get_running_loop().time())
            return [frame]

        upper.out.tamper = note

    async def work(link: Link) -> None:
        link.prepare = prepare
        link.cut()
        link.ends.clear()
        for n in range(2):
            await put(link.lower, noise(f"up-{n}", 400_000))
            await put(link.upper, noise(f"down-{n}", 400_000, networks=["oam"]))
        await until(lambda: link.sessions is not None, 60)
        begun = asyncio.get_running_loop().time()
        await link.settle(within=10 * 8 * 400_000 / rate)
        took = asyncio.get_running_loop().time() - begun
        assert took > 2 * 400_000 / rate / 2, "it was narrow"
        assert link.ends in ([], ["the connection was cut"] * 2), link.ends
        longest = max(later - sooner for sooner, later in pairwise(echoes))
        assert longest < TIMING.lost_after / 2, longest

    run(lambda: with_link(tmp_path, HARBOR, work))


@pytest.mark.parametrize(("round_trip", "ends"), [(0.0, True), (0.6, False)], ids=["near", "far"])
def test_over_a_long_way_silence_lasts_longer_before_it_counts(
    tmp_path: Path, round_trip: float, *, ends: bool
) -> None:
    def prepare(lower: MemoryConnection, upper: MemoryConnection) -> None:
        for end in (lower, upper):
            setattr(end, "way", Way(round_trip=round_trip))  # noqa: B010 - what a socket asks its kernel for

    async def work(link: Link) -> None:
        link.prepare = prepare
        link.cut()
        await link.settle()
        link.ends.clear()
        assert link.connected is not None
        for end in link.connected:
            end.out.tamper = lambda _: []
        await asyncio.sleep(TIMING.lost_after + 2)
        for end in link.connected:
            end.out.tamper = lambda frame: [frame]
        await link.settle()
        assert bool(link.ends) is ends, link.ends

    run(lambda: with_link(tmp_path, HARBOR, work))


def narrow(
    send: Callable[[bytes], Coroutine[Any, Any, None]], rate: float
) -> Callable[[bytes], Coroutine[Any, Any, None]]:
    """Sends one after the other, each as long as its bytes take."""
    line = asyncio.Lock()

    async def slowly(frame: bytes) -> None:
        async with line:
            await asyncio.sleep(len(frame) / rate)
            await send(frame)

    return slowly


def noise(name: str, size: int, **spec: object) -> Raw:
    """A policy that no packing makes smaller than half its size."""
    text = random.Random(name).randbytes(size // 2).hex()
    return resource("FirewallPolicy", "harbor", name, spec={"networks": ["mgmt"], **spec, "later": text})
