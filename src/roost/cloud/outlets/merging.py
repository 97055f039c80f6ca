"""How much of one cause is told singly: a bucket of tokens for each, and counted summaries beyond. Pure.

A cause is an alarm's id with set, changed or clear, or an event of the log. Each has `burst` tokens that come
back at `per_second`; a message that finds none is merged. All of one cause that are merged at one time become
one summary that counts them by cloud. A summary is no substitute for what was merged: who merges owes the
receiver a snapshot, for otherwise an alarm whose clear was merged would stand there for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from roost.cloud.outlets.messages import Message, SummaryFacts

MOST_CLOUDS = 50
MOST_CAUSES = 1000
_RANK = {"critical": 4, "major": 3, "minor": 2, "warning": 1, "info": 0}

Cause = tuple[str, str]


class Bucket(msgspec.Struct, frozen=True):
    """Tokens that a cause has left, and when they were counted (monotonic seconds)."""

    tokens: float
    at: float


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent now, in the order of revisions; how many were merged, and from which revision on."""

    messages: list[Message]
    merged: int = 0
    first_merged: int = 0


class Buckets:
    """The buckets of one outlet."""

    def __init__(self, per_second: int, burst: int) -> None:
        self._rate, self._burst = float(per_second), float(burst)
        self._buckets: dict[Cause, Bucket] = {}

    def take(self, cause: Cause, now: float) -> bool:
        """Whether one more of a cause may go singly now."""
        found = self._buckets.get(cause)
        if found is None:
            if len(self._buckets) >= MOST_CAUSES:
                self._drop_full(now)
            found = Bucket(self._burst, now)
        tokens = self._filled(found, now)
        if tokens < 1:
            self._buckets[cause] = Bucket(tokens, now)
            return False
        self._buckets[cause] = Bucket(tokens - 1, now)
        return True

    def _filled(self, bucket: Bucket, now: float) -> float:
        return min(self._burst, bucket.tokens + max(0.0, now - bucket.at) * self._rate)

    def _drop_full(self, now: float) -> None:
        """Forget causes that have been quiet; of none such, the one that was quiet longest."""
        kept = {c: b for c, b in self._buckets.items() if self._filled(b, now) < self._burst}
        if len(kept) >= MOST_CAUSES:
            del kept[min(kept, key=lambda c: kept[c].at)]
        self._buckets = kept


def cause_of(message: Message) -> Cause | None:
    """The cause of a message; None when it is never merged."""
    if message.what in ("set", "changed", "clear") and message.alarm is not None:
        return (message.what, message.alarm.alarm_id)
    if message.log is not None:
        return ("log", message.log.event)
    return None


def merge(messages: Sequence[Message], buckets: Buckets, now: float) -> Merged:
    """What of these goes singly, and summaries of the rest at the end."""
    single: list[Message] = []
    rest: dict[Cause, list[Message]] = {}
    for message in messages:
        cause = cause_of(message)
        if cause is None or buckets.take(cause, now):
            single.append(message)
        else:
            rest.setdefault(cause, []).append(message)
    if not rest:
        return Merged(messages=single)
    last = max(message.upto for message in messages)
    summaries = [_summary(cause, found, last) for cause, found in rest.items()]
    return Merged(
        messages=[*single, *summaries],
        merged=sum(len(found) for found in rest.values()),
        first_merged=min(found[0].revision for found in rest.values()),
    )


def _summary(cause: Cause, merged: Sequence[Message], last: int) -> Message:
    what, named = cause
    by_cloud: dict[str, int] = {}
    for message in merged:
        by_cloud[message.cloud] = by_cloud.get(message.cloud, 0) + 1
    most = sorted(by_cloud, key=lambda c: (-by_cloud[c], c))[:MOST_CLOUDS]
    facts = SummaryFacts(
        of=what,
        alarm_id="" if what == "log" else named,
        event=named if what == "log" else "",
        severity=max((m.severity for m in merged), key=lambda s: _RANK.get(s, 0)),
        count=len(merged),
        clouds={cloud: by_cloud[cloud] for cloud in most},
        more_clouds=len(by_cloud) - len(most),
    )
    first = merged[0]
    store = first.id.partition("-")[0]
    return Message(
        id=f"{store}-{first.revision}-{merged[-1].revision}-{what}-{named}",
        what="summary",
        time=merged[-1].time,
        cloud=first.cloud if len(by_cloud) == 1 else "",
        revision=first.revision,
        last=last,
        summary=facts,
    )


class Portion(msgspec.Struct, frozen=True):
    """Messages that go in one request, and the revision up to which all is told once they have gone."""

    messages: list[Message]
    upto: int


def portions(merged: Merged, most: int, upto: int) -> list[Portion]:
    """Messages in requests of `most` at most; `upto` is the last revision that was looked at.

    While something merged is still to be told, the position stays before it.
    """
    found: list[Portion] = []
    messages = merged.messages
    for start in range(0, len(messages), most):
        part = messages[start : start + most]
        following = messages[start + most : start + most + 1]
        reached = upto if not following else following[0].revision - 1
        if following and merged.merged:
            reached = min(reached, merged.first_merged - 1)
        found.append(Portion(part, reached))
    return found
