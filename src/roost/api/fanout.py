"""One change to many watchers: looked at once, encoded once, handed to each as the same bytes.

A `Hub` follows the store for all watches of a process. Watches that ask for the same (view, form, namespace,
selector) share a topic; per batch of changes a topic decides once which events it makes of them, and topics
that differ in their selector alone share the encoded lines too. What is left per watcher is to put a
reference into its `Feed` and to wake it.

A feed holds at most BACKLOG bytes. When its watcher, held up by a slow client, does not keep up, what waits
is dropped and the watcher goes on from the store's history, a batch at a time, until it has caught up and
joins again. So a slow client costs bounded memory and loses nothing that history still has. All feeds of a
hub together hold WAITING; beyond that, every feed that holds more than LITTLE is sent to history.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from roost.api import items
from roost.api.encoders import Events, EventType
from roost.api.forms import Form, View
from roost.api.items import Item, Matcher
from roost.model.selector import Selector
from roost.store.store import Store
from roost.store.transaction import Change

BACKLOG = 1024 * 1024
WAITING = 64 * 1024 * 1024
LITTLE = 16 * 1024
AT_ONCE = 32

_ViewKey = tuple[str, str]


class Fresh:
    """A change, taken apart at most once whoever watches."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self._items: dict[tuple[_ViewKey, bool], Item] = {}
        self._lines: dict[tuple[_ViewKey, Form, EventType, bool], bytes] = {}

    def item(self, view: View, *, former: bool = False) -> Item:
        """The resource after the change, or before it."""
        key = (_view_key(view), former)
        found = self._items.get(key)
        if found is None:
            stored = items.before(self.change) if former else items.after(self.change)
            found = self._items[key] = Item(stored, view)
        return found

    def line(self, events: Events, view: View, form: Form, happening: Happening, now: datetime) -> bytes:
        """The line that tells an event, the same for all who watch it in this form."""
        key = (_view_key(view), form, happening.type, happening.former)
        found = self._lines.get(key)
        if found is None:
            found = self._lines[key] = events.event(happening.type, happening.item, now)
        return found


class Happening(msgspec.Struct, frozen=True):
    """What a change is for those who watch a selection."""

    type: EventType
    item: Item
    former: bool


class Interest:
    """What a watch is about, and in which form it is told."""

    def __init__(self, view: View, form: Form, namespace: str, selector: Selector) -> None:
        self.view, self.form, self.namespace = view, form, namespace
        self.matcher = Matcher(selector)
        self.key = (_view_key(view), view.sources, form, namespace, selector)
        self._kinds = frozenset(view.sources)

    def happening(self, fresh: Fresh) -> Happening | None:
        """The event a change is; None when it is none.

        What begins to match is ADDED; what ceases to is DELETED, with its last matching state.
        """
        change, matcher = fresh.change, self.matcher
        if change.kind not in self._kinds or (self.namespace and change.namespace != self.namespace):
            return None
        if matcher.name and change.name != matcher.name:
            return None
        if change.type == "DELETED":
            return self._if_matched("DELETED", fresh, former=True)
        if change.type == "ADDED" or matcher.everything:
            return self._if_matched(change.type, fresh, former=False)
        matches = matcher.matches(fresh.item(self.view))
        matched = matcher.matches(fresh.item(self.view, former=True))
        if matches:
            return Happening("MODIFIED" if matched else "ADDED", fresh.item(self.view), former=False)
        return Happening("DELETED", fresh.item(self.view, former=True), former=True) if matched else None

    def _if_matched(self, type: EventType, fresh: Fresh, *, former: bool) -> Happening | None:
        item = fresh.item(self.view, former=former)
        return Happening(type, item, former) if self.matcher.matches(item) else None


AtOnce = Callable[[bytes], bool]
"""Sends part of an answer past its task, and says whether it did."""


def never(part: bytes) -> bool:
    """Nothing is sent at once."""
    return False


class Held:
    """How many bytes wait in all feeds of a hub; those that wait in several are counted for each."""

    def __init__(self) -> None:
        self.bytes = 0


