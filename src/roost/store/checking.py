"""Does a database still say what it was told? The database's own check, and the store's invariants.

Everything is read in one transaction that sees one state, so a store that is in use can be checked; of
the past only a digest per resource is kept in memory. Nothing is changed.

The invariants:
- the schema is one that this version knows, and there is an identity and a revision;
- history is without gaps up to the latest revision, but for those that a restore made;
- each change follows from the one before it, and the last one of each resource is what is there;
- each resource decodes into its kind, says the same of itself as its row does, and has a uid of its own;
- numbers of log entries are not ahead of their counter;
- the audit is a chain without a break.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Engine, func, select

from roost.model.audit import Broken, verify
from roost.model.fault import LOG_ENTRY
from roost.model.registry import BY_KIND
from roost.store import audit as trail
from roost.store import migrating
from roost.store.errors import NewerSchema, StoreError
from roost.store.history import RESTORES, Restored
from roost.store.schema import SCHEMA_VERSION, audit, changes, counters, properties, resources

MOST = 100
_ROWS = 500
Depth = Literal["quick", "full"]
Progress = Callable[[str, int, int], None]
"""Told now and then: what is looked at, how much of it is done, and how much there is."""
_State = tuple[bytes, int, str]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong. `subject` is a resource, a revision or a part of the database."""

    severity: Literal["error", "warning"]
    subject: str
    problem: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a check saw. `more` counts findings beyond MOST."""

    schema: str
    revision: int
    resources: int
    changes: int
    audit: int
    findings: list[Finding] = []
    more: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong; warnings pass."""
        return not self.more and all(f.severity != "error" for f in self.findings)


