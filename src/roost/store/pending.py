"""What has been written and the database does not have yet.

Writes are kept here and sent together: one statement for all rows that are new, one for all that changed,
one for all that go, one for the history. A row that is written several times is sent once, as it is at the
end. Who reads a row looks here first; who reads by anything but the key has it all sent before.

Each unit of work has one of its own, merged into its batch's when the unit is done: a unit that fails is
forgotten, and nothing need be undone in the database.
"""

from __future__ import annotations

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
        self._there: dict[Key, bool] = {}
        self._changes: list[Row] = []

    def put(self, key: Key, row: Row | None, change: Row, *, there: bool) -> None:
        """A row that becomes `row`; `there` says whether it is in the database, or waits in the batch."""
        self.rows[key] = row
        self._there.setdefault(key, there)
        self._changes.append(change)

    @property
    def full(self) -> bool:
        """Whether it should be sent."""
        return len(self._changes) >= MOST

    def merge(self, later: Pending) -> None:
        """Take over what a unit has written after what is here."""
        if not later._changes:
            return
        self.rows.update(later.rows)
        for key, there in later._there.items():
            self._there.setdefault(key, there)
        self._changes += later._changes
        later.clear()

    def clear(self) -> None:
        """Forget it all."""
        self.rows, self._there, self._changes = {}, {}, []

    def send(self, session: Session) -> None:
        """Have the database write it all; nothing waits afterwards."""
        if not self._changes:
            return
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
        self.clear()
