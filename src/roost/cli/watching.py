"""Watches that outlive their connection, one or several at a time, with a deadline.

`follow` lists, then watches from the list's revision, resumes after any break from the last revision
it has seen (bookmarks included) and lists anew when that is too old. It yields `Snapshot` after each
list and `Change` for each change. `Watches` runs several `follow`s in threads that only put into one
bounded queue; the command's own thread takes from it with a deadline, so Ctrl-C and `--timeout`
work while nothing happens.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

import msgspec

from roost.cli import answers
from roost.cli.client import JSON, Client, Query
from roost.cli.kinds import Kind
from roost.cli.problems import Expired, Problem, Unreachable

T = TypeVar("T")

IDLE = 60.0
"""A watch that brings nothing, not even a bookmark, for so long is taken up anew, in seconds."""
PATIENCE = 5
"""Failed connections in a row before a watch gives up."""
QUEUED = 1000


class Snapshot(msgspec.Struct, Generic[T], frozen=True):
    """Everything there is now; what was known before and is not in it has gone."""

    items: list[T]


class Change(msgspec.Struct, Generic[T], frozen=True):
    """One object was added, modified or deleted."""

    type: str
    item: T


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Row(msgspec.Struct, frozen=True):
    object: answers.Item = answers.Item()


class _Revised(msgspec.Struct, frozen=True, rename="camel"):
    """An object, or a table of one object, as far as its revision goes."""

    metadata: answers.Meta = answers.Meta()
    rows: list[_Row] = []


def follow(
    client: Client,
    kind: Kind,
    namespace: str | None,
    type: type[T],
    query: Query | None = None,
    *,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[Snapshot[T] | Change[T]]:
    """All objects, then their changes, for ever. Raises Problem when it can't go on."""
    asked = dict(query or {})
    while True:
        items, revision = client.list_items(kind, namespace, type, asked)
        yield Snapshot(items)
        try:
            yield from changes(client, kind, namespace, type, asked, revision, pause=pause)
        except Expired:
            continue


def changes(
    client: Client,
    kind: Kind,
    namespace: str | None,
    type: type[T],
    query: Query,
    revision: str,
    *,
    accept: str = JSON,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[Change[T]]:
    """Changes after a revision, over as many requests as it takes. Raises Expired, Problem."""
    failures = 0
    while True:
        asked = {**query, "resourceVersion": revision, "allowWatchBookmarks": "true", "timeoutSeconds": "300"}
        try:
            for line in client.lines(kind, namespace, asked, IDLE, accept=accept):
                if not line:
                    continue
                event = msgspec.json.decode(line, type=_Line)
                if event.type == "ERROR":
                    raise _watch_error(event.object, kind)
                item = msgspec.json.decode(event.object, type=type)
                failures = 0
                revision = _revision(event.object) or revision
                if event.type != "BOOKMARK":
                    yield Change(event.type, item)
        except Unreachable:
            failures += 1
            if failures > PATIENCE:
                raise
            pause(min(0.2 * 2**failures, 5.0))
        else:
            # An answer that ends at once must not become a busy loop.
            pause(0.05)


class Watches:
    """Several watches at once. Use in `with`; the threads end with the client.

    With `patience`, a cloud that stops answering is asked again for so many seconds: what is followed
    may be the restart of the very machine that answers.
    """

    def __init__(self, client: Client, *, patience: float = 0.0) -> None:
        self._client, self._patience = client, patience
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(QUEUED)
        self._ended = threading.Event()

    def __enter__(self) -> Watches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def add(
        self,
        name: str,
        kind: Kind,
        namespace: str | None,
        type: type[answers.Item],
        query: Query | None = None,
    ) -> None:
        """Watch a kind under a name of one's own."""

        def run() -> None:
            heard = time.monotonic()
            while not self._ended.is_set():
                try:
                    for event in follow(self._client, kind, namespace, type, query, pause=self._ended.wait):
                        heard = time.monotonic()
                        self._put((name, event))
                        if self._ended.is_set():
                            return
                    return
                except Unreachable as error:
                    if time.monotonic() - heard >= self._patience:
                        self._put((name, error))
                        return
                    self._ended.wait(1.0)
                except Exception as error:
                    self._put((name, error))
                    return

        threading.Thread(target=run, name=f"watch-{name}", daemon=True).start()

    def take(self, timeout: float | None) -> tuple[str, Any] | None:
        """The next event as (name, Snapshot or Change), or None when none came in time. Raises Problem."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # Short waits, because a thread that waits in a lock for ever does not see Ctrl-C everywhere.
            left = 1.0 if deadline is None else max(0.0, min(1.0, deadline - time.monotonic()))
            try:
                name, event = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                continue
            if isinstance(event, Exception):
                raise event
            return name, event

    def _put(self, event: tuple[str, Any]) -> None:
        while not self._ended.is_set():
            try:
                self._queue.put(event, timeout=0.5)
            except queue.Full:
                continue
            return


def _revision(raw: msgspec.Raw) -> str:
    revised = msgspec.json.decode(raw, type=_Revised)
    rows = [row.object.metadata.resource_version for row in revised.rows]
    return revised.metadata.resource_version or (rows[-1] if rows else "")


def _watch_error(raw: msgspec.Raw, kind: Kind) -> Problem:
    status = msgspec.json.decode(raw, type=answers.Status)
    if status.code == 410:
        return Expired(status.message)
    return Unreachable(f"the watch of {kind.plural} ended: {status.message}", "try again")
