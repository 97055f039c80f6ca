"""Keeps the audit: records in order, each sealed by the digest of itself and the one before.

Records of a write are handed to its transaction (`Transaction.audit`) and written when the batch is: in the
same database transaction, in one statement, chained there (`model.audit`). So there is no acknowledged write
without its record, and no record of a write that did not happen. Writers are put in order by the lock of the
revision, also several processes on one database; sequence and digest follow from the last row read under it.

Who is behind what is written is told through `AUTHOR`: the API sets it around a request, and every
transaction of that request is signed by it, whoever hands the work in. What the platform writes of itself has
no author and no record.

Retention: at most `Limits.bytes` and `Limits.age`, looked at now and then. What goes leaves an anchor, the
head of what is gone, so the rest still verifies; and that it went is a record itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from roost.model.audit import Entry, Head, Record, chain
from roost.store.schema import audit, properties

if TYPE_CHECKING:
    from roost.store.session import Row, Session
    from roost.store.transaction import Transaction

T = TypeVar("T")

MOST_BYTES = 64 * 1024 * 1024
LONGEST = timedelta(days=400)
LOOK_EVERY = 256
LOOK_AFTER = timedelta(hours=1)
TOGETHER = 5_000
ANCHOR = "audit-anchor"
PRUNE = "prune"


class Author(Protocol):
    """Who is behind the writes of a request."""

    def sign(self, tx: Transaction) -> None:
        """Add to a transaction, whose work is done, the records of what it wrote. In the writer's thread."""


AUTHOR: ContextVar[Author | None] = ContextVar("roost-author", default=None)


