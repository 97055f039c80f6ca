"""Streams over one link: what goes down, what comes up, and what happens at cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from roost.link import feed, messages, node
from roost.link.errors import LinkError, Refused
from roost.link.exchange import Request, Response
from roost.link.messages import (
    Acknowledge,
    CallBody,
    CallStart,
    EnrolHello,
    Entries,
    Entry,
    EntryType,
    Heartbeat,
    HeartbeatEcho,
    Hello,
    Message,
    Refusal,
)
from roost.link.wire import memory_pair
from tests.link.world import TIMING, Link, find, put, put_all, remove, resource, run, until, with_link

M = TypeVar("M", bound=Message)
HARBOR = node.subcloud("harbor")
HOST = node.host("harbor", "controller-0")


def call_start(number: int, size: int = 0) -> CallStart:
    return CallStart(call=number, method="GET", path="/", headers=[], caller="", groups=[], size=size)


async def nobody(request: Request) -> Response:
    raise AssertionError


def policy(name: str, order: int = 1000) -> dict[str, object]:
    return resource("FirewallPolicy", "harbor", name, spec={"networks": ["oam"], "order": order})


def test_intent_comes_down_and_its_status_goes_up(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await put(link.upper, policy("web"))
        await link.settle()
        below = await find(link.lower, "FirewallPolicy", "harbor", "web")
        assert below and below.origin == "up" and below.raw["spec"]["networks"] == ["oam"]
        await put(link.lower, resource("FirewallPolicy", "harbor", "web", status={"hosts": 3}))
        await link.settle()
        above = await find(link.upper, "FirewallPolicy", "harbor", "web")
        assert above and above.origin == "" and above.raw["status"] == {"hosts": 3}
        assert above.uid == below.uid
        await remove(link.upper, "FirewallPolicy", "harbor", "web")
        await link.settle()
        assert await find(link.lower, "FirewallPolicy", "harbor", "web") is None
        assert link.ends == []

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_observation_comes_up_while_cut_and_after(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await link.settle()
        link.hold()
        events = [
            resource("LogEntry", "harbor", f"harbor-{n:06}", status={"sequence": n}) for n in range(450)
        ]
        await put_all(link.lower, events)
        await put(link.lower, resource("Host", "harbor", "controller-0", spec={}))
        await put(link.upper, policy("web"))
        link.release()
        await link.settle()
        entries = await link.upper.read(lambda tx: tx.select("LogEntry", "harbor"))
        assert [e.raw["status"]["sequence"] for e in entries] == list(range(450))
        assert {e.origin for e in entries} == {"down:subcloud/harbor"}
        assert [e.revision for e in entries] == sorted(e.revision for e in entries)
        assert await find(link.lower, "FirewallPolicy", "harbor", "web")

    run(lambda: with_link(tmp_path, HARBOR, work))


# -- a peer that does not keep to the rules


class Stranger:
    """Speaks the protocol by hand to a session at the upper end."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.mine, theirs = memory_pair(link.node)
        self.session = link.session(link.upper, link.upper_feed, theirs, "upper")
        self.outcome: asyncio.Task[str] = asyncio.get_running_loop().create_task(self._drive())

    async def _drive(self) -> str:
        try:
            await self.session.greet()
            await self.session.run()
        except Refused as refusal:
            await self.session.abandon(refusal)
            return str(refusal)
        except LinkError as error:
            await self.session.abandon()
            return str(error)
        return "ended well"

    async def say(self, message: Message) -> None:
        await self.mine.send(messages.pack(message))

    async def hear(self, kind: type[M]) -> M:
        while True:
            message = messages.unpack(await self.mine.receive())
            if isinstance(message, kind):
                return message

    async def hello(self, **fields: object) -> None:
        given: dict[str, object] = {
            "protocol_min": 1,
            "protocol_max": 1,
            "version": "9.9",
            "node": str(self.link.node),
            "store_id": "strange",
            "taken_store_id": "",
            "taken_revision": 0,
        }
        await self.say(msgspec.convert(given | fields, Hello))


