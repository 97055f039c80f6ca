"""`roost audit`: who did what, and the proof that nobody rewrote it.

Everything comes from GET /audit as JSON lines, or from a file that `roost audit export` wrote; both have the
same form, and both are verified by the same function (`model.audit.verify`), line by line, in little memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
from cyclopts import App, Parameter

from roost.cli import output, tables
from roost.cli.client import Client, Query
from roost.cli.logs import beginning
from roost.cli.problems import OK, Failed, Misused
from roost.cli.session import CONNECT, SHOW, Connect, Show, opened
from roost.model import time
from roost.model.audit import Broken, Entry, Head, Record, verify

audit = App(name="audit", help="Who did what: list, export, verify, note the head.")

LONGEST_LINE = 1024 * 1024
PROGRESS_EVERY = 10_000
IDLE = 3700.0

Known = Annotated[
    tuple[str, ...],
    Parameter(name="--head", help="A head noted earlier, SEQUENCE:DIGEST; may be repeated.", metavar="HEAD"),
]


class About(msgspec.Struct, frozen=True):
    """What the lines of an audit belong to."""

    store: str
    cloud: str
    start: Head
    head: Head
    pruned: int = 0


class _First(msgspec.Struct, frozen=True):
    audit: About


class Line(msgspec.Struct, frozen=True):
    """One record as it goes over the wire; `record` to the byte."""

    sequence: int
    digest: str
    record: msgspec.Raw

    def entry(self) -> Entry:
        return Entry(self.sequence, bytes(self.record).decode(), self.digest)

    def read(self) -> Record:
        return msgspec.json.decode(self.record, type=Record)


@audit.command(name="list")
def list_audit(
    *,
    user: Annotated[str, Parameter(help="Only of this user.")] = "",
    verb: Annotated[str, Parameter(help="Only with this verb, as create, patch, delete.")] = "",
    kind: Annotated[str, Parameter(help="Only of this kind, as Host or hosts.")] = "",
    name: Annotated[str, Parameter(help="Only of the object with this name.")] = "",
    since: Annotated[str, Parameter(help="A span, as 2h, or a time, as 2026-11-23T04:00:00Z.")] = "",
    denied: Annotated[bool, Parameter(help="Only what was denied.")] = False,
    last: Annotated[int, Parameter(help="So many of the newest, 5000 at most.")] = 200,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), help="Stay, and print what comes.")] = False,
    show: Show = SHOW,
    connect: Connect = CONNECT,
) -> int:
    """List who did what, the oldest first.

    For example:
        roost audit list --since 1h
        roost audit list --user ada --verb delete
        roost audit list --denied --follow
    """
    if not 1 <= last <= 5000:
        raise Misused(f"--last {last} is no number of records", "write a number from 1 to 5000")
    start = beginning(since, output.now())
    query = {"user": user, "verb": verb, "kind": kind, "name": name, "newest": str(last)}
    query |= {"since": time.seconds(start)} if start else {}
    query |= {"denied": "true"} if denied else {}
    query |= {"follow": "true"} if follow else {}
    with opened(connect) as session:
        found = lines_of(session.client, {k: v for k, v in query.items() if v})
        next(found)
        records = (line.read() for line in found if isinstance(line, Line))
        if show.output in ("json", "yaml"):
            for record in records:
                output.print_data(record, show.output)
        elif follow:
            for record in records:
                output.say("  ".join(map(str, row(record))))
        else:
            headings = ("Time", "User", "From", "Verb", "Object", "Code", "Changed")
            grid = tables.Grid([tables.Column(h) for h in headings], [row(r) for r in records])
            output.print_grid(grid, headers=show.headers, empty="No records.")
    return OK


@audit.command(name="export")
def export(
    file: Annotated[str, Parameter(name="FILE", help="Where to write; - for standard output.")],
    /,
    *,
    after: Annotated[int, Parameter(help="Begin after this sequence.")] = 0,
    force: Annotated[bool, Parameter(help="Go on with a file that does not verify.")] = False,
    connect: Connect = CONNECT,
) -> int:
    """Write the audit as JSON lines; a file that is there is verified and gone on with.

    For example:
        roost audit export audit.jsonl
        roost audit export - --after 1200
    """
    if file == "-":
        with opened(connect) as session:
            _copy(lines_of(session.client, {"after": str(after)}), sys.stdout.buffer, Path(file))
        return OK
    path = Path(file)
    if not force:
        _check_whole(path)
    known = _resume(path)
    if known and after:
        raise Misused(f"{file} is there and says itself where to go on", "leave --after out, or name another")
    with opened(connect) as session:
        found = lines_of(session.client, {"after": str(known.sequence if known else after)})
        with _private(path) as target:
            _copy(_joined(found, known, path) if known else found, target, path)
    return OK


@audit.command(name="verify")
def verify_audit(
    *,
    file: Annotated[str, Parameter(help="A file of `roost audit export` instead of a cloud.")] = "",
    head: Known = (),
    connect: Connect = CONNECT,
) -> int:
    """Verify that no record was changed, removed or moved; 1 when one was.

    For example:
        roost audit verify
        roost audit verify --file audit.jsonl --head "$(cat head)"
    """
    known = [noted(text) for text in head]
    if file:
        return _tell(_verify(read_file(Path(file)), known, file))
    with opened(connect) as session:
        return _tell(_verify(lines_of(session.client, {}), known, f"cloud {session.client.target.name}"))


@audit.command(name="head")
def newest(*, show: Show = SHOW, connect: Connect = CONNECT) -> int:
    """Print the newest sequence and digest, to be noted elsewhere: `roost audit verify --head` takes it.

    For example:
        roost audit head
    """
    with opened(connect) as session:
        about = next(lines_of(session.client, {"newest": "1"}))
        if not isinstance(about, About):
            raise Failed("the answer does not begin as an audit does")
        if show.output in ("json", "yaml"):
            output.print_data({"store": about.store, "cloud": about.cloud, "head": about.head}, show.output)
        else:
            output.say(f"{about.head.sequence}:{about.head.digest}")
    return OK


# -- lines


def lines_of(client: Client, query: Query) -> Iterator[About | Line]:
    """A cloud's audit: first what it is, then its records."""
    yield from parsed(client.stream("/audit", query, IDLE, doing="read the audit"), "the audit")


