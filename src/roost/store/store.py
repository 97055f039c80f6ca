"""The door to the store: group-committed transactions, snapshot reads, gap-free resumable watch.

Writes: `transact(work)` queues a function; one writer thread takes all that wait (up to
BATCH), runs each under a savepoint inside one database transaction, and commits once. Who waits is
answered only after the commit, so what was answered is on disk. A failing unit of work undoes only
itself. The queue is bounded: past it, `Overloaded`.

Reads run in a small pool of threads on their own connections.

Watch: the recent changes are kept in memory, bounded by bytes; older ones are read from the table,
where history is bounded by number and by bytes.
A notification only wakes; the revision is the truth, so a watcher that was slow or away misses
nothing until history is compacted, and then is told so (`Compacted`). A snapshot may be a little
ahead of what this loop has been told of: watching from there waits.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from roost.model.audit import Record
from roost.model.meta import Resource
from roost.store import audit, database, statements
from roost.store.errors import Compacted, FutureRevision, Overloaded, Unavailable
from roost.store.schema import changes, counters, properties
from roost.store.transaction import Change, Stored, Transaction, read_changes

T = TypeVar("T")
R = TypeVar("R", bound=Resource)
Work = Callable[[Transaction], T]

BATCH = 256
WAITING = 10_000
RECENT_BYTES = 4 * 1024 * 1024
HISTORY = 20_000
HISTORY_BYTES = 64 * 1024 * 1024


class Batch(msgspec.Struct, frozen=True):
    """Changes up to and including revision `upto`; may be empty when none concerned the watcher."""

    changes: list[Change]
    upto: int


class InlineExecutor(Executor):
    """Runs work at once in the caller's thread: for tests and simulation on a fake clock."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


_SIZE = func.length(changes.c.data) + func.length(changes.c.previous)


class _Kept(msgspec.Struct, frozen=True):
    """The history that is kept: changes after a revision, and their size in characters."""

    after: int
    bytes: int


class _Waiting:
    """A unit of work that waits for its commit."""

    def __init__(self, work: Work[Any], future: asyncio.Future[Any]) -> None:
        self.work, self.future = work, future
        self.result: Any = None
        self.error: BaseException | None = None


