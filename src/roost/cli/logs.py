"""`roost log`: what has happened.

What can be said in field selectors is asked of the cloud, which then sends nothing else; the rest (times,
patterns, words) is looked for here, page by page, and no more is kept than is printed.
"""

from __future__ import annotations

import difflib
import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter
from rich.text import Text

from roost.cli import answers, output, tables
from roost.cli.hostview import SEVERITIES
from roost.cli.kinds import LOG_ENTRY
from roost.cli.listing import print_items
from roost.cli.problems import OK, Misused
from roost.cli.session import CONNECT, PICK, SHOW, Connect, Pick, Session, Show, opened
from roost.cli.spans import before
from roost.cli.watching import Snapshot, follow
from roost.model import time

log = App(name="log", help="What has happened: alarms set and cleared, states, operations.")

REMEMBERED = 50_000
SAMPLE = 2_000
"""So many of the newest entries are looked at for what there is when nothing was found."""
NAMED = 8
_KNOWN = (*SEVERITIES, "info")


class Search(msgspec.Struct, frozen=True, dict=True):
    """What entries are looked for; what is empty holds for all."""

    start: datetime | None = None
    end: datetime | None = None
    severity: str = ""
    entity: str = ""
    alarm: str = ""
    event: str = ""
    text: str = ""

    def query(self, asked: dict[str, str]) -> dict[str, str]:
        """What the cloud is asked, besides what the options ask it already."""
        fields = [asked["fieldSelector"]] if asked.get("fieldSelector") else []
        if self.severity:
            milder = _KNOWN[_KNOWN.index(self.severity) + 1 :]
            fields += [f"status.severity!={word}" for word in milder]
        exact = {"alarmId": self.alarm, "event": self.event}
        fields += [f"status.{name}={_escaped(v)}" for name, v in exact.items() if v and not _is_pattern(v)]
        return {**asked, "fieldSelector": ",".join(fields)} if fields else asked

    def fits(self, entry: answers.LogEntry) -> bool:
        """Whether an entry is looked for. One whose time can't be read is never out of time."""
        status = entry.status
        known = bool(self.severity) and status.severity in _KNOWN
        if known and _KNOWN.index(status.severity) > _KNOWN.index(self.severity):
            return False
        for pattern, value in ((self.alarm, status.alarm_id), (self.event, status.event)):
            if pattern and not fnmatchcase(value, pattern):
                return False
        # What lies in an entity is told of it too: host=a.filesystem=/ of host=a.
        lies_in = bool(self.entity) and status.entity.startswith(f"{self.entity}.")
        if self.entity and not lies_in and not fnmatchcase(status.entity, self.entity):
            return False
        if self._word and self._word not in status.text.casefold():
            return False
        moment = _moment(entry)
        if moment is None:
            return True
        return (self.start is None or moment >= self.start) and (self.end is None or moment < self.end)

    @cached_property
    def _word(self) -> str:
        return self.text.casefold()

    def newest(self, entries: Iterable[answers.LogEntry], last: int) -> list[answers.LogEntry]:
        """Those looked for, the oldest first: the last so many, or all for 0."""
        found = (e for e in entries if self.fits(e))
        return sorted(heapq.nlargest(last, found, key=_order) if last else found, key=_order)


@log.command(name="list")
def list_log(
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), help="Stay, and print what comes.")] = False,
    severity: Annotated[
        Literal["critical", "major", "minor", "warning", "info"] | None,
        Parameter(help="This severity and worse."),
    ] = None,
    since: Annotated[
        str, Parameter(help="A span, as 2h, or a time: as it is printed here, 18:00, 2026-11-23T04:00:00Z.")
    ] = "",
    until: Annotated[str, Parameter(help="Before this: a span before now, or a time.")] = "",
    entity: Annotated[
        str,
        Parameter(
            help="This entity instance and what lies in it, as host=worker-1; or a pattern, as 'host=w*'."
        ),
    ] = "",
    alarm: Annotated[str, Parameter(help="This alarm, as 200.005, or a pattern, as '200.*'.")] = "",
    event: Annotated[str, Parameter(help="This event, as alarm-set, or a pattern.")] = "",
    text: Annotated[str, Parameter(help="Entries whose text has these words, in any case.")] = "",
    last: Annotated[int, Parameter(help="At most so many of the newest; 0 for all.")] = 200,
    pick: Pick = PICK,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """List log entries, the oldest first. Times are printed in this machine's zone.

    For example:
        roost log list --since 1h
        roost log list --severity major -A
        roost log list --entity 'host=worker-1*' --alarm 200.005 --since 7d
        roost log list --text "lost its link" --since 2h --until 1h
        roost log list --follow
    """
    if last < 0:
        raise Misused(f"--last {last} is no number of entries", "write a number above 0, or 0 for all")
    now = output.now()
    search = Search(
        start=before("--since", since, now),
        end=before("--until", until, now),
        severity=severity or "",
        entity=entity,
        alarm=alarm,
        event=event,
        text=text,
    )
    if search.start and search.end and search.start >= search.end:
        raise Misused(f"--since {since} is not before --until {until}", "the earlier of the two is --since")
    with opened(connect) as session:
        if follow or pick.watch:
            _follow(session, pick, search, last)
            return OK
        scope, query = session.scope(pick), search.query(pick.query())
        if show.output in ("json", "yaml", "name"):
            items, revision = session.client.list_items(LOG_ENTRY, scope, dict, query)
            print_items(LOG_ENTRY, _chosen(items, search, last), revision, show)
            return OK
        entries = session.client.sift(
            LOG_ENTRY, scope, answers.LogEntry, query, lambda found: search.newest(found, last)
        )
        grid = tables.Grid(
            [tables.Column(h) for h in ("Time", "Severity", "Source", "Event", "Entity", "Text")],
            [
                [_clock(s.time), s.severity, s.source, s.event, s.entity, s.text]
                for s in (e.status for e in entries)
            ],
        )
        output.print_grid(grid, headers=show.headers, empty=_none(session, scope, search, pick))
    return OK


