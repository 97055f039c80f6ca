"""The schema documents: /openapi/v2 (JSON and protobuf) and /openapi/v3.

Made once, when first asked for, and kept as bytes. kubectl reads them to explain kinds, to check
manifests (old versions), and to learn that dryRun and fieldValidation are understood (it looks for
those parameters at the PATCH operation of the kind).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from urllib.parse import parse_qs

import msgspec
from starlette.datastructures import URL
from starlette.responses import RedirectResponse, Response

from roost import __version__
from roost.api import openapi_protobuf, steps
from roost.api.access import verbs
from roost.api.bodies import JSON_PATCH, MERGE_PATCH
from roost.api.documents import answer, tag
from roost.api.forms import YAML
from roost.api.history import SUBRESOURCE
from roost.api.status import ApiError, no_such_path
from roost.api.write_options import APPLY_PATCH
from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.meta import GROUP, VERSION
from roost.model.registry import SERVED
from roost.model.schema import GVK, META, all_definitions, definitions, refer, schema_name

PROTOBUF_ASKED = (
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
PROTOBUF = PROTOBUF_ASKED[1]
"""How the answer is called: the first name, by which old clients ask, is no valid media type."""
JSON = "application/json"
KEEP = timedelta(days=365)
"""How long a document asked for by its hash may be kept; RFC 2616 allows no more."""
VERSIONS = tuple(dict.fromkeys((info.group, info.version) for info in SERVED))
"""What is served, as (group, version)."""
_INFO = {"title": "Roost", "version": __version__}

_SELECTING = {
    "labelSelector": ("string", "Only resources whose labels match."),
    "fieldSelector": ("string", "Only resources whose fields match."),
}
_READING = {
    **_SELECTING,
    "limit": ("integer", "Resources per page."),
    "continue": ("string", "Token of the page before."),
    "resourceVersion": ("string", "Revision to read or to watch from."),
    "resourceVersionMatch": ("string", "Exact or NotOlderThan."),
    "timeoutSeconds": ("integer", "How long a watch lasts."),
    "watch": ("boolean", "Stream changes instead of listing."),
    "allowWatchBookmarks": ("boolean", "Send bookmarks on a watch."),
    "sendInitialEvents": ("boolean", "Begin a watch with the present state."),
}
_DRY_RUN = {"dryRun": ("string", "All: do everything, keep nothing.")}
_DELETING = {
    **_DRY_RUN,
    "propagationPolicy": ("string", "Foreground, Background or Orphan: what becomes of dependents."),
    "gracePeriodSeconds": ("integer", "Taken; there is nothing to end gracefully."),
}
_WRITING = {
    **_DRY_RUN,
    "fieldManager": ("string", "Who owns the fields that are written; by default the program's name."),
    "fieldValidation": ("string", "Strict, Warn or Ignore: what to do about unknown fields."),
}
_ACTIONS = (
    ("get", "list", "list", _READING),
    ("post", "create", "post", _WRITING),
    ("delete", "deletecollection", "deletecollection", {**_DELETING, **_SELECTING}),
)
_SINGLE = (
    ("get", "get", "get", {"resourceVersion": ("string", "Not older than this revision.")}),
    ("put", "update", "put", _WRITING),
    ("patch", "patch", "patch", {**_WRITING, "force": ("boolean", "Take fields that others own.")}),
    ("delete", "delete", "delete", _DELETING),
)
STATUS = f"{META}Status"
_STATUS: Raw = {
    "type": "object",
    "description": "What came of a request that has no resource to show: a refusal, or a deletion.",
    "properties": {
        "kind": {"type": "string", "description": "Status"},
        "apiVersion": {"type": "string", "description": "v1"},
        "metadata": {"type": "object", "description": "Empty."},
        "status": {"type": "string", "description": "Success or Failure."},
        "message": {"type": "string", "description": "What it is about, why, and the next step."},
        "reason": {"type": "string", "description": "The kind of refusal in one word, for programs."},
        "details": {"type": "object", "description": "The resource it is about, and the causes by field."},
        "code": {"type": "integer", "format": "int32", "description": "The HTTP code of a refusal."},
    },
    "required": ["kind", "apiVersion", "metadata", "status"],
}
_PLACE2, _PLACE3 = "definitions", "components/schemas"
_SEVERAL = ("list", "deletecollection")
_CHANGES = {"history": "ChangeList", "steps": "StepList"}
_HISTORY = {
    "uid": ("string", "Only of the resource with this identity, among those of the name."),
    "limit": ("integer", "Changes per page, the newest first."),
    "continue": _READING["continue"],
}
_STEPS = {
    "limit": ("integer", "Steps per page, in their order."),
    "continue": _READING["continue"],
    "fieldSelector": ("string", "What state, subcloud or reason must be, as state=failed."),
}


def respond(parts: Sequence[str], headers: Mapping[str, str], url: URL, now: datetime) -> Response:
    """Answer a path below /openapi; raises ApiError 404 and 406."""
    accept = headers.get("accept", "")
    match list(parts):
        case ["v2"]:
            if any(name in accept for name in PROTOBUF_ASKED):
                return answer(_version2_protobuf(), PROTOBUF, headers)
            return answer(_version2_json(), JSON, headers)
        case ["v3"]:
            return answer(_version3_index(), JSON, headers)
        case ["v3", "apis", group, version] if (group, version) in VERSIONS and group:
            return _version3_document(group, version, headers, url, now)
        case ["v3", "api", version] if ("", version) in VERSIONS:
            return _version3_document("", version, headers, url, now)
    raise no_such_path()


def path_of(group: str, version: str) -> str:
    """`apis/GROUP/VERSION`, or `api/VERSION` for the core group."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _version3_document(
    group: str, version: str, headers: Mapping[str, str], url: URL, now: datetime
) -> Response:
    """A document asked for by its hash may be kept for ever; by one of the past, it is somewhere else now."""
    accept = headers.get("accept", "")
    if accept and JSON not in accept and "*/*" not in accept:
        raise ApiError(406, "OpenAPI v3 is served as application/json only")
    body = _version3_json(group, version)
    asked = parse_qs(url.query).get("hash", [""])[0]
    if not asked:
        return answer(body, JSON, headers)
    if asked.upper() != tag(body):
        return RedirectResponse(_version3_url(group, version), 301)
    expires = format_datetime(now.astimezone(UTC) + KEEP, usegmt=True)
    return answer(body, JSON, headers, Cache_Control="public, immutable", Expires=expires)


