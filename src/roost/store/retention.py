"""How much of the past is kept: bounded by number, size and age, dropped in small steps.

The oldest changes go first, whichever bound they pass, and always without a gap. A step drops at most
STEP changes, so a writer that takes one on its way is held up for some ten milliseconds; what is left is
for the steps after. Steps begin when a bound is passed by a slack, not at each commit.

Changes from before schema 0002 have no time: they go when a later one is too old, for the past has no
gaps. `compact` takes steps until nothing is due, each in a transaction of its own, while others read and
write; then it gives the room back to the machine, as far as the database can do that in steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, delete, func, select

from roost.store.schema import changes, counters

STEP = 500
PAGES = 1000
"""Pages that SQLite gives back in one step, 4 MB."""
_DAY = 86_400.0
_LATEST = select(counters.c.value).where(counters.c.name == "revision").with_for_update()
_SIZE = func.length(changes.c.data) + func.length(changes.c.previous)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of history. Sizes in characters, which is about bytes; `age` in seconds."""

    number: int = 20_000
    size: int = 64 * 1024 * 1024
    age: float = 90 * _DAY

    @property
    def slack(self) -> int:
        """By how many changes the number may be passed before a step is taken."""
        return max(1, min(STEP, self.number // 4))


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The history that is there: changes after a revision, their number (a restore leaves a gap between
    revisions), their size in characters, and when the oldest whose time is known was recorded, in seconds
    since the epoch (0: none is)."""

    after: int
    number: int = 0
    size: int = 0
    oldest_at: float = 0.0

    def grown(self, number: int, size: int, at: float) -> Kept:
        """With so many more changes, recorded at a time."""
        return Kept(
            after=self.after,
            number=self.number + number,
            size=self.size + size,
            oldest_at=self.oldest_at or at,
        )


class Old(msgspec.Struct, frozen=True):
    """One of the oldest changes."""

    revision: int
    size: int
    recorded_at: float


def is_due(kept: Kept, limits: Limits, now: float) -> bool:
    """Whether a step is to be taken."""
    if kept.number > limits.number + limits.slack:
        return True
    if kept.size > limits.size + limits.size // 16:
        return True
    return 0 < kept.oldest_at < now - limits.age - limits.age / 100


def goes(oldest: Sequence[Old], kept: Kept, limits: Limits, now: float) -> Kept:
    """What is kept once the first of these, the oldest in order, have gone as far as a bound is passed."""
    too_old = [n for n, old in enumerate(oldest) if 0 < old.recorded_at < now - limits.age]
    aged = too_old[-1] + 1 if too_old else 0
    after, size, count = kept.after, kept.size, 0
    for old in oldest:
        if count >= aged and kept.number - count <= limits.number and size <= limits.size:
            break
        after, size, count = old.revision, size - old.size, count + 1
    left = (old.recorded_at for old in oldest[count:] if old.recorded_at > 0)
    return Kept(after=after, number=max(kept.number - count, 0), size=max(size, 0), oldest_at=next(left, 0.0))


def look(connection: Connection, revision: int) -> Kept:
    """The history that is there, read from the table."""
    first = select(func.min(changes.c.revision), func.count(), func.sum(_SIZE))
    oldest, number, size = connection.execute(first).one()
    dated = select(func.min(changes.c.recorded_at)).where(changes.c.recorded_at > 0)
    at = connection.execute(dated).scalar()
    after = oldest - 1 if oldest else revision
    return Kept(after=after, number=number, size=int(size or 0), oldest_at=at or 0.0)


def step(connection: Connection, kept: Kept, revision: int, limits: Limits, now: float) -> Kept:
    """Drop at most STEP changes, in the caller's transaction, under the lock of the revision; what is kept.

    `revision` is the newest, `now` in seconds since the epoch.
    """
    query = (
        select(changes.c.revision, _SIZE, changes.c.recorded_at).order_by(changes.c.revision).limit(STEP + 1)
    )
    oldest = [Old(*row) for row in connection.execute(query)]
    if not oldest or oldest[0].revision != kept.after + 1:
        # Another process has dropped some meanwhile: what is remembered is too much.
        kept = look(connection, revision)
    left = goes(oldest[:STEP], kept, limits, now)
    if left.after > kept.after:
        connection.execute(delete(changes).where(changes.c.revision <= left.after))
    # One more is read than may go: it tells the age of what stays.
    at = next((old.recorded_at for old in oldest if old.revision > left.after and old.recorded_at), 0.0)
    return Kept(after=left.after, number=left.number, size=left.size, oldest_at=at)


class Compacted(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What compacting did. `freed` is in bytes, -1 where the database tells nothing of it."""

    dropped: int
    kept: int
    freed: int


def compact(engine: Engine, limits: Limits, progress: Callable[[int], None]) -> Compacted:
    """Drop what is over the bounds and give its room back, step by step, online.

    `progress` is told how many changes have gone. Raises SQLAlchemyError; steps done stay done.
    """
    # A writer waits for the slack to fill; asked for by hand, everything over the bounds goes.
    dropped, kept = 0, Kept(after=0)
    while True:
        with engine.connect() as connection, _writing(connection):
            revision: int = connection.execute(_LATEST).scalar_one()
            kept = look(connection, revision) if not dropped else kept
            left = step(connection, kept, revision, limits, time.time())
        if left.after == kept.after:
            break
        dropped, kept = dropped + left.after - kept.after, left
        progress(dropped)
    freed = _give_back_sqlite(engine) if engine.dialect.name == "sqlite" else _give_back_postgresql(engine)
    return Compacted(dropped=dropped, kept=kept.number, freed=freed)


@contextmanager
def _writing(connection: Connection) -> Iterator[None]:
    """A transaction that has SQLite's lock from its beginning: one that reads first may not write after
    another has written."""
    if connection.dialect.name == "sqlite":
        raw: Any = connection.connection.driver_connection
        raw.execute("BEGIN IMMEDIATE")
    with connection.begin():
        yield


def _give_back_sqlite(engine: Engine) -> int:
    """Shorten the file in steps of PAGES; files from before schema 0002 keep their room for later use."""
    with engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")

        def ask(name: str) -> int:
            return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0)

        raw: Any = connection.connection.driver_connection
        before, size = ask("page_count"), ask("page_size")
        incremental, free = ask("auto_vacuum") == 2, ask("freelist_count")
        while incremental and free:
            # A script, for it is run to its end: this pragma gives a page back at each step.
            raw.executescript(f"PRAGMA incremental_vacuum({PAGES})")
            left = ask("freelist_count")
            if left >= free:
                break
            free = left
        connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        freed = (before - ask("page_count")) * size
        connection.exec_driver_sql("BEGIN")
    return freed


def _give_back_postgresql(engine: Engine) -> int:
    """Let PostgreSQL use the room again; its own autovacuum does that now and then as well."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE) changes")
    return -1