class OlderSchema(StoreError):
    """The database is of an older version and must be migrated before it can be checked."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the database has schema {found or 'none'}, only {SCHEMA_VERSION} can be checked; "
            "`roost store migrate` brings it up to date"
        )
        self.found = found


def check(engine: Engine, depth: Depth, progress: Progress) -> Report:
    """Look at everything; `quick` leaves out what the database itself takes long for.

    Raises OlderSchema, NewerSchema, SQLAlchemyError (which may be the very finding: a page can't be read).
    """
    options: dict[str, Any] = {"stream_results": True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        found = migrating.version_of(connection)
        if found > SCHEMA_VERSION:
            raise NewerSchema(found, SCHEMA_VERSION)
        if found != SCHEMA_VERSION:
            raise OlderSchema(found)
        return _Check(connection, progress).run(depth)


class _Check:
    """One check: the sizes it is measured against, and what it has found."""

    def __init__(self, connection: Connection, progress: Progress) -> None:
        self._connection, self._progress = connection, progress
        self._findings: list[Finding] = []
        self._more = 0

    def run(self, depth: Depth) -> Report:
        found = self._connection.execute(select(counters))
        self._counters = {row[0]: row[1] for row in found}
        self._properties = {row[0]: row[1] for row in self._connection.execute(select(properties))}
        self._sizes = {t.name: self._count(t) for t in (resources, changes, audit)}
        self._revision = self._counters.get("revision", 0)
        if self._connection.dialect.name == "sqlite":
            self._file(depth)
        if "revision" not in self._counters or "store-id" not in self._properties:
            self._wrong("database", "it has no revision or no identity")
        present = dict(self._resources())
        self._history(present)
        self._audit()
        return Report(
            schema=SCHEMA_VERSION,
            revision=self._revision,
            resources=self._sizes["resources"],
            changes=self._sizes["changes"],
            audit=self._sizes["audit"],
            findings=self._findings,
            more=self._more,
        )

    def _count(self, table: Any) -> int:
        return self._connection.execute(select(func.count()).select_from(table)).scalar_one()

    def _wrong(self, subject: str, problem: str, severity: Literal["error", "warning"] = "error") -> None:
        if len(self._findings) < MOST:
            self._findings.append(Finding(severity=severity, subject=subject, problem=problem))
        else:
            self._more += 1

    def _file(self, depth: Depth) -> None:
        """SQLite's own check of its file."""
        self._progress("file", 0, 1)
        pragma = "quick_check" if depth == "quick" else "integrity_check"
        for row in self._connection.exec_driver_sql(f"PRAGMA {pragma}({MOST})"):
            if row[0] != "ok":
                self._wrong("file", str(row[0]))
        self._progress("file", 1, 1)

    # -- resources

    def _resources(self) -> Iterator[tuple[tuple[str, str, str], _State]]:
        """Look at each resource; its key and state."""
        owners: dict[tuple[str, str], str] = {}
        query = select(resources).order_by(resources.c.kind, resources.c.namespace, resources.c.name)
        for done, row in enumerate(self._pages("resources", query), 1):
            kind, namespace, name, uid, revision, origin, data = row
            subject = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
            self._resource(subject, kind, (namespace, name, uid), data, origin)
            other = owners.setdefault((kind, uid), subject) if uid else subject
            if other != subject:
                self._wrong(subject, f"it has the uid of {other}")
            if revision > self._revision:
                self._wrong(subject, f"its revision {revision} is ahead of the store's, {self._revision}")
            yield (kind, namespace, name), (_digest(data), revision, origin)
            if done % _ROWS == 0:
                self._progress("resources", done, self._sizes["resources"])

    def _resource(
        self, subject: str, kind: str, columns: tuple[str, str, str], data: str, origin: str
    ) -> None:
        try:
            raw = msgspec.json.decode(data)
            meta = raw["metadata"]
            said = (meta.get("namespace", ""), meta["name"], str(meta.get("uid", "")))
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
            self._wrong(subject, f"it can't be read: {error}")
            return
        if (raw.get("kind"), *said) != (kind, *columns):
            self._wrong(subject, "its row and its metadata name different resources")
        info = BY_KIND.get(kind)
        if info is None:
            self._wrong(subject, "this version of Roost does not know the kind", "warning")
            return
        try:
            msgspec.convert(raw, info.type)
        except msgspec.ValidationError as error:
            self._wrong(subject, f"it does not fit its kind: {error}")
            return
        if kind == LOG_ENTRY.kind and not origin:
            status = raw.get("status", {})
            source, number = status.get("source", ""), status.get("sequence", 0)
            counted = self._counters.get(f"log:{source}")
            if counted is not None and number > counted:
                self._wrong(subject, f"its number {number} is ahead of its counter, {counted}")

    # -- history

    def _history(self, present: dict[tuple[str, str, str], _State]) -> None:
        said = self._properties.get(RESTORES, "")
        jumps = {r.base: r.at for r in msgspec.json.decode(said, type=list[Restored])} if said else {}
        states: dict[tuple[str, str, str], _State | None] = {}
        last = 0
        query = select(changes).order_by(changes.c.revision)
        for done, row in enumerate(self._pages("changes", query), 1):
            self._follows(row, states)
            if last and row.revision != last + 1 and not _jumped(jumps, last, row.revision):
                self._wrong(f"revision {row.revision}", f"the change before it is {last}: some are missing")
            last = row.revision
            if done % _ROWS == 0:
                self._progress("changes", done, self._sizes["changes"])
        if last and last != self._revision and not _jumped(jumps, last, self._revision + 1):
            self._wrong(f"revision {self._revision}", f"the last change kept is {last}")
        for key, state in states.items():
            if present.get(key) != state:
                there = "is not what its last change says" if state else "was deleted and is there"
                self._wrong(" ".join(part for part in key if part), f"what is there {there}")
        oldest = self._connection.execute(select(func.min(changes.c.revision))).scalar()
        for key, (_, revision, _) in present.items():
            if oldest is not None and revision >= oldest and key not in states:
                self._wrong(" ".join(part for part in key if part), f"no change {revision} tells of it")

    def _follows(self, row: Any, states: dict[tuple[str, str, str], _State | None]) -> None:
        """Whether a change follows from the one before of the same resource; keeps the state after it."""
        key = (row.kind, row.namespace, row.name)
        subject = f"revision {row.revision}"
        if key in states:
            former = states[key]
            if (former is None) != (row.type == "ADDED"):
                self._wrong(subject, f"{row.type} does not follow from what was before")
            elif former is not None and _digest(row.previous) != former[0]:
                self._wrong(subject, "what it says was before is not what the change before left")
        elif (row.type == "ADDED") != (row.previous == ""):
            self._wrong(subject, f"{row.type} does not fit what it says was before")
        gone = row.type == "DELETED"
        states[key] = None if gone else (_digest(row.data), row.revision, row.origin)

    # -- audit

    def _audit(self) -> None:
        start = trail.read_anchor(self._connection).head

        def entries() -> Iterator[Any]:
            at, done = start.sequence, 0
            while page := trail.entries_after(self._connection, at, _ROWS):
                yield from page
                at, done = page[-1].sequence, done + len(page)
                self._progress("audit", done, self._sizes["audit"])

        try:
            verify(start, entries())
        except Broken as error:
            self._wrong("audit", str(error))

    def _pages(self, what: str, query: Any) -> Iterator[Any]:
        self._progress(what, 0, self._sizes[what])
        for page in self._connection.execute(query).partitions(_ROWS):
            yield from page
        self._progress(what, self._sizes[what], self._sizes[what])


def _jumped(jumps: dict[int, int], last: int, following: int) -> bool:
    """Whether restores, one after another, led from one revision to the next."""
    return any(base + 1 == following and last <= base for base in jumps) and all(
        at >= last for base, at in jumps.items() if last < base < following
    )


def _digest(data: str) -> bytes:
    return hashlib.blake2b(data.encode(), digest_size=16).digest()
