"""What has been written and the database does not have yet.

Writes are kept here and sent together: one statement for all rows that are new, one for all that changed,
one for all that go, one for the history. A row that is written several times is sent once, as it is at the
end; so is a counter. Who reads a row or a counter looks here first; who reads by anything but the key has it
all sent before, unless nothing of it could be among what he asks for.

Each unit of work has one of its own, merged into its batch's when the unit is done: a unit that fails is
forgotten, and nothing need be undone in the database.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

from roost.store import statements
from roost.store.session import Session

Key = tuple[str, str, str]
Row = dict[str, Any]
"""A row's values by column."""
MOST = 1000
"""More rows than these are not held back."""


class Pending:
    """Rows of `resources` and `changes` that wait to be sent."""

    def __init__(self) -> None:
        self.rows: dict[Key, Row | None] = {}
        """Rows of `resources` as they will be; None when the row goes."""
        self.counters: dict[str, int] = {}
        """Where counters will stand."""
        self._there: dict[Key, bool] = {}
        self._counted: dict[str, bool] = {}
        self._names: dict[str, dict[str, list[str]]] = {}
        self._changes: list[Row] = []

    def put(self, key: Key, row: Row | None, change: Row, *, there: bool) -> None:
        """A row that becomes `row`; `there` says whether it is in the database, or waits in the batch."""
        self._enter(key)
        self.rows[key] = row
        self._there.setdefault(key, there)
        self._changes.append(change)

    def count(self, counter: str, value: int, *, there: bool) -> None:
        """A counter that becomes `value`; `there` as for rows."""
        self.counters[counter] = value
        self._counted.setdefault(counter, there)

    def concerns(self, kind: str, namespace: str | None, prefix: str = "") -> bool:
        """Whether rows of a kind wait, in a namespace or any, whose names begin so."""
        places = self._names.get(kind, {})
        for names in places.values() if namespace is None else [places.get(namespace, [])]:
            at = bisect_left(names, prefix)
            if at < len(names) and names[at].startswith(prefix):
                return True
        return False

    def _enter(self, key: Key) -> None:
        """Keep the names of all rows in order, so that they are found by how they begin."""
        if key not in self.rows:
            insort(self._names.setdefault(key[0], {}).setdefault(key[1], []), key[2])

    @property
    def full(self) -> bool:
        """Whether it should be sent."""
        return len(self._changes) >= MOST

    def merge(self, later: Pending) -> None:
        """Take over what a unit has written after what is here."""
        self.counters.update(later.counters)
        for counter, there in later._counted.items():
            self._counted.setdefault(counter, there)
        for key, row in later.rows.items():
            self._enter(key)
            self.rows[key] = row
            self._there.setdefault(key, later._there[key])
        self._changes += later._changes
        later.clear()

    def clear(self) -> None:
        """Forget it all."""
        self.rows, self._there, self._names, self._changes = {}, {}, {}, []
        self.counters, self._counted = {}, {}

    def send(self, session: Session) -> None:
        """Have the database write it all; nothing waits afterwards."""
        if self.counters:
            self._send_counters(session)
        if self._changes:
            self._send_rows(session)
        self.clear()

    def _send_counters(self, session: Session) -> None:
        known = [{"counter": c, "to": n} for c, n in self.counters.items() if self._counted[c]]
        fresh = [{"name": c, "value": n} for c, n in self.counters.items() if not self._counted[c]]
        session.run_many(statements.SET_COUNTER, known)
        session.run_many(statements.ADD_COUNTER, fresh)

    def _send_rows(self, session: Session) -> None:
        new, changed, gone = [], [], []
        for key, row in self.rows.items():
            where = {"k": key[0], "ns": key[1], "n": key[2]}
            if row is not None and self._there[key]:
                changed.append(where | row)
            elif row is not None:
                new.append(row)
            elif self._there[key]:
                gone.append(where)
        session.run_many(statements.DELETE, gone)
        session.run_many(statements.UPDATE, changed)
        session.run_many(statements.INSERT, new)
        session.run_many(statements.RECORD, self._changes)
