"""The past of one resource, as a subresource: `.../NAME/history` and `.../NAME/history/WHEN`.

`history` is the list of its changes that are kept, the newest first, page by page (`limit`, `continue`):
when, how, by whom, and which fields in short. It answers for deleted resources too, as long as a change of
them is kept; where a name was used again, `uid` picks one of those that had it. `history/WHEN` is the
resource as it was: WHEN is a revision, or a time (RFC 3339) that stands for the last revision until then.

Both need the verb get on `PLURAL/history`. Secret fields are masked as everywhere. Not there at that time
is 404 and says since when, or until when, it was; no longer kept is 410 and says what the oldest is.

A state is given in the version that is asked for, with the resourceVersion it had then. Where the change
that made it is no longer kept that is not known, and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api.context import ApiContext
from roost.api.forms import View
from roost.api.status import ApiError, about, bad_request, not_allowed, not_found
from roost.api.target import Target, number
from roost.model import time
from roost.model.codec import Raw
from roost.store import history
from roost.store.errors import FutureRevision
from roost.store.history import Gone, Key, NotThen, Span, Step
from roost.store.transaction import Transaction

SUBRESOURCE = "history"
DEFAULT_LIMIT = 100
MOST = 500


def split(parts: Sequence[str]) -> tuple[list[str], str]:
    """The path of a history without what follows, and WHEN; other paths as they are, and empty."""
    match parts:
        case ["namespaces", _, _, _, "history", when] if when:
            return list(parts[:-1]), when
        case [first, _, "history", when] if when and first != "namespaces":
            return list(parts[:-1]), when
    return list(parts), ""


async def respond(context: ApiContext, request: Request, target: Target, view: View, when: str) -> Response:
    """The changes of a resource, or with `when` its state then. Raises ApiError, StoreError."""
    if target.verb != "get":
        raise not_allowed(request.method, "a history; it is only read")
    key = Key(view.source, target.namespace, target.name, request.query_params.get("uid", ""))
    if when:
        body = await context.store.read(lambda tx: _state(tx, view, key, target, when))
    else:
        body = await _changes(context, key, target, request.query_params)
    return Response(msgspec.json.encode(body), media_type="application/json")


# -- changes


async def _changes(context: ApiContext, key: Key, target: Target, query: Mapping[str, str]) -> Raw:
    limit = min(number(query, "limit", DEFAULT_LIMIT) or DEFAULT_LIMIT, MOST)
    before = number(query, "continue", 0)

    def look(tx: Transaction) -> tuple[list[Step], Span, bool]:
        found = history.steps(tx, key, before=before, limit=limit + 1)
        stored = tx.find(key.kind, key.namespace, key.name)
        there = stored is not None and key.uid in ("", stored.uid)
        return found, history.span(tx), there

    found, span, there = await context.store.read(look)
    if not found and not before and not there:
        raise not_found(target.info, target.name)
    return change_list(found, span, limit)


def change_list(found: Sequence[Step], span: Span, limit: int) -> Raw:
    """Changes, the newest first, as a list; one more than `limit` says that there is another page."""
    metadata: Raw = {"resourceVersion": str(span.upto), "oldestResourceVersion": str(span.after)}
    if len(found) > limit:
        metadata["continue"] = str(found[limit - 1].revision)
    if span.since:
        metadata["oldestTime"] = _stamp(span.since)
    items = [change(step) for step in found[:limit]]
    return {"kind": "ChangeList", "apiVersion": "roost.edge/v1", "metadata": metadata, "items": items}


def change(step: Step) -> Raw:
    """One change in short. `managers` are those whose fields it renewed; `origin` is where it came from."""
    meta = step.after["metadata"]
    before = {} if step.type == "DELETED" else step.before
    body: Raw = {
        "revision": str(step.revision),
        "type": step.type,
        "uid": step.uid,
        "generation": meta.get("generation", 0),
        "managers": history.managers(step.before, step.after) if step.type != "DELETED" else [],
        "origin": step.origin,
        "fields": history.changed_paths(before, step.after) if step.type == "MODIFIED" else [],
    }
    if step.recorded_at:
        body["time"] = _stamp(step.recorded_at)
    return body


def _stamp(seconds: float) -> str:
    return time.stamp(datetime.fromtimestamp(seconds, UTC))


# -- a state


def _state(tx: Transaction, view: View, key: Key, target: Target, when: str) -> Raw:
    try:
        return view.shape(history.state_at(tx, key, _revision(tx, when)))
    except NotThen as error:
        message = f'{target.info.resource} "{target.name}" not found then: {error}'
        raise ApiError(404, message, details=about(target.info, target.name)) from error
    except FutureRevision as error:
        message = f"revision {error.after} has not been reached, the latest is {error.current}"
        raise ApiError(404, message, details=about(target.info, target.name)) from error
    except Gone as error:
        since = f", of {_stamp(error.since)}" if error.since else ""
        message = f"{error}; the oldest that is kept is revision {error.oldest}{since}"
        raise ApiError(410, message, details=about(target.info, target.name)) from error


def _revision(tx: Transaction, when: str) -> int:
    """The revision that WHEN means; raises ApiError 400, Gone."""
    if when.isascii() and when.isdigit() and len(when) <= 18:
        return int(when)
    try:
        moment = time.parse(when)
    except ValueError as error:
        raise bad_request(
            f"history/{when[:64]}: it is neither a revision nor a time as 2026-11-23T04:00:00Z"
        ) from error
    return history.revision_at(tx, moment.timestamp())
