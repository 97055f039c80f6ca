"""Get and list."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api import forms, snapshots
from roost.api.context import ApiContext
from roost.api.forms import View
from roost.api.snapshots import Continue
from roost.api.status import bad_request, not_found
from roost.api.target import Target, number
from roost.api.waiting import reach
from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.selector import Selector, SelectorError, parse_fields, parse_labels
from roost.store.errors import Compacted, FutureRevision
from roost.store.transaction import Transaction

JSON = "application/json"


async def get(context: ApiContext, request: Request, target: Target, view: View) -> Response:
    """One resource."""
    form = forms.negotiate(request.headers.get("accept", ""), request.query_params)
    await reach(context.store, number(request.query_params, "resourceVersion", 0))

    def work(tx: Transaction) -> bytes:
        kinds = (tx.find(kind, target.namespace, target.name) for kind in view.sources)
        stored = next((found for found in kinds if found), None)
        if stored is None:
            raise not_found(view.info, target.name)
        return msgspec.json.encode(forms.one(view, view.shape(stored.raw), form, context.clock()))

    return Response(await context.store.read(work), media_type=JSON)


async def list_(context: ApiContext, request: Request, target: Target, view: View) -> Response:
    """Resources of a kind, of one namespace or all, filtered, page by page."""
    query = request.query_params
    form = forms.negotiate(request.headers.get("accept", ""), query)
    selector = selector_of(view.info, query)
    limit = number(query, "limit", 0)
    start = Continue.parse(query["continue"]) if query.get("continue") else None
    at = await _revision(context, query, start)

    def work(tx: Transaction) -> bytes:
        found = snapshots.page(tx, view, target.namespace, selector, limit=limit, start=start, at=at)
        metadata: Raw = {"resourceVersion": str(found.revision)}
        if found.following:
            metadata["continue"] = found.following.token()
        return msgspec.json.encode(forms.several(view, found.items, form, context.clock(), metadata))

    try:
        body = await context.store.read(work)
    except (Compacted, FutureRevision) as error:
        raise snapshots.expired(error) from error
    return Response(body, media_type=JSON)


def selector_of(info: KindInfo, query: Mapping[str, str]) -> Selector:
    """The selectors of a request; raises ApiError 400."""
    known = ("metadata.name", "metadata.namespace", *info.selectable)
    try:
        labels = parse_labels(query.get("labelSelector", ""))
        return Selector(labels, parse_fields(query.get("fieldSelector", ""), known))
    except SelectorError as error:
        raise bad_request(str(error)) from error


async def _revision(context: ApiContext, query: Mapping[str, str], start: Continue | None) -> int:
    """The exact revision asked for, 0 for the present, having waited for a minimal one."""
    wanted = number(query, "resourceVersion", 0)
    match = query.get("resourceVersionMatch", "")
    if match not in ("", "Exact", "NotOlderThan"):
        raise bad_request(f"resourceVersionMatch: {match[:32]!r} is neither Exact nor NotOlderThan")
    if start is not None:
        if wanted:
            raise bad_request("resourceVersion can't be given together with continue")
        return 0
    await reach(context.store, wanted)
    return wanted if match == "Exact" else 0
