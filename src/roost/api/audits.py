"""GET /audit: the audit as JSON lines, for who may get that path; that it was read is recorded too.

The first line tells what the lines belong to: `{"audit": {store, cloud, start, head, pruned}}`; `start` is
the head of the chain before the first record that is still kept after `after`, so what follows can be
verified by itself. Then one line a record: `{"sequence", "digest", "record"}`, the record byte for byte as
its digest takes it.

Parameters: `after` (a sequence; resume with the last one seen), `limit`, `newest` (only so many, the latest),
`follow` (stay), and filters: `user`, `verb`, `kind` (kind or plural), `name`, `namespace`, `since` (time),
`denied`. Filtering skips lines, so what was filtered can't be verified.

Who follows is woken by commits, of whichever process, and by records that are written without a change. What
the platform writes of itself has no record: a look in vain makes the next one wait for RARELY. Another
process's record without a change is found after LOOK_EVERY at the latest, and so is the end of a right that
ends by time; a right that is taken away ends with the commit that takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api.auditing import DENIED, Call
from roost.api.context import ApiContext
from roost.api.status import ApiError, bad_request, from_store, not_allowed
from roost.api.streaming import Streamed
from roost.api.target import number, truth
from roost.model import time
from roost.model.audit import Entry, Head, Record
from roost.store import audit
from roost.store.errors import StoreError
from roost.store.store import Store
from roost.store.transaction import Transaction

TOGETHER = 500
NEWEST = 5_000
LOOK_EVERY = 5.0
"""Seconds after which who follows looks without having been woken."""
SOON = 0.05
"""Seconds from one look to the next at least: what is committed meanwhile is one look."""
RARELY = 0.5
"""The same after a look that found nothing."""
FOLLOW_FOR = 3600.0
FOLLOWERS = 64
"""Who may follow at once."""
JSON_LINES = "application/jsonl"

Wanted = Callable[[Record], bool]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for."""

    after: int
    limit: int
    newest: int
    follow: bool
    wanted: Wanted | None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Asked:
        """From the query; raises ApiError 400."""
        newest = number(query, "newest", 0)
        if newest > NEWEST:
            raise bad_request(f"newest: {newest} is more than {NEWEST}; leave it out for all")
        return cls(
            after=number(query, "after", 0),
            limit=number(query, "limit", 0),
            newest=newest,
            follow=truth(query, "follow"),
            wanted=wanted(query),
        )


def wanted(query: Mapping[str, str]) -> Wanted | None:
    """The filters of a request as a function, None without any; raises ApiError 400."""
    user, verb, kind = query.get("user", ""), query.get("verb", ""), query.get("kind", "").lower()
    name, namespace, denied = query.get("name", ""), query.get("namespace", ""), truth(query, "denied")
    since = _since(query.get("since", ""))
    if not any((user, verb, kind, name, namespace, denied, since)):
        return None

    def fits(record: Record) -> bool:
        return (
            (not user or user in (record.user, record.real_user))
            and (not verb or record.verb == verb)
            and (not kind or kind in (record.kind.lower(), record.resource))
            and (not name or record.name == name)
            and (not namespace or record.namespace == namespace)
            and (not denied or record.code in DENIED)
            and (record.until or record.time) >= since
        )

    return fits


def _since(text: str) -> str:
    if not text:
        return ""
    try:
        return audit.moment(time.parse(text))
    except ValueError as error:
        raise bad_request(f"since: {error}; write a time with its zone, as 2026-11-23T04:00:00Z") from error


