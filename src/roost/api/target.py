"""What a request is about: path, method and query taken apart into verb, kind, namespace and name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from roost.api.status import ApiError, no_such_path, not_allowed
from roost.model.kind import KindInfo

_COLLECTION = {"GET": "list", "HEAD": "list", "POST": "create", "DELETE": "deletecollection"}
_SINGLE = {"GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One request's verb and object. `namespace` is empty for all of them, or for a cluster-scoped kind."""

    verb: str
    info: KindInfo
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse(
    method: str, parts: Sequence[str], query: Mapping[str, str], kinds: Mapping[str, KindInfo]
) -> Target:
    """The target of a path below a group's version; raises ApiError 404 and 405."""
    match parts:
        case ["namespaces", namespace, plural, *rest] if namespace and plural in kinds:
            info = kinds[plural]
            if not info.namespaced:
                raise no_such_path()
        case [plural, *rest] if plural in kinds:
            info, namespace = kinds[plural], ""
            if info.namespaced and rest:
                raise no_such_path()
        case _:
            raise no_such_path()
    match rest:
        case []:
            name = subresource = ""
        case [name] if name:
            subresource = ""
        case [name, subresource] if name and subresource:
            pass
        case _:
            raise no_such_path()
    verb = _verb(method, name, subresource, query)
    if verb == "create" and not subresource and info.namespaced and not namespace:
        raise ApiError(400, "an empty namespace may not be set during creation; say which with -n")
    return Target(verb=verb, info=info, namespace=namespace, name=name, subresource=subresource)


def _verb(method: str, name: str, subresource: str, query: Mapping[str, str]) -> str:
    if subresource and method == "POST":
        return "create"
    verb = (_SINGLE if name else _COLLECTION).get(method)
    if verb is None:
        raise not_allowed(method, "one resource" if name else "a list of resources")
    if verb == "list" and truth(query, "watch"):
        return "watch"
    return verb


def truth(query: Mapping[str, str], name: str) -> bool:
    """A boolean parameter; absent is false."""
    return query.get(name, "").lower() in ("1", "true", "t")


def number(query: Mapping[str, str], name: str, default: int) -> int:
    """A number parameter, at least 0; raises ApiError 400."""
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ApiError(400, f"{name}: {text[:64]!r} is not a whole number of at least 0")
    return int(text)