def signed(work: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
    """`work`, and after it the records that the present author makes of it."""
    author = AUTHOR.get()
    if author is None:
        return work

    def both(tx: Transaction) -> T:
        result = work(tx)
        author.sign(tx)
        return result

    return both


class Limits(msgspec.Struct, frozen=True):
    """How much of the audit is kept."""

    bytes: int = MOST_BYTES
    age: timedelta = LONGEST


class Anchor(msgspec.Struct, frozen=True):
    """What was pruned: the head of it. All zero when nothing was."""

    sequence: int = 0
    digest: str = Head().digest
    offset: int = 0

    @property
    def head(self) -> Head:
        """Where the chain that is kept begins."""
        return Head(self.sequence, self.digest, self.offset)


LAST = select(audit.c.sequence, audit.c.digest, audit.c.data).order_by(audit.c.sequence.desc()).limit(1)
_AT = select(audit.c.sequence, audit.c.digest, audit.c.data).where(audit.c.sequence == bindparam("at"))
_ADD = insert(audit)
_DROP = delete(audit).where(audit.c.sequence <= bindparam("upto"))
_AFTER = (
    select(audit.c.sequence, audit.c.data, audit.c.digest)
    .where(audit.c.sequence > bindparam("after"))
    .order_by(audit.c.sequence)
    .limit(bindparam("most"))
)
_BEFORE = (
    select(audit.c.sequence, audit.c.data, audit.c.digest)
    .where(audit.c.sequence < bindparam("before"))
    .order_by(audit.c.sequence.desc())
    .limit(bindparam("most"))
)
_ANCHOR = select(properties.c.value).where(properties.c.name == ANCHOR)


class _Place(msgspec.Struct, rename="camel"):
    """What pruning needs of a record."""

    sequence: int
    offset: int = 0
    time: str = ""


_read_place = msgspec.json.Decoder(_Place).decode


class Trail:
    """The audit as the writer of one store keeps it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._looked_at: datetime | None = None

    def write(
        self, session: Session, last: Row | None, records: Sequence[Record], now: datetime
    ) -> Head | None:
        """Add records to the chain, under the lock of the revision; `last` is the newest row there (`LAST`).

        Returns where the chain stands when it is time to `prune` it, else None.
        """
        stamp, before = moment(now), _head_of(last)
        stamped = [r if r.time else msgspec.structs.replace(r, time=stamp) for r in records]
        after = self._add(session, before, stamped)
        crossed = before.sequence // LOOK_EVERY != after.sequence // LOOK_EVERY
        due = crossed or self._looked_at is None or not now - LOOK_AFTER < self._looked_at <= now
        return after if due else None

    def prune(self, session: Session, head: Head, now: datetime) -> None:
        """Drop what is too old or too much, at most TOGETHER records, never the newest."""
        self._looked_at = now
        connection = session.alchemy
        anchor = read_anchor(connection)
        kept_from, oldest = head.offset - self._limits.bytes, moment(now - self._limits.age)

        def stays(sequence: int) -> bool:
            place = _place(connection, sequence)
            return place.offset >= kept_from and place.time >= oldest

        # Looking begins with the oldest record: mostly it stays, and that is all.
        first = anchor.sequence + 1
        candidates = range(first, min(first + TOGETHER, head.sequence))
        if not candidates or stays(first):
            return
        last = candidates[0] + bisect_left(candidates, True, key=stays) - 1
        row = connection.execute(_AT, {"at": last}).one()
        gone = Anchor(last, row.digest, _place(connection, last + 1).offset)
        connection.execute(_DROP, {"upto": last})
        _remember(connection, gone)
        told = Record(
            time=moment(now),
            verb=PRUNE,
            resource="audit",
            code=200,
            count=last - anchor.sequence,
            reason=f"records {first} to {last} are past what is kept; the last one's digest is {row.digest}",
        )
        self._add(session, head, [told])

    def _add(self, session: Session, head: Head, records: Sequence[Record]) -> Head:
        entries, following = chain(head, records)
        rows = [{"sequence": e.sequence, "data": e.data, "digest": e.digest} for e in entries]
        session.run_many(_ADD, rows)
        return following


def append(connection: Connection, record: Record) -> None:
    """Add one record to the chain of a database that no store has open."""
    (entry,), _ = chain(head(connection), [record])
    connection.execute(_ADD, {"sequence": entry.sequence, "data": entry.data, "digest": entry.digest})


def head(connection: Connection) -> Head:
    """Where the chain stands; the newest record is never pruned."""
    return _head_of(connection.execute(LAST).first())


def _head_of(row: Sequence[Any] | None) -> Head:
    if row is None:
        return Head()
    sequence, digest, data = row
    place = _read_place(data)
    return Head(sequence, digest, place.offset + len(data.encode()))


def read_anchor(connection: Connection) -> Anchor:
    """What was pruned."""
    text = connection.execute(_ANCHOR).scalar()
    return msgspec.json.decode(text, type=Anchor) if text else Anchor()


def entries_after(connection: Connection, sequence: int, limit: int) -> list[Entry]:
    """Records after a sequence, in order."""
    return [Entry(*row) for row in connection.execute(_AFTER, {"after": sequence, "most": limit})]


def entries_before(connection: Connection, sequence: int, limit: int) -> list[Entry]:
    """Records before a sequence, the newest first."""
    return [Entry(*row) for row in connection.execute(_BEFORE, {"before": sequence, "most": limit})]


def head_at(connection: Connection, sequence: int) -> Head | None:
    """Where the chain stood after a record; None when it is not kept, nor the anchor."""
    anchor = read_anchor(connection)
    if sequence == anchor.sequence:
        return anchor.head
    row = connection.execute(_AT, {"at": sequence}).first()
    return _head_of(row) if row else None


def moment(at: datetime) -> str:
    """A time in a record: UTC, to the millisecond, so that text sorts as time does."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _place(connection: Connection, sequence: int) -> _Place:
    row = connection.execute(_AT, {"at": sequence}).one()
    return _read_place(row.data)


def _remember(connection: Connection, anchor: Anchor) -> None:
    text = msgspec.json.encode(anchor).decode()
    done = connection.execute(update(properties).where(properties.c.name == ANCHOR).values(value=text))
    if done.rowcount == 0:
        connection.execute(insert(properties).values(name=ANCHOR, value=text))