class Followers:
    """Those who follow the audit of one server. `ending`: the server ends, and lets them go."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.count = 0
        self.ending = False
        self.news = asyncio.Event()
        """Set when there may be more. Another one follows it: take it before the look that it is about."""

    @contextmanager
    def following(self) -> Iterator[None]:
        """While one follows."""
        self.count += 1
        unsubscribe = self._store.subscribe(lambda _: self.wake())
        try:
            yield
        finally:
            unsubscribe()
            self.count -= 1

    def wake(self) -> None:
        """Have all look: something was written."""
        self.news.set()
        self.news = asyncio.Event()

    def end(self) -> None:
        """Let all go, now and from now on."""
        self.ending = True
        self.wake()

    def check(self) -> None:
        """Raise ApiError 429 when there are as many as may be."""
        if self.count >= FOLLOWERS:
            message = f"{FOLLOWERS} clients follow the audit, as many as are served; try again later"
            raise ApiError(429, message, details={"retryAfterSeconds": 5}, headers={"Retry-After": "5"})


async def respond(
    context: ApiContext, request: Request, call: Call, followers: Followers, allowed: Callable[[], bool]
) -> Response:
    """The audit, or a refusal. `allowed` says whether who asked may still have it: for who follows."""
    if request.method not in ("GET", "HEAD"):
        raise not_allowed(request.method, "/audit")
    call.watched = True
    asked = Asked.of(request.query_params)
    reader = _Reader(context, asked)
    begin = await reader.start()
    if not asked.follow:
        return Streamed(reader.lines(begin), media_type=JSON_LINES)
    followers.check()
    return Streamed(reader.followed(begin, followers, allowed), media_type=JSON_LINES)


class _Reader:
    """One request's way through the audit."""

    def __init__(self, context: ApiContext, asked: Asked) -> None:
        self._context, self._asked = context, asked
        self._left = asked.limit
        self._after = 0

    async def start(self) -> tuple[Head, bytes, list[Entry]]:
        """Where it begins, the line that says so, and what was gathered from the end backwards."""
        asked = self._asked

        def look(tx: Transaction) -> tuple[Head, bytes]:
            anchor, head = audit.read_anchor(tx.connection), audit.head(tx.connection)
            after = max(asked.after, anchor.sequence)
            if after > head.sequence:
                raise bad_request(f"after: the audit has reached {head.sequence}, not {asked.after}")
            start = audit.head_at(tx.connection, after) or anchor.head
            about = {
                "store": self._context.store.identity,
                "cloud": self._context.cloud,
                "start": start,
                "head": head,
                "pruned": anchor.sequence,
            }
            return (head if asked.newest else start), msgspec.json.encode({"audit": about}) + b"\n"

        begin, line = await self._context.store.read(look)
        return begin, line, await self._newest(begin) if asked.newest else []

    async def _newest(self, head: Head) -> list[Entry]:
        found: list[Entry] = []
        before = head.sequence + 1
        while len(found) < self._asked.newest:
            part = await self._context.store.read(partial(_before, before))
            found += [e for e in part if self._fits(e)]
            if len(part) < TOGETHER:
                break
            before = part[-1].sequence
        return found[: self._asked.newest][::-1]

    async def lines(self, begin: tuple[Head, bytes, list[Entry]]) -> AsyncGenerator[bytes, None]:
        """The answer, piece by piece, up to the end of the audit."""
        head, first, newest = begin
        self._after = head.sequence
        yield first + b"".join(map(_line, newest))
        async for part in self._rest():
            yield part

    async def followed(
        self, begin: tuple[Head, bytes, list[Entry]], followers: Followers, allowed: Callable[[], bool]
    ) -> AsyncGenerator[bytes, None]:
        """The answer, and what comes later, until the limit, the deadline, the end of the server or of the
        right to it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FOLLOW_FOR
        with followers.following():
            news, looked = followers.news, loop.time()
            async for part in self.lines(begin):
                yield part
            pause = SOON
            while self._has_room() and loop.time() < deadline:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await news.wait()
                await asyncio.sleep(looked + pause - loop.time())
                if followers.ending or not allowed():
                    return
                news, looked, before = followers.news, loop.time(), self._after
                async for part in self._rest():
                    yield part
                pause = SOON if self._after > before else RARELY

    async def _rest(self) -> AsyncGenerator[bytes, None]:
        """The lines from where it stands to the present end."""
        while self._has_room():
            part = await self._read(self._after)
            if part:
                self._after = part[-1].sequence
                chosen = [e for e in part if self._fits(e)]
                if self._asked.limit:
                    chosen = chosen[: self._left]
                    self._left -= len(chosen)
                if chosen:
                    yield b"".join(map(_line, chosen))
            if len(part) < TOGETHER:
                return

    def _has_room(self) -> bool:
        return not self._asked.limit or self._left > 0

    async def _read(self, after: int) -> list[Entry]:
        try:
            return await self._context.store.read(
                lambda tx: audit.entries_after(tx.connection, after, TOGETHER)
            )
        except StoreError as error:
            raise from_store(error, None) from error

    def _fits(self, entry: Entry) -> bool:
        if self._asked.wanted is None:
            return True
        return self._asked.wanted(msgspec.json.decode(entry.data, type=Record))


def _before(sequence: int, tx: Transaction) -> list[Entry]:
    return audit.entries_before(tx.connection, sequence, TOGETHER)


def _line(entry: Entry) -> bytes:
    return b'{"sequence":%d,"digest":"%s","record":%s}\n' % (
        entry.sequence,
        entry.digest.encode(),
        entry.data.encode(),
    )
