"""Enrolments, recorded from real ends and replayed against today's code at either end.

A recording is lines of JSON, as those of links (`recording.py`): `{"session": WHAT}` where a connection
begins, `{"from": "lower" | "upper", "message": {...}}` for each frame. What is another each time stands as a
word: `<ca>`, `<secret>`, `<request>`, `<certificate>`. The sessions: `ca` fetches the CA certificate and says
nothing, `enrol` uses the token, `wrong` uses one that opens nothing.

In a replay one end is today's code, the other says what was recorded, with the words filled in by an
authority and keys made for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from roost.engine import credentials
from roost.engine.allowance import Allowance
from roost.link import enrolment, node, pki, sockets, token
from roost.link.enrolment import EnrolmentFailed
from roost.link.errors import LinkError
from roost.link.gate import Gate, nothing_more, redeem
from roost.link.wire import MemoryConnection, memory_pair
from roost.store.database import sqlite_url
from roost.store.store import Store
from tests.link.recording import Line, frame, plain
from tests.link.world import clock

HARBOR = node.subcloud("harbor")
ENDPOINT = "192.0.2.1:7444"
FACTS = {"hostname": "c0", "version": "0.1.0"}
SCENARIO = "enrolment"
WRONG = "0123456789abcdef.wrong-wrong-wrong-wrong"
Dial = Callable[[], MemoryConnection]


class Upper:
    """Today's gate, on a store of its own."""

    def __init__(self, store: Store, authority: pki.Authority) -> None:
        self.store, self.authority = store, authority
        self.enrolled: list[tuple[str, dict[str, str]]] = []

        def note(tx: Any, who: node.Node, facts: dict[str, str]) -> None:
            nothing_more(tx, who, facts)
            self.enrolled.append((str(who), facts))

        self.gate = Gate(
            store,
            authority,
            name="central",
            clock=clock,
            lifetime=timedelta(days=90),
            redeem=redeem,
            on_enrolled=note,
            allowance=Allowance(100, 1.0),
        )

    @classmethod
    async def open(cls, directory: Path) -> Upper:
        store = await Store.open(sqlite_url(directory / "upper.db"), clock=clock, inline=True)
        return cls(store, pki.Authority.create("central", clock()))

    async def secret(self) -> str:
        lifetime = timedelta(hours=1)
        return await self.store.transact(
            lambda tx: credentials.issue(tx, "enrol-subcloud", str(HARBOR.name), lifetime)
        )


def token_of(authority: pki.Authority, secret: str) -> str:
    return token.encode(token.Token(endpoints=[ENDPOINT], ca=authority.pin, secret=secret))


@contextmanager
def in_memory(dial: Dial) -> Iterator[None]:
    """Instead of the network, each dial of today's lower end is a connection in memory."""

    async def connect(where: str, context: Any, path: str, *, within: float) -> Any:
        assert where == ENDPOINT
        return dial()

    async def close_quietly(connection: Any) -> None:
        await connection.close()

    with (
        mock.patch.object(sockets, "connect", connect),
        mock.patch.object(sockets, "close_quietly", close_quietly),
    ):
        yield


async def lower_enrols(directory: Path, text: str, now: Callable[[], datetime] = clock) -> str:
    """What comes of it at today's lower end: the node, or why not."""
    try:
        made = await enrolment.enrol(text, directory, facts=FACTS, clock=now, within=5)
    except EnrolmentFailed as error:
        return str(error)
    return made.node


# -- recording


async def record(directory: Path) -> list[Line]:
    """A conversation of two live ends."""
    lines: list[Line] = []
    upper = await Upper.open(directory)
    secret = await upper.secret()
    serving: list[asyncio.Task[None]] = []
    names = iter(["ca", "enrol", "ca", "wrong"])

    def dial() -> MemoryConnection:
        ends = memory_pair(HARBOR)
        lines.append({"session": next(names)})
        for side, end in zip(("lower", "upper"), ends, strict=True):
            end.out.tamper = lambda passed, side=side: _note(lines, side, passed)  # type: ignore[misc]
        serving.append(asyncio.ensure_future(upper.gate.serve(ends[1])))
        return ends[0]

    try:
        with in_memory(dial):
            for number, given in enumerate((secret, WRONG)):
                (own := directory / f"lower-{number}").mkdir()
                await lower_enrols(own, token_of(upper.authority, given))
    finally:
        await asyncio.gather(*serving, return_exceptions=True)
        await upper.store.close()
    return lines


