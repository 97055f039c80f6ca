"""Which fields of a kind are secret: declared at the type (`doc(..., secret=True)`), asked for here.

A secret field holds text, or an object of texts whose keys are no secret. Patterns of paths have `*` for any
key of an object. A secret field can't stand inside a list: items move, a sealed value belongs to one place.

Outside the store a value is shown as `MARK`, which says that there is one and no more. MARK written back
means: keep it. kubectl's note of what was last applied is masked in the same way before it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from roost.model.audit import nothing_hidden
from roost.model.kind import KindInfo
from roost.model.registry import BY_KIND

Path = tuple[str, ...]
Raw = dict[str, Any]
Change = Callable[[Path, str], str]

MARK = "value/is/set/not/shown++"
"""Stands for a value that is not shown. It is base64 too, for programs that decode what they read."""


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
        return nothing_hidden
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
                for found in _fields(inner, (*at, wire, *steps), above | {struct}):
                    if "[]" in steps:
                        raise TypeError(f"{struct.__name__}.{name}: a secret field can't stand in a list")
                    yield found


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
        step = "*" if get_origin(hint) is dict else "[]"
        for steps, found in _inner(get_args(hint)[-1]):
            yield (step, *steps), found
    elif get_origin(hint) is Annotated:
        yield from _inner(get_args(hint)[0])
    else:
        for argument in get_args(hint):
            yield from _inner(argument)


# -- the values of an object


def with_values(raw: Raw, info: KindInfo, change: Change) -> Raw:
    """A copy of an object in which each secret value is what `change` makes of it, given its path."""
    for pattern in secret_fields(info.type):
        raw = _changed(raw, pattern, (), change)
    return raw


def values(raw: Raw, info: KindInfo) -> dict[Path, str]:
    """The secret values of an object by their paths."""
    found: dict[Path, str] = {}

    def note(path: Path, value: str) -> str:
        found[path] = value
        return value

    with_values(raw, info, note)
    return found


def masked(info: KindInfo) -> Callable[[Raw], Raw]:
    """How objects of a kind are shown: without secret values."""
    return lambda raw: with_values(raw, info, lambda _path, _value: MARK)


def _changed(value: Any, pattern: Path, at: Path, change: Change) -> Any:
    if not pattern:
        return change(at, value) if isinstance(value, str) else value
    if not isinstance(value, dict):
        return value
    step, *rest = pattern
    keys = list(value) if step == "*" else [step] if step in value else []
    return {**value, **{k: _changed(value[k], tuple(rest), (*at, k), change) for k in keys}}
