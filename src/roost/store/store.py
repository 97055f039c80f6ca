"""The door to the store: group-committed transactions, snapshot reads, gap-free resumable watch.

Writes: `transact(work)` queues a function; one writer thread (`writer`) takes all that wait (up to
BATCH), runs them one after the other inside one database transaction, and commits once. Who waits is
answered only after the commit, so what was answered is on disk. A failing unit of work undoes only
itself; when the database refuses a row, the batch is run again to find whose it is, so work must not mind
being run twice. The queue is bounded by number and by bytes: past it, `Overloaded`.

Reads run in a small pool of threads on their own connections. `find` looks up one resource in the loop
itself on SQLite, where that takes a few microseconds and never waits for the writer.

Watch: the recent changes are kept in memory, bounded by bytes (`recent`); older ones are read from the
table, where history is bounded by number and by bytes.
A notification only wakes; the revision is the truth, so a watcher that was slow or away misses
nothing until history is compacted, and then is told so (`Compacted`). A snapshot may be a little
ahead of what this loop has been told of: watching from there waits.

Several processes may share one PostgreSQL: each hears of the others' writes (`following`), and all tell
the time by its clock, unless they are given another. The store of a process that no longer hears of them is
Unavailable: what it knew of people's rights may be of yesterday. On SQLite, another process's writes are
noticed with the next write of one's own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
import structlog
from sqlalchemy import Engine, func, select

from roost.model.meta import Resource
from roost.store import audit, database, leases, statements
from roost.store.errors import Compacted, FutureRevision, Overloaded, ReadFailed, Unavailable
from roost.store.following import follow
from roost.store.recent import Recent, Subscriber
from roost.store.schema import changes
from roost.store.seeking import Seeker
from roost.store.session import Session, Sessions, failures
from roost.store.transaction import Batch as Together
from roost.store.transaction import Change, Stored, Transaction
from roost.store.writer import Clock, Unit, Writer, cause_of, moment

T = TypeVar("T")
R = TypeVar("R", bound=Resource)
Work = Callable[[Transaction], T]

BATCH = 256
BATCH_BYTES = 8 * 1024 * 1024
WAITING = 10_000
WAITING_BYTES = 128 * 1024 * 1024
HISTORY = 20_000
WELL_AFTER = 10.0
"""Seconds without a failure after which writing is well again: in a full file small writes may find room."""
READ_AT_ONCE = 500

_log = structlog.get_logger("roost.store")


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


class Store:
    """One cloud's or host's memory. Open with `Store.open`, close with `close`."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Clock | None = None,
        inline: bool = False,
        writing: Executor | None = None,
        history: int = HISTORY,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._inline = inline
        self._writer = Writer(engine, clock=clock, history=history)
        own: Executor = InlineExecutor() if inline else ThreadPoolExecutor(1, "store-writer")
        self._writing_thread: Executor = own if writing is None else writing
        self._reading_threads: Executor = (
            InlineExecutor() if inline else ThreadPoolExecutor(2, "store-reader")
        )
        self._snapshots = Sessions(engine, **database.reading(engine))
        self._finders = Sessions(engine, **database.finding(engine))
        self._seeker = Seeker(
            lambda work: self._in(self._reading_threads, lambda: self._retried(self._finders, work))
        )
        self._failures = failures(engine.dialect)
        self._waiting: deque[Unit] = deque()
        self._waiting_bytes = 0
        self._writing = False
        self._recent = Recent()
        self._following: asyncio.Task[None] | None = None
        self._beside: list[Callable[[], None]] = []
        self._compacted = 0
        self._closed = False
        self._deaf = ""
        self._trouble, self._failed_at = "", 0.0
        self.identity = ""

    @property
    def trouble(self) -> str:
        """Why writing fails, as the last writes have shown; empty when it does not."""
        return self._trouble

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closed

    @property
    def revision(self) -> int:
        """The revision up to which this process has been told of changes."""
        return self._recent.revision

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        clock: Clock | None = None,
        inline: bool = False,
        writing: Executor | None = None,
        history: int = HISTORY,
    ) -> Store:
        """Open the database at `url`, migrated to this version. Raises NewerSchema, Unavailable.

        `clock` tells the time of transactions; without it PostgreSQL does, or this machine. `writing` does
        the writer's work, one at a time, in place of a thread of the store's own.
        """
        try:
            engine = database.open_engine(url)
        except OSError as error:
            raise ReadFailed(cause_of(error)) from error
        store = cls(engine, clock=clock, inline=inline, writing=writing, history=history)
        try:
            await store._start()
        except BaseException as error:
            await store.close()
            if isinstance(error, store._failures.any):
                where = engine.url.render_as_string(hide_password=True)
                raise ReadFailed(f"{where}: {cause_of(error)}") from error
            raise
        return store

    async def _start(self) -> None:
        started = await self._in(self._writing_thread, self._writer.start)
        self.identity, self._recent.revision = started.identity, started.revision
        self._compacted = self._writer.compacted
        for sessions in (self._snapshots, self._finders):
            # There when the first reader comes, and on this very file whatever becomes of its name.
            sessions.give(await self._in(self._reading_threads, sessions.take))
        if self._engine.dialect.name == "postgresql" and not self._inline:
            self._following = asyncio.ensure_future(
                follow(self._engine, self._hear, self._catch_up, self.wake_beside)
            )
            self._following.add_done_callback(self._deafened)

    async def close(self) -> None:
        """Finish what is being written, refuse what waits, end watches. Closing twice does nothing more."""
        if self._closed:
            return
        self._closed = True
        while self._waiting:
            unit = self._waiting.popleft()
            if not unit.future.done():
                unit.future.set_exception(Unavailable("the store is closing"))
        self._recent.wake()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
            self._following = None
        await self._in(self._writing_thread, self._writer.close)
        self._writing_thread.shutdown()
        self._reading_threads.shutdown()
        self._snapshots.close()
        self._finders.close()
        self._engine.dispose()

    def abandon(self) -> None:
        """Give the database up at once, as the death of the process does: nobody who waits is answered.

        For simulations, where this process lives on; nothing may be at work on the store.
        """
        self._closed = True
        self._writer.close()
        self._snapshots.close()
        self._finders.close()
        self._engine.dispose()

    # -- writing

    async def transact(self, work: Work[T], *, size: int = 0) -> T:
        """Run `work` in a transaction and return its result once it is on disk.

        `size` is about how many bytes it holds while it waits. What `work` raises is raised here and undoes
        its writes. Raises Overloaded, Unavailable, and LeaseLost within `leases.under`.
        """
        self._check_open()
        if len(self._waiting) >= WAITING:
            raise Overloaded(len(self._waiting))
        if self._waiting and self._waiting_bytes + size > WAITING_BYTES:
            raise Overloaded(len(self._waiting), self._waiting_bytes)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(Unit(leases.fenced(audit.signed(work)), future, size))
        self._waiting_bytes += size
        self._pump()
        return await future

    async def save(self, resource: R) -> R:
        """Create or change one resource given as a struct."""
        return await self.transact(lambda tx: tx.save(resource))

    async def prove(self) -> None:
        """Write something small, to find out whether that is possible. Raises Overloaded, Unavailable."""
        await self.transact(lambda tx: tx.set_property("proved", tx.now.isoformat()))
        self._is_well()

    def _is_well(self) -> None:
        if self._trouble and asyncio.get_running_loop().time() - self._failed_at >= WELL_AFTER:
            self._trouble = ""

    def _pump(self) -> None:
        """Start the writer on what waits, unless it is at work."""
        if self._writing or not self._waiting:
            return
        self._writing = True
        batch, size = [self._waiting.popleft()], 0
        while self._waiting and len(batch) < BATCH and size + batch[-1].size <= BATCH_BYTES:
            size += batch[-1].size
            batch.append(self._waiting.popleft())
        self._waiting_bytes -= sum(unit.size for unit in batch)
        running = asyncio.get_running_loop().run_in_executor(self._writing_thread, self._writer.commit, batch)
        running.add_done_callback(lambda done: self._committed(batch, done))

    def _committed(self, batch: Sequence[Unit], done: asyncio.Future[list[Change]]) -> None:
        self._writing = False
        failure = done.exception() if not done.cancelled() else Unavailable("cancelled")
        if isinstance(failure, Unavailable):
            self._trouble, self._failed_at = failure.cause, asyncio.get_running_loop().time()
        elif failure is None and done.result():
            self._is_well()
        if failure is None:
            self._recent.add(done.result())
            self._compacted = max(self._compacted, self._writer.compacted)
        for unit in batch:
            if unit.future.done():
                continue
            error = failure or unit.error
            if error is not None:
                unit.future.set_exception(error)
            else:
                unit.future.set_result(unit.result)
        if not self._closed:
            self._pump()

    # -- what other processes write

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have `subscriber` called in the loop with all changes, in order, before their writers are answered.

        An empty list says that changes were missed: what is kept of them must be read anew. Subscribe first,
        then read, and pass over changes up to the revision that was read. Returns what ends it.
        """
        return self._recent.subscribe(subscriber)

    @property
    def is_shared(self) -> bool:
        """Whether other processes may be at work on the database."""
        return self._following is not None

    def listen_beside(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when something may have been written that makes no revision; returns what ends it.

        It only wakes, and may fail to: who must not miss anything looks now and then as well.
        """
        self._beside.append(callback)
        return lambda: self._beside.remove(callback)

    def wake_beside(self) -> None:
        """Tell who listens in this process that something was written."""
        for callback in list(self._beside):
            callback()

    def _hear(self, revision: int, number: int) -> bool:
        """A process has committed over the connection of that number; says whether that must be read.

        What this one has written comes with its commit, and all before it; when that is lost, with the next
        one or the next look.
        """
        return number != self._writer.number and revision > self.revision

    def require_hearing(self) -> None:
        """Raise Unavailable when others are no longer heard of: for who goes by what he knows."""
        if self._deaf:
            raise Unavailable(self._deaf)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")
        self.require_hearing()

    def _deafened(self, following: asyncio.Task[None]) -> None:
        """Following has ended: by `close`, or for good."""
        if self._closed or following.cancelled():
            return
        error = following.exception()
        self._deaf = "this process no longer hears what others write, and its log has the cause; restart it"
        _log.error(
            "hearing of other processes has ended: nothing is read or written any more", exc_info=error
        )
        self._recent.lose()

    async def _catch_up(self) -> None:
        """Read what others have written since."""
        with contextlib.suppress(Unavailable):
            while not self._closed:
                after = self.revision
                found, oldest, revision = await self.read(lambda tx: _since(tx, after))  # noqa: B023
                self._compacted = max(self._compacted, oldest - 1)
                if revision <= max(after, self.revision):
                    return
                if found:
                    self._recent.add(found)
                else:
                    self._recent.skip(revision)

    # -- reading

    async def read(self, work: Work[T]) -> T:
        """Run `work` on one consistent snapshot; it must not write. Raises Unavailable."""
        self._check_open()
        return await self._in(self._reading_threads, lambda: self._snapshot(work))

    async def get(self, kind: str, namespace: str, name: str) -> Stored:
        """One resource; raises NotFound."""
        return await self.read(lambda tx: tx.get(kind, namespace, name))

    async def load(self, kind: type[R], namespace: str, name: str) -> R:
        """One resource as its struct; raises NotFound."""
        return await self.read(lambda tx: tx.load(kind, namespace, name))

    async def every(self, kind: type[R], namespace: str | None = None) -> list[R]:
        """All resources of a kind as structs."""
        return await self.read(lambda tx: tx.every(kind, namespace))

    async def find(self, kind: str, namespace: str, name: str) -> Stored | None:
        """One resource, or None when it is not there: the quickest read, with all that was acknowledged."""
        self._check_open()
        values = {"k": kind, "ns": namespace, "n": name}
        if self._engine.dialect.name == "sqlite":
            with contextlib.suppress(*self._failures.any):
                return self._look_up(values)
            # The file is being recovered, or worse: that is waited for elsewhere.
            return await self.read(lambda tx: tx.find(kind, namespace, name))
        row = await self._seeker.find(values)
        return Stored(*row) if row else None

    def _look_up(self, values: dict[str, str]) -> Stored | None:
        session = self._finders.take()
        try:
            row = session.first(statements.FIND, values)
        except BaseException:
            session.close()
            raise
        self._finders.give(session)
        return Stored(*row) if row else None

    def _snapshot(self, work: Work[T]) -> T:
        return self._retried(self._snapshots, lambda session: self._read(session, work))

    def _read(self, session: Session, work: Work[T]) -> T:
        transaction = _begin(session, self._clock)
        try:
            result = work(transaction)
        except self._failures.any:
            _only_reads(transaction)
            raise
        _only_reads(transaction)
        return result

    def _retried(self, sessions: Sessions, work: Callable[[Session], T]) -> T:
        """Run what only reads; once more on a new connection when an idle one was found lost."""
        try:
            session = sessions.take()
            try:
                return work(session)
            except self._failures.any:
                if session.is_sqlite or not session.lost:
                    raise
            finally:
                if session.rollback():
                    sessions.give(session)
            session = sessions.fresh()
            try:
                return work(session)
            finally:
                if session.rollback():
                    sessions.give(session)
        except self._failures.any as error:
            raise ReadFailed(cause_of(error)) from error

    async def _in(self, executor: Executor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    # -- watching

    async def changes(self, after: int, *, limit: int = 500) -> Batch:
        """The next changes after a revision, at once; raises Compacted, FutureRevision, Unavailable."""
        self.require_hearing()
        if after > self.revision:
            reached = await self.read(lambda tx: tx.revision)
            if after > reached:
                raise FutureRevision(after, reached)
        if after < self._compacted:
            raise Compacted(after, self._compacted)
        if after >= self.revision:
            return Batch([], after)
        found = self._recent.after(after, limit)
        if found is None:
            found, oldest, _ = await self.read(lambda tx: _since(tx, after, limit))
            self._compacted = max(self._compacted, oldest - 1)
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
            woken = self._recent.woken
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


def _begin(session: Session, clock: Clock | None) -> Transaction:
    """A transaction that sees one state of the database."""
    read = statements.READ_REVISION if session.is_sqlite else statements.READ_REVISION_AND_CLOCK
    revision, *epoch = session.snapshot(read)
    return Transaction(Together(session), revision, moment(clock, *epoch))


def _only_reads(transaction: Transaction) -> None:
    if transaction.wrote:
        raise RuntimeError("work handed to Store.read must not write; use Store.transact")


def _since(tx: Transaction, after: int, limit: int = READ_AT_ONCE) -> tuple[list[Change], int, int]:
    """Changes after a revision, the oldest that is kept, and the latest revision."""
    found = tx.history(after, limit)
    if found and found[0].revision == after + 1:
        return found, 0, tx.revision
    oldest = tx.connection.execute(select(func.min(changes.c.revision))).scalar()
    return [], oldest or tx.revision + 1, tx.revision
