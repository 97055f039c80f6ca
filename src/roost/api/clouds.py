"""/clouds/NAME/...: a subcloud's own API, reached through its link with the caller's own rights."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from roost.api import bodies
from roost.api.auditing import ADDRESS, THROUGH, Call, forwarded
from roost.api.context import ApiContext
from roost.api.status import ApiError, warning
from roost.api.streaming import BrokenOff
from roost.link import exchange
from roost.link.node import BadNode, subcloud
from roost.model.meta import GROUP

_STAYS = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS = frozenset({THROUGH, ADDRESS, "audit-id"})
"""Said by the cloud that forwards, never by its client."""


def _goes_on(header: str) -> bool:
    """Who asks is told by the link, never by a header."""
    return header not in _STAYS and header not in _OURS and not header.startswith("impersonate-")


async def forward(
    context: ApiContext, request: Request, call: Call, caller: exchange.Caller, name: str
) -> StreamingResponse:
    """Send the request on and stream the answer back; raises ApiError 404 and 503.

    Only when the way is closed is it asked whether such a subcloud is declared at all: a name that is
    misspelt gets the truth, and what works costs no look-up.
    """
    if context.call_cloud is None:
        raise ApiError(
            404, f"cloud {name[:63]!r} can't be reached from here: {context.cloud} has no subclouds"
        )
    try:
        subcloud(name)
    except BadNode as error:
        raise ApiError(
            404, f"{name[:63]!r} can't be the name of a cloud; see kubectl get subclouds"
        ) from error
    raw_path = request.scope.get("raw_path") or request.url.path.encode()
    call.cloud, call.unwritten = name, "/apis/authorization.k8s.io/" in request.url.path
    path = "/" + raw_path.decode("latin-1").split("/", 3)[3] if raw_path.count(b"/") > 2 else "/"
    if request.scope["query_string"]:
        path += "?" + request.scope["query_string"].decode("latin-1")
    sent = exchange.Request(
        method=request.method,
        path=path,
        headers=[
            *((k, v) for k, v in request.headers.items() if _goes_on(k)),
            *forwarded(call, context.cloud),
        ],
        body=await bodies.read(request),
        caller=caller,
    )
    try:
        answer = await context.call_cloud(name, sent)
    except exchange.Unreachable as error:
        if not await context.store.read(lambda tx: tx.find("Subcloud", "", name) is not None):
            raise unknown(context.cloud, name) from error
        raise unreachable(name, error.reason) from error
    try:
        return _Forwarded(answer)
    except ValueError:
        await answer.aclose()
        raise


class _Forwarded(StreamingResponse):
    """An answer as it comes through the link. It is ended at both ends however the client leaves, also
    before the first of its body: what is not ended would take up one of the link's calls."""

    def __init__(self, answer: exchange.Response) -> None:
        headers = {k: v for k, v in answer.headers if k.lower() not in _STAYS}
        super().__init__(answer.body, answer.status, headers=headers)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except exchange.Unreachable as error:
            raise BrokenOff(str(error)) from error
        finally:
            await self._answer.aclose()


def unknown(cloud: str, name: str) -> ApiError:
    """404 for a name that no subcloud has; with a warning, as `unreachable`."""
    message = f"cloud {cloud} has no subcloud {name}; see kubectl get subclouds"
    return ApiError(
        404,
        message,
        details={"name": name, "group": GROUP, "kind": "subclouds"},
        headers={"Warning": warning(message)},
    )


def unreachable(name: str, reason: str) -> ApiError:
    """503 that says which cloud, why, and what to do.

    Without Retry-After: kubectl would wait and repeat for a minute before it shows the message. With a
    warning: new versions hide the message of an error met while they look for what is served.
    """
    message = (
        f"cloud {name} can't be reached: {reason}; it goes on by itself, and what is known of it here is "
        f"listed with -n {name} in this cloud's context; try again when kubectl get subcloud {name} "
        "says online"
    )
    return ApiError(
        503,
        message,
        details={"name": name, "group": GROUP, "kind": "subclouds"},
        headers={"Warning": warning(message)},
    )