def read_file(path: Path) -> Iterator[About | Line]:
    """An exported audit. Raises Misused."""
    try:
        with path.open("rb") as file:
            yield from parsed(iter(lambda: file.readline(LONGEST_LINE), b""), str(path))
    except OSError as error:
        raise Misused(f"{path} can't be read: {error.strerror}") from error


def parsed(lines: Iterable[bytes], where: str) -> Iterator[About | Line]:
    """Lines taken apart. Raises Failed for what is none."""
    for number, line in enumerate(lines, 1):
        try:
            yield (
                msgspec.json.decode(line, type=_First).audit
                if number == 1
                else msgspec.json.decode(line, type=Line)
            )
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise Failed(f"line {number} of {where} is no line of an audit: {error}") from error
    return


def noted(text: str) -> Head:
    """A head as `roost audit head` prints it. Raises Misused."""
    sequence, _, digest = text.partition(":")
    try:
        if len(bytes.fromhex(digest)) != 32:
            raise ValueError
        return Head(int(sequence), digest.lower())
    except ValueError:
        raise Misused(
            f"--head {text[:100]!r} is no head", "write SEQUENCE:DIGEST, as `roost audit head` prints it"
        ) from None


class _Verified(msgspec.Struct, frozen=True):
    start: Head
    head: Head
    where: str


def _verify(found: Iterator[About | Line], known: list[Head], where: str) -> _Verified:
    about = next(found, None)
    if not isinstance(about, About):
        raise Failed(f"{where} holds no audit")
    try:
        head = verify(about.start, (e.entry() for e in found if isinstance(e, Line)), known)
    except Broken as broken:
        raise Failed(
            f"the audit of {where} does not hold: record {broken.sequence}: {broken.reason}",
            "keep it as it is; compare with earlier exports, and with the digests that were noted elsewhere",
        ) from broken
    if about.head.sequence > head.sequence and not where.startswith("cloud"):
        output.note(f"the export ends at {head.sequence}; the audit had reached {about.head.sequence}")
    return _Verified(about.start, head, where)


