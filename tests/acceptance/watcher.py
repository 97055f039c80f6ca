"""Operators' watches that live through everything, and the laws of what they were told. The laws are pure.

A watcher lists once, then watches, and after each end of the connection goes on from the last revision it has
seen, bookmarks included. Its requests end by themselves every few seconds, so that it resumes often. When it
is told that a revision is too old it lists anew, and says so.
"""

from __future__ import annotations

import json
import random
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import httpx

from tests.acceptance.doors import Door, path
from tests.acceptance.running import Demo
from tests.acceptance.writes import Asked, Key, counts, numbers, tell

Raw = dict[str, Any]
What = Literal["LISTED", "ADDED", "MODIFIED", "DELETED"]
IDLE = 12.0
LONGEST_REQUEST = 20


class Seen(NamedTuple):
    """One version of one object, as a watcher was told of it."""

    what: What
    key: Key
    uid: str
    revision: int
    numbers: frozenset[int]
    source: str = ""
    sequence: int = 0
    """Of a log entry: who wrote it, and its number there."""


@dataclass
class Stream:
    """What one watcher was told, in order."""

    name: str
    cloud: str
    kind: str
    events: list[Seen] = field(default_factory=list)
    started_at: int = 0
    revision: int = 0
    requests: int = 0
    broken: int = 0
    bookmarks: int = 0
    relists: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Watcher:
    """One kind at one cloud, watched in a thread of its own until `stop`."""

    def __init__(self, demo: Demo, cloud: str, kind: str, seed: str, *, through: bool = False) -> None:
        name = f"{kind} of {cloud}{' through the centre' if through else ''}"
        self.stream = Stream(name, cloud, kind)
        self._demo, self._through = demo, through
        self._random = random.Random(f"{seed}/{name}")
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._enough.set()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), f"the watch of {self.stream.name} does not end"

    def _run(self) -> None:
        try:
            door = Door(self._demo, self.stream.cloud, through=self._through)
            try:
                while not self._enough.is_set():
                    if not self.stream.revision:
                        self._list(door)
                    if self.stream.revision:
                        self._watch(door)
                    self._enough.wait(0.5)
            finally:
                door.close()
        except Exception as error:
            self.stream.problems.append(f"the watch of {self.stream.name} ended: {error!r}")

    def _list(self, door: Door) -> None:
        reply = door.read(path(self.stream.kind))
        if reply.said != "accepted":
            return
        for item in reply.body["items"]:
            self.stream.events.append(_seen("LISTED", {"kind": self.stream.kind, **item}))
        self.stream.revision = int(reply.body["metadata"]["resourceVersion"])
        self.stream.started_at = self.stream.started_at or self.stream.revision

    def _watch(self, door: Door) -> None:
        self.stream.requests += 1
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(self.stream.revision),
            "timeoutSeconds": str(self._random.randint(5, LONGEST_REQUEST)),
        }
        at, timeout = door.url(path(self.stream.kind)), httpx.Timeout(IDLE, connect=5)
        try:
            with door.http.stream("GET", at, params=query, timeout=timeout) as answer:
                if answer.status_code != 200:
                    self._not_watched(answer.status_code, answer.read())
                    return
                for line in answer.iter_lines():
                    if line and not self._told(line):
                        return
                    if self._enough.is_set():
                        return
        except httpx.HTTPError:
            self.stream.broken += 1

    def _not_watched(self, code: int, body: bytes) -> None:
        if code == 410:
            self._relist(body.decode(errors="replace"))
        elif code < 500 and code != 429:
            self.stream.problems.append(f"the watch of {self.stream.name} was refused: {code} {body[:300]!r}")
        else:
            self.stream.broken += 1

    def _relist(self, why: str) -> None:
        self.stream.relists.append(f"from {self.stream.revision}: {why[:300]}")
        self.stream.revision = 0

    def _told(self, line: str) -> bool:
        """Take in one line; whether the watch goes on."""
        try:
            event = json.loads(line)
        except ValueError:
            # Only the last line of a broken connection may be half, and it is sent again.
            self.stream.broken += 1
            return False
        raw = event["object"]
        if event["type"] == "ERROR":
            if raw.get("code") == 410:
                self._relist(str(raw.get("message")))
            else:
                self.stream.broken += 1
            return False
        revision = int(raw["metadata"]["resourceVersion"])
        if event["type"] == "BOOKMARK":
            self.stream.bookmarks += 1
            if revision < self.stream.revision:
                self.stream.problems.append(
                    f"{self.stream.name}: a bookmark goes back from {self.stream.revision} to {revision}"
                )
        else:
            self.stream.events.append(_seen(event["type"], raw))
        self.stream.revision = revision
        return True


