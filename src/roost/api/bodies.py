"""Request bodies: read within limits, taken apart as JSON, made safe to work with.

Limits: LARGEST bytes, DEEPEST levels, READING seconds to arrive.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from roost.api import protobuf, protobuf_kinds
from roost.api.status import ApiError, bad_request
from roost.model.codec import Raw

LARGEST = 3 * 1024 * 1024
DEEPEST = 64
READING = 30.0

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


async def read(request: Request) -> bytes:
    """The whole body; raises ApiError 408 and 413."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > LARGEST:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(READING):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST:
                    raise _too_large()
    except TimeoutError as error:
        raise ApiError(408, f"the body did not arrive within {READING:.0f} seconds") from error
    except ClientDisconnect as error:
        raise bad_request("the client went away before its body had arrived") from error
    return bytes(body)


def media_type(request: Request) -> str:
    """Content-Type without parameters; JSON when absent."""
    return request.headers.get("content-type", "application/json").split(";")[0].strip().lower()


async def json_object(request: Request, *, required: bool = True) -> Raw:
    """The body as a JSON object, also of one that came as protobuf; raises ApiError 400, 413 and 415."""
    kind = media_type(request)
    body = await read(request)
    if not body and not required:
        return {}
    if kind == protobuf_kinds.MEDIA_TYPE:
        return from_protobuf(body)
    if kind != "application/json":
        raise ApiError(415, f"Content-Type {kind!r} is not read here; send application/json")
    raw = parse(body)
    if not isinstance(raw, dict):
        raise bad_request("the body must be a JSON object")
    return raw


def from_protobuf(body: bytes) -> Raw:
    """The object of a body in Kubernetes' protobuf; raises ApiError 400 and 415."""
    try:
        return protobuf_kinds.decode(body)
    except protobuf_kinds.UnknownKind as error:
        raise ApiError(415, str(error)) from error
    except protobuf.Malformed as error:
        raise bad_request(f"the body is not valid protobuf: {error}") from error


def parse(body: bytes) -> Any:
    """Any JSON within the limits; raises ApiError 400."""
    try:
        value = msgspec.json.decode(body)
        if not shallow(value):
            raise bad_request(f"the body is nested deeper than {DEEPEST} levels")
    except RecursionError as error:
        raise bad_request(f"the body is nested deeper than {DEEPEST} levels") from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise bad_request(f"the body is not valid JSON: {error}") from error
    return value


def shallow(value: Any, deepest: int = DEEPEST) -> bool:
    """Whether a value is nested no deeper than allowed."""
    level = [value]
    for _ in range(deepest + 1):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return True
    return False


def _too_large() -> ApiError:
    return ApiError(
        413, f"the body is larger than {LARGEST} bytes; split it, or leave out what is not needed"
    )
