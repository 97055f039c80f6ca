"""Which fields of a kind are secret: declared at the type (`doc(..., secret=True)`), asked for here.

A secret field holds text, or an object of texts whose keys are no secret. Patterns of paths have `*` for any
key of an object and any item of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from roost.model.kind import KindInfo
from roost.model.registry import BY_KIND

Path = tuple[str, ...]


@cache
def secret_fields(struct: type) -> tuple[Path, ...]:
    """Patterns of the secret fields of a struct and what is inside it, in wire names."""
    return tuple(_fields(struct, (), frozenset()))


def has_secrets(info: KindInfo) -> bool:
    """Whether a kind has secret fields."""
    return bool(secret_fields(info.type))


@cache
def hidden(kind: str) -> Callable[[Path], bool]:
    """Whether the value at a path of a kind must not be shown outside the API.

    Of kinds that are not served, or not known, nothing is shown.
    """
    info = BY_KIND.get(kind)
    if info is None or not info.served:
        return lambda _: True
    patterns = secret_fields(info.type)
    if not patterns:
        return lambda _: False
    return lambda path: any(_within(path, pattern) for pattern in patterns)


def _within(path: Path, pattern: Path) -> bool:
    """Whether a path is at or below what a pattern means."""
    if len(path) < len(pattern):
        # What is above a secret hides it when it is shown whole; `*` at the end stands for what is inside.
        return path == pattern[: len(path)] and len(path) == len(pattern) - 1 and pattern[-1] == "*"
    return all(p in ("*", here) for p, here in zip(pattern, path, strict=False))


def _fields(struct: type, at: Path, above: frozenset[type]) -> Iterator[Path]:
    if struct in above:
        return
    hints = get_type_hints(struct, include_extras=True)
    for name, wire in zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True):  # type: ignore[attr-defined]
        hint = hints[name]
        if _declared(hint):
            yield (*at, wire, "*") if _origin(hint) is dict else (*at, wire)
        else:
            for steps, inner in _inner(hint):
                yield from _fields(inner, (*at, wire, *steps), above | {struct})


def _declared(hint: Any) -> bool:
    if get_origin(hint) is not Annotated:
        return False
    return any(isinstance(n, msgspec.Meta) and (n.extra or {}).get("secret") for n in get_args(hint)[1:])


def _origin(hint: Any) -> Any:
    return _origin(get_args(hint)[0]) if get_origin(hint) is Annotated else get_origin(hint)


def _inner(hint: Any) -> Iterator[tuple[Path, type]]:
    """Structs inside a field, and the steps down to them."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield (), hint
    elif get_origin(hint) in (list, dict):
        for steps, found in _inner(get_args(hint)[-1]):
            yield ("*", *steps), found
    elif get_origin(hint) is Annotated:
        yield from _inner(get_args(hint)[0])
    else:
        for argument in get_args(hint):
            yield from _inner(argument)