class Store:
    """One cloud's or host's memory. Open with `Store.open`, close with `close`."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        inline: bool = False,
        history: int = HISTORY,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._history = history
        self._writer: Executor = InlineExecutor() if inline else ThreadPoolExecutor(1, "store-writer")
        self._readers: Executor = InlineExecutor() if inline else ThreadPoolExecutor(2, "store-reader")
        self._waiting: deque[_Waiting] = deque()
        self._writing = False
        self._recent: deque[Change] = deque()
        self._recent_bytes = 0
        self._woken = asyncio.Event()
        self._trail = audit.Trail()
        self._closed = False
        self.identity = ""
        self.revision = 0
        self._compacted = 0
        self._history_bytes = 0
        self._file: tuple[int, int] | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        inline: bool = False,
        history: int = HISTORY,
    ) -> Store:
        """Open the database at `url`, migrated to this version. Raises NewerSchema, Unavailable."""
        try:
            engine = database.open_engine(url)
        except OSError as error:
            raise Unavailable(str(error)) from error
        store = cls(engine, clock=clock, inline=inline, history=history)
        try:
            await store._in(store._writer, store._start)
        except BaseException as error:
            await store.close()
            if isinstance(error, SQLAlchemyError):
                where = engine.url.render_as_string(hide_password=True)
                raise Unavailable(f"{where}: {_unavailable(error).cause}") from error
            raise
        return store

    async def close(self) -> None:
        """Finish what is being written, refuse what waits, end watches. Closing twice does nothing more."""
        if self._closed:
            return
        self._closed = True
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                waiting.future.set_exception(Unavailable("the store is closing"))
        self._woken.set()
        await self._in(self._writer, lambda: None)
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.dispose()

    # -- writing

    async def transact(self, work: Work[T]) -> T:
        """Run `work` in a transaction and return its result once it is on disk.

        What `work` raises is raised here and undoes its writes. Raises Overloaded, Unavailable.
        """
        if self._closed:
            raise Unavailable("the store is closed")
        if len(self._waiting) >= WAITING:
            raise Overloaded(len(self._waiting))
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(audit.signed(work), future))
        self._pump()
        return await future

    async def save(self, resource: R) -> R:
        """Create or change one resource given as a struct."""
        return await self.transact(lambda tx: tx.save(resource))

    def _pump(self) -> None:
        """Start the writer on what waits, unless it is at work."""
        if self._writing or not self._waiting:
            return
        self._writing = True
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        running = asyncio.get_running_loop().run_in_executor(self._writer, self._commit, batch)
        running.add_done_callback(lambda done: self._committed(batch, done))

    def _committed(self, batch: list[_Waiting], done: asyncio.Future[list[Change]]) -> None:
        self._writing = False
        failure = done.exception() if not done.cancelled() else Unavailable("cancelled")
        if failure is None:
            self._remember(done.result())
        for waiting in batch:
            if waiting.future.done():
                continue
            error = failure or waiting.error
            if error is not None:
                waiting.future.set_exception(error)
            else:
                waiting.future.set_result(waiting.result)
        if not self._closed:
            self._pump()

    def _remember(self, fresh: list[Change]) -> None:
        if not fresh:
            return
        if self._recent and self._recent[-1].revision + 1 != fresh[0].revision:
            # Somebody else has written in between: what is kept must be without gaps.
            self._recent.clear()
            self._recent_bytes = 0
        for change in fresh:
            self._recent.append(change)
            self._recent_bytes += len(change.data) + len(change.previous)
        while self._recent_bytes > RECENT_BYTES and len(self._recent) > 1:
            gone = self._recent.popleft()
            self._recent_bytes -= len(gone.data) + len(gone.previous)
        self.revision = fresh[-1].revision
        self._woken.set()
        self._woken = asyncio.Event()

    # -- in the writer thread

    def _start(self) -> None:
        database.migrate(self._engine)
        self._file = database.file_of(self._engine)
        with self._engine.begin() as connection:
            if (
                connection.execute(select(counters.c.value).where(counters.c.name == "revision")).first()
                is None
            ):
                connection.execute(insert(counters).values(name="revision", value=0))
                connection.execute(insert(properties).values(name="store-id", value=str(uuid.uuid4())))
            row = connection.execute(select(counters.c.value).where(counters.c.name == "revision"))
            self.revision = row.scalar_one()
            query = select(properties.c.value).where(properties.c.name == "store-id")
            self.identity = connection.execute(query).scalar_one()
            oldest = connection.execute(select(func.min(changes.c.revision))).scalar()
            self._compacted = (oldest - 1) if oldest else self.revision
            self._history_bytes = connection.execute(select(func.sum(_SIZE))).scalar() or 0

    def _commit(self, batch: list[_Waiting]) -> list[Change]:
        """Run a batch in one database transaction; returns its changes once they are on disk."""
        options = {"roost_begin": "IMMEDIATE"}
        try:
            with self._engine.connect().execution_options(**options) as connection, connection.begin():
                done = self._run(batch, connection)
                grown = self._history_bytes + sum(len(c.data) + len(c.previous) for c in done)
                kept = self._compact(connection, done[-1].revision, grown) if done else _Kept(0, grown)
                self._check_file()
        except SQLAlchemyError as error:
            raise _unavailable(error) from error
        self._compacted = max(self._compacted, kept.after)
        self._history_bytes = kept.bytes
        return done

    def _check_file(self) -> None:
        """A database whose file is gone still takes writes, which nobody would ever find again."""
        if database.file_of(self._engine) != self._file:
            raise Unavailable(
                f"{self._engine.url.database} was deleted or replaced while it was in use; "
                "bring it back, and start Roost again"
            )

    def _run(self, batch: list[_Waiting], connection: Connection) -> list[Change]:
        # Reading with a lock, not writing: a transaction that changes nothing costs no sync to disk.
        start: int = connection.execute(statements.LOCK_REVISION).scalar_one()
        revision, done, now = start, list[Change](), self._clock()
        records: list[Record] = []
        for waiting in batch:
            transaction = Transaction(connection, revision, now)
            connection.exec_driver_sql("SAVEPOINT unit")
            try:
                waiting.result = waiting.work(transaction)
            except (DataError, IntegrityError) as error:
                _undo(connection)
                waiting.error = _unavailable(error)
            except SQLAlchemyError:
                raise
            except StopIteration as error:
                # A future takes any exception but this one.
                _undo(connection)
                waiting.error = RuntimeError(repr(error))
            except Exception as error:
                _undo(connection)
                waiting.error = error
            else:
                connection.exec_driver_sql("RELEASE SAVEPOINT unit")
                revision = transaction.revision
                done += transaction.changes
                records += transaction.records
        if revision != start:
            connection.execute(statements.SET_REVISION, {"to": revision})
        if records:
            self._trail.write(connection, records, now)
        return done

    def _compact(self, connection: Connection, revision: int, size: int) -> _Kept:
        """Drop old history now and then, a quarter of what may be kept at a time."""
        if revision - self._compacted <= self._history * 5 // 4 and size <= HISTORY_BYTES * 5 // 4:
            return _Kept(self._compacted, size)
        after = self._compacted
        for number, bytes in connection.execute(
            select(changes.c.revision, _SIZE).order_by(changes.c.revision)
        ):
            if number > revision - self._history and size <= HISTORY_BYTES:
                break
            after, size = number, size - bytes
        connection.execute(delete(changes).where(changes.c.revision <= after))
        return _Kept(after, size)

    # -- reading

    async def read(self, work: Work[T]) -> T:
        """Run `work` on one consistent snapshot; it must not write. Raises Unavailable."""
        if self._closed:
            raise Unavailable("the store is closed")
        return await self._in(self._readers, lambda: self._snapshot(work))

    async def get(self, kind: str, namespace: str, name: str) -> Stored:
        """One resource; raises NotFound."""
        return await self.read(lambda tx: tx.get(kind, namespace, name))

    async def load(self, kind: type[R], namespace: str, name: str) -> R:
        """One resource as its struct; raises NotFound."""
        return await self.read(lambda tx: tx.load(kind, namespace, name))

    async def every(self, kind: type[R], namespace: str | None = None) -> list[R]:
        """All resources of a kind as structs."""
        return await self.read(lambda tx: tx.every(kind, namespace))

    def _snapshot(self, work: Work[T]) -> T:
        try:
            with self._engine.connect() as connection, connection.begin():
                revision: int = connection.execute(statements.READ_REVISION).scalar_one()
                transaction = Transaction(connection, revision, self._clock())
                result = work(transaction)
                if transaction.wrote:
                    connection.rollback()
                    raise RuntimeError("work handed to Store.read must not write; use Store.transact")
                return result
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    async def _in(self, executor: Executor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    # -- watching

    async def changes(self, after: int, *, limit: int = 500) -> Batch:
        """The next changes after a revision, at once; raises Compacted, FutureRevision."""
        if after > self.revision:
            reached = await self.read(lambda tx: tx.revision)
            if after > reached:
                raise FutureRevision(after, reached)
        if after < self._compacted:
            raise Compacted(after, self._compacted)
        if after >= self.revision:
            return Batch([], after)
        if self._recent and self._recent[0].revision <= after + 1:
            skip = after + 1 - self._recent[0].revision
            found = [self._recent[n] for n in range(skip, min(skip + limit, len(self._recent)))]
        else:
            found = await self.read(lambda tx: list(read_changes(tx.connection, after, limit)))
            if not found or found[0].revision != after + 1:
                raise Compacted(after, self._compacted)
        return Batch(found, found[-1].revision)

    async def watch(
        self, after: int, wanted: Callable[[Change], bool] = lambda _: True, *, idle: float | None = None
    ) -> AsyncIterator[Batch]:
        """Batches of changes after a revision, for as long as the store is open.

        Batches without a wanted change are given too: `upto` lets cursors and bookmarks move on.
        With `idle`, an empty batch comes after that many seconds of quiet. Raises Compacted when the
        watcher fell behind kept history.
        """
        cursor = after
        while not self._closed:
            woken = self._woken
            batch = await self.changes(cursor)
            if batch.upto > cursor:
                cursor = batch.upto
                yield Batch([c for c in batch.changes if wanted(c)], cursor)
                continue
            try:
                async with asyncio.timeout(idle):
                    await woken.wait()
            except TimeoutError:
                yield Batch([], cursor)


def _undo(connection: Connection) -> None:
    """Take back what the unit of work has written, and its savepoint."""
    connection.exec_driver_sql("ROLLBACK TO SAVEPOINT unit")
    connection.exec_driver_sql("RELEASE SAVEPOINT unit")


def _unavailable(error: SQLAlchemyError) -> Unavailable:
    """The database's own words for what failed, without the statement and its values."""
    return Unavailable(str(getattr(error, "orig", None) or error))
