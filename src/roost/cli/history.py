"""`roost history`: how a resource came to be what it is, what it was, and what is different since."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from cyclopts import Parameter
from rich.text import Text

from roost.cli import kinds, output
from roost.cli.client import Query, path
from roost.cli.kinds import Kind
from roost.cli.logs import beginning
from roost.cli.problems import OK, Expired, Failed, Misused, NotFound, Problem
from roost.cli.session import CONNECT, SHOW, Connect, Session, Show, opened
from roost.cli.tables import Column, Grid
from roost.model import time

Raw = dict[str, Any]
NOW = ""
_REVISION = re.compile(r"^\d{1,18}$")
_NOISE = ("managedFields", "resourceVersion", "generation")
_COLUMNS = [
    Column("Revision"),
    Column("Age", "date"),
    Column("Type"),
    Column("Manager"),
    Column("Fields"),
]


def history(
    kind: Annotated[str, Parameter(name="KIND", help="A kind, or KIND/NAME.")],
    name: Annotated[str, Parameter(name="NAME", help="The object, if it does not stand with the kind.")] = "",
    /,
    *,
    at: Annotated[
        str,
        Parameter(
            help="Print the object as it was then: a revision, a time, or a span as 2h.", metavar="WHEN"
        ),
    ] = "",
    diff: Annotated[
        tuple[str, ...],
        Parameter(
            consume_multiple=True,
            help="Show what differs between two points, A..B or A B; B may be left out for now.",
            metavar="WHEN",
        ),
    ] = (),
    uid: Annotated[str, Parameter(help="Only the object with this uid, where a name was used again.")] = "",
    last: Annotated[int, Parameter(help="At most so many of the newest changes.")] = 50,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """Show how an object came to be what it is; also one that was deleted.

    MANAGER is the program that wrote, as it names itself (a field manager), or the cloud that it came from;
    which user it was, the audit tells: `roost audit list --name NAME`.

    For example:
        roost history host/controller-0
        roost history host/controller-0 --at 2h
        roost history host/controller-0 --at 2026-11-23T04:00:00Z -o json
        roost history host controller-0 --diff 1200..1310
        roost history firewallpolicy/ssh --diff 2026-11-23T04:00:00Z
    """
    kind, _, after = kind.partition("/")
    name = name or after
    if not name:
        raise Misused("no object is named", f"write {kind}/NAME; `roost get {kind}` lists them")
    if at and diff:
        raise Misused("--at and --diff exclude each other")
    if not 1 <= last <= 500:
        raise Misused(f"--last {last} is no number of changes", "write a number from 1 to 500")
    ends = _ends(diff) if diff else ()
    with opened(connect) as session:
        past = _Past(session, kinds.find(kind, session.client), name, uid)
        if ends:
            return _show_difference(past, ends)
        if at:
            output.print_data(past.state(at), "json" if show.output == "json" else "yaml")
            return OK
        return _show_changes(past, last, show)


class _Past:
    """The past of one object, asked of its cloud."""

    def __init__(self, session: Session, kind: Kind, name: str, uid: str) -> None:
        self._session, self._kind, self._name, self._uid = session, kind, name, uid
        self.label = f"{kind.singular}/{name}"

    def changes(self, last: int) -> Raw:
        """The newest changes, as the cloud lists them. Raises NotFound."""
        return self._ask("", {"limit": str(last)}, f"read the history of {self.label}")

    def state(self, when: str) -> Raw:
        """The object at a point; NOW is the present. Raises NotFound, Failed, Misused."""
        if when == NOW:
            namespace = self._session.namespace if self._kind.namespaced else ""
            found: Raw = self._session.client.get(self._kind, namespace, self._name, dict)
            return found
        try:
            return self._ask(f"/{quote(point(when, output.now()), safe='')}", {}, f"read {self.label}")
        except Expired as error:
            raise Failed(str(error), f"`roost history {self.label}` lists what is kept") from error
        except NotFound as error:
            raise NotFound(self._absent(when) or error.reason, error.remedy) from error

    def seek(self, when: str) -> Raw:
        """The object at a point; empty when it was not there."""
        try:
            return self.state(when)
        except NotFound:
            return {}

    def _absent(self, when: str) -> str:
        """Why it was not there at a time, in times; empty for a revision, or when that is not known."""
        if _REVISION.match(when):
            return ""
        moment = point(when, output.now())
        try:
            items = self.changes(500)["items"]
        except Problem:
            return ""
        said = absence(items, moment)
        return f"{self.label} was not there at {moment}: {said}" if said else ""

    def _ask(self, rest: str, query: Query, doing: str) -> Raw:
        namespace = self._session.namespace if self._kind.namespaced else ""
        where = f"{path(self._kind, namespace, quote(self._name, safe=''))}/history{rest}"
        asked = {**query, **({"uid": self._uid} if self._uid else {})}
        body = self._session.client.request("GET", where, query=asked, doing=doing)
        return msgspec.json.decode(body, type=dict[str, Any])


def point(when: str, now: datetime) -> str:
    """A revision or a time as the API takes it, from those and from spans. Raises Misused."""
    if _REVISION.match(when):
        return when
    try:
        moment = beginning(when, now)
    except (Misused, OverflowError):
        moment = None
    if moment is None:
        raise Misused(
            f"{when!r} is no point in time",
            "write a revision, a span, as 90s, 30m, 2h, 7d, or a time with its zone",
        )
    return time.stamp(moment)


def absence(items: Sequence[Raw], moment: str) -> str:
    """When a thing that was not there at a moment was deleted before and created after, by its changes, the
    newest first. Empty when the changes do not tell."""
    stamped = [item for item in items if item.get("time")]
    later = [item for item in stamped if item["time"] > moment]
    earlier = [item for item in stamped if item["time"] <= moment]
    said = []
    if earlier and earlier[0]["type"] == "DELETED":
        said.append(f"it was deleted at {earlier[0]['time']}")
    if later and later[-1]["type"] == "ADDED":
        said.append(f"it was created at {later[-1]['time']}")
    return " and ".join(said)


def _ends(given: Sequence[str]) -> tuple[str, str]:
    """The two points of `--diff A..B`, `--diff A B` or `--diff A`. Raises Misused."""
    if len(given) == 1:
        first, _, second = given[0].partition("..")
    elif len(given) == 2:
        first, second = given
    else:
        first = second = ""
    if not first:
        raise Misused("--diff takes two points", "write --diff A..B, or --diff A for A to now")
    return first, second or NOW


def _show_changes(past: _Past, last: int, show: Show) -> int:
    found = past.changes(last)
    if show.output in ("json", "yaml"):
        output.print_data(found, "json" if show.output == "json" else "yaml")
        return OK
    if show.output == "name":
        for item in found["items"]:
            output.say(str(item["revision"]))
        return OK
    output.print_grid(grid(found), headers=show.headers, empty=f"No change of {past.label} is kept.")
    if "continue" in found["metadata"]:
        output.note(f"There are older changes; --last {min(last * 2, 500)} shows more.")
    return OK


def grid(found: Raw) -> Grid:
    """The changes as a table, the newest first."""
    rows = [[i["revision"], i.get("time", ""), i["type"], by(i), fields(i)] for i in found["items"]]
    return Grid(_COLUMNS, rows)


def by(item: Raw) -> str:
    """What made a change: managers of fields, or where it came from; empty when that is not known."""
    managers = ",".join(item.get("managers", []))
    origin = item.get("origin", "")
    came = "the cloud above" if origin == "up" else origin.removeprefix("down:")
    return managers or came


def fields(item: Raw) -> str:
    """What a change changed, in short."""
    return ", ".join(item.get("fields", []))


def _show_difference(past: _Past, ends: tuple[str, str]) -> int:
    before, after = (past.seek(end) for end in ends)
    if not before and not after:
        past.state(ends[0])
    lines = difference(before, after, *(f"{past.label} ({end or 'now'})" for end in ends))
    if not lines:
        output.note(f"{past.label} was the same at both points.")
    styles = {"+": "green", "-": "red", "@": "cyan"}
    output.print_lines(Text(line, styles.get(line[:1], "")) for line in lines)
    return OK


def difference(before: Raw, after: Raw, first: str, second: str) -> list[str]:
    """A unified difference of two states as YAML; bookkeeping is left out. Empty: not there."""
    old, new = (output.yaml_text(_comparable(raw)).splitlines() if raw else [] for raw in (before, after))
    return list(difflib.unified_diff(old, new, first, second, lineterm=""))


def _comparable(raw: Raw) -> Raw:
    meta = {k: v for k, v in raw.get("metadata", {}).items() if k not in _NOISE}
    kept: Raw = msgspec.to_builtins({**raw, "metadata": meta})
    return kept
