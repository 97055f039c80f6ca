"""JSON merge patches (RFC 7386) as values: laid over, put together, taken apart by pointers. Pure.

A patch with null can't be kept in a resource, for there null means absent. `split` makes two things of it
that can: the values it sets, and JSON pointers (RFC 6901) to what it removes; `joined` is the way back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from roost.model.codec import Raw


class Absent:
    """Nothing is there; not the same as any value."""


ABSENT = Absent()


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: objects are merged, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def composed(first: Raw, second: Raw) -> Raw:
    """The patch that does what `first` and then `second` do, where fields that are objects stay objects."""
    both = dict(first)
    for key, value in second.items():
        before = both.get(key)
        both[key] = composed(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return both


def leaves(patch: Raw) -> dict[str, Any]:
    """What a patch speaks of: each value that it sets by its pointer, None where it removes."""
    return dict(_leaves(patch, ""))


def _leaves(patch: Raw, at: str) -> Iterable[tuple[str, Any]]:
    for key, value in patch.items():
        pointer = f"{at}/{_escaped(key)}"
        if isinstance(value, dict):
            yield from _leaves(value, pointer)
        else:
            yield pointer, value


def at(value: Any, pointer: str) -> Any:
    """What is at a pointer through objects; ABSENT when nothing is."""
    for step in _steps(pointer):
        if not isinstance(value, dict) or step not in value:
            return ABSENT
        value = value[step]
    return value


def restricted(value: Any, pointers: Iterable[str]) -> Raw:
    """Of an object, only what is at these pointers."""
    found: Raw = {}
    for pointer in pointers:
        held = at(value, pointer)
        if held is not ABSENT:
            _put(found, pointer, held)
    return found


def joined(values: Raw, removes: Iterable[str]) -> Raw:
    """The patch that sets `values` and removes what is at the pointers; other texts remove nothing."""
    patch: Raw = merge({}, values)
    for pointer in removes:
        if pointer.startswith("/"):
            _put(patch, pointer, None)
    return patch


def split(patch: Raw) -> tuple[Raw, list[str]]:
    """The values that a patch sets, and pointers to what it removes."""
    values: Raw = {}
    removes = []
    for pointer, value in leaves(patch).items():
        if value is None:
            removes.append(pointer)
        else:
            _put(values, pointer, value)
    return values, removes


def _put(target: Raw, pointer: str, value: Any) -> None:
    *way, last = _steps(pointer)
    for step in way:
        inner = target.get(step)
        if not isinstance(inner, dict):
            inner = target[step] = {}
        target = inner
    target[last] = value


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
