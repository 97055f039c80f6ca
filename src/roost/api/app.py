"""The API as an ASGI application: one request, one caller, one target, one answer.

Every request goes the same way: limits on the URL, authentication, taking the path apart, the
caller's role, the handler. Whatever is refused on the way leaves as a Status; an unknown exception
leaves as a 500 without its inside, which goes to the log. Writes and denied requests are recorded
(`auditing`); what was refused or failed is also logged, one line each: who, what, on which resource, with
which result; never bodies.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from collections.abc import Sequence
from functools import partial
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
    deleting,
    discovery,
    documents,
    events,
    finding,
    history,
    metrics,
    namespaces,
    openapi,
    questions,
    reading,
    reviews,
    rotating,
    status,
    steps,
    tokens,
    writing,
)
from roost.api import target as targets
from roost.api.ahead import Ahead
from roost.api.context import ApiContext
from roost.api.forms import View, as_json, indent
from roost.api.identity import accounts, guarding
from roost.api.identity.login import Login
from roost.api.identity.rules import Attributes
from roost.api.status import ApiError, no_such_path, not_allowed
from roost.api.target import Target, truth
from roost.api.watching import Watches, watch
from roost.engine.admission import Refused
from roost.link.exchange import Caller, Unreachable
from roost.model.registry import BY_KIND
from roost.model.secrecy import has_secrets
from roost.store.errors import StoreError

LONGEST_URL = 16 * 1024
HEALTH = frozenset({"healthz", "livez", "readyz"})
READY_WITHIN = 2.0

_log = structlog.get_logger("roost.api")


class Api:
    """One cloud's API. `end_watches` is for the server, when it stops."""

    def __init__(self, context: ApiContext) -> None:
        self._gate = access.Gate(context)
        self._login = Login(context, self._gate.directory)
        extra = {
            ("users", "token"): tokens.issue,
            ("users", "password"): self._login.set_password,
            ("serviceaccounts", "token"): tokens.for_account(self._gate.directory),
            **context.subresources,
        }
        self._context = dataclasses.replace(context, subresources=extra)
        self._watches = Watches()
        self._ahead = Ahead()
        self._watches.still_allowed = self._may_still_watch
        self._attending: asyncio.Task[None] | None = None
        self._followers = audits.Followers(context.store)
        self._metrics = metrics.Metrics(context)
        self._gathered = auditing.Gathered(context.store, context.clock, self._followers.wake)
        self._views = {
            at: {plural: View.of(info) for plural, info in kinds.items()}
            for at, kinds in discovery.SERVED.items()
        }
        self._views[discovery.CORE]["namespaces"] = namespaces.VIEW
        for at, view in events.VIEWS.items():
            self._views[at][view.info.plural] = view

    def end_watches(self) -> None:
        """End all watches, now and from now on."""
        self._watches.end()
        self._followers.end()
        self._ahead.close()
        self._login.close()
        self._metrics.close()
        if self._attending is not None:
            self._attending.cancel()

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
        call, begun = auditing.Call(request), metrics.started()
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
        if truth(request.query_params, "pretty"):
            indent(response)
        call.finish(response, self._gathered)
        self._metrics.answered(request.method, response.status_code, metrics.started() - begun)
        return response

    async def _answer(self, request: Request, call: auditing.Call) -> Response:
        if len(request.scope.get("raw_path", b"")) + len(request.scope["query_string"]) > LONGEST_URL:
            raise ApiError(414, f"the URL is longer than {LONGEST_URL} bytes")
        parts = _parts(request.scope)
        if len(parts) == 1 and parts[0] in HEALTH:
            return await self._health(request, parts[0])
        if parts == ["version"]:
            return as_json(discovery.version(self._context))
        if parts == ["login"] and request.method == "POST":
            return as_json(await self._login.login(request, call.is_by))
        call.caller = caller = await self._gate.authenticate(request.scope, call.is_by)
        match parts:
            case ["apis", group, version, *rest] if (group, version) in discovery.SERVED and group and rest:
                return await self._resource(request, call, caller, (group, version), rest)
            case ["api", version, *rest] if ("", version) in discovery.SERVED and rest:
                return await self._resource(request, call, caller, discovery.CORE, rest)
            case ["apis", group, "v1", plural] | ["apis", group, "v1", "namespaces", _, plural] if (
                group in discovery.REVIEWS
            ):
                if request.method != "POST":
                    raise not_allowed(request.method, request.url.path)
                call.unwritten = True
                asked = [group, *parts[4:]] if len(parts) > 4 else [group, plural]
                return as_json(
                    await reviews.answer(self._gate, caller, asked, await bodies.json_object(request)), 201
                )
            case ["clouds", name, *_] if name:
                below = self._gate.groups_below(caller, name)
                return await clouds.forward(self._context, request, call, below, name)
            case ["logout"] if request.method == "POST":
                return as_json(await self._login.logout(request))
            case ["audit"]:
                asked_for = Attributes(verb="get", path="/audit")
                self._gate.require(caller, asked_for)
                self._attend()
                still = partial(self._gate.still_allowed, caller, asked_for)
                return await audits.respond(self._context, request, call, self._followers, still)
            case ["metrics"] if request.method in ("GET", "HEAD"):
                self._gate.require(caller, Attributes(verb="get", path="/metrics"))
                return await self._metrics.respond(request)
            case ["keys", *rest]:
                self._gate.require(caller, Attributes(verb=request.method.lower(), path="/keys"))
                return await rotating.respond(self._context, request, rest)
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(request.method, request.url.path)
        if parts != [""]:
            self._gate.require(caller, Attributes(verb="get", path="/" + "/".join(parts)))
        return self._document(request, parts)

    def _document(self, request: Request, parts: Sequence[str]) -> Response:
        """Discovery and schema."""
        match parts:
            case ["api" | "apis", *_]:
                return documents.respond(self._context, request.headers, parts)
            case ["openapi", *rest]:
                return openapi.respond(rest, request.headers, request.url, self._context.clock())
            case [".well-known", "openid-configuration"]:
                base = str(request.base_url).rstrip("/")
                return as_json(accounts.discovery(self._context.issuer_url, self._context.issuer or base))
            case ["openid", "v1", "jwks"]:
                return as_json(tokens.published(self._gate.directory.signing_keys(), self._context.vault))
            case [""]:
                return as_json({"paths": discovery.paths()})
        raise no_such_path()

    async def _resource(
        self, request: Request, call: auditing.Call, caller: Caller, at: tuple[str, str], parts: list[str]
    ) -> Response:
        """Anything below the path of a group's version."""
        parts, when = history.split(parts)
        found = targets.parse(request.method, parts, request.query_params, discovery.SERVED[at])
        call.target = found
        operating = self._gate.require_target(caller, found)
        if found.info.kind not in BY_KIND and request.method not in ("GET", "HEAD"):
            # Shown, and not stored: a view of something else.
            raise not_allowed(request.method, request.url.path)
        await events.not_of_the_log(self._context, found)
        view = self._views[at][found.info.plural]
        if found.subresource == history.SUBRESOURCE:
            return await history.respond(self._context, request, found, view, when)
        if found.subresource == steps.SUBRESOURCE and steps.has_steps(found.info):
            return await steps.respond(self._context, request, found)
        if found.subresource:
            return await self._subresource(request, caller, found, view)
        return await self._verb(
            request, caller, found, view, self._guarded(caller, found, operating=operating)
        )

    def _guarded(self, caller: Caller, found: Target, *, operating: bool) -> ApiContext:
        """The context with what this caller's write is held to besides the rules of the kind."""
        kind, context = found.info.kind, self._context
        if has_secrets(found.info):
            # Who may not look may not guess either.
            looking = msgspec.structs.replace(access.attributes_of(found), verb="get")
            context = dataclasses.replace(context, compares=self._gate.may(caller, looking))
        rules = guarding.rules(self._gate.directory.grants, caller, found, operating=operating)
        if not rules:
            return context
        every = {**context.rules, kind: (*rules, *context.rules.get(kind, ()))}
        return dataclasses.replace(context, rules=every)

    def _may_still_watch(self, caller: Caller, target: Target) -> bool:
        return self._gate.still_allowed(caller, access.attributes_of(target))

    def _attend(self) -> None:
        """See to it that what lasts ends when rights do."""
        if self._attending is None or self._attending.done():
            attending = self._gate.directory.follow(self._watches.review)
            self._attending = asyncio.create_task(attending, context=contextvars.Context())

    async def _verb(
        self, request: Request, caller: Caller, found: Target, view: View, context: ApiContext
    ) -> Response:
        match found.verb:
            case "get":
                return await reading.get(context, request, found, view)
            case "list" | "watch" | "deletecollection" if questions.is_one(request.query_params):
                return await self._question(request, caller, found, view)
            case "list":
                return await reading.list_(context, request, found, view, self._ahead)
            case "watch":
                self._attend()
                return await watch(context, request, found, view, self._watches, caller)
            case "create":
                return await writing.create(context, request, caller, found, view)
            case "update":
                return await writing.update(context, request, caller, found, view)
            case "patch":
                return await writing.patch(context, request, caller, found, view)
            case "delete":
                return await deleting.delete(context, request, caller, found, view)
            case _:
                return await deleting.delete_collection(context, request, caller, found, view)

    async def _question(self, request: Request, caller: Caller, found: Target, view: View) -> Response:
        if found.verb != "list":
            raise questions.refuse(found)
        if questions.chooses(request.query_params):
            self._gate.require_target(caller, questions.SUBCLOUDS)
        return await finding.respond(self._context, request, found, view)

    async def _subresource(self, request: Request, caller: Caller, found: Target, view: View) -> Response:
        info = found.info
        if found.subresource == "status" and "status" in info.type.__struct_fields__:
            if found.verb == "get":
                return await reading.get(self._context, request, found, view)
            if found.verb not in ("update", "patch"):
                raise not_allowed(request.method, request.url.path)
            raise admitting.status_refused(info, found.name)
        handler = self._context.subresources.get((info.plural, found.subresource))
        if handler is None:
            raise no_such_path()
        if found.verb != "create":
            raise not_allowed(request.method, request.url.path)
        admitting.own_namespace(self._context, info, found.namespace, found.name)
        if info.kind == "User":
            user = Caller(found.name, [*self._gate.role_groups(found.name), access.USERS])
            guarding.check_stand_in(self._gate.directory.grants, caller, user)
        body = await bodies.json_object(request, required=False)
        return as_json(await handler(self._context, caller, found.namespace, found.name, body), 201)

    async def _health(self, request: Request, name: str) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(request.method, request.url.path)
        if name != "livez":
            try:
                async with asyncio.timeout(READY_WITHIN):
                    await self._context.store.read(lambda tx: None)
            except (StoreError, TimeoutError) as error:
                # Whoever asks may be anybody: what the database says is for the log alone.
                _log.warning("not ready: the store did not answer", reason=str(error) or type(error).__name__)
                raise ApiError(503, "not ready: the store did not answer") from error
        return PlainTextResponse("ok")


def _parts(scope: Scope) -> list[str]:
    """The parts of the path, split before they are decoded: a slash in a name divides nothing."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return [unquote(part) for part in raw.decode("latin-1").strip("/").split("/")]
