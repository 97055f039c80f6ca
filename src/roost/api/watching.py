"""Watch: the state (when asked for), then every change, as a stream of JSON lines.

A watcher is a cursor over the store's revisions. With a resourceVersion it goes on from there; without
one it begins with the state at some revision, given as ADDED, and goes on from that. It reads history until
it has come to the present, and is then fed by the hub of all watchers (`fanout`); when it falls behind, it
reads history again. Revisions that don't concern the watcher move its bookmark.

A watch ends by its deadline, when the token it was asked for with ends, when its user may no longer look, or
when the server stops, each time with a last bookmark and a proper end of the answer, so that the client goes
on from there, be it elsewhere; or with an ERROR event when history no longer reaches back. It costs nothing
while nothing changes, but for a bookmark a minute.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import StreamingResponse

from roost.api import forms, options, snapshots
from roost.api.access import AT_ONCE, Known
from roost.api.context import ApiContext
from roost.api.encoders import Events
from roost.api.fanout import AtOnce, Feed, Fresh, Hub, Interest, never
from roost.api.forms import JSON, View
from roost.api.gates import client_of
from roost.api.items import Item
from roost.api.options import WatchOptions, selector_of
from roost.api.snapshots import Key, Scope
from roost.api.status import ApiError, from_store
from roost.api.target import Target
from roost.api.waiting import TooLarge, reach
from roost.link.exchange import Caller
from roost.model import chance
from roost.store.errors import StoreError
from roost.store.store import Batch
from roost.store.transaction import Transaction

BOOKMARKS = 60.0
LONGEST = 3600.0
PAGE = 250
MOST = 4096

NOBODY = Caller("", [])


class Watches:
    """All watches of one server, so that they can be fed and ended together.

    `still_allowed` says whether a caller may go on watching; `review` asks it for all of them, and is to
    be called when the rights of people have changed.
    """

    def __init__(self) -> None:
        self.hub = Hub()
        self.still_allowed: Callable[[Caller, Target], bool] = lambda caller, target: True
        self._limits: set[asyncio.Timeout] = set()
        self._running: dict[_Watcher, str] = {}
        self._of = Counter[str]()
        self.ended = False
        """Whether all watches were ended, and those to come."""

    def end(self) -> None:
        """End every watch now, and those that are asked for later at once."""
        self.ended = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(now)
        for watcher in self._running:
            watcher.end()

    def review(self) -> None:
        """End the watches of those who may no longer look."""
        for watcher in self._running:
            if not self.still_allowed(watcher.caller, watcher.target):
                watcher.end()

    def check(self, client: str) -> None:
        """Raise ApiError 429 when there are too many watches, or too many of this client."""
        if len(self._running) >= MOST:
            message = f"{MOST} watches are running, as many as are served; try again later"
        elif self._of[client] >= max(1, MOST // 2):
            message = (
                f"{self._of[client]} watches of this client are running, as many as one may have; end some"
            )
        else:
            return
        raise ApiError(429, message, details={"retryAfterSeconds": 5}, headers={"Retry-After": "5"})

    def begin(self, watcher: _Watcher, client: str) -> None:
        """A watch begins."""
        self._running[watcher] = client
        self._of[client] += 1

    def forget(self, watcher: _Watcher) -> None:
        """A watch has ended; telling so twice does nothing more."""
        client = self._running.pop(watcher, None)
        if client is not None:
            self._of[client] -= 1
            if not self._of[client]:
                del self._of[client]

    async def until(self, batches: AsyncIterator[Batch], deadline: float) -> AsyncIterator[Batch]:
        """The batches that come before the deadline or the end of all watches."""
        while not self.ended:
            try:
                async with asyncio.timeout_at(deadline) as limit:
                    self._limits.add(limit)
                    try:
                        batch = await anext(batches)
                    finally:
                        self._limits.discard(limit)
            except (TimeoutError, StopAsyncIteration):
                return
            yield batch


async def watch(
    context: ApiContext,
    request: Request,
    target: Target,
    view: View,
    watches: Watches,
    caller: Caller = NOBODY,
) -> StreamingResponse:
    """Answer a watch request; raises ApiError for what is wrong before the first event."""
    query = request.query_params
    form = forms.negotiate(request.headers.get("accept", ""), query, (JSON,))
    interest = Interest(view, form, target.namespace, selector_of(view.info, query))
    asked = options.for_watch(query)
    try:
        await reach(context.store, asked.revision)
    except TooLarge as error:
        raise error.expired() from error
    # Through a link come many people: each is a client.
    client = client_of(request.scope) or f"user {caller.name}"
    watches.check(client)
    at_once = request.scope.get(AT_ONCE, never)
    watcher = _Watcher(context, interest, asked, watches, caller, target, at_once)
    watches.begin(watcher, client)
    return _Watched(watcher)


class _Watched(StreamingResponse):
    """The events as they come. The watch is over however the client leaves, also before the first event."""

    def __init__(self, watcher: _Watcher) -> None:
        super().__init__(watcher.lines(), media_type=JSON)
        self._watcher = watcher

    async def __call__(self, *asgi: object) -> None:
        try:
            await super().__call__(*asgi)  # type: ignore[arg-type]
        finally:
            self._watcher.close()


class _Watcher:
    """One watch."""

    def __init__(
        self,
        context: ApiContext,
        interest: Interest,
        asked: WatchOptions,
        watches: Watches,
        caller: Caller,
        target: Target,
        at_once: AtOnce,
    ) -> None:
        self._at_once = at_once
        self._context, self._interest, self._asked, self._watches = context, interest, asked, watches
        self.caller, self.target = caller, target
        self._events = Events(interest.view, interest.form)
        self._feed: Feed | None = None
        self._cursor = self._told = asked.revision
        self._over = watches.ended
        self._due = False
        loop = asyncio.get_running_loop()
        seconds = asked.seconds or LONGEST * chance.between(0.5, 1)
        if isinstance(caller, Known):
            seconds = min(seconds, caller.until - context.clock().timestamp())
        self._timers = {"end": loop.call_later(max(0.0, min(seconds, LONGEST)), self.end)}

    def end(self) -> None:
        """Let the watch come to its end."""
        self._over = True
        if self._feed is not None:
            self._feed.wake()

    def close(self) -> None:
        """Leave nothing behind."""
        self._watches.forget(self)
        for timer in self._timers.values():
            timer.cancel()
        self._part()

    async def lines(self) -> AsyncIterator[bytes]:
        """Events, as lines. Ends quietly at the deadline."""
        try:
            if self._asked.initial:
                async with aclosing(self._initial()) as pages:
                    async for part in pages:
                        yield part
            self._mark_later()
            while not self._over:
                if self._feed is None:
                    part = await self._catch_up()
                else:
                    part = await self._fed(self._feed)
                if part:
                    yield part
            if self._feed is not None and (part := self._feed.take()):
                yield part
            if self._feed is not None:
                self._cursor, self._told = self._feed.cursor, max(self._told, self._feed.told)
            if self._asked.bookmarks and self._cursor > self._told:
                yield self._events.bookmark(self._cursor)
        except StoreError as error:
            yield self._events.error(from_store(error, self._interest.view.info))
        except ApiError as error:
            yield self._events.error(error)
        finally:
            self.close()

    async def _initial(self) -> AsyncGenerator[bytes, None]:
        """The state, in slices as of one revision."""
        after: Key | None = None
        revision, over = 0, False
        interest, view = self._interest, self._interest.view
        pinned = interest.matcher.name if interest.namespace or not view.info.namespaced else ""
        scope = Scope(view.sources, interest.namespace, pinned)

        def piece(tx: Transaction) -> bytes:
            nonlocal after, revision, over
            revision = revision or tx.revision
            found = snapshots.read(tx, scope, revision, after, PAGE)
            after, over, now = found.upto, found.upto is None, self._context.clock()
            shown = (Item(stored, view) for stored in found.items)
            lines = [self._events.event("ADDED", i, now) for i in shown if interest.matcher.matches(i)]
            return b"".join(lines)

        while not over and not self._over:
            part = await self._context.store.read(piece)
            if part:
                yield part
        self._cursor = self._told = revision
        if self._asked.marked and over:
            yield self._events.bookmark(revision, initial_end=True)

    async def _catch_up(self) -> bytes:
        """The next events of history, or none and a feed from the hub when there are no more."""
        hub, store = self._watches.hub, self._context.store
        store.require_hearing()
        hub.start(store, self._context.clock)
        if self._cursor >= hub.revision:
            first = None if self._events.stateless else self._events
            self._feed = Feed(self._cursor, first, self._at_once, hub.held)
            hub.join(self._interest, self._feed)
            return b""
        batch, now = await store.changes(self._cursor), self._context.clock()
        happenings = (self._interest.happening(Fresh(change)) for change in batch.changes)
        lines = [self._events.event(h.type, h.item, now) for h in happenings if h]
        self._cursor = batch.upto
        if lines:
            self._told = batch.upto
        return b"".join(lines)

    async def _fed(self, feed: Feed) -> bytes:
        """What the hub has for this watcher, or a bookmark; waits for it."""
        part = feed.take()
        self._cursor, self._told = feed.cursor, max(self._told, feed.told)
        if part:
            self._told = feed.cursor
        elif feed.behind:
            self._part()
        elif self._due:
            part = self._bookmark()
        elif not self._over:
            await feed.wait()
        return part

    def _bookmark(self) -> bytes:
        self._due = False
        self._mark_later()
        if self._cursor <= self._told:
            return b""
        self._told = self._cursor
        return self._events.bookmark(self._cursor)

    def _mark_later(self) -> None:
        if self._asked.bookmarks:
            self._timers["mark"] = asyncio.get_running_loop().call_later(BOOKMARKS, self._mark)

    def _mark(self) -> None:
        self._due = True
        if self._feed is not None:
            self._feed.wake()

    def _part(self) -> None:
        if self._feed is not None:
            self._watches.hub.leave(self._interest, self._feed)
            self._feed = None