class Feed:
    """What waits to be sent to one watcher. `cursor` is the revision up to which it was taken, `told` that of
    what was sent at once."""

    def __init__(self, cursor: int, first: Events | None, at_once: AtOnce, held: Held) -> None:
        self.cursor = self.upto = self.told = cursor
        self._at_once, self._held = at_once, held
        self.first = first
        """Writes the first event, when that differs from what others are sent."""
        self.behind = False
        self._parts: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._woken: asyncio.Future[None] | None = None

    def put(self, revision: int, part: bytes) -> None:
        """Add events up to a revision."""
        self._parts.append((revision, part))
        self._size += len(part)
        self._held.bytes += len(part)

    @property
    def full(self) -> bool:
        """Whether more waits than may."""
        return self._size > (BACKLOG if self._held.bytes <= WAITING else LITTLE)

    def take(self) -> bytes:
        """All that waits; empty when nothing does."""
        if not self._parts:
            if not self.behind:
                self.cursor = self.upto
            return b""
        self.cursor = self._parts[-1][0]
        whole = self._parts[0][1] if len(self._parts) == 1 else b"".join(part for _, part in self._parts)
        self.clear()
        return whole

    def clear(self) -> None:
        """Hold nothing any more."""
        self._held.bytes -= self._size
        self._parts.clear()
        self._size = 0

    def drop(self) -> None:
        """Forget what waits: it will be read from history."""
        self.behind = True
        self.clear()
        self.wake()

    def deliver(self) -> None:
        """Send what waits at once when the watcher waits for it and its client takes it; else let it look.

        Waking a task, which hands one piece through all that lies between it and the socket, costs as much
        again as sending the piece.
        """
        idle = self._woken is not None and not self._woken.done()
        if idle and len(self._parts) == 1 and self._at_once(self._parts[0][1]):
            self.take()
            self.told = self.cursor
        else:
            self.wake()

    def wake(self) -> None:
        """Let the watcher look."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def wait(self) -> None:
        """Until there is something to look at."""
        self._woken = asyncio.get_running_loop().create_future()
        await self._woken


class _Topic:
    """Those who watch the same."""

    def __init__(self, interest: Interest) -> None:
        self.interest = interest
        self.feeds: set[Feed] = set()
        self._events = Events(interest.view, interest.form, columns=False)

    def deliver(self, batch: Sequence[Fresh], upto: int, now: datetime) -> list[Feed]:
        """Hand what a batch is for this topic to its feeds; returns those that are to be woken."""
        interest = self.interest
        found = [(fresh, happening) for fresh in batch if (happening := interest.happening(fresh))]
        shared = b""
        if found:
            view, form = interest.view, interest.form
            lines = [fresh.line(self._events, view, form, happening, now) for fresh, happening in found]
            shared = lines[0] if len(lines) == 1 else b"".join(lines)
        told = []
        for feed in tuple(self.feeds):
            if feed.upto < batch[0].change.revision and feed.first is None:
                part = shared
            else:
                part = self._own(feed, found, now)
            feed.upto = max(feed.upto, upto)
            if part:
                feed.put(upto, part)
                told.append(feed)
                if feed.full:
                    self.feeds.discard(feed)
                    feed.drop()
        return told

    def _own(self, feed: Feed, found: Sequence[tuple[Fresh, Happening]], now: datetime) -> bytes:
        """For a feed that has come further than others, or has not been told the columns of its table."""
        lines = []
        for fresh, happening in found:
            if fresh.change.revision > feed.upto:
                events = feed.first or self._events
                lines.append(events.event(happening.type, happening.item, now))
                feed.first = None
        return b"".join(lines)


class Hub:
    """Hears of the store's changes while somebody watches.

    It wakes watchers some at a time, so that whoever wrote, and everybody else, need not wait until a
    thousand watchers have been sent their event.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.held = Held()
        self._to_wake: deque[Feed] = deque()
        self._topics: dict[object, _Topic] = {}
        self._clock: Callable[[], datetime]
        self._unsubscribe: Callable[[], None] | None = None

    def start(self, store: Store, clock: Callable[[], datetime]) -> None:
        """Hear of changes from now on, unless that is so."""
        if self._unsubscribe is None:
            self._clock, self.revision = clock, store.revision
            self._unsubscribe = store.subscribe(lambda changes: self._hear(store, changes))

    def join(self, interest: Interest, feed: Feed) -> None:
        """Feed a watcher that has come at least as far as the hub."""
        self._topics.setdefault(interest.key, _Topic(interest)).feeds.add(feed)

    def leave(self, interest: Interest, feed: Feed) -> None:
        """Feed a watcher no more. With the last one the hub rests."""
        feed.clear()
        topic = self._topics.get(interest.key)
        if topic is not None:
            topic.feeds.discard(feed)
            if not topic.feeds:
                del self._topics[interest.key]
        if not self._topics and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _hear(self, store: Store, changes: Sequence[Change]) -> None:
        if changes:
            self._deliver(changes)
        else:
            # Some were missed: each watcher reads what is kept of them, or is told that it is not.
            self._drop_all()
            self.revision = store.revision

    def _deliver(self, changes: Sequence[Change]) -> None:
        fresh, upto, now = [Fresh(change) for change in changes], changes[-1].revision, self._clock()
        waking = bool(self._to_wake)
        for topic in tuple(self._topics.values()):
            self._to_wake += topic.deliver(fresh, upto, now)
        self.revision = upto
        if not waking:
            self._wake_some()

    def _wake_some(self) -> None:
        for _ in range(min(AT_ONCE, len(self._to_wake))):
            self._to_wake.popleft().deliver()
        if self._to_wake:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def _drop_all(self) -> None:
        for topic in self._topics.values():
            for feed in topic.feeds:
                feed.drop()
            topic.feeds.clear()


def _view_key(view: View) -> _ViewKey:
    return (view.info.kind, view.info.api_version)