async def with_stranger(path: Path, who: node.Node, work: Callable[[Stranger], Awaitable[None]]) -> None:
    async def both(link: Link) -> None:
        link.hold()
        await work(Stranger(link))

    await with_link(path, who, both)


def written(raw: dict[str, object], type: EntryType = "object") -> Entry:
    meta = raw["metadata"]
    assert isinstance(meta, dict)
    return Entry(
        type=type,
        kind=str(raw["kind"]),
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        data=msgspec.json.encode(raw),
    )


def test_a_batch_says_as_well_as_a_heartbeat_that_its_node_is_there(tmp_path: Path) -> None:
    async def work(stranger: Stranger) -> None:
        await stranger.hello()
        await stranger.hear(Hello)
        event = resource("LogEntry", "harbor", "controller-0-1", status={"source": "harbor/controller-0"})
        await asyncio.sleep(3)
        await stranger.say(Entries(number=1, entries=[written(event)], upto=9, snapshot="end"))
        await stranger.hear(Acknowledge)
        assert asyncio.get_running_loop().time() - stranger.session.heard < 1

    run(lambda: with_stranger(tmp_path, HOST, work))


def test_what_a_host_may_not_write_is_refused_entry_by_entry(tmp_path: Path) -> None:
    event = resource("LogEntry", "harbor", "controller-0-1", status={"source": "harbor/controller-0"})
    forbidden = [
        resource("User", "", "intruder", spec={"role": "administrator"}),
        resource("Credential", "", "x", spec={}),
        resource("Host", "harbor", "controller-0", spec={}),
        resource("LogEntry", "harbor", "controller-1-1", status={"source": "harbor/controller-1"}),
        resource("Wheel", "harbor", "w"),
    ]

    async def work(stranger: Stranger) -> None:
        await stranger.hello()
        batch = [written(event), *map(written, forbidden)]
        await stranger.say(Entries(number=1, entries=batch, upto=9, snapshot="end"))
        answer = await stranger.hear(Acknowledge)
        assert [r.kind for r in answer.refused] == [str(f["kind"]) for f in forbidden]
        there = await stranger.link.upper.read(
            lambda tx: [s.kind for k in ("User", "Credential", "Host", "LogEntry") for s in tx.select(k)]
        )
        assert there == ["LogEntry"]

    run(lambda: with_stranger(tmp_path, HOST, work))


ENTRIES = Entries(number=1, entries=[], upto=0, snapshot="end")
RULES: list[tuple[str, list[Message], str]] = [
    ("a gap", [Entries(number=2, entries=[], upto=0, snapshot="end")], "batch 2 follows batch 0"),
    ("no snapshot", [Entries(number=1, entries=[], upto=5)], "a batch up to 5 follows 0"),
    ("no begin", [Entries(number=1, entries=[], upto=0, snapshot="middle")], "has no beginning"),
    (
        "no end",
        [
            Entries(number=1, entries=[], upto=0, snapshot="begin"),
            Entries(number=2, entries=[], upto=1),
        ],
        "did not end",
    ),
    ("a flood", [ENTRIES] * 40, "more batches than the window allows"),
    ("acknowledges what was not sent", [Acknowledge(number=99, upto=9)], "batch 99 is acknowledged"),
    ("hello twice", [Heartbeat(sequence=1), EnrolHello(ca="", upper="")], "has no place in a session"),
    ("our own call number", [call_start(2)], "begins twice"),
    ("a long body", [call_start(1, 3), CallBody(call=1, data=b"1234")], "longer than was said"),
]


@pytest.mark.parametrize("said, reason", [r[1:] for r in RULES], ids=[r[0] for r in RULES])
def test_breaking_the_protocol_ends_the_session(tmp_path: Path, said: list[Message], reason: str) -> None:
    async def work(stranger: Stranger) -> None:
        stranger.session.calls._handler = nobody
        await stranger.hello()
        await stranger.hear(Hello)
        for message in said:
            if stranger.outcome.done():
                break
            with suppress(LinkError):
                await stranger.say(message)
        assert reason in await asyncio.wait_for(stranger.outcome, 30)

    run(lambda: with_stranger(tmp_path, HARBOR, work))


