"""A connection to the database on which hot statements run without SQLAlchemy, and all others with it.

What SQLAlchemy does around a statement costs five times what SQLite needs to run it. So the statements
that every write and look-up needs are compiled once per dialect, from the same expressions as all others,
and run on the driver's own cursor. `Session.alchemy` is a SQLAlchemy connection on the same transaction,
for everything else.

A session belongs to one thread at a time. After an error it is rolled back, or closed when it is lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, Dialect, Engine, make_url
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.sql import ClauseElement

Row = tuple[Any, ...]
Values = Mapping[str, Any]


class Prepared(msgspec.Struct, frozen=True):
    """A statement as one driver takes it: its text, and its values in the order of their places."""

    sql: str
    arrange: Callable[[Values], Row]


class Failures(msgspec.Struct, frozen=True):
    """What goes wrong in a database, whichever way the statement went: any error; a row it refuses."""

    any: tuple[type[Exception], ...]
    refused: tuple[type[Exception], ...]


_PARAMETERS = {"sqlite://": "qmark", "postgresql+psycopg://": "format"}


@cache
def _positional(name: str) -> Dialect:
    load: Any = make_url(name).get_dialect()
    made: Dialect = load(paramstyle=_PARAMETERS[name])
    return made


@cache
def _written_out(statement: ClauseElement, name: str) -> str:
    """A statement without parameters, its values in its text."""
    return str(statement.compile(dialect=_positional(name), compile_kwargs={"literal_binds": True}))


@cache
def prepare(statement: ClauseElement, name: str) -> Prepared:
    """Compile a statement for a dialect."""
    compiled: Any = statement.compile(dialect=_positional(name))
    names: tuple[str, ...] = tuple(compiled.positiontup)
    constants = {n: compiled.params[n] for n in names if compiled.params[n] is not None}
    if constants:
        return Prepared(str(compiled), lambda values: tuple(values.get(n, constants.get(n)) for n in names))
    if len(names) > 1:
        return Prepared(str(compiled), itemgetter(*names))
    return Prepared(str(compiled), lambda values: tuple(values[n] for n in names))


@cache
def failures(dialect: Dialect) -> Failures:
    """The errors of a dialect's driver and of SQLAlchemy."""
    driver: Any = dialect.loaded_dbapi
    refused = (driver.DataError, driver.IntegrityError, DataError, IntegrityError)
    return Failures((SQLAlchemyError, driver.Error), refused)


