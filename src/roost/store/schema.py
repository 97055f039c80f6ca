"""The tables. Plain SQL that SQLite and PostgreSQL both have.

`resources` is what is; `changes` is how it came to be, gap-free and bounded; `counters` holds the
latest revision in one row, whose lock puts writers in order; `cursors` is how far each peer's
stream was taken in; `links` is where each subcloud's link is, and under which number; `leases` says who
acts; `steps` is long work, `subcloud_steps` such work at many subclouds; `audit` is who asked for what, each
row sealed by the digest of itself and the row before.

Keys are compared by bytes in both databases, for lists page in that order: SQLite does so of itself,
PostgreSQL is told to by the collation "C".

`changes` has no index by resource. One resource's history is read by people, now and then, and looking
through 20,000 changes takes SQLite 30 ms; an index would cost each write 5 microseconds, a third of what
SQLite takes for the row.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, text
from sqlalchemy.types import TypeEngine

SCHEMA_VERSION = "0004"


def _key(length: int) -> TypeEngine[str]:
    """Text that is compared by its bytes."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


metadata = MetaData()

resources = Table(
    "resources",
    metadata,
    Column("kind", _key(63), primary_key=True),
    Column("namespace", _key(63), primary_key=True),
    Column("name", _key(253), primary_key=True),
    Column("uid", _key(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("origin", _key(255), nullable=False),
    Column("data", Text, nullable=False),
    Index("resources_by_origin", "origin"),
)

changes = Table(
    "changes",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("type", String(8), nullable=False),
    Column("kind", _key(63), nullable=False),
    Column("namespace", _key(63), nullable=False),
    Column("name", _key(253), nullable=False),
    Column("origin", _key(255), nullable=False),
    Column("data", Text, nullable=False),
    Column("previous", Text, nullable=False),
    # Seconds since the epoch; 0 in rows from before schema 0002.
    Column("recorded_at", Float, nullable=False, server_default=text("0")),
)

counters = Table(
    "counters",
    metadata,
    Column("name", _key(255), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

properties = Table(
    "properties",
    metadata,
    Column("name", _key(255), primary_key=True),
    Column("value", Text, nullable=False),
)

cursors = Table(
    "cursors",
    metadata,
    Column("peer", _key(255), primary_key=True),
    Column("store_id", _key(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
)

links = Table(
    "links",
    metadata,
    Column("node", _key(255), primary_key=True),
    Column("process", _key(255), nullable=False),
    Column("session", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("state", String(8), nullable=False),
    Column("since", Float, nullable=False),
    Column("version", String(255), nullable=False),
    Column("address", String(255), nullable=False),
    Column("certificate_expires_at", String(32), nullable=False),
    Column("trouble", Text, nullable=False),
    Index("links_by_changed", "changed"),
    Index("links_by_process", "process"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", _key(255), primary_key=True),
    Column("holder", String(255), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at", Float, nullable=False),
)

steps = Table(
    "steps",
    metadata,
    Column("operation", _key(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(255), nullable=False),
    Column("state", _key(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("holder", String(255), nullable=False),
    Column("lease_until", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("timeout", Float, nullable=False),
    Column("deadline", Float, nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("finished_at", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Index("steps_by_state", "state", "not_before"),
)

subcloud_steps = Table(
    "subcloud_steps",
    metadata,
    Column("operation", _key(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("stage", Integer, nullable=False),
    Column("subcloud", _key(63), nullable=False),
    Column("state", _key(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    # Seconds since the epoch; 0: not set.
    Column("deadline", Float, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float, nullable=False),
    Column("reason", _key(64), nullable=False),
    Column("message", Text, nullable=False),
    Index("subcloud_steps_by_state", "operation", "state", "stage", "number"),
    Index("subcloud_steps_by_deadline", "operation", "state", "deadline"),
    Index("subcloud_steps_by_subcloud", "operation", "subcloud"),
)

audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("data", Text, nullable=False),
    Column("digest", String(64), nullable=False),
)