def _tell(done: _Verified) -> int:
    count = done.head.sequence - done.start.sequence
    output.say(
        f"The audit of {done.where} holds: {count} records, from {done.start.sequence + 1} on."
        if count
        else f"The audit of {done.where} holds no records."
    )
    output.say(f"{done.head.sequence}:{done.head.digest}")
    return OK


# -- export


def _check_whole(path: Path) -> None:
    """Raise Failed with the first record of an earlier export that does not fit. A last line that was cut
    short by the end of an earlier run is none."""
    if not path.exists() or not path.stat().st_size:
        return

    def whole() -> Iterator[bytes]:
        with path.open("rb") as file:
            yield from (
                line for line in iter(lambda: file.readline(LONGEST_LINE), b"") if line.endswith(b"\n")
            )

    remedy = "keep it as it is and export into another file, or go on with it by --force"
    try:
        found = parsed(whole(), str(path))
        about = next(found, None)
        if isinstance(about, About):
            verify(about.start, (line.entry() for line in found if isinstance(line, Line)), [])
    except OSError as error:
        raise Misused(f"{path} can't be read: {error.strerror}") from error
    except Broken as broken:
        raise Failed(f"{path} does not verify: record {broken.sequence}: {broken.reason}", remedy) from broken
    except Failed as failed:
        raise Failed(f"{path} does not verify: {failed.reason}", remedy) from failed


def _resume(path: Path) -> Head | None:
    """Where an export goes on: the last whole record of the file. What comes after it is cut off."""
    if not path.exists() or not path.stat().st_size:
        return None
    whole, last = 0, None
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole, last = whole + len(line), line
    if last is None:
        raise Misused(f"{path} is no export of an audit", "name another file")
    (*_, end) = parsed([last] if whole == len(last) else [b'{"audit":%s}' % _NOTHING, last], str(path))
    os.truncate(path, whole)
    return end.start if isinstance(end, About) else Head(end.sequence, end.digest)


_NOTHING = msgspec.json.encode(About("", "", Head(), Head()))


def _joined(found: Iterator[About | Line], known: Head, path: Path) -> Iterator[About | Line]:
    """What follows a file that is there. Raises Failed unless it is the same chain without a gap."""
    about = next(found)
    if isinstance(about, About) and not known.same(about.start):
        raise Failed(
            f"what the cloud has after record {known.sequence} does not follow {path}",
            "records between were pruned, or it is another audit: export into another file, and verify both",
        )
    yield from found


def _copy(found: Iterator[About | Line], target: IO[bytes], path: Path) -> None:
    count = 0
    for line in found:
        target.write(msgspec.json.encode(_First(line) if isinstance(line, About) else line) + b"\n")
        count += isinstance(line, Line)
        if count and isinstance(line, Line) and count % PROGRESS_EVERY == 0:
            output.note(f"{count} records, up to {line.sequence}")
    target.flush()
    output.note(f"{count} records written{'' if str(path) == '-' else f' to {path}'}.")


def _private(path: Path) -> IO[bytes]:
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise Misused(f"{path} can't be written: {error.strerror}") from error


# -- rows


def row(record: Record) -> list[Any]:
    """A record in columns."""
    who = f"{record.user} (by {record.real_user})" if record.real_user else record.user or "(unknown)"
    origin = f"{record.address} through {record.through}" if record.through else record.address
    code = f"{record.code} x{record.count}" if record.count > 1 else str(record.code or "")
    return [_clock(record.time), who, origin.strip(), record.verb, _object(record), code, _changed(record)]


def _object(record: Record) -> str:
    if not record.resource or record.path:
        return record.path or "-"
    what = f"{record.resource}/{record.subresource}" if record.subresource else record.resource
    return " ".join(part for part in (what, record.name) if part)


def _changed(record: Record) -> str:
    if record.code >= 400 or record.reason:
        return record.reason
    if record.dry_run:
        return "(dry run)"
    more = f", and {record.more} more" if record.more else ""
    paths = [c.path for c in record.changes]
    return ", ".join(paths[:4]) + (f", and {len(paths) - 4 + record.more} more" if len(paths) > 4 else more)


def _clock(stamp: str) -> str:
    try:
        return f"{time.parse(stamp).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return stamp