def _version3_url(group: str, version: str) -> str:
    return f"/openapi/v3/{path_of(group, version)}?hash={tag(_version3_json(group, version))}"


@cache
def _version3_index() -> bytes:
    """Where the document of each group's version is; the hash lets clients keep it."""
    paths = {path_of(*at): {"serverRelativeURL": _version3_url(*at)} for at in VERSIONS}
    return msgspec.json.encode({"paths": paths})


def version2() -> Raw:
    """The OpenAPI v2 document."""
    found = refer(all_definitions(), lambda name, rest: {**_text(rest), "$ref": f"#/definitions/{name}"})
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": _paths(SERVED, _operation2),
        "definitions": {**found, STATUS: _STATUS},
    }


def version3(group: str, version: str) -> Raw:
    """The OpenAPI v3 document of a group's version."""
    kinds = [info for info in SERVED if (info.group, info.version) == (group, version)]
    schemas = refer(
        definitions(group, version),
        lambda name, rest: {**rest, "allOf": [{"$ref": f"#/components/schemas/{name}"}]},
    )
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": _paths(kinds, _operation3),
        "components": {"schemas": {**schemas, STATUS: _STATUS}},
    }


@cache
def _version2_json() -> bytes:
    return msgspec.json.encode(version2())


@cache
def _version2_protobuf() -> bytes:
    return openapi_protobuf.document(version2())


@cache
def _version3_json(group: str, version: str) -> bytes:
    return msgspec.json.encode(version3(group, version))


def _text(rest: Raw) -> Raw:
    """OpenAPI v2 allows only a description beside a reference."""
    return {k: v for k, v in rest.items() if k == "description"}


def _paths(kinds: Sequence[KindInfo], operation: Callable[..., Raw]) -> Raw:
    paths: Raw = {}
    for info in kinds:
        base = f"/{path_of(info.group, info.version)}"
        where = (
            f"{base}/namespaces/{{namespace}}/{info.plural}" if info.namespaced else f"{base}/{info.plural}"
        )
        if info.namespaced:
            everywhere = operation(info, *_ACTIONS[0])
            everywhere["operationId"] += "ForAllNamespaces"
            paths[f"{base}/{info.plural}"] = {"get": everywhere}
        offered = verbs(info)
        shared = [_path_parameter("namespace")] if info.namespaced else []
        collection = {a[0]: operation(info, *a) for a in _ACTIONS if a[1] in offered}
        single = {a[0]: operation(info, *a) for a in _SINGLE if a[1] in offered}
        paths[where] = {**collection, **({"parameters": shared} if shared else {})}
        named = [_path_parameter("name"), *shared]
        paths[f"{where}/{{name}}"] = {**single, "parameters": named}
        past = f"{where}/{{name}}/{SUBRESOURCE}"
        paths[past] = {"get": operation(info, "get", "history", "get", _HISTORY), "parameters": named}
        if steps.has_steps(info):
            listed = operation(info, "get", "steps", "get", _STEPS)
            paths[f"{where}/{{name}}/{steps.SUBRESOURCE}"] = {"get": listed, "parameters": named}
        then = {"get": operation(info, "get", "past", "get", {"uid": _HISTORY["uid"]})}
        paths[f"{past}/{{when}}"] = {**then, "parameters": [_path_parameter("when"), *named]}
    return paths