def test_versions_too_far_apart_are_told_what_to_do(tmp_path: Path) -> None:
    async def work(stranger: Stranger) -> None:
        await stranger.hello(protocol_min=7, protocol_max=9)
        refusal = await stranger.hear(Refusal)
        assert refusal.code == "version" and "protocol 7 to 9" in refusal.reason
        assert "within two releases" in refusal.remedy

    run(lambda: with_stranger(tmp_path, HARBOR, work))


def test_a_newer_peer_that_still_speaks_our_protocol_is_welcome(tmp_path: Path) -> None:
    async def work(stranger: Stranger) -> None:
        await stranger.hello(protocol_min=1, protocol_max=3)
        assert (await stranger.hear(Hello)).node == "central"
        await stranger.mine.send(b"\0" + msgspec.msgpack.encode({"type": "sing", "song": "new"}))
        await stranger.say(Heartbeat(sequence=4))
        assert (await stranger.hear(HeartbeatEcho)).sequence == 4

    run(lambda: with_stranger(tmp_path, HARBOR, work))


def test_the_hello_must_name_who_the_certificate_names(tmp_path: Path) -> None:
    async def work(stranger: Stranger) -> None:
        await stranger.hello(node="subcloud/ridge")
        assert (await stranger.hear(Refusal)).code == "identity"

    run(lambda: with_stranger(tmp_path, HARBOR, work))


def test_who_says_nothing_is_given_up(tmp_path: Path) -> None:
    async def work(stranger: Stranger) -> None:
        began = asyncio.get_running_loop().time()
        assert "no hello came" in await asyncio.wait_for(stranger.outcome, 30)
        assert asyncio.get_running_loop().time() - began == pytest.approx(TIMING.hello_within, abs=0.1)

    run(lambda: with_stranger(tmp_path, HARBOR, work))


def test_who_acknowledges_nothing_is_given_up(tmp_path: Path) -> None:
    async def work(stranger: Stranger) -> None:
        await put_all(stranger.link.upper, [policy(f"p{n}") for n in range(1100)])
        await stranger.hello()

        async def live() -> None:
            for n in range(1000):
                await stranger.say(Heartbeat(sequence=n))
                await asyncio.sleep(1)

        async def listen() -> None:
            while True:
                await stranger.mine.receive()

        others = [asyncio.create_task(live()), asyncio.create_task(listen())]
        assert "no acknowledgement came" in await asyncio.wait_for(stranger.outcome, 60)
        await asyncio.gather(*others, return_exceptions=True)

    run(lambda: with_stranger(tmp_path, HARBOR, work))


def test_a_link_that_falls_silent_is_given_up_at_both_ends_and_dialled_again(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await link.settle()
        assert link.connected and link.sessions
        first = link.sessions
        for end in link.connected:
            end.out.tamper = lambda _: []
        await put(link.upper, policy("web"))
        await until(lambda: len(link.ends) == 2 and link.sessions not in (None, first))
        assert all("nothing was heard for 5 s" in end for end in link.ends)
        await link.settle()
        assert await find(link.lower, "FirewallPolicy", "harbor", "web")

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_a_burst_beyond_the_queue_is_read_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "QUEUE", 3)

    async def work(link: Link) -> None:
        await link.settle()
        for burst in range(5):
            numbers = range(burst * 30, burst * 30 + 30)
            events = [resource("LogEntry", "harbor", f"e{n:04}", status={"sequence": n}) for n in numbers]
            await put_all(link.lower, events)
            await asyncio.sleep(0.01)
        await link.settle()
        there = await link.upper.read(lambda tx: tx.select("LogEntry"))
        assert [s.raw["status"]["sequence"] for s in there] == list(range(150))

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_a_receiver_that_another_session_overtook_writes_nothing(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await put(link.upper, policy("first"))
        await link.settle()
        await link.lower.transact(lambda tx: tx.set_cursor("up", link.upper.identity, 0))
        await put(link.upper, policy("web"))
        await link.settle()
        assert any("took over" in end for end in link.ends)
        assert await find(link.lower, "FirewallPolicy", "harbor", "web")

    run(lambda: with_link(tmp_path, HARBOR, work))
