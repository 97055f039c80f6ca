"""Lists as of one revision, page by page.

The first page fixes the revision; the continue token carries it. Later pages read the present and undo
what has happened to the kind since, from the store's history, so all pages together are the state at
that one revision: nothing twice, nothing missing. When the history no longer reaches back, the token
has expired (410).

An undone resource carries a resourceVersion that is older than its present one, so a write based on
it is refused as a conflict, as it should be.
"""

from __future__ import annotations

import base64
import binascii
import heapq
from collections.abc import Iterator

import msgspec
from sqlalchemy import func, select

from roost.api.forms import View
from roost.api.status import ApiError, bad_request
from roost.model.codec import Raw
from roost.model.selector import Selector
from roost.store.errors import Compacted, FutureRevision
from roost.store.schema import changes
from roost.store.transaction import Transaction

CHUNK = 500

Key = tuple[str, str]


class Continue(msgspec.Struct, frozen=True):
    """Where a list goes on: the revision of all its pages and the last key already given."""

    revision: int
    namespace: str
    name: str

    def token(self) -> str:
        """For the client: opaque text."""
        text = msgspec.json.encode([self.revision, self.namespace, self.name])
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    @classmethod
    def parse(cls, token: str) -> Continue:
        """From a client; raises ApiError 400."""
        try:
            padded = token + "=" * (-len(token) % 4)
            text = base64.urlsafe_b64decode(padded.encode("ascii"))
            return cls(*msgspec.json.decode(text, type=tuple[int, str, str]))
        except (binascii.Error, UnicodeError, msgspec.MsgspecError) as error:
            raise bad_request("continue: this is not a token of this server; list from the start") from error


class Page(msgspec.Struct, frozen=True):
    """Part of a list: `following` is where the next page begins, None at the end."""

    items: list[Raw]
    revision: int
    following: Continue | None = None


def page(
    tx: Transaction,
    view: View,
    namespace: str,
    selector: Selector,
    *,
    limit: int = 0,
    start: Continue | None = None,
    at: int = 0,
) -> Page:
    """The next `limit` (0: all) resources as of `at` (0: now), or as of `start`.

    Raises Compacted and FutureRevision.
    """
    revision = start.revision if start else at or tx.revision
    after = (start.namespace, start.name) if start else None
    found: list[Raw] = []
    last: Key = ("", "")
    states = (_states(tx, kind, namespace, revision, after) for kind in view.sources)
    for key, raw in heapq.merge(*states, key=lambda pair: pair[0]):
        shown = view.shape(raw)
        if not selector.matches(shown):
            continue
        if limit and len(found) == limit:
            return Page(found, revision, Continue(revision, *last))
        found.append(shown)
        last = key
    return Page(found, revision)


def _states(
    tx: Transaction, kind: str, namespace: str, revision: int, after: Key | None
) -> Iterator[tuple[Key, Raw]]:
    """Resources of a kind as of a revision, in the order of their keys."""
    undone = _undone(tx, kind, revision)
    wanted = {k: r for k, r in undone.items() if not namespace or k[0] == namespace}
    former = [(k, r) for k, r in sorted(wanted.items()) if r is not None and (after is None or k > after)]
    present = ((k, r) for k, r in _present(tx, kind, namespace, after) if k not in undone)
    return heapq.merge(present, former, key=lambda pair: pair[0])


def _present(tx: Transaction, kind: str, namespace: str, after: Key | None) -> Iterator[tuple[Key, Raw]]:
    while True:
        chunk = tx.select(kind, namespace or None, after=after, limit=CHUNK)
        for stored in chunk:
            yield (stored.namespace, stored.name), stored.raw
        if len(chunk) < CHUNK:
            return
        after = (chunk[-1].namespace, chunk[-1].name)


def _undone(tx: Transaction, kind: str, revision: int) -> dict[Key, Raw | None]:
    """What a kind's changed resources were at a revision; None where they were not there yet."""
    if revision == tx.revision:
        return {}
    if revision > tx.revision:
        raise FutureRevision(revision, tx.revision)
    oldest = tx.connection.execute(select(func.min(changes.c.revision))).scalar()
    if oldest is None or oldest > revision + 1:
        raise Compacted(revision, (oldest or tx.revision + 1) - 1)
    query = (
        select(changes.c.namespace, changes.c.name, changes.c.type, changes.c.previous, changes.c.revision)
        .where(changes.c.kind == kind, changes.c.revision > revision)
        .order_by(changes.c.revision)
    )
    states: dict[Key, Raw | None] = {}
    for namespace, name, type, previous, changed in tx.connection.execute(query):
        if (namespace, name) in states:
            continue
        states[namespace, name] = None if type == "ADDED" else _former(previous, changed)
    return states


def _former(previous: str, changed: int) -> Raw:
    raw: Raw = msgspec.json.decode(previous)
    raw["metadata"]["resourceVersion"] = str(changed - 1)
    return raw


def expired(error: Exception) -> ApiError:
    """What a client is told when its revision is gone: list anew."""
    return ApiError(410, f"The resourceVersion or continue token is too old: {error}", reason="Expired")