def _path_parameter(name: str) -> Raw:
    return {"name": name, "in": "path", "required": True, "type": "string", "schema": {"type": "string"}}


def _common(info: KindInfo, verb: str, action: str) -> Raw:
    return {
        "operationId": f"{verb}{_operation_group(info)}{info.kind}",
        "description": f"{verb} {info.plural}",
        "x-kubernetes-action": action,
        GVK: {"group": info.group, "version": info.version, "kind": _CHANGES.get(verb, info.kind)},
    }


def _operation_group(info: KindInfo) -> str:
    """What tells operations on other groups and versions from those on ours."""
    if info.group == GROUP and info.version == VERSION:
        return ""
    return f"{(info.group.split('.')[0] or 'core').capitalize()}{info.version.capitalize()}"


def _consumes(method: str) -> list[str]:
    return [MERGE_PATCH, JSON_PATCH, APPLY_PATCH] if method == "patch" else [JSON, YAML]


def _schema(info: KindInfo, verb: str, place: str) -> Raw:
    """What a verb takes or answers, as a reference to where a document has its schemas."""
    if verb in _CHANGES:
        return {"type": "object"}
    return {"$ref": f"#/{place}/{schema_name(info)}{'List' if verb in _SEVERAL else ''}"}


def _answers(info: KindInfo, verb: str, place: str) -> dict[str, Raw]:
    """What a verb answers by code. A deletion tells of its success, or shows what waits for finalizers:
    version 2 has no word for that."""
    own, status = _schema(info, verb, place), {"$ref": f"#/{place}/{STATUS}"}
    match verb:
        case "create":
            found = {"201": own}
        case "patch":
            found = {"200": own, "201": own}
        case "delete":
            found = {"200": {"anyOf": [status, own]} if place == _PLACE3 else status}
        case _:
            found = {"200": own}
    return {**found, "default": status}


def _produces(verb: str, code: str) -> tuple[str, ...]:
    """Refusals and deletions are told in JSON alone."""
    return (JSON,) if code == "default" or verb in ("delete", "deletecollection") else (JSON, YAML)


def _answer_text(code: str) -> str:
    return {"200": "OK", "201": "Created"}.get(code, "Refused: a Status says why, and what to do")


def _operation2(info: KindInfo, method: str, verb: str, action: str, parameters: Raw) -> Raw:
    listed: list[Raw] = [
        {"name": name, "in": "query", "type": type, "description": text}
        for name, (type, text) in parameters.items()
    ]
    operation = {
        **_common(info, verb, action),
        "produces": [JSON],
        "consumes": _consumes(method),
        "parameters": listed,
        "responses": {
            code: {"description": _answer_text(code), "schema": schema}
            for code, schema in _answers(info, verb, _PLACE2).items()
        },
    }
    if method in ("post", "put"):
        body = _schema(info, verb, _PLACE2)
        listed.append({"name": "body", "in": "body", "required": True, "schema": body})
    if method == "patch":
        listed.append({"name": "body", "in": "body", "required": True, "schema": {"type": "object"}})
    return operation


def _operation3(info: KindInfo, method: str, verb: str, action: str, parameters: Raw) -> Raw:
    reference = _schema(info, verb, _PLACE3)
    operation: Raw = {
        **_common(info, verb, action),
        "parameters": [
            {"name": name, "in": "query", "description": text, "schema": {"type": type}}
            for name, (type, text) in parameters.items()
        ],
        "responses": {
            code: {
                "description": _answer_text(code),
                "content": {media: {"schema": schema} for media in _produces(verb, code)},
            }
            for code, schema in _answers(info, verb, _PLACE3).items()
        },
    }
    if method in ("post", "put", "patch"):
        inner = {"type": "object"} if method == "patch" else reference
        operation["requestBody"] = {
            "required": True,
            "content": {media: {"schema": inner} for media in _consumes(method)},
        }
    return operation
