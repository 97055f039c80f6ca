"""Who did what: one record for each write, each refused write and each denied request.

A `Call` knows its request. While the request is answered it is the author of all that is written
(`store.audit.AUTHOR`): each change of a transaction becomes a record in that same transaction. What no
transaction carries is gathered and written in batches: denied requests, writes that failed, that were dry
runs, or that changed nothing. Reads are recorded where their handler asks for it (`Call.watched`).

Gathered records are bounded. The first of its kind (who, what, with which result) is recorded at once;
further ones within WINDOW are counted, and the count recorded. Different ones may come at a steady rate with
a burst; what is beyond that is shed, and how many were is recorded. So whoever is refused can't fill the
disk, nor push out of the audit what others did.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from roost.api.access import CALLER
from roost.api.target import Target
from roost.api.write_options import DRY_RUN
from roost.engine.allowance import Allowance
from roost.link.exchange import Caller
from roost.model import chance
from roost.model.audit import Record, cut, differences
from roost.model.registry import BY_KIND
from roost.model.secrecy import hidden
from roost.store import audit
from roost.store.errors import StoreError
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
DENIED = frozenset({401, 403})
GATHER = 0.5
WINDOW = 60.0
QUEUED = 2_000
KINDS = 2_000
RESERVED = 500
"""Of both, room that only denied requests take: who may write can't keep out what others were denied."""
TOGETHER = 500
TRIES = 60
SHED = "shed"

THROUGH, ADDRESS = "roost-through", "roost-address"
"""Headers by which a cloud tells a subcloud whose request it forwards. They count only from a link."""

_VERBS = {"post": "create", "put": "update"}
_log = structlog.get_logger("roost.api")


class Call:
    """One request, as far as it is known: what its records say, and its line in the log."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.caller: Caller | None = None
        self.target: Target | None = None
        self.reason = ""
        self.cloud = ""
        """Subcloud that the request goes on to."""
        self.watched = False
        """Recorded although it is no write."""
        self.unwritten = False
        """Not a write although it is a POST."""
        self.recorded = 0
        self._open = True
        self._base: Record | None = None
        linked = CALLER in request.scope
        given = _plain(request.headers.get("audit-id", ""), 64) if linked else ""
        self.audit_id = given or chance.uuid()

    def is_by(self, caller: Caller) -> None:
        """Who asks, once that is known."""
        self.caller = caller

    # -- as the author of what is written

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While this lasts, what is written is written by this call."""
        token = audit.AUTHOR.set(self)
        try:
            yield
        finally:
            # Tasks begun meanwhile keep the context they began in: they no longer write in this name.
            self._open = False
            audit.AUTHOR.reset(token)

    def sign(self, tx: Transaction) -> None:
        """Record the changes of a transaction in it."""
        if not self._open or not tx.changes:
            return
        base = self.record(201 if self.target and self.target.verb == "create" else 200)
        for change in tx.changes:
            tx.audit(self._changed(base, change))
        self.recorded += len(tx.changes)

    def _changed(self, base: Record, change: Change) -> Record:
        new = {} if change.type == "DELETED" else msgspec.json.decode(change.data)
        found, more = differences(change.before(), new, hidden(change.kind))
        info = BY_KIND.get(change.kind)
        asked = self.target is not None and self.target.info.kind == change.kind
        return msgspec.structs.replace(
            base,
            group=base.group if asked else (info.group if info else ""),
            resource=base.resource if asked else (info.plural if info else ""),
            subresource=base.subresource if asked else "",
            kind=change.kind,
            namespace=change.namespace,
            name=change.name,
            path="" if asked else cut(self.request.url.path),
            revision=change.revision,
            changes=found,
            more=more,
        )

    # -- what is recorded

    def record(self, code: int) -> Record:
        """What is known of the call, with its result. Who asks and what it is about must be known by now."""
        if self._base is None:
            self._base = self._known()
        reason = cut(self.reason) if code >= 400 else ""
        return msgspec.structs.replace(self._base, code=code, reason=reason)

    def _known(self) -> Record:
        request, found, caller = self.request, self.target, self.caller
        headers = dict(request.scope["headers"])
        linked = CALLER in request.scope
        client = request.scope.get("client")

        def header(name: str, longest: int) -> str:
            return _plain(headers.get(name.encode(), b"").decode("latin-1"), longest)

        return Record(
            audit_id=self.audit_id,
            request_id=header("x-request-id", 128),
            user=cut(caller.name) if caller else "",
            groups=_short(caller.groups) if caller else [],
            real_user=cut(caller.by) if caller else "",
            address=header(ADDRESS, 64) if linked else (str(client[0]) if client else ""),
            through=(header(THROUGH, 256) or "upper cloud") if linked else "",
            agent=header("user-agent", 80),
            verb=self._verb(),
            group=found.info.group if found else "",
            resource=found.info.plural if found else "",
            kind=found.info.kind if found else "",
            namespace=cut(found.namespace) if found else "",
            name=cut(found.name) if found else "",
            subresource=cut(found.subresource) if found else "",
            path="" if found else cut(request.url.path),
            cloud=self.cloud,
            dry_run=request.scope.get(DRY_RUN, request.query_params.get("dryRun") == "All"),
        )

    def _verb(self) -> str:
        if self.target:
            return self.target.verb
        method = self.request.method.lower()
        return _VERBS.get(method, method)

    def finish(self, response: Response, gathered: Gathered) -> None:
        """The answer is made: name the audit in it, log it, and have recorded what was not yet."""
        code = response.status_code
        response.headers["Audit-Id"] = self.audit_id
        denied = code in DENIED
        written = self.request.method in WRITES and not (self.unwritten and code < 400)
        if not denied and not written and not self.watched:
            return
        record = self.record(code)
        if denied or written:
            self._log_line(record)
        if code >= 400 or not self.recorded:
            gathered.add(record)

    def _log_line(self, record: Record) -> None:
        """Successful writes stand in the audit: in the log, too, for whoever looks closely."""
        event, tell = "write", _log.debug
        if record.code >= 400:
            event, tell = "denied" if record.code in DENIED else "write failed", _log.info
        tell(
            event,
            user=record.user,
            verb=record.verb,
            resource=record.resource or record.path,
            namespace=record.namespace,
            name=record.name,
            code=record.code,
            **({"reason": self.reason[:500]} if self.reason else {}),
        )


