"""Watch: the state (when asked for), then every change, as a stream of JSON lines.

A watcher is a cursor over the store's revisions. With a resourceVersion it goes on from there; without
one it begins with the state at some revision, given as ADDED, and goes on from that. Selectors make
events of their own: a resource that begins to match is ADDED, one that ceases to is DELETED with its
last matching state. Revisions that don't concern the watcher move its bookmark.

A watch ends by its deadline, when the server stops, or with an ERROR event when history no longer
reaches back. It costs nothing while nothing changes, but for a bookmark a minute.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime

from starlette.requests import Request
from starlette.responses import StreamingResponse

from roost.api import forms, snapshots
from roost.api.context import ApiContext
from roost.api.forms import Events, View
from roost.api.reading import selector_of
from roost.api.snapshots import Continue
from roost.api.status import ApiError, bad_request, from_store
from roost.api.target import Target, number, truth
from roost.api.waiting import follow, reach
from roost.model.codec import Raw
from roost.model.selector import Selector
from roost.store.errors import StoreError
from roost.store.store import Batch
from roost.store.transaction import Change

BOOKMARKS = 60.0
LONGEST = 3600.0
PAGE = 500


class Watches:
    """All watches of one server, so that they can be ended together."""

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()
        self._over = False

    def end(self) -> None:
        """End every watch now, and those that are asked for later at once."""
        self._over = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(now)

    async def until(self, batches: AsyncIterator[Batch], deadline: float) -> AsyncIterator[Batch]:
        """The batches that come before the deadline or the end of all watches."""
        while not self._over:
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
    context: ApiContext, request: Request, target: Target, view: View, watches: Watches
) -> StreamingResponse:
    """Answer a watch request; raises ApiError for what is wrong before the first event."""
    query = request.query_params
    form = forms.negotiate(request.headers.get("accept", ""), query)
    selector = selector_of(view.info, query)
    revision = number(query, "resourceVersion", 0)
    seconds = number(query, "timeoutSeconds", 0) or LONGEST * random.uniform(0.5, 1)  # noqa: S311
    deadline = asyncio.get_running_loop().time() + min(seconds, LONGEST)
    initial = _initial(query, revision)
    await reach(context.store, revision)
    watcher = _Watcher(context, target.namespace, view, selector, Events(view, form), watches)
    watcher.bookmarks = truth(query, "allowWatchBookmarks")
    watcher.marks_initial = truth(query, "sendInitialEvents")
    return StreamingResponse(watcher.lines(initial, revision, deadline), media_type="application/json")


def _initial(query: Mapping[str, str], revision: int) -> bool:
    """Whether the present state comes first."""
    send = query.get("sendInitialEvents", "")
    if send and query.get("resourceVersionMatch") != "NotOlderThan":
        raise bad_request("sendInitialEvents needs resourceVersionMatch=NotOlderThan")
    if send:
        return send.lower() in ("1", "true", "t")
    if query.get("resourceVersionMatch"):
        raise bad_request("resourceVersionMatch is for watches with sendInitialEvents only")
    return revision == 0


class _Watcher:
    """One watch."""

    def __init__(
        self,
        context: ApiContext,
        namespace: str,
        view: View,
        selector: Selector,
        events: Events,
        watches: Watches,
    ) -> None:
        self._context, self._namespace, self._view = context, namespace, view
        self._selector, self._events, self._watches = selector, events, watches
        self.bookmarks = False
        self.marks_initial = False

    async def lines(self, initial: bool, revision: int, deadline: float) -> AsyncIterator[bytes]:  # noqa: FBT001
        """Events as lines. Ends quietly at the deadline."""
        try:
            if initial:
                start: Continue | None = None
                while True:
                    page = await self._page(start)
                    now = self._context.clock()
                    for raw in page.items:
                        yield self._events.event("ADDED", raw, now)
                    revision, start = page.revision, page.following
                    if start is None:
                        break
                if self.marks_initial:
                    yield self._events.bookmark(revision, initial_end=True)
            await reach(self._context.store, revision)
            async for line in self._follow(revision, deadline):
                yield line
        except StoreError as error:
            yield self._events.error(from_store(error, self._view.info))
        except ApiError as error:
            yield self._events.error(error)

    async def _page(self, start: Continue | None) -> snapshots.Page:
        return await self._context.store.read(
            lambda tx: snapshots.page(
                tx, self._view, self._namespace, self._selector, limit=PAGE, start=start
            )
        )

    async def _follow(self, revision: int, deadline: float) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        told, marked_at = revision, loop.time()
        async with aclosing(follow(self._context.store, revision, self._wanted, idle=BOOKMARKS)) as batches:
            async for batch in self._watches.until(batches, deadline):
                now = self._context.clock()
                lines = [line for change in batch.changes if (line := self._line(change, now))]
                if lines:
                    told = batch.changes[-1].revision
                    yield b"".join(lines)
                if self.bookmarks and batch.upto > told and loop.time() >= marked_at + BOOKMARKS:
                    told, marked_at = batch.upto, loop.time()
                    yield self._events.bookmark(batch.upto)

    def _wanted(self, change: Change) -> bool:
        return change.kind in self._view.sources and self._namespace in ("", change.namespace)

    def _line(self, change: Change, now: datetime) -> bytes:
        """The event a change is for this watcher; empty when it is none."""
        shown = self._view.shape(change.stored().raw)
        matches = self._selector.matches(shown)
        if self._selector.everything or change.type == "ADDED":
            return self._events.event(change.type, shown, now) if matches else b""
        former = self._former(change)
        matched = self._selector.matches(former)
        if change.type == "DELETED":
            return self._events.event("DELETED", former, now) if matched else b""
        if matches:
            type: forms.EventType = "MODIFIED" if matched else "ADDED"
            return self._events.event(type, shown, now)
        return self._events.event("DELETED", former, now) if matched else b""

    def _former(self, change: Change) -> Raw:
        raw = change.before()
        raw["metadata"]["resourceVersion"] = str(change.revision)
        return self._view.shape(raw)