def _note(lines: list[Line], side: str, passed: bytes) -> list[bytes]:
    lines.append({"from": side, "message": _without_secrets(plain(passed))})
    return [passed]


WORDS = {"ca": "<ca>", "secret": "<secret>", "request": "<request>", "certificate": "<certificate>"}


def _without_secrets(message: Line) -> Line:
    return {k: WORDS.get(k, v) for k, v in sorted(message.items())}


# -- replaying


def sessions(lines: list[Line]) -> dict[str, list[Line]]:
    """What was said in each session."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        if "session" in line:
            current: list[Line] = []
            found.setdefault(line["session"], current)
        else:
            current.append(line)
    return found


def filled(message: Line, words: dict[str, str]) -> Line:
    """A recorded message as it is said."""
    return {k: words.get(v, v) if isinstance(v, str) else v for k, v in message.items()}


def lacking(recorded: Line, said: Line) -> list[str]:
    """What today's end does not say of what was said then. Words for people may differ."""
    found = [f"{recorded['type']}.{k} is not said" for k in recorded if k not in said]
    free = ("reason", "remedy")
    found += [
        f"{recorded['type']}.{k} is {said[k]!r}, was {v!r}"
        for k, v in recorded.items()
        if k in said and k not in free and not str(v).startswith("<") and said[k] != v
    ]
    return found


async def against_lower(directory: Path, lines: list[Line], session: str) -> tuple[str, list[str]]:
    """Today's lower end with a recorded upper: what came of it, and what it said otherwise."""
    authority = pki.Authority.create("central", clock())
    secret = WRONG if session == "wrong" else "0123456789abcdef.right-right-right-right"
    found: list[str] = []
    said = sessions(lines)
    order = iter(["ca", session])
    playing: list[asyncio.Task[None]] = []

    async def play(connection: MemoryConnection, name: str) -> None:
        words = {"<ca>": authority.certificate_pem.decode(), "<secret>": secret}
        for line in said[name]:
            if line["from"] == "upper":
                with suppress(LinkError):
                    await connection.send(frame(filled(line["message"], words)))
                continue
            heard = plain(await connection.receive())
            found.extend(lacking(filled(line["message"], words), heard))
            signed = authority.sign_node(heard["request"].encode(), HARBOR, clock(), timedelta(days=90))
            words["<certificate>"] = signed.decode()

    def dial() -> MemoryConnection:
        lower, upper = memory_pair(HARBOR)
        playing.append(asyncio.ensure_future(play(upper, next(order))))
        return lower

    with in_memory(dial):
        came = await lower_enrols(directory, token_of(authority, secret))
    await asyncio.gather(*playing)
    return came, found


async def against_upper(
    directory: Path, lines: list[Line], session: str
) -> tuple[list[tuple[str, dict[str, str]]], list[str]]:
    """Today's gate with a recorded lower end: who enrolled, with which facts, and what it said otherwise."""
    upper = await Upper.open(directory)
    key, found = pki.new_key(), list[str]()
    words = {
        "<ca>": upper.authority.certificate_pem.decode(),
        "<secret>": WRONG if session == "wrong" else await upper.secret(),
        "<request>": pki.request(key).decode(),
    }
    mine, theirs = memory_pair(HARBOR)
    serving = asyncio.ensure_future(upper.gate.serve(theirs))
    try:
        for line in sessions(lines)[session]:
            if line["from"] == "lower":
                await mine.send(frame(filled(line["message"], words)))
                continue
            heard = plain(await mine.receive())
            found.extend(lacking(filled(line["message"], words), heard))
            if heard["type"] == "enrolled":
                pki.check_issued(heard["certificate"].encode(), key, HARBOR)
        await serving
    finally:
        await upper.store.close()
    return upper.enrolled, found