def _none(session: Session, scope: str | None, search: Search, pick: Pick) -> str:
    """That nothing was found; with what there is, of the newest entries, of what was looked for by name."""
    if not (search.event or search.entity or search.alarm):
        return "No log entries match." if search != Search() or pick.query() else "No log entries."
    found = session.client.sift(
        LOG_ENTRY, scope, answers.LogEntry, {}, lambda some: Search().newest(some, SAMPLE)
    )
    return f"No log entries match. {there_is(search, [e.status for e in found])}".rstrip()


def there_is(search: Search, entries: list[answers.LogStatus]) -> str:
    """What the log has of what nothing was found of: what is like it first, else the most frequent. Pure."""
    lines = []
    for what, wanted, values in (
        ("events", search.event, [e.event for e in entries]),
        ("entities", search.entity, [e.entity for e in entries]),
        ("alarms", search.alarm, [e.alarm_id for e in entries]),
    ):
        counts = Counter(v for v in values if v)
        if not wanted or any(fnmatchcase(v, wanted) or v.startswith(f"{wanted}.") for v in counts):
            continue
        like = [v for v in counts if wanted in v] or difflib.get_close_matches(wanted, counts, n=3)
        named = like[:NAMED] or [v for v, _ in counts.most_common(NAMED)]
        lines.append(f"It has {what} {'like' if like else 'as'} {', '.join(named)}." if named else "")
    return " ".join(line for line in lines if line)


def beginning(since: str, now: datetime) -> datetime | None:
    """The time that `--since` means; None when it is empty. Raises Misused."""
    return before("--since", since, now)


def _chosen(items: list[dict[str, Any]], search: Search, last: int) -> list[dict[str, Any]]:
    """The same of whole objects."""
    pairs = [(msgspec.convert(item, answers.LogEntry), item) for item in items]
    found = sorted((p for p in pairs if search.fits(p[0])), key=lambda p: _order(p[0]))
    return [item for _, item in (found[-last:] if last else found)]


def _follow(session: Session, pick: Pick, search: Search, last: int) -> None:
    scope = session.scope(pick)
    for entries in _news(session, scope, search.query(pick.query())):
        for entry in search.newest(entries, last):
            output.say(_line(entry))


def _news(session: Session, scope: str | None, query: dict[str, str]) -> Iterator[list[answers.LogEntry]]:
    """Entries not yet seen; a list that is made anew repeats nothing."""
    seen: OrderedDict[str, None] = OrderedDict()
    for event in follow(session.client, LOG_ENTRY, scope, answers.LogEntry, query):
        if isinstance(event, Snapshot):
            items = event.items
        else:
            items = [] if event.type == "DELETED" else [event.item]
        fresh = [e for e in items if e.metadata.uid not in seen]
        seen.update((e.metadata.uid, None) for e in fresh)
        while len(seen) > REMEMBERED:
            seen.popitem(last=False)
        yield fresh


def _order(entry: answers.LogEntry) -> tuple[str, str, int]:
    return (entry.status.time, entry.status.source, entry.status.sequence)


def _moment(entry: answers.LogEntry) -> datetime | None:
    try:
        return time.parse(entry.status.time)
    except ValueError:
        return None


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _escaped(value: str) -> str:
    return "".join(f"\\{c}" if c in "\\,=" else c for c in value)


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
