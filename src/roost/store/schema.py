"""The tables. Plain SQL that SQLite and PostgreSQL both have.

`resources` is what is; `changes` is how it came to be, gap-free and bounded; `counters` holds the
latest revision in one row, whose lock puts writers in order; `cursors` is how far each peer's
stream was taken in; `leases` says who acts; `steps` is long work.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

SCHEMA_VERSION = "0001"

metadata = MetaData()

resources = Table(
    "resources",
    metadata,
    Column("kind", String(63), primary_key=True),
    Column("namespace", String(63), primary_key=True),
    Column("name", String(253), primary_key=True),
    Column("uid", String(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("origin", String(255), nullable=False),
    Column("data", Text, nullable=False),
    Index("resources_by_origin", "origin"),
)

changes = Table(
    "changes",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("type", String(8), nullable=False),
    Column("kind", String(63), nullable=False),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("origin", String(255), nullable=False),
    Column("data", Text, nullable=False),
    Column("previous", Text, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

properties = Table(
    "properties",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)

cursors = Table(
    "cursors",
    metadata,
    Column("peer", String(255), primary_key=True),
    Column("store_id", String(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("holder", String(255), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at", Float, nullable=False),
)

steps = Table(
    "steps",
    metadata,
    Column("operation", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(255), nullable=False),
    Column("state", String(16), nullable=False),
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
