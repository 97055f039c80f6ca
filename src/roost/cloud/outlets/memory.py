"""What the store remembers of an outlet besides its resource: the position, and what it owes its receiver.

The position is a cursor over the store's revisions. `sending` is the revision up to which an attempt was
under way: what is sent again after a crash is marked by it. `owes` is why a snapshot is still to be sent.
"""

from __future__ import annotations

import secrets

import msgspec
from sqlalchemy import func, select

from roost.cloud.outlets.messages import count_missed
from roost.cloud.outlets.sink import SnmpEngine
from roost.model import time
from roost.model.fault import ALARM, LOG_ENTRY, LogEntry
from roost.model.outlet import Missed
from roost.store.schema import changes, cursors, resources
from roost.store.transaction import Transaction

PREFIX = "outlet:"
ENTERPRISE = 32473
"""The enterprise number that RFC 5612 keeps for examples: in its place stands an operator's own."""
MOST_COUNTED = 100_000
_entry = msgspec.json.Decoder(LogEntry).decode


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What an outlet remembers besides its position. `generation` is of the spec that was last in force."""

    sending: int = 0
    owes: str = ""
    missed: Missed | None = None
    generation: int = 0


_memory = msgspec.json.Decoder(Memory).decode


def recall(tx: Transaction, uid: str) -> tuple[str, int, Memory]:
    """Store identity and revision of the position, and the rest; ("", 0, ...) for a new outlet."""
    store, revision = tx.cursor(PREFIX + uid)
    text = tx.property(PREFIX + uid)
    return store, revision, _memory(text) if text else Memory()


def remember(tx: Transaction, uid: str, store: str, revision: int, memory: Memory) -> None:
    """Keep the position and the rest, in one transaction."""
    tx.set_cursor(PREFIX + uid, store, revision)
    tx.set_property(PREFIX + uid, msgspec.json.encode(memory).decode())


def forget_others(tx: Transaction, uids: set[str]) -> None:
    """Forget outlets that are not there any more."""
    query = select(cursors.c.peer).where(cursors.c.peer.startswith(PREFIX))
    for (peer,) in tx.connection.execute(query).fetchall():
        if peer.removeprefix(PREFIX) not in uids:
            tx.drop_cursor(peer)
            tx.drop_property(peer)


def waiting(tx: Transaction, after: int) -> int:
    """How many changes of alarms and log are kept after a revision."""
    query = (
        select(func.count())
        .select_from(changes)
        .where(changes.c.revision > after, changes.c.kind.in_((ALARM.kind, LOG_ENTRY.kind)))
    )
    return int(tx.connection.execute(query).scalar_one())


def missed_between(tx: Transaction, after: int, upto: int) -> Missed:
    """What the log still tells of changes between two revisions that are gone."""
    query = (
        select(resources.c.data)
        .where(resources.c.kind == LOG_ENTRY.kind)
        .where(resources.c.revision > after, resources.c.revision <= upto)
        .limit(MOST_COUNTED)
    )
    entries = [_entry(row[0]) for row in tx.connection.execute(query)]
    return count_missed(entries, max(0, upto - after), time.stamp(tx.now))


def oldest_kept(tx: Transaction) -> int:
    """The revision after which all changes are kept."""
    first = tx.connection.execute(select(func.min(changes.c.revision))).scalar()
    return first - 1 if first else tx.revision


def snmp_engine(tx: Transaction) -> SnmpEngine:
    """This cloud's SNMP engine, started once more."""
    found = tx.property("snmp-engine")
    if not found:
        # RFC 3411, 5 (SnmpEngineID): the enterprise with the first bit set, 5 for octets of our own choice.
        found = (ENTERPRISE | 1 << 31).to_bytes(4, "big").hex() + "05" + secrets.token_hex(8)
        tx.set_property("snmp-engine", found)
    return SnmpEngine(bytes.fromhex(found), tx.next_number("snmp-engine-boots"))
