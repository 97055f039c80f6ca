"""`roost store`: upkeep of the database behind a cloud or an agent, on the machine where it runs.

These commands open the database themselves, so they work when nothing else does. `check`, `compact` and
`snapshot` may run beside a running Roost; `restore` and `migrate` refuse to. What finds the databases of a
home is handed in by `program`. Everything heavy is imported when a command runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import msgspec
from cyclopts import App, Parameter

from roost import __version__
from roost.cli import output
from roost.cli.options import Home, database_url, home_of
from roost.cli.problems import FAILED, OK, Failed, Misused
from roost.cli.session import SHOW, Show

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from roost.store.checking import Report

Use = Literal["shared", "alone"]
Database = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,
        help="File with the URL of a PostgreSQL database, instead of a home.",
        metavar="FILE",
    ),
]


class Place(msgspec.Struct, frozen=True):
    """A database: what it is of, its URL, which may hold a password, and the cloud whose home it is.

    An agent's is the home of no cloud. `known` says whether that is known: a URL alone does not tell.
    """

    label: str
    url: str
    cloud: str = ""
    known: bool = False

    def __repr__(self) -> str:
        return f"Place({self.label!r})"


Locate = Callable[[Path, Use], AbstractContextManager[list[Place]]]


class Advance(Protocol):
    """Told how far long work is: what is done, how much of it, of how much (0: not known)."""

    def __call__(self, what: str, done: int, of: int = 0, /) -> None: ...


def register(app: App, locate: Locate) -> None:
    """Register `roost store`, which finds databases with the given function."""
    store = App(name="store", help="The database behind a cloud: check, compact, snapshot, restore, migrate.")

    def places(home: str, database: str, use: Use) -> AbstractContextManager[list[Place]]:
        url = database_url(database) if database else ""
        if not url:
            return locate(home_of(home), use)
        if url.startswith("sqlite"):
            raise Misused("--database takes a server's database", "name SQLite's directory with --home")
        return nullcontext([Place("database", url)])

    @store.command(name="check")
    def check_command(
        *,
        quick: Annotated[bool, Parameter(help="Leave out what SQLite takes long for.")] = False,
        home: Home = "",
        database: Database = "",
        show: Show = SHOW,
    ) -> int:
        """Check that the database still says what it was told. Exit code 1 when it does not.

        Reads everything and changes nothing; Roost may run meanwhile.

        For example:
            roost store check
            roost store check --home /var/lib/roost -o json
        """
        with places(home, database, "shared") as found:
            return _check(found, "quick" if quick else "full", show)

    @store.command(name="compact")
    def compact_command(
        *,
        keep: Annotated[int, Parameter(help="Changes to keep at most.")] = 20_000,
        keep_days: Annotated[float, Parameter(help="Days to keep them at most.")] = 90.0,
        home: Home = "",
        database: Database = "",
    ) -> int:
        """Drop the oldest history and give its room back, in small steps. Roost may run meanwhile.

        For example:
            roost store compact
            roost store compact --keep 1000
        """
        if keep < 0 or not 0 <= keep_days <= 36_500:
            raise Misused("--keep and --keep-days are numbers of at least 0")
        with places(home, database, "shared") as found:
            return _compact(found, keep, keep_days)

    @store.command(name="snapshot")
    def snapshot_command(
        file: Annotated[Path, Parameter(name="FILE", help="Where to; it must not be there yet.")],
        /,
        *,
        home: Home = "",
        database: Database = "",
    ) -> int:
        """Write the whole database, as it is at one moment, to a file. Roost may run meanwhile.

        The file fits SQLite and PostgreSQL alike. It holds hashes of secrets: keep it as you keep keys.

        For example:
            roost store snapshot monday.roost
        """
        with places(home, database, "shared") as found:
            return _snapshot(found[0], file)

    @store.command(name="restore")
    def restore_command(
        file: Annotated[Path, Parameter(name="FILE", help="The snapshot.")],
        /,
        *,
        replace: Annotated[bool, Parameter(help="Put it in the place of what is there.")] = False,
        home: Home = "",
        database: Database = "",
    ) -> int:
        """Put a snapshot in place of the database. Roost must not run meanwhile.

        The file is checked whole before anything is touched. Of SQLite, what was there is kept beside it.

        For example:
            roost store restore monday.roost --replace
        """
        with places(home, database, "alone") as found:
            return _restore(found[0], file, replace=replace)

    @store.command(name="migrate")
    def migrate_command(
        *,
        to: Annotated[str, Parameter(help="Version of the schema, as 0001; default: the newest.")] = "",
        home: Home = "",
        database: Database = "",
    ) -> int:
        """Move the database to another version of its schema, forward or back. Roost must not run meanwhile.

        Going back drops what the older version has no place for: take a snapshot first.

        For example:
            roost store migrate --to 0001
        """
        with places(home, database, "alone") as found:
            return _migrate(found, to)

    app.command(store, name="store")


# -- what they do


def _check(places: list[Place], depth: Literal["quick", "full"], show: Show) -> int:
    from roost.store import checking

    reports: dict[str, Report] = {}
    for place in places:
        with _opened(place) as engine, _progress(f"Checking {place.label}") as advance:
            reports[place.label] = checking.check(engine, depth, advance)
    sound = all(report.sound for report in reports.values())
    if show.output in ("json", "yaml"):
        body = {name: {**msgspec.to_builtins(r), "sound": r.sound} for name, r in reports.items()}
        output.print_data(body, "json" if show.output == "json" else "yaml")
    else:
        _tell(reports, show)
    if not sound:
        output.note("Keep a copy of the database; `roost store restore` puts a snapshot in its place.")
    return OK if sound else FAILED


def _tell(reports: dict[str, Report], show: Show) -> None:
    from roost.cli.tables import Column, Grid

    rows = [[label, f.severity, f.subject, f.problem] for label, r in reports.items() for f in r.findings]
    columns = [Column("Store"), Column("Severity"), Column("Subject"), Column("Problem")]
    output.print_grid(Grid(columns, rows), headers=show.headers)
    for label, r in reports.items():
        verdict = "sound" if r.sound else "not sound"
        more = f", and {r.more} more findings" if r.more else ""
        output.say(
            f"{label}: {verdict}{more} (schema {r.schema}, revision {r.revision}, {r.resources} resources, "
            f"{r.changes} changes, {r.audit} audit records)"
        )


def _compact(places: list[Place], keep: int, days: float) -> int:
    from roost.store import retention

    limits = retention.Limits(number=keep, age=days * 86_400)
    for place in places:
        with _opened(place) as engine:
            with _progress(f"Compacting {place.label}") as advance:
                done = retention.compact(engine, limits, partial(advance, "changes"))
            freed = f"; {done.freed / 1024 / 1024:.1f} MiB given back" if done.freed > 0 else ""
            output.say(f"{place.label}: {done.dropped} changes dropped, {done.kept} kept{freed}")
    return OK


def _snapshot(place: Place, file: Path) -> int:
    from roost.store import snapshot

    file = file.expanduser().absolute()
    with _opened(place) as engine, _progress("Writing the snapshot") as advance:
        try:
            done = snapshot.write(engine, file, datetime.now(UTC), partial(advance, "rows"), __version__)
        except FileExistsError as error:
            raise Failed(f"{file} is there already", "name another file") from error
        except OSError as error:
            raise Failed(f"{file} can't be written: {error.strerror}", "name another place") from error
    output.say(f"{file}: {done.rows} rows at revision {done.revision}, {file.stat().st_size} bytes")
    return OK


def _restore(place: Place, file: Path, *, replace: bool) -> int:
    from roost.store import restore, snapshot
    from roost.store.errors import NewerSchema

    try:
        with _progress("Checking the snapshot") as advance:
            verified = snapshot.verify(file, partial(advance, "rows"))
    except OSError as error:
        raise Failed(f"{file} can't be read: {error.strerror}", "name a snapshot") from error
    except NewerSchema as error:
        raise Failed(
            f"{file} has schema {error.found}, this version of Roost knows {error.known}",
            "restore it with the newer version",
        ) from error
    except snapshot.Damaged as error:
        raise Failed(str(error)) from error
    with _explained(place):
        found = restore.look(place.url)
        _check_cloud(place, file, verified.clouds, found.clouds)
        if not replace:
            restore.check_replaceable(place.url, found)
    with _explained(place), _progress("Restoring") as advance:
        done = restore.restore(place.url, file, found, datetime.now(UTC), partial(advance, "rows"))
    output.say(
        f"{place.label}: restored {done.rows} rows of {done.taken_at}, revision {done.at}; "
        f"it goes on from revision {done.base} as another store"
    )
    if done.kept:
        output.note(f"What was there is kept as {done.kept}.")
    return OK


def _check_cloud(place: Place, file: Path, brings: list[str], there: list[str]) -> None:
    """That the snapshot is of the cloud that it is to be put in place of. Raises Failed."""

    def called(clouds: list[str]) -> str:
        return f"cloud {clouds[0]}" if clouds else "a host's agent"

    if place.known:
        wanted, where = [place.cloud] if place.cloud else [], "this home"
    elif there:
        wanted, where = there, "this database"
    else:
        return
    if brings != wanted:
        raise Failed(
            f"{file} is of {called(brings)}, and {where} is of {called(wanted)}; nothing was changed",
            f"name the home of {called(brings)} with --home, or a snapshot of {called(wanted)}",
        )


def _migrate(places: list[Place], to: str) -> int:
    from roost.store import migrating
    from roost.store.schema import SCHEMA_VERSION

    for place in places:
        with _opened(place) as engine:
            before, after = migrating.migrate_to(engine, to or SCHEMA_VERSION)
        how = "was there already" if before == after else f"migrated from {before}"
        output.say(f"{place.label}: schema {after}, {how}")
    if to and to < SCHEMA_VERSION:
        output.note(f"The next start of this version of Roost migrates it to {SCHEMA_VERSION} again.")
    return OK


# -- around them


@contextmanager
def _opened(place: Place) -> Iterator[Engine]:
    """The database of a place; what fails there becomes a problem with its next step."""
    from roost.store import database

    path = Path(place.url.removeprefix("sqlite:///"))
    if place.url.startswith("sqlite") and not path.exists():
        raise Failed(f"{path} is not there", "was this home ever started?")
    with _explained(place):
        engine = database.open_engine(place.url)
        try:
            yield engine
        finally:
            engine.dispose()


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    from roost.store.errors import StoreError
    from roost.store.remedies import CHECK, remedy

    try:
        yield
    except StoreError as error:
        raise Failed(f"{place.label}: {error}") from error
    except SQLAlchemyError as error:
        # The database's own words, without the statement and its values.
        words = str(getattr(error, "orig", None) or error)
        raise Failed(f"{place.label}: the database failed: {words}", remedy(error) or CHECK) from error
    except OSError as error:
        raise Failed(f"{place.label}: {error}", remedy(error) or CHECK) from error


@contextmanager
def _progress(doing: str) -> Iterator[Advance]:
    """A bar on a terminal, nothing elsewhere."""
    import sys

    screen = output.console(sys.stderr)
    if not screen.is_terminal:
        yield lambda *_: None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}"),
        console=screen,
        transient=True,
    ) as bar:
        task = bar.add_task(doing, total=None)
        shown = 0.0

        def advance(what: str, done: int, of: int = 0, /) -> None:
            nonlocal shown
            if time.monotonic() - shown > 0.1:
                shown = time.monotonic()
                bar.update(task, description=f"{doing}: {what}", completed=done, total=of or None)

        yield advance
