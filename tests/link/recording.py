"""Conversations over a link, recorded from real sessions and replayed against today's code at either end.

A recording is lines of JSON: `{"step": NAME}` where something was done at an end (STEPS), `{"session": N}`
where a connection began, and `{"from": "lower" | "upper", "message": {...}}` for each frame that passed, in
canonical form: keys in order, entries as the objects they carry, identities as `<id N>` in the order in which
they appeared, moments as `<time>`, secrets never.

In a replay one end is today's code on a store of its own, and the other is the recording. What today's end
says must have all that was recorded, with the same meaning; it may say more. Identities are matched, not
compared: `<id 3>` stands for whatever today's end first said in its place.

`python -m tests.link.recording VERSION` writes the recordings of the code at hand to recorded/VERSION/.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from roost.link import messages, node
from roost.link.errors import LinkError
from roost.link.exchange import Caller, Request, Response
from roost.link.feed import Feed, everyone
from roost.link.flow import audience
from roost.link.session import Session, Timing
from roost.link.wire import MemoryConnection, memory_pair
from roost.store.database import sqlite_url
from roost.store.store import Store
from tests.link.world import clock, put, put_all, remove, resource, run

RECORDED = Path(__file__).parent / "recorded"
NODES = {"subcloud": node.subcloud("harbor"), "host": node.host("harbor", "controller-0")}
TIMING = Timing(heartbeat=3600, lost_after=36_000)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
FREE = {"version", "reason", "remedy", "text"}
"""Fields whose words may change from one version to the next."""

SETS = {"features", "kinds"}
"""Lists to which a version may add."""

QUIET = 5.0
Side = Literal["lower", "upper"]
Line = dict[str, Any]


# -- frames as lines


def plain(frame: bytes) -> Line:
    """A frame's message, as JSON can have it."""
    message: Line = msgspec.msgpack.decode(messages._plain(frame))
    for entry in message.get("entries", []):
        entry["data"] = json.loads(entry["data"]) if entry.get("data") else None
    return _texts(message)  # type: ignore[no-any-return]


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _texts(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_texts(v) for v in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return value


def frame(message: Line) -> bytes:
    """The frame of a line's message."""
    packed = _bytes(message)
    for entry in packed.get("entries", []):
        entry["data"] = json.dumps(entry["data"]).encode() if entry.get("data") is not None else b""
    return b"\0" + msgspec.msgpack.encode(packed)


def _bytes(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"base64"}:
            return base64.b64decode(value["base64"])
        return {k: _bytes(v) for k, v in value.items()}
    return [_bytes(v) for v in value] if isinstance(value, list) else value


class Canonical:
    """Gives identities numbers in the order in which they appear."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: self(v) for k, v in sorted(value.items())}
        if isinstance(value, list):
            return [self(v) for v in value]
        if isinstance(value, str) and UUID.fullmatch(value):
            return self._known.setdefault(value, f"<id {len(self._known) + 1}>")
        return "<time>" if isinstance(value, str) and MOMENT.fullmatch(value) else value


class Meaning:
    """What stands for what in a replay."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def spoken(self, value: Any) -> Any:
        """A recorded value, as it is said to today's end."""
        if isinstance(value, dict):
            return {k: self.spoken(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.spoken(v) for v in value]
        if isinstance(value, str) and value.startswith("<id "):
            made = str(uuid.uuid5(uuid.NAMESPACE_OID, value))
            return self._known.setdefault(value, made)
        return "2026-11-23T00:00:01Z" if value == "<time>" else value

    def differences(self, recorded: Any, said: Any, where: str = "") -> list[str]:
        """Where what today's end says lacks or changes what was recorded."""
        name = where.rpartition(".")[2]
        if isinstance(recorded, dict) and isinstance(said, dict):
            lacking = [f"{where}.{k} is not said" for k in recorded if k not in said]
            shared = [k for k in recorded if k in said]
            inner = (self.differences(recorded[k], said[k], f"{where}.{k}") for k in shared)
            return lacking + [one for found in inner for one in found]
        if isinstance(recorded, list) and isinstance(said, list):
            if name in SETS:
                return [f"{where} lacks {one}" for one in recorded if one not in said]
            if len(recorded) != len(said):
                return [f"{where} has {len(said)} items, not {len(recorded)}"]
            pairs = enumerate(zip(recorded, said, strict=True))
            return [d for n, (r, s) in pairs for d in self.differences(r, s, f"{where}[{n}]")]
        if isinstance(recorded, str) and isinstance(said, str):
            if recorded.startswith("<id "):
                recorded = self._known.setdefault(recorded, said)
            elif recorded == "<time>":
                return [] if MOMENT.fullmatch(said) else [f"{where} is {said!r}, no moment"]
            elif name in FREE:
                return [] if said else [f"{where} is empty"]
        return [] if recorded == said else [f"{where} is {said!r}, was {recorded!r}"]


# -- ends, and what is done at them


class End:
    """One end: today's session on a store of its own."""

    def __init__(self, side: Side, who: node.Node, store: Store) -> None:
        self.side, self.who, self.store = side, who, store
        self.feed = Feed(store, everyone if side == "lower" else audience)
        self._feeding = asyncio.ensure_future(self.feed.run())
        self.session: Session | None = None
        self.ended: asyncio.Task[str] | None = None

    def connect(self, connection: MemoryConnection) -> None:
        """Begin a session."""
        self.session = Session(
            connection,
            self.store,
            self.feed,
            side=self.side,
            node=self.who,
            name="central",
            timing=TIMING,
            clock=clock,
            handler=answer,
        )
        self.ended = asyncio.ensure_future(self._drive(self.session))

    async def _drive(self, session: Session) -> str:
        try:
            await session.greet()
            await session.run()
        except LinkError as error:
            await session.abandon()
            return str(error)
        return session.farewell.reason if session.farewell else ""

    async def close(self) -> None:
        for task in (self._feeding, self.ended):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        await self.store.close()


async def answer(request: Request) -> Response:
    """Says back who asked what."""
    who = msgspec.json.encode([request.method, request.path, request.caller.name, request.caller.groups])

    async def body() -> Any:
        yield who
        yield request.body

    return Response(200, [("content-type", "application/json")], body())


def policy(name: str, *networks: str) -> Any:
    return resource("FirewallPolicy", "harbor", name, spec={"networks": list(networks or ("oam",))})


def entry(number: int) -> Any:
    status = {"sequence": number, "text": f"line {number}", "source": "harbor/controller-0"}
    return resource("LogEntry", "harbor", f"controller-0-{number:010d}", status=status)


async def _call(end: End) -> None:
    caller = Caller("ann", ["roost:operators"], "u-1", {"scopes": ["site"]}, "root")
    asked = Request(method="POST", path="/apis?x=1", headers=[("accept", "*/*")], body=b"{}", caller=caller)
    assert end.session
    response = await end.session.call(asked)
    assert response.status == 200
    said = b"".join([piece async for piece in response.body])
    assert said.endswith(b"{}")


def _ends(reason: str, *, returning: bool) -> Callable[[End], Awaitable[None]]:
    async def end(end: End) -> None:
        assert end.session
        end.session.end(reason, returning=returning)

    return end


TARGET = {"kind": "FirewallPolicy", "name": "web"}
REVIEW = {"override": "firewallpolicy.web", "uid": "u-1", "generation": 1, "decision": "revert"}


def override(**parts: Any) -> Any:
    return resource("LocalOverride", "harbor", "firewallpolicy.web", **parts)


HOST_STATUS: dict[str, Any] = {"inventory": {"hostname": "c0"}, "agent": {"version": "0.1.0"}}

Step = tuple[Side, Callable[[End], Awaitable[Any]]]
STEPS: dict[str, Step] = {
    "intent is declared": ("upper", lambda e: put_all(e.store, [policy("web"), policy("mine", "mgmt")])),
    "a host is declared": ("upper", lambda e: put(e.store, _host(spec={}))),
    "the site is managed": (
        "upper",
        lambda e: put(
            e.store, resource("Management", "harbor", "harbor", spec={"managementState": "managed"})
        ),
    ),
    "the site overrides": (
        "lower",
        lambda e: put(e.store, override(spec={"target": TARGET, "patch": {"order": 7}, "reason": "moved"})),
    ),
    "both sides have changed it": (
        "lower",
        lambda e: put(e.store, override(status={"observedGeneration": 1, "inForce": True, "conflicts": 1})),
    ),
    "it is reverted above": (
        "upper",
        lambda e: put(e.store, resource("OverrideReview", "harbor", "r-1", spec=REVIEW)),
    ),
    "the site gives it up": (
        "lower",
        lambda e: remove(e.store, "LocalOverride", "harbor", "firewallpolicy.web"),
    ),
    "the review is over": ("upper", lambda e: remove(e.store, "OverrideReview", "harbor", "r-1")),
    "there is a conflict": ("lower", lambda e: put(e.store, policy("mine"))),
    "a log entry is written": ("lower", lambda e: put(e.store, entry(1))),
    "intent changes": ("upper", lambda e: put(e.store, policy("web", "oam", "mgmt"))),
    "its status is told": (
        "lower",
        lambda e: put(e.store, resource("FirewallPolicy", "harbor", "web", status={"hosts": 1})),
    ),
    "the host tells": ("lower", lambda e: put(e.store, _host(status=HOST_STATUS))),
    "more log entries are written": ("lower", lambda e: put_all(e.store, [entry(2), entry(3)])),
    "the conflict is solved": ("lower", lambda e: remove(e.store, "FirewallPolicy", "harbor", "mine")),
    "intent is removed": ("upper", lambda e: remove(e.store, "FirewallPolicy", "harbor", "web")),
    "the upper end calls": ("upper", _call),
    "the lower end calls": ("lower", _call),
    "the lower end returns at once": ("lower", _ends("the certificate was renewed", returning=True)),
    "the upper end stops": ("upper", _ends("the upper end stops", returning=False)),
}


def _host(**parts: Any) -> Any:
    return resource("Host", "harbor", "controller-0", **parts)


SCENARIOS: dict[str, tuple[str, list[str]]] = {
    "subcloud": (
        "subcloud",
        [
            *("intent is declared", "there is a conflict", "a log entry is written", "connect"),
            *("intent changes", "its status is told", "more log entries are written"),
            *("the conflict is solved", "the upper end calls", "the lower end calls"),
            *("the lower end returns at once", "intent is removed", "connect", "the upper end stops"),
        ],
    ),
    "overrides": (
        "subcloud",
        [
            *("the site is managed", "intent is declared", "a log entry is written", "connect"),
            *("the site overrides", "the lower end returns at once", "intent changes"),
            *("both sides have changed it", "connect", "it is reverted above", "the site gives it up"),
            *("the review is over", "the upper end stops"),
        ],
    ),
    "host": (
        "host",
        [
            *("a host is declared", "connect", "the host tells", "a log entry is written"),
            *("the lower end returns at once", "more log entries are written", "connect"),
            "the upper end stops",
        ],
    ),
}


# -- recording


class Recorder:
    """Writes down what passes between two live ends."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._canonical = Canonical()
        self.last = 0.0

    def attach(self, lower: MemoryConnection, upper: MemoryConnection) -> None:
        lower.out.tamper = lambda frame: self._note("lower", frame)
        upper.out.tamper = lambda frame: self._note("upper", frame)

    def _note(self, side: Side, passed: bytes) -> list[bytes]:
        self.lines.append({"from": side, "message": self._canonical(plain(passed))})
        self.last = asyncio.get_running_loop().time()
        return [passed]


async def record(directory: Path, scenario: str) -> list[Line]:
    """A conversation of two live ends."""
    kind, steps = SCENARIOS[scenario]
    recorder, sessions = Recorder(), 0
    lower, upper = [await _end(directory, side, NODES[kind]) for side in ("lower", "upper")]
    try:
        for step in steps:
            if step == "connect":
                sessions += 1
                recorder.lines.append({"session": sessions})
                ends = memory_pair(NODES[kind])
                recorder.attach(*ends)
                lower.connect(ends[0])
                upper.connect(ends[1])
            else:
                recorder.lines.append({"step": step})
                side, work = STEPS[step]
                await work(lower if side == "lower" else upper)
            recorder.last = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() < recorder.last + QUIET:  # noqa: ASYNC110 - fake time
                await asyncio.sleep(0.1)
    finally:
        await lower.close()
        await upper.close()
    return recorder.lines


async def _end(directory: Path, side: str, who: node.Node) -> End:
    store = await Store.open(sqlite_url(directory / f"{side}.db"), clock=clock, inline=True)
    return End("lower" if side == "lower" else "upper", who, store)


# -- replaying


class Replay:
    """Today's code at one end, a recording at the other."""

    def __init__(self, lines: list[Line], live: Side) -> None:
        self._lines, self._live = lines, live
        self._played: Side = "upper" if live == "lower" else "lower"
        self._meaning = Meaning()
        self._mine: MemoryConnection | None = None
        self._heard: list[Line] = []
        self._listening: asyncio.Task[None] | None = None
        self.differences: list[str] = []

    async def run(self, directory: Path, kind: str, then: Callable[[Store], Awaitable[None]]) -> None:
        """Replay all; `then` looks at the store of today's end."""
        end = await _end(directory, self._live, NODES[kind])
        doing: asyncio.Future[Any] | None = None
        try:
            for number, line in enumerate(self._lines, 1):
                if "session" in line:
                    self._connect(end, NODES[kind])
                elif "step" in line:
                    side, work = STEPS[line["step"]]
                    if side == self._live:
                        doing = asyncio.ensure_future(work(end))
                        await asyncio.sleep(0.01)
                elif line["from"] == self._played:
                    assert self._mine
                    with suppress(LinkError):
                        await self._mine.send(frame(self._meaning.spoken(line["message"])))
                else:
                    await self._expect(number, line["message"])
            if doing is not None:
                await asyncio.wait_for(doing, 60)
            await asyncio.sleep(QUIET)
            await then(end.store)
        finally:
            if self._listening is not None:
                self._listening.cancel()
            await end.close()

    def _connect(self, end: End, who: node.Node) -> None:
        lower, upper = memory_pair(who)
        mine, theirs = (upper, lower) if self._live == "lower" else (lower, upper)
        self._mine, self._heard = mine, []
        self._listening = asyncio.ensure_future(self._listen(mine, self._heard))
        end.connect(theirs)

    async def _listen(self, connection: MemoryConnection, heard: list[Line]) -> None:
        with suppress(LinkError):
            while True:
                heard.append(plain(await connection.receive()))

    async def _expect(self, number: int, recorded: Line) -> None:
        """Wait for what was recorded; words of other types may come in between."""
        deadline = asyncio.get_running_loop().time() + 30
        while asyncio.get_running_loop().time() < deadline:
            for said in self._heard:
                if said["type"] == recorded["type"]:
                    self._heard.remove(said)
                    found = self._meaning.differences(recorded, said, recorded["type"])
                    self.differences += [f"line {number}: {one}" for one in found]
                    return
            await asyncio.sleep(0.01)
        self.differences.append(f"line {number}: {recorded['type']} was not said")


def load(version: str, scenario: str) -> list[Line]:
    """A recording."""
    text = (RECORDED / version / f"{scenario}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def main(version: str) -> None:
    """Record every scenario with the code at hand."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    (RECORDED / version).mkdir(parents=True, exist_ok=True)
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory() as directory:
            lines = run(lambda: record(Path(directory), scenario))  # noqa: B023
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        (RECORDED / version / f"{scenario}.jsonl").write_text(text)
        print(scenario, len(lines), "lines")
    from tests.link import enrolment_recording

    with tempfile.TemporaryDirectory() as directory:
        lines = run(lambda: enrolment_recording.record(Path(directory)))
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    (RECORDED / version / f"{enrolment_recording.SCENARIO}.jsonl").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])
