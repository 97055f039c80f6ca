"""Documents that say what is served: discovery, plain and aggregated, with an ETag each.

They change only when the program does, so clients that keep them are told that they still hold (304).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
from starlette.responses import Response

from roost.api import discovery
from roost.api.context import ApiContext
from roost.api.status import no_such_path
from roost.model.codec import Raw

JSON = "application/json"
AGGREGATED = ("v2", "v2beta1")


def tag(body: bytes) -> str:
    """What a document is known by: the same for the same bytes."""
    return hashlib.sha256(body).hexdigest()[:32].upper()


def known(etag: str, headers: Mapping[str, str]) -> bool:
    """Whether If-None-Match names this version of a document (RFC 9110, 13.1.2; weakly compared)."""
    asked = headers.get("if-none-match", "")
    return asked.strip() == "*" or etag in [t.strip().removeprefix("W/").strip('"') for t in asked.split(",")]


def answer(body: bytes, media: str, headers: Mapping[str, str], **extra: str) -> Response:
    """A document with its ETag, or 304 when the client has it. `extra` headers have `_` for `-`."""
    etag = tag(body)
    sent = {"ETag": f'"{etag}"', "Vary": "Accept", "Cache-Control": "no-cache, private"}
    sent |= {name.replace("_", "-"): value for name, value in extra.items()}
    if known(etag, headers):
        return Response(status_code=304, headers=sent)
    return Response(body, headers={**sent, "Content-Type": media})


def respond(context: ApiContext, headers: Mapping[str, str], parts: Sequence[str]) -> Response:
    """Answer a path of discovery; raises ApiError 404."""
    media, body = JSON, b""
    if list(parts) in (["api"], ["apis"]) and (version := aggregated(headers.get("accept", ""))):
        media = f"{JSON};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
        groups = [""] if parts[0] == "api" else discovery.ALL_GROUPS
        body = msgspec.json.encode(discovery.aggregated(context, groups, version))
    else:
        body = msgspec.json.encode(_plain(context, parts))
    return answer(body, media, headers)


def _plain(context: ApiContext, parts: Sequence[str]) -> Raw:
    match parts:
        case ["api"]:
            return discovery.core_versions()
        case ["apis"]:
            return discovery.groups()
        case ["api", version] if ("", version) in discovery.SERVED:
            return discovery.resources(context, "", version)
        case ["apis", group] if group in discovery.ALL_GROUPS:
            return discovery.group(group)
        case ["apis", group, version] if group and discovery.serves(group, version):
            return discovery.resources(context, group, version)
    raise no_such_path()


def aggregated(accept: str) -> str:
    """The version of the aggregated form that the client would have before the plain one; empty for none."""
    for part in accept.replace(" ", "").split(","):
        media, *parameters = part.split(";")
        if "as=APIGroupDiscoveryList" in parameters and media == JSON:
            version = next((p[2:] for p in parameters if p.startswith("v=")), "")
            if version in AGGREGATED and "g=apidiscovery.k8s.io" in parameters:
                return version
        elif media in (JSON, "*/*"):
            return ""
    return ""
