"""`roost log`: what has happened."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.text import Text

from roost.cli import answers, output, tables
from roost.cli.hostview import SEVERITIES
from roost.cli.kinds import LOG_ENTRY
from roost.cli.listing import print_items
from roost.cli.problems import OK, Misused
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Session, Show, opened
from roost.cli.watching import Snapshot, follow
from roost.model import time

log = App(name="log", help="What has happened: alarms set and cleared, states, operations.")

REMEMBERED = 50_000
_SPAN = re.compile(r"^(\d+)([smhd])$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@log.command(name="list")
def list_log(
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), help="Stay, and print what comes.")] = False,
    severity: Annotated[
        Literal["critical", "major", "minor", "warning", "info"] | None,
        Parameter(help="This severity and worse."),
    ] = None,
    since: Annotated[str, Parameter(help="A span, as 2h, or a time, as 2026-11-23T04:00:00Z.")] = "",
    last: Annotated[int, Parameter(help="At most so many of the newest; 0 for all.")] = 200,
    pick: Pick = PICK,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """List log entries, the oldest first.

    For example:
        roost log list --since 1h
        roost log list --severity major -A
        roost log list --follow
    """
    if last < 0:
        raise Misused(f"--last {last} is no number of entries", "write a number above 0, or 0 for all")
    start = beginning(since, output.now())
    with opened(connect) as session:
        if follow or pick.watch:
            _follow(session, pick, start, severity or "", last)
            return OK
        if show.output in ("json", "yaml", "name"):
            items, revision = session.client.list_items(LOG_ENTRY, session.scope(pick), dict, pick.query())
            print_items(LOG_ENTRY, items, revision, show)
            return OK
        found, _ = session.client.list_items(LOG_ENTRY, session.scope(pick), answers.LogEntry, pick.query())
        entries = wanted(found, start, severity or "")
        entries = entries[-last:] if last else entries
        grid = tables.Grid(
            [tables.Column(h) for h in ("Time", "Severity", "Source", "Event", "Entity", "Text")],
            [
                [_clock(s.time), s.severity, s.source, s.event, s.entity, s.text]
                for s in (e.status for e in entries)
            ],
        )
        output.print_grid(grid, headers=show.headers, empty="No log entries.")
    return OK


def beginning(since: str, now: datetime) -> datetime | None:
    """The time that `--since` means; None when it is empty. Raises Misused."""
    if not since:
        return None
    span = _SPAN.match(since)
    if span:
        return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        return time.parse(since)
    except ValueError as error:
        raise Misused(
            f"--since {since}: {error}", "write a span, as 90s, 30m, 2h, 7d, or a time with its zone"
        ) from error


def wanted(entries: list[answers.LogEntry], start: datetime | None, severity: str) -> list[answers.LogEntry]:
    """Entries not before `start` and not milder than `severity`, in order of time."""
    known = (*SEVERITIES, "info")
    kept = [e for e in entries if start is None or _moment(e, start) >= start]
    if severity:
        most = known.index(severity)
        kept = [e for e in kept if e.status.severity in known[: most + 1]]
    return sorted(kept, key=lambda e: (e.status.time, e.status.source, e.status.sequence))


def _follow(session: Session, pick: Pick, start: datetime | None, severity: str, last: int) -> None:
    scope = session.scope(pick)
    for entries in _news(session, scope, pick):
        chosen = wanted(entries, start, severity)
        for entry in chosen[-last:] if last else chosen:
            output.say(_line(entry))


def _news(session: Session, scope: str | None, pick: Pick) -> Iterator[list[answers.LogEntry]]:
    """Entries not yet seen; a list that is made anew repeats nothing."""
    seen: OrderedDict[str, None] = OrderedDict()
    for event in follow(session.client, LOG_ENTRY, scope, answers.LogEntry, pick.query()):
        if isinstance(event, Snapshot):
            items = event.items
        else:
            items = [] if event.type == "DELETED" else [event.item]
        fresh = [e for e in items if e.metadata.uid not in seen]
        seen.update((e.metadata.uid, None) for e in fresh)
        while len(seen) > REMEMBERED:
            seen.popitem(last=False)
        yield fresh


def _moment(entry: answers.LogEntry, otherwise: datetime) -> datetime:
    try:
        return time.parse(entry.status.time)
    except ValueError:
        return otherwise


def _clock(stamp: str) -> str:
    """Local time to the second; the entry's own text when it is no time."""
    try:
        return f"{time.parse(stamp).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return stamp


def _line(entry: answers.LogEntry) -> Text:
    status = entry.status
    line = Text(f"{_clock(status.time)}  ")
    line.append(f"{status.severity:<8}", tables.style_of(status.severity))
    line.append(f"  {status.source:<20}  {status.event:<21}  {status.entity}  {status.text}")
    return line
