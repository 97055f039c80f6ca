"""The API as an ASGI application: one request, one caller, one target, one answer.

Every request goes the same way: limits on the URL, authentication, taking the path apart, the
caller's role, the handler. Whatever is refused on the way leaves as a Status; an unknown exception
leaves as a 500 without its inside, which goes to the log. Writes and denied requests are recorded
(`auditing`) and logged in one line each: who, what, on which resource, with which result; never bodies.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from urllib.parse import quote, unquote

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from roost.api import (
    access,
    admitting,
    auditing,
    audits,
    bodies,
    clouds,
    discovery,
    namespaces,
    openapi,
    reading,
    reviews,
    status,
    tables,
    tokens,
    writing,
)
from roost.api import target as targets
from roost.api.context import ApiContext
from roost.api.forms import View
from roost.api.status import ApiError, no_such_path, not_allowed
from roost.api.target import Target
from roost.api.watching import Watches, watch
from roost.engine.admission import Refused
from roost.link.exchange import Caller, Unreachable
from roost.model.codec import Raw
from roost.store.errors import StoreError

LONGEST_URL = 16 * 1024
HEALTH = frozenset({"healthz", "livez", "readyz"})
READY_WITHIN = 2.0

_log = structlog.get_logger("roost.api")


class Api:
    """One cloud's API. `end_watches` is for the server, when it stops."""

    def __init__(self, context: ApiContext) -> None:
        extra = {("users", "token"): tokens.issue, **context.subresources}
        self._context = dataclasses.replace(context, subresources=extra)
        self._watches = Watches()
        self._gathered = auditing.Gathered(context.store, context.clock)
        self._views = {
            at: {plural: View.of(info) for plural, info in kinds.items()}
            for at, kinds in discovery.SERVED.items()
        }
        self._views[discovery.CORE]["namespaces"] = namespaces.VIEW

    def end_watches(self) -> None:
        """End all watches, now and from now on."""
        self._watches.end()
        self._gathered.ending = True

    async def close(self) -> None:
        """Write what is left of the audit. Before the store is closed."""
        await self._gathered.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] != "http":
            raise RuntimeError(f"only http is served, not {scope['type']}")
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        call = auditing.Call(request)
        try:
            with call.writing():
                response = await self._answer(request, call)
        except ApiError as error:
            response, call.reason = error.response(), error.message
        except Refused as error:
            refusal = ApiError(403, str(error))
            if call.target:
                refusal = status.refused(call.target.info, call.target.name, error)
            response, call.reason = refusal.response(), refusal.message
        except StoreError as error:
            failure = status.from_store(error, call.target.info if call.target else None)
            response, call.reason = failure.response(), failure.message
        except Unreachable as error:
            response, call.reason = clouds.unreachable(error.node, error.reason).response(), str(error)
        except Exception:
            _log.exception("request failed", method=request.method, path=request.url.path[:200])
            failure = ApiError(500, "the server could not carry this out; its log has the cause")
            response = failure.response()
        call.finish(response, self._gathered)
        return response

    async def _answer(self, request: Request, call: auditing.Call) -> Response:
        if len(request.scope.get("raw_path", b"")) + len(request.scope["query_string"]) > LONGEST_URL:
            raise ApiError(414, f"the URL is longer than {LONGEST_URL} bytes")
        parts = _parts(request.scope)
        if len(parts) == 1 and parts[0] in HEALTH:
            return await self._health(request, parts[0])
        if parts == ["version"]:
            return _json(discovery.version(self._context))
        call.caller = caller = await access.authenticate(self._context, request.scope)
        match parts:
            case ["apis", group, version, *rest] if (group, version) in discovery.SERVED and group and rest:
                return await self._resource(request, call, caller, (group, version), rest)
            case ["api", version, *rest] if ("", version) in discovery.SERVED and rest:
                return await self._core(request, call, caller, rest)
            case ["apis", group, "v1", plural] if group in discovery.REVIEWS:
                if request.method != "POST":
                    raise not_allowed(request.method, request.url.path)
                call.unwritten = True
                return _json(reviews.answer(group, plural, await reviews.read(request), caller), 201)
            case ["clouds", name, *_] if name:
                return await clouds.forward(self._context, request, call, caller, name)
            case ["audit"]:
                return await audits.respond(self._context, request, call, caller, self._gathered)
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(request.method, request.url.path)
        return self._document(request, parts)

    def _document(self, request: Request, parts: Sequence[str]) -> Response:
        """Discovery and schema."""
        accept = request.headers.get("accept", "")
        match parts:
            case ["api"]:
                return self._aggregated(accept, [""]) or _json(discovery.core_versions())
            case ["apis"]:
                return self._aggregated(accept, discovery.ALL_GROUPS) or _json(discovery.groups())
            case ["api", version] if ("", version) in discovery.SERVED:
                return _json(discovery.resources(self._context, "", version))
            case ["apis", group] if group in discovery.ALL_GROUPS:
                return _json(discovery.group(group))
            case ["apis", group, version] if group and discovery.serves(group, version):
                return _json(discovery.resources(self._context, group, version))
            case ["openapi", *rest]:
                return openapi.respond(rest, accept)
            case [""]:
                return _json({"paths": discovery.paths()})
        raise no_such_path()

    def _aggregated(self, accept: str, groups: Sequence[str]) -> Response | None:
        """The aggregated form when the client would rather have it."""
        for part in accept.replace(" ", "").split(","):
            media, *parameters = part.split(";")
            if "as=APIGroupDiscoveryList" in parameters and media == "application/json":
                version = next((p[2:] for p in parameters if p.startswith("v=")), "")
                if version in ("v2", "v2beta1"):
                    form = f"{media};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
                    body = discovery.aggregated(self._context, groups, version)
                    return Response(msgspec.json.encode(body), headers={"Content-Type": form})
            elif media in ("application/json", "*/*"):
                return None
        return None

    async def _resource(
        self, request: Request, call: auditing.Call, caller: Caller, at: tuple[str, str], parts: list[str]
    ) -> Response:
        """Anything below the path of a group's version."""
        found = targets.parse(request.method, parts, request.query_params, discovery.SERVED[at])
        call.target = found
        plural = f"{found.info.plural}/{found.subresource}" if found.subresource else found.info.plural
        access.require(
            caller, found.verb, plural, group=found.info.group, namespace=found.namespace, name=found.name
        )
        view = self._views[at][found.info.plural]
        if found.subresource:
            return await self._subresource(request, caller, found, view)
        return await self._verb(request, caller, found, view)

    async def _verb(self, request: Request, caller: Caller, found: Target, view: View) -> Response:
        context = self._context
        match found.verb:
            case "get":
                return await reading.get(context, request, found, view)
            case "list":
                return await reading.list_(context, request, found, view)
            case "watch":
                return await watch(context, request, found, view, self._watches)
            case "create":
                return await writing.create(context, request, caller, found, view)
            case "update":
                return await writing.update(context, request, caller, found, view)
            case "patch":
                return await writing.patch(context, request, caller, found, view)
            case "delete":
                return await writing.delete(context, request, caller, found, view)
            case _:
                return await writing.delete_collection(context, request, caller, found, view)

    async def _subresource(self, request: Request, caller: Caller, found: Target, view: View) -> Response:
        info = found.info
        if found.subresource == "status" and "status" in info.type.__struct_fields__:
            if found.verb == "get":
                return await reading.get(self._context, request, found, view)
            raise admitting.status_refused(info, found.name)
        handler = self._context.subresources.get((info.plural, found.subresource))
        if handler is None:
            raise no_such_path()
        if found.verb != "create":
            raise not_allowed(request.method, request.url.path)
        admitting.own_namespace(self._context, info, found.namespace, found.name)
        body = await bodies.json_object(request, required=False)
        return _json(await handler(self._context, caller, found.namespace, found.name, body), 201)

    async def _core(
        self, request: Request, call: auditing.Call, caller: Caller, parts: list[str]
    ) -> Response:
        """/api/v1: events (none, so that describe is silent), and what every group has."""
        reading = request.method in ("GET", "HEAD")
        if reading and (parts == ["events"] or (len(parts) == 3 and parts[::2] == ["namespaces", "events"])):
            access.require(caller, "list", "events", group="")
            return await self._events(request)
        if parts[0] == "namespaces" and len(parts) < 3 and not reading:
            raise not_allowed(request.method, request.url.path)
        return await self._resource(request, call, caller, discovery.CORE, parts)

    async def _events(self, request: Request) -> Response:
        if targets.truth(request.query_params, "watch"):
            return await self._no_events(request)
        metadata = {"resourceVersion": str(self._context.store.revision)}
        if "as=Table" in request.headers.get("accept", ""):
            body: Raw = {"kind": "Table", "apiVersion": tables.META, "metadata": metadata}
            return _json({**body, "columnDefinitions": [], "rows": []})
        return _json({"kind": "EventList", "apiVersion": "v1", "metadata": metadata, "items": []})

    async def _no_events(self, request: Request) -> Response:
        view = View(info=namespaces.NAMESPACE, source="")
        found = Target(verb="watch", info=namespaces.NAMESPACE)
        return await watch(self._context, request, found, view, self._watches)

    async def _health(self, request: Request, name: str) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(request.method, request.url.path)
        if name != "livez":
            try:
                async with asyncio.timeout(READY_WITHIN):
                    await self._context.store.read(lambda tx: None)
            except (StoreError, TimeoutError) as error:
                raise ApiError(503, f"not ready: the store did not answer: {error}") from error
        return PlainTextResponse("ok")


def _parts(scope: Scope) -> list[str]:
    """The parts of the path, split before they are decoded: a slash in a name divides nothing."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return [unquote(part) for part in raw.decode("latin-1").strip("/").split("/")]


def create_app(context: ApiContext) -> Api:
    """The ASGI application of one cloud's API."""
    return Api(context)


def _json(body: Raw, code: int = 200) -> Response:
    return Response(msgspec.json.encode(body), code, media_type="application/json")