def _seen(what: What, raw: Raw) -> Seen:
    meta = raw["metadata"]
    key = (str(raw["kind"]), str(meta.get("namespace", "")), str(meta["name"]))
    status = raw.get("status") or {}
    entry = raw["kind"] == "LogEntry"
    return Seen(
        what,
        key,
        meta["uid"],
        int(meta["resourceVersion"]),
        frozenset(numbers(raw)),
        status.get("source", "") if entry else "",
        int(status.get("sequence", 0)) if entry else 0,
    )


# The laws


def judge_stream(stream: Stream, asked: Iterable[Asked]) -> list[str]:
    """What is wrong with what a watcher was told, given all writes."""
    everything = list(asked)
    found = [*stream.problems, *(f"{stream.name}: had to list anew {one}" for one in stream.relists)]
    found += _order(stream)
    found += _lives(stream)
    found += _of_writes(stream, everything)
    if stream.kind == "LogEntry":
        found += _entries(stream)
    return found


def _order(stream: Stream) -> list[str]:
    """Revisions only rise: nothing comes twice, nothing late."""
    found, last = [], stream.started_at
    for one in stream.events:
        if one.what == "LISTED":
            continue
        if one.revision <= last:
            found.append(f"{stream.name}: {one.what} {one.key} at {one.revision} came after {last}")
        last = max(last, one.revision)
    return found


def _lives(stream: Stream) -> list[str]:
    """Each object is added once, changed while it is there, and deleted once, also when it is made anew."""
    found: list[str] = []
    live: dict[Key, str] = {}
    over: set[str] = set()
    for one in stream.events:
        what = f"{stream.name}: {one.what} {one.key} {one.uid} at {one.revision}"
        if one.uid in over:
            found.append(f"{what} after its end")
        known = live.get(one.key)
        if one.what == "LISTED" or (one.what == "ADDED" and known is None):
            live[one.key] = one.uid
        elif known != one.uid:
            found.append(f"{what}, and {known or 'nothing'} was there")
        elif one.what == "ADDED":
            found.append(f"{what} a second time")
        if one.what == "DELETED":
            live.pop(one.key, None)
            over.add(one.uid)
    return found


def _of_writes(stream: Stream, everything: Sequence[Asked]) -> list[str]:
    """Every version is wholly of one write that may have happened; none comes back; none is missing."""
    found: list[str] = []
    by_number = {a.number: a for a in everything}
    course: dict[str, list[int]] = defaultdict(list)
    for one in stream.events:
        if len(one.numbers) > 1 or -1 in one.numbers:
            found.append(f"{stream.name}: {one.key} at {one.revision} is of writes {sorted(one.numbers)}")
        elif one.numbers and one.what != "DELETED":
            (number,) = one.numbers
            write = by_number.get(number)
            if write is None or not counts(write):
                found.append(
                    f"{stream.name}: {one.key} at {one.revision} says what was not accepted: "
                    f"{tell(write) if write else number}"
                )
            if not course[one.uid] or course[one.uid][-1] != number:
                if number in course[one.uid]:
                    found.append(f"{stream.name}: write {number} came back at {one.revision} on {one.key}")
                course[one.uid].append(number)
    return found + _missing(stream, everything)


def _missing(stream: Stream, everything: Sequence[Asked]) -> list[str]:
    """Accepted writes at the watcher's own home that it was not told of, or told of otherwise."""
    versions = {(e.key, e.revision): e for e in stream.events}
    ends = {e.uid for e in stream.events if e.what == "DELETED"}
    found = []
    for one in everything:
        if one.cloud != stream.cloud or one.key[0] != stream.kind or one.said != "accepted":
            continue
        if one.verb == "delete":
            if one.uid not in ends:
                found.append(f"{stream.name} was not told of {tell(one)}")
        elif one.revision > stream.started_at:
            event = versions.get((one.key, one.revision))
            if event is None:
                found.append(f"{stream.name} was not told of {tell(one)} at {one.revision}")
            elif event.numbers != {one.number}:
                found.append(f"{stream.name} was told {sorted(event.numbers)} for {tell(one)}")
    return found


def _entries(stream: Stream) -> list[str]:
    """Log entries of each source come once, in order, without a gap."""
    found, last = [], dict[str, int]()
    for one in sorted((e for e in stream.events if e.what == "LISTED"), key=lambda e: e.sequence):
        last[one.source] = one.sequence
    for one in stream.events:
        if one.what != "ADDED":
            continue
        if one.sequence != last.get(one.source, 0) + 1:
            found.append(
                f"{stream.name}: entry {one.sequence} of {one.source} came after {last.get(one.source, 0)}"
            )
        last[one.source] = one.sequence
    return found


def state(stream: Stream) -> dict[Key, int]:
    """What is there now, by what the watcher was told: revisions by key."""
    live: dict[Key, int] = {}
    for one in stream.events:
        if one.what == "DELETED":
            live.pop(one.key, None)
        else:
            live[one.key] = one.revision
    return live
