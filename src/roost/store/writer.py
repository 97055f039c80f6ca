"""What happens in the writer's thread: batches of units of work, each batch one database transaction.

The lock on the revision puts writers of all processes in order. Whoever gets it learns what others have
written since, so a commit tells everything up to its own revision, in order, without a gap.

Who waits is answered after the commit. When the connection is lost while PostgreSQL commits, its last change
is looked for afterwards, under the lock: nothing else stands at its revision when it was committed. (The
number of the transaction would not tell: after a crash PostgreSQL may give it to another.) When that
can't be asked in time, or nothing was changed that could be found, the error says that it is not known.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Engine, insert, select

from roost.model import chance
from roost.model.audit import Record
from roost.store import audit, database, retention, statements
from roost.store.errors import Unavailable
from roost.store.remedies import remedy
from roost.store.retention import Kept, Limits
from roost.store.schema import counters, properties
from roost.store.session import Row, Session, Sessions, failures
from roost.store.transaction import Batch, Change, Refused, Transaction, read_changes

HISTORY_BYTES = Limits().size
MISSED = 2000
"""At most so many changes of others are told with a commit."""
RESOLVE_WITHIN = 10.0

Clock = Callable[[], datetime]


def moment(clock: Clock | None, epoch: float = 0.0) -> datetime:
    """The time of a transaction: by the clock given, else by the database's seconds, else by this machine."""
    if clock is not None:
        return clock()
    return datetime.fromtimestamp(epoch, UTC) if epoch else datetime.now(UTC)


class Unit:
    """A unit of work that waits for its commit."""

    def __init__(self, work: Callable[[Transaction], Any], future: asyncio.Future[Any], size: int) -> None:
        self.work, self.future, self.size = work, future, size
        self.result: Any = None
        self.error: BaseException | None = None


class Started(msgspec.Struct, frozen=True):
    """What is in a database that was opened."""

    identity: str
    revision: int


class _Begun(msgspec.Struct, frozen=True):
    """A transaction that has the lock."""

    session: Session
    revision: int
    now: datetime
    audited: Row | None
    """The audit's newest row."""


