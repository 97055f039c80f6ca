"""What a transaction remembers besides resources: how far streams of peers were taken in, words, counters."""

from __future__ import annotations

from abc import ABC, abstractmethod

from sqlalchemy import Connection, delete

from roost.store import statements
from roost.store.pending import Pending
from roost.store.schema import cursors, properties
from roost.store.session import Session


class Remembered(ABC):
    """The part of a transaction that keeps cursors, words and counters. They make no revision."""

    wrote: bool
    _session: Session
    _pending: Pending

    @property
    @abstractmethod
    def connection(self) -> Connection:
        """A SQLAlchemy connection in this transaction, for statements of others."""

    @abstractmethod
    def _mark(self) -> None:
        """Be ready for an own statement, so that this unit alone can be undone."""

    @abstractmethod
    def _number(self, counter: str) -> int | None:
        """Where a counter stands, with what waits to be written; None when it was never used."""

    def cursor(self, peer: str) -> tuple[str, int]:
        """Store identity and revision up to which `peer`'s stream was taken in; ("", 0) when never."""
        row = self._session.first(statements.CURSOR, {"of": peer})
        return (row[0], row[1]) if row else ("", 0)

    def stand(self, peer: str) -> tuple[tuple[str, int], int]:
        """As `cursor`, and the number of the only session that may move it (`links`); 0 without one."""
        row, session = self._session.firsts([statements.CURSOR, statements.SESSION], {"of": peer})
        return (row[0], row[1]) if row else ("", 0), int(session[0]) if session else 0

    def set_cursor(self, peer: str, store_id: str, revision: int) -> None:
        """Remember how far `peer`'s stream was taken in, in the transaction that takes it in."""
        self.wrote = True
        self._mark()
        values = {"of": peer, "to_store": store_id, "to_revision": revision}
        if self._session.run(statements.MOVE_CURSOR, values) == 0:
            self._session.run(
                statements.ADD_CURSOR, {"peer": peer, "store_id": store_id, "revision": revision}
            )

    def drop_cursor(self, peer: str) -> None:
        """Forget a peer's stream."""
        self.wrote = True
        self.connection.execute(delete(cursors).where(cursors.c.peer == peer))

    def property(self, name: str) -> str:
        """A remembered word; empty when there is none."""
        row = self._session.first(statements.PROPERTY, {"of": name})
        return row[0] if row else ""

    def set_property(self, name: str, value: str) -> None:
        """Remember a word."""
        self.wrote = True
        self._mark()
        if self._session.run(statements.CHANGE_PROPERTY, {"of": name, "to": value}) == 0:
            self._session.run(statements.ADD_PROPERTY, {"name": name, "value": value})

    def drop_property(self, name: str) -> None:
        """Forget a word."""
        self.wrote = True
        self.connection.execute(delete(properties).where(properties.c.name == name))

    def next_number(self, counter: str) -> int:
        """The next number of a named counter, from 1."""
        self.wrote = True
        last = self._number(counter)
        number = (last or 0) + 1
        self._pending.count(counter, number, there=last is not None)
        return number
