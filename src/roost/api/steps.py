"""The steps of an operation over subclouds, as a subresource: `subcloudoperations/NAME/steps`.

They are rows, not resources: page by page in their order (`limit`, `continue`), those whose fields are equal
to what `fieldSelector` says: state, subcloud, reason, as `state=failed,reason=Offline`. Needs the verb get on
`subcloudoperations/steps`. A page is what was so when it was read; who follows an operation watches its
status.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from roost.api.context import ApiContext
from roost.api.status import bad_request, not_allowed, not_found
from roost.api.target import Target, number
from roost.model import time
from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.subcloud_operation import SUBCLOUD_OPERATION
from roost.store import subcloud_steps
from roost.store.subcloud_steps import SubcloudStep
from roost.store.transaction import Transaction

SUBRESOURCE = "steps"
DEFAULT_LIMIT = 500
MOST = 1000
FIELDS = ("state", "subcloud", "reason")


def has_steps(info: KindInfo) -> bool:
    """Whether resources of a kind have steps."""
    return info.kind == SUBCLOUD_OPERATION.kind


async def respond(context: ApiContext, request: Request, target: Target) -> Response:
    """A page of steps. Raises ApiError, StoreError."""
    if target.verb != "get":
        raise not_allowed(request.method, "steps; they are only read")
    query = request.query_params
    limit = min(number(query, "limit", DEFAULT_LIMIT) or DEFAULT_LIMIT, MOST)
    after = number(query, "continue", 0) - 1
    where = selected(query)

    def look(tx: Transaction) -> list[SubcloudStep]:
        stored = tx.find(target.info.kind, target.namespace, target.name)
        if stored is None:
            raise not_found(target.info, target.name)
        return subcloud_steps.page(tx, stored.uid, after=after, limit=limit + 1, where=where)

    body = step_list(await context.store.read(look), limit)
    return Response(msgspec.json.encode(body), media_type="application/json")


def selected(query: Mapping[str, str]) -> dict[str, str]:
    """What fields must be equal to; raises ApiError 400."""
    where: dict[str, str] = {}
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        field, equals, value = part.partition("=")
        field = field.strip()
        if field not in FIELDS or not equals or field in where:
            raise bad_request(
                f"fieldSelector: {part[:64]!r} is not understood; write FIELD=VALUE with {', '.join(FIELDS)}"
            )
        where[field] = value.removeprefix("=").strip()
    return where


def step_list(found: list[SubcloudStep], limit: int) -> Raw:
    """Steps as a list; one more than `limit` says that there is another page."""
    metadata: Raw = {"continue": str(found[limit].number)} if len(found) > limit else {}
    items = [step(one) for one in found[:limit]]
    return {"kind": "StepList", "apiVersion": "roost.edge/v1", "metadata": metadata, "items": items}


def step(one: SubcloudStep) -> Raw:
    """One step; times that are not set are left out."""
    body: Raw = {
        "number": one.number,
        "stage": one.stage,
        "subcloud": one.subcloud,
        "state": one.state,
        "attempt": one.attempt,
        "reason": one.reason,
        "message": one.message,
    }
    times = {"deadline": one.deadline, "startedAt": one.started_at, "endedAt": one.ended_at}
    return body | {name: _stamp(seconds) for name, seconds in times.items() if seconds}


def _stamp(seconds: float) -> str:
    return time.stamp(datetime.fromtimestamp(seconds, UTC))