class Writer:
    """The one who writes, in a thread of its own.

    Without `clock` PostgreSQL tells the time, or this machine.
    """

    def __init__(self, engine: Engine, *, clock: Clock | None, history: int) -> None:
        self._kept = Kept(after=0)
        self._engine = engine
        self._clock = clock
        self._limits = Limits(number=history, size=HISTORY_BYTES)
        self._sessions = Sessions(engine)
        self._failures = failures(engine.dialect)
        self.trail = audit.Trail()
        self._file: tuple[int, int] | None = None
        self._known = 0
        self.number = 0
        """PostgreSQL's number of the connection that wrote last."""

    @property
    def compacted(self) -> int:
        """The revision after which history is kept."""
        return self._kept.after

    def start(self) -> Started:
        """Bring the schema to this version and look what is there."""
        with database.starting(self._engine):
            database.migrate(self._engine)
            identity = self._identify()
        self._file = database.file_of(self._engine)
        session = self._sessions.take()
        try:
            session.begin(writing=False)
            self._kept = retention.look(session.alchemy, self._known)
        except self._failures.any:
            if not session.is_sqlite:
                raise
            # The history is damaged. What can be read is served all the same; watchers list anew.
            self._kept = Kept(after=self._known)
        finally:
            self._undo(session)
        return Started(identity, self._known)

    def _identify(self) -> str:
        with self._engine.begin() as connection:
            if connection.execute(statements.READ_REVISION).first() is None:
                connection.execute(insert(counters).values(name="revision", value=0))
                connection.execute(insert(properties).values(name="store-id", value=chance.uuid()))
            self._known = connection.execute(statements.READ_REVISION).scalar_one()
            query = select(properties.c.value).where(properties.c.name == "store-id")
            identity: str = connection.execute(query).scalar_one()
            return identity

    def close(self) -> None:
        """Give up the connection."""
        self._sessions.close()

    @property
    def engine(self) -> Engine:
        """What it writes with."""
        return self._engine

    # -- a batch

    def commit(self, batch: Sequence[Unit]) -> list[Change]:
        """Run a batch in one database transaction; returns all changes since the last, now on disk.

        They end with the batch's own; they begin later than where the last ended when others have written
        more than is told. Raises Unavailable.
        """
        try:
            try:
                return self._attempt(batch, careful=False)
            except Refused:
                return self._attempt(batch, careful=True)
        except self._failures.any as error:
            raise unavailable(error) from error

    def _attempt(self, batch: Sequence[Unit], *, careful: bool) -> list[Change]:
        begun = self._begin()
        session = begun.session
        try:
            missed = self._missed(session, begun.revision)
            shared = Batch(session, units=len(batch))
            done, records = self._run(batch, shared, begun, careful=careful)
            size = sum(len(c.data) + len(c.previous) for c in (*missed, *done))
            number = begun.revision - self._known + len(done)
            kept = self._kept.grown(number, size, begun.now.timestamp())
            if not shared.spoilt:
                kept = self._end(shared, begun, done, records, kept)
        except BaseException as error:
            self._undo(session)
            if isinstance(error, self._failures.refused) and not careful:
                raise Refused from error
            raise
        if shared.spoilt:
            self._undo(session)
        else:
            self._sessions.give(session)
        self._known = done[-1].revision if done else begun.revision
        self._kept = kept
        return [*missed, *done]

    def _undo(self, session: Session) -> None:
        if session.rollback():
            self._sessions.give(session)

    def _begin(self) -> _Begun:
        """Begin, with the lock. A connection that was lost while it was idle is replaced by a new one."""
        session = self._sessions.take()
        try:
            return self._locked(session)
        except self._failures.any:
            if session.rollback():
                self._sessions.give(session)
                raise
        session = self._sessions.fresh()
        try:
            return self._locked(session)
        except BaseException:
            session.close()
            raise

    def _locked(self, session: Session) -> _Begun:
        # Locked by reading, not by writing: a transaction that changes nothing costs no sync to disk.
        session.begin(writing=True)
        self.number = session.number
        # What PostgreSQL reads after it got the lock is what the last who had it has written.
        lock = statements.READ_REVISION if session.is_sqlite else statements.LOCK_REVISION
        found, audited = session.firsts([lock, audit.LAST])
        if found is None:
            raise LookupError("the database has lost its revision")
        revision, *epoch = found
        return _Begun(session, revision, moment(self._clock, *epoch), audited)

    def _missed(self, session: Session, revision: int) -> list[Change]:
        """What others have written since this one wrote last, the newest of it."""
        if revision <= self._known:
            return []
        return read_changes(session, max(self._known, revision - MISSED), MISSED)

    def _run(
        self, batch: Sequence[Unit], shared: Batch, begun: _Begun, *, careful: bool
    ) -> tuple[list[Change], list[Record]]:
        revision, done, records = begun.revision, list[Change](), list[Record]()
        for unit in batch:
            unit.result, unit.error = None, None
            transaction = Transaction(shared, revision, begun.now)
            try:
                if careful:
                    transaction.settle()
                unit.result = unit.work(transaction)
                if careful:
                    transaction.settle()
            except self._failures.refused as error:
                transaction.undo()
                unit.error = unavailable(error)
            except Refused:
                raise
            except self._failures.any:
                raise
            except StopIteration as error:
                # A future takes any exception but this one.
                transaction.undo()
                unit.error = RuntimeError(repr(error))
            except Exception as error:
                transaction.undo()
                unit.error = error
            else:
                transaction.keep()
                revision = transaction.revision
                done += transaction.changes
                records += transaction.records
        return done, records

    # -- the end of a transaction

    def _end(
        self, shared: Batch, begun: _Begun, done: list[Change], records: list[Record], kept: Kept
    ) -> Kept:
        """Send what is left to send, and commit: in one go, unless something old is to be dropped as well."""
        session = begun.session
        revision = done[-1].revision if done else begun.revision
        try:
            with session.together():
                shared.send()
                if done:
                    tell = statements.SET_REVISION if session.is_sqlite else statements.TELL_REVISION
                    session.run(tell, {"to": revision})
                due = self.trail.write(session, begun.audited, records, begun.now) if records else None
                old = bool(done) and self._is_due(kept, begun.now)
                self._check_file()
                if due is None and not old:
                    session.commit()
                    return kept
            if due is not None:
                self.trail.prune(session, due, begun.now)
            if old:
                kept = retention.step(session.alchemy, kept, revision, self._limits, begun.now.timestamp())
            session.commit()
        except self._failures.any as error:
            self._look_for(shared, begun, done, error)
        return kept

    def _look_for(self, shared: Batch, begun: _Begun, done: list[Change], error: Exception) -> None:
        """Raise what became of a transaction that failed at its end, unless it is on disk all the same."""
        session = begun.session
        lost = not session.rollback()
        if session.is_sqlite and shared.wrote and _unsure(error):
            raise Unavailable(cause_of(error), known=False) from error
        if session.is_sqlite or not shared.wrote or not lost:
            raise error
        if not done:
            raise Unavailable("the connection was lost while it committed", known=False) from error
        if not self._is_there(done[-1]):
            raise error

    def _is_there(self, change: Change) -> bool:
        """Whether the last change of a transaction was committed whose connection was lost meanwhile."""
        deadline, wait = time.monotonic() + RESOLVE_WITHIN, 0.05
        while True:
            try:
                session = self._sessions.fresh()
                try:
                    # Whoever still holds the lock of the lost connection has come to an end by then.
                    session.first(statements.LOCK_REVISION)
                    found = read_changes(session, change.revision - 1, 1)
                    session.rollback()
                finally:
                    session.close()
                return found == [change]
            except self._failures.any:
                pass
            if time.monotonic() > deadline:
                raise Unavailable("the connection was lost while it committed", known=False)
            time.sleep(wait)
            wait = min(wait * 2, 1.0)

    def _check_file(self) -> None:
        """A database whose file is gone still takes writes, which nobody would ever find again."""
        if database.file_of(self._engine) != self._file:
            raise Unavailable(
                f"{self._engine.url.database} was deleted or replaced while it was in use; "
                "bring it back, and start Roost again"
            )

    def _is_due(self, kept: Kept, now: datetime) -> bool:
        """Whether a step is to be taken to bring history back to its bounds."""
        return retention.is_due(kept, self._limits, now.timestamp())


def _unsure(error: Exception) -> bool:
    """Whether SQLite has written a commit and does not know whether it is on disk."""
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)
    return code == sqlite3.SQLITE_IOERR_FSYNC


def cause_of(error: Exception) -> str:
    """The database's own words for what failed, without the statement and its values, as one line; what to do
    about it."""
    words, step = " ".join(str(getattr(error, "orig", None) or error).split()), remedy(error)
    return f"{words} ({step})" if step else words


def unavailable(error: Exception) -> Unavailable:
    """A database's error as the store's."""
    return Unavailable(cause_of(error))