class Session:
    """One connection; `settings` are attributes of the driver's."""

    def __init__(self, engine: Engine, **settings: Any) -> None:
        self._connection = engine.connect()
        proxied: Any = self._connection.connection
        self.raw: Any = proxied.driver_connection
        self.is_sqlite = engine.dialect.name == "sqlite"
        for name, value in settings.items():
            setattr(self.raw, name, value)
        self._cursor = self.raw.cursor()
        self._beside: list[Any] = []
        self._prepared: dict[ClauseElement, Prepared] = {}

    # -- statements

    def run(self, statement: ClauseElement, values: Values = {}) -> int:  # noqa: B006 - never changed
        """Run a statement; returns how many rows it concerned."""
        prepared = self._prepare(statement)
        count: int = self._cursor.execute(prepared.sql, prepared.arrange(values)).rowcount
        return count

    def first(self, statement: ClauseElement, values: Values = {}) -> Row | None:  # noqa: B006
        """The first row that a statement gives."""
        prepared = self._prepare(statement)
        row: Row | None = self._cursor.execute(prepared.sql, prepared.arrange(values)).fetchone()
        return row

    def one(self, statement: ClauseElement, values: Values = {}) -> Row:  # noqa: B006
        """The one row that a statement gives."""
        row = self.first(statement, values)
        if row is None:
            raise LookupError(str(statement))
        return row

    def firsts(self, statements: Sequence[ClauseElement], values: Values = {}) -> list[Row | None]:  # noqa: B006
        """The first row of each of several statements, all sent in one go where the driver can."""
        if self.is_sqlite:
            return [self.first(statement, values) for statement in statements]
        cursors = self._cursors(len(statements))
        with self.raw.pipeline():
            for statement, cursor in zip(statements, cursors, strict=True):
                prepared = self._prepare(statement)
                cursor.execute(prepared.sql, prepared.arrange(values))
        return [cursor.fetchone() for cursor in cursors]

    def first_of_each(self, statement: ClauseElement, many: Sequence[Values]) -> list[Row | None]:
        """The first row that a statement gives for each of many values, in one go where that can be."""
        if self.is_sqlite or len(many) == 1:
            return [self.first(statement, values) for values in many]
        prepared = self._prepare(statement)
        cursors = self._cursors(len(many))
        with self.raw.pipeline():
            for values, cursor in zip(many, cursors, strict=True):
                cursor.execute(prepared.sql, prepared.arrange(values))
        return [cursor.fetchone() for cursor in cursors]

    def _cursors(self, number: int) -> list[Any]:
        """Cursors for statements that are sent in one go, kept for the next time."""
        while len(self._beside) < number:
            self._beside.append(self.raw.cursor())
        return self._beside[:number]

    def all(self, statement: ClauseElement, values: Values = {}) -> list[Row]:  # noqa: B006
        """All rows that a statement gives."""
        prepared = self._prepare(statement)
        rows: list[Row] = self._cursor.execute(prepared.sql, prepared.arrange(values)).fetchall()
        return rows

    def each(self, statement: ClauseElement, values: Values = {}) -> Generator[Row, None, None]:  # noqa: B006
        """The rows that a statement gives, one after the other: SQLite reads no more of them than are asked
        for, PostgreSQL's driver has all. Close it when it is left early."""
        prepared = self._prepare(statement)
        with contextlib.closing(self.raw.cursor()) as cursor:
            cursor.execute(prepared.sql, prepared.arrange(values))
            yield from cursor if self.is_sqlite else cursor.fetchall()

    def run_many(self, statement: ClauseElement, many: Sequence[Values]) -> None:
        """Run a statement for each of many values."""
        if len(many) == 1:
            self.run(statement, many[0])
        elif many:
            prepared = self._prepare(statement)
            self._cursor.executemany(prepared.sql, [prepared.arrange(values) for values in many])

    def command(self, sql: str) -> None:
        """Run a command without values, such as SAVEPOINT."""
        self._cursor.execute(sql)

    def _prepare(self, statement: ClauseElement) -> Prepared:
        found = self._prepared.get(statement)
        if found is None:
            found = prepare(statement, "sqlite://" if self.is_sqlite else "postgresql+psycopg://")
            self._prepared[statement] = found
        return found

    @property
    def alchemy(self) -> Connection:
        """SQLAlchemy's connection, in the same transaction."""
        return self._connection

    # -- transactions

    def begin(self, *, writing: bool) -> None:
        """Begin a transaction. PostgreSQL's begins with the first statement."""
        if self.is_sqlite:
            self._cursor.execute("BEGIN IMMEDIATE" if writing else "BEGIN")

    def snapshot(self, first: ClauseElement) -> Row:
        """Begin a transaction that sees one state of the database, and only reads; the one row that a
        statement without values gives then. PostgreSQL is asked for both at once."""
        if self.is_sqlite:
            self._cursor.execute("BEGIN")
            return self.one(first)
        sql = _written_out(first, "postgresql+psycopg://")
        self._cursor.execute(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {sql}", prepare=False)
        self._cursor.nextset()
        row: Row | None = self._cursor.fetchone()
        if row is None:
            raise LookupError(str(first))
        return row

    def together(self) -> contextlib.AbstractContextManager[Any]:
        """Statements whose answers nobody waits for, sent in one go where the driver can."""
        return contextlib.nullcontext() if self.is_sqlite else self.raw.pipeline()

    def commit(self) -> None:
        """Put the transaction on disk."""
        if self._connection.in_transaction():
            self._connection.commit()
        else:
            self.raw.commit()

    def rollback(self) -> bool:
        """Undo the transaction. False when the connection is lost or of no more use, and is closed."""
        try:
            if self._connection.in_transaction():
                self._connection.rollback()
            self.raw.rollback()
        except Exception:
            self.close()
            return False
        if self.lost:
            self.close()
            return False
        return True

    @property
    def number(self) -> int:
        """What PostgreSQL calls this connection in what it notifies; 0 on SQLite."""
        return 0 if self.is_sqlite else int(self.raw.info.backend_pid)

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return bool(self._connection.invalidated or getattr(self.raw, "closed", False))

    def close(self) -> None:
        """Give the connection up. Closing twice does nothing more."""
        with contextlib.suppress(Exception):
            if self.lost and not self._connection.invalidated:
                self._connection.invalidate()
        with contextlib.suppress(Exception):
            self._connection.close()


class Sessions:
    """Idle sessions of one purpose, kept for their next use. Taken and given back from any thread."""

    def __init__(self, engine: Engine, **settings: Any) -> None:
        self._engine, self._settings = engine, settings
        self._idle: list[Session] = []
        self._closed = False

    def take(self) -> Session:
        """An idle session, or a new one."""
        try:
            return self._idle.pop()
        except IndexError:
            return Session(self._engine, **self._settings)

    def fresh(self) -> Session:
        """A new session, and all idle ones closed: after one was found lost, its fellows are too."""
        self._drop()
        return Session(self._engine, **self._settings)

    def give(self, session: Session) -> None:
        """Keep a session for its next use."""
        if self._closed or session.lost:
            session.close()
        else:
            self._idle.append(session)

    def close(self) -> None:
        """Close all, and those in use when they are given back."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        while self._idle:
            self._idle.pop().close()
