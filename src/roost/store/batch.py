"""The database transaction that units of work share.

What units have written waits here (`pending`) and is sent together. What one of them has looked up or
selected is remembered until something is sent, for nobody else writes as long as the transaction lasts: many
units often ask the same, as for the rules that alarms are marked by.
"""

from __future__ import annotations

from typing import Any

from roost.store import statements
from roost.store.pending import Key, Pending
from roost.store.session import Row, Session, failures

REMEMBERED = 1000
"""Look-ups and selections that are made once; it begins anew after them."""
FEW = 32
"""Of more rows than these a selection is not remembered."""


class Batch:
    """The database transaction that units of work share.

    `alone`: it has but one unit, which is undone by undoing all; `spoilt`: that is to be done.
    """

    def __init__(self, session: Session, *, units: int = 1) -> None:
        self.session = session
        self.pending = Pending()
        self.alone = units == 1
        self.spoilt = self.wrote = False
        self._found: dict[Key, Row | None] = {}
        self._selected: dict[frozenset[tuple[str, Any]], list[Row]] = {}
        self._numbers: dict[str, int | None] = {}
        self._leases: dict[str, Row | None] = {}

    def find(self, key: Key) -> Row | None:
        """A resource's row as the database has it; None when there is none."""
        if key not in self._found:
            if len(self._found) >= REMEMBERED:
                self.forget()
            kind, namespace, name = key
            self._found[key] = self.session.first(statements.FIND, {"k": kind, "ns": namespace, "n": name})
        return self._found[key]

    def select(self, values: dict[str, Any]) -> list[Row]:
        """The rows of a selection as the database has them (`statements.selection`)."""
        asked = frozenset(values.items())
        found = self._selected.get(asked)
        if found is None:
            found = self.session.all(statements.selection(frozenset(values)), values)
            if len(self._selected) >= REMEMBERED:
                self.forget()
            if len(found) <= FEW:
                self._selected[asked] = found
        return found

    def number(self, counter: str) -> int | None:
        """Where a counter stands in the database; None when it is not there."""
        if counter not in self._numbers:
            if len(self._numbers) >= REMEMBERED:
                self.forget()
            row = self.session.first(statements.COUNTER, {"counter": counter})
            self._numbers[counter] = int(row[0]) if row else None
        return self._numbers[counter]

    def lease(self, name: str) -> Row | None:
        """A lease's row; None when there is none. Who holds the store's lock has it change by nobody else."""
        if name not in self._leases:
            self._leases[name] = self.session.first(statements.LEASE, {"of": name})
        return self._leases[name]

    def forget(self) -> None:
        """Forget what was found: the database has other rows now."""
        self._leases.clear()
        self._found.clear()
        self._selected.clear()
        self._numbers.clear()

    def send(self) -> None:
        """Have the database write what waits; raises Refused when it will not have a row of it."""
        self.forget()
        try:
            self.pending.send(self.session)
        except failures(self.session.alchemy.dialect).refused as error:
            raise Refused from error


class Refused(Exception):
    """The database will not have a row of a batch, and it is not known which unit's it is."""
