"""How much of one cause is told singly: an allowance for each, and counted summaries beyond. Pure.

A cause is an alarm's id with set, changed or clear, or an event of the log. Each has `burst` tokens that come
back at `per_second`; a message that finds none is merged. All of one cause that are merged at one time become
one summary that counts them by cloud. A summary is no substitute for what was merged: who merges owes the
receiver a snapshot, for otherwise an alarm whose clear was merged would stand there for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from roost.cloud.outlets.messages import Message, SummaryFacts
from roost.engine.allowance import Allowance

MOST_CLOUDS = 50
MOST_CAUSES = 1000
_RANK = {"critical": 4, "major": 3, "minor": 2, "warning": 1, "info": 0}

Cause = tuple[str, str]


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent now, in the order of revisions; how many were merged, and from which revision on."""

    messages: list[Message]
    merged: int = 0
    first_merged: int = 0


def allowance(per_second: int, burst: int) -> Allowance:
    """The tokens of one outlet's causes."""
    return Allowance(float(burst), float(per_second), most=MOST_CAUSES)


def cause_of(message: Message) -> Cause | None:
    """The cause of a message; None when it is never merged."""
    if message.what in ("set", "changed", "clear") and message.alarm is not None:
        return (message.what, message.alarm.alarm_id)
    if message.log is not None:
        return ("log", message.log.event)
    return None


def merge(messages: Sequence[Message], allowed: Allowance, now: float) -> Merged:
    """What of these goes singly, and summaries of the rest at the end."""
    single: list[Message] = []
    rest: dict[Cause, list[Message]] = {}
    for message in messages:
        cause = cause_of(message)
        if cause is None or not allowed.take(" ".join(cause), now):
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