Key = tuple[Any, ...]


class _Repeated:
    """Equal records since the first one."""

    def __init__(self, first: Record, began: float) -> None:
        self.first, self.began, self.count, self.until = first, began, 0, ""


class Gathered:
    """Records that no transaction carries, on their way into the store. Lives on one event loop.

    `written` is called when some have come there: no change tells of them.
    """

    def __init__(
        self, store: Store, clock: Callable[[], datetime], written: Callable[[], None] = lambda: None
    ) -> None:
        self._store, self._clock, self._written = store, clock, written
        self._queue: deque[Record] = deque()
        self._repeated: dict[Key, _Repeated] = {}
        self._allowed = {True: Allowance(300, 0.2), False: Allowance(1_000, 20.0)}
        self._shed = 0
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, record: Record) -> None:
        """Have a record written soon; one like it a moment ago is counted instead."""
        now, stamp = asyncio.get_running_loop().time(), audit.moment(self._clock())
        denied = record.code in DENIED
        key = key_of(record)
        known = self._repeated.get(key)
        if known is not None:
            known.count += 1
            known.until = stamp
        elif not self._has_room(0 if denied else RESERVED) or self._allowed[denied].take("", now) > 0:
            self._shed += 1
        else:
            stamped = msgspec.structs.replace(record, time=stamp)
            self._repeated[key] = _Repeated(stamped, now)
            self._queue.append(stamped)
        if self._task is None or self._task.done():
            # In a context of its own: what is written here is nobody's write.
            self._task = asyncio.create_task(self._drain(), context=contextvars.Context())

    def _has_room(self, reserved: int) -> bool:
        return len(self._queue) < QUEUED - reserved and len(self._repeated) < KINDS - reserved

    async def close(self) -> None:
        """Write what is left, once; afterwards nothing is under way."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._end_windows(float("inf"))
        await self._write()

    async def _drain(self) -> None:
        while self._queue or self._repeated or self._shed:
            await asyncio.sleep(GATHER)
            self._end_windows(asyncio.get_running_loop().time() - WINDOW)
            await self._write()

    def _end_windows(self, began_before: float) -> None:
        for key, known in list(self._repeated.items()):
            if known.began > began_before:
                continue
            del self._repeated[key]
            if known.count:
                told = msgspec.structs.replace(known.first, count=known.count, until=known.until)
                self._queue.append(told)

    async def _write(self) -> None:
        """Write a batch; what the store does not take is tried again, and in the end counted as shed."""
        part = [self._queue.popleft() for _ in range(min(TOGETHER, len(self._queue)))]
        shed, self._shed = self._shed, 0
        if shed:
            reason = "more different requests were refused than the audit takes; these were only counted"
            part.append(Record(verb=SHED, resource="audit", count=shed, reason=reason))
        if not part:
            return

        def work(tx: Transaction) -> None:
            for record in part:
                tx.audit(record)

        try:
            await self._store.transact(work)
            self._failures = 0
            self._written()
        except StoreError as error:
            self._failures += 1
            self._shed += shed
            kept = part[: len(part) - bool(shed)]
            if self._failures < TRIES and len(self._queue) + len(kept) <= QUEUED:
                self._queue.extendleft(reversed(kept))
            else:
                self._shed += len(kept)
                _log.error("records of the audit were lost", count=len(kept), reason=str(error))
            if self._failures >= TRIES:
                self._queue.clear()
                self._repeated.clear()
                self._shed = 0


SUBRESOURCES = frozenset({"status", "history", "steps", "token", "password", "enrolment", "plan", "rehome"})


def key_of(record: Record) -> Key:
    """What makes two gathered records equal: nothing that who may not write can make up, as names."""
    who = (record.user or record.address, record.real_user, record.through, record.code)
    if record.code == 401:
        return who
    what = (record.verb, record.group, record.resource, record.cloud)
    if record.code == 403:
        return (*who, *what, record.subresource if record.subresource in SUBRESOURCES else "")
    return (*who, *what, record.subresource, record.namespace, record.name, record.dry_run)


def forwarded(call: Call, cloud: str) -> list[tuple[str, str]]:
    """Headers that tell the next cloud down where a request comes from."""
    record = call.record(0)
    through = f"{record.through} > {cloud}" if record.through else cloud
    return [(THROUGH, through), (ADDRESS, record.address), ("audit-id", call.audit_id)]


EVERYBODYS = frozenset({"roost:users", "system:authenticated"})


def _short(groups: list[str]) -> list[str]:
    """Groups of a caller without what all have, and without what is ours in each."""
    return [cut(g.removeprefix("roost:"), 64) for g in groups if g not in EVERYBODYS][:8]


def _plain(text: str, longest: int) -> str:
    """A header as far as it can be printed."""
    text = text[:longest]
    return text if text.isprintable() else "".join(c for c in text if c.isprintable())
