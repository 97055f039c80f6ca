"""Bytes to structs and back, strictly at the edge and tolerantly between versions.

Three ways in:
- `decode`: from our own store or a peer; unknown fields are ignored (a newer version wrote them). `read` is
  the same of stored text, without the raw object in between: a tenth of the time.
- `check`: from a user; every problem is returned with its path, unknown fields included.
- `overlay`: a struct laid over the raw object it came from, so that fields this version does not
  know survive (law 9). An item of a list keeps its own while what this version knows of it is unchanged.

A raw object is what `json.loads` gives. `Raw` is its type everywhere.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, get_origin, get_type_hints

import msgspec

from roost.model.kind import KindInfo, Problem
from roost.model.meta import Resource
from roost.model.registry import BY_TYPE, KINDS, VERSIONS

Raw = dict[str, Any]
R = TypeVar("R", bound=Resource)

_AT = re.compile(r"^(?P<text>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)


# msgspec (0.22) resolves a struct at its first use and crashes when two threads do that at once; the
# store decodes in threads. So every kind is resolved here, in the thread that imports.
_READERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind.type: msgspec.json.Decoder(kind.type) for kind in (*KINDS, *VERSIONS)
}


def decode(kind: type[R], raw: Raw) -> R:
    """Struct of a raw object; raises msgspec.ValidationError when it does not fit."""
    return msgspec.convert(raw, kind)


def read(kind: type[R], text: str, revision: str) -> R:
    """Struct of a stored object, `revision` as its resourceVersion; raises msgspec.ValidationError."""
    resource: R = _READERS[kind].decode(text)
    metadata = msgspec.structs.replace(resource.metadata, resource_version=revision)
    return msgspec.structs.replace(resource, metadata=metadata)


def encode(resource: Resource) -> Raw:
    """Raw object of a struct, apiVersion and kind in front.

    What has no value is absent: never null, and never the empty text that structs hold for no time.
    """
    info = BY_TYPE[type(resource)]
    body: Raw = {"apiVersion": info.api_version, "kind": info.kind}
    body.update(msgspec.to_builtins(resource))
    _drop_absent(body, type(resource))
    return body


def overlay(base: Raw, resource: Resource) -> Raw:
    """`resource` as a raw object, keeping what `base` has that this version does not know."""
    if not base:
        return encode(resource)
    info = BY_TYPE[type(resource)]
    merged: Raw = _overlay(base, encode(resource), type(resource))
    merged["apiVersion"], merged["kind"] = info.api_version, info.kind
    return merged


def check(info: KindInfo, raw: Raw) -> tuple[Resource | None, list[Problem]]:
    """Decode a user's object strictly: the struct, or every problem found; unknown fields are listed last."""
    problems: list[Problem] = []
    body = {k: v for k, v in raw.items() if k not in ("apiVersion", "kind")}
    try:
        resource = msgspec.convert(body, info.type)
    except msgspec.ValidationError as error:
        problems.append(_problem(str(error), info))
        return None, problems
    problems += info.invariants(resource)
    return (None, problems) if problems else (resource, [])


def unknown_fields(info: KindInfo, raw: Raw) -> list[str]:
    """Dotted paths of fields that the kind does not have. `metadata.managedFields` and the like pass."""
    body = {k: v for k, v in raw.items() if k not in ("apiVersion", "kind")}
    tolerated = {"metadata.managedFields", "metadata.selfLink", "metadata.deletionGracePeriodSeconds"}
    return [p for p in _unknown(body, info.type, "") if p not in tolerated]


class _Slot(NamedTuple):
    """A field that can be absent, or that holds structs with such fields."""

    wire: str
    optional: bool
    inner: type | None
    mapping: bool


@cache
def _slots(struct: type) -> tuple[_Slot, ...]:
    """The fields of a struct that `_drop_absent` has to look at."""
    hints = get_type_hints(struct, include_extras=True)
    found = []
    for field in msgspec.structs.fields(struct):
        optional = field.default is None or (field.default == "" and _is_time(hints[field.name]))
        inner = _inner(field.type)
        if inner is not None and not _slots(inner):
            inner = None
        if optional or inner is not None:
            found.append(_Slot(field.encode_name, optional, inner, get_origin(_bare(field.type)) is dict))
    return tuple(found)


def _bare(hint: Any) -> Any:
    return hint.__origin__ if hasattr(hint, "__metadata__") else hint


def _is_time(hint: Any) -> bool:
    metas = (m for m in getattr(hint, "__metadata__", ()) if isinstance(m, msgspec.Meta))
    return any((m.extra_json_schema or {}).get("format") == "date-time" for m in metas)


def _drop_absent(value: Raw, struct: type) -> None:
    for wire, optional, inner, mapping in _slots(struct):
        held = value.get(wire)
        if not held and optional and (held is None or held == ""):
            value.pop(wire, None)
        elif inner is None or not held:
            continue
        elif type(held) is list:
            for item in held:
                _drop_absent(item, inner)
        else:
            for item in held.values() if mapping else (held,):
                _drop_absent(item, inner)


def without_nulls(value: Any) -> Any:
    """A copy without the members of objects that are null: null means absent, as Kubernetes takes it."""
    if type(value) is dict:
        return {
            k: without_nulls(v) if type(v) in _CONTAINERS else v for k, v in value.items() if v is not None
        }
    if type(value) is list:
        return [without_nulls(v) if type(v) in _CONTAINERS else v for v in value]
    return value


_CONTAINERS = frozenset({dict, list})


def _problem(text: str, info: KindInfo) -> Problem:
    """What msgspec says of a value, with the words that its field takes, or else where they are explained."""
    match = _AT.match(text)
    path = ((match["path"] or "") if match else "").removeprefix(".")
    reason = match["text"] if match else text
    steps = [step for step in re.sub(r"\[[^]]*\]", "", path).split(".") if step]
    words = _words(info.type, tuple(steps))
    if words and reason.startswith("Invalid enum value"):
        return Problem(path, reason, f"one of: {', '.join(words)}")
    at = ".".join((info.singular, *steps))
    return Problem(path, reason, f"`kubectl explain {at}` (or roost explain) tells what it takes")


@cache
def _words(struct: Any, steps: tuple[str, ...]) -> tuple[str, ...]:
    """The words that a field takes, found by its wire names; none where it takes others, or there is none."""
    hint: Any = struct
    for step in steps:
        struct = _inner(hint)
        wires = getattr(struct, "__struct_encode_fields__", ())
        if step not in wires:
            return ()
        hint = get_type_hints(struct)[struct.__struct_fields__[wires.index(step)]]
    return _literals(hint)


def _literals(hint: Any) -> tuple[str, ...]:
    arguments = getattr(hint, "__args__", ())
    if get_origin(hint) is Literal:
        return tuple(a for a in arguments if isinstance(a, str) and a)
    return next((words for a in arguments if (words := _literals(a))), ())


@cache
def _fields(struct: type) -> dict[str, Any]:
    """Wire name to the struct type inside that field (through Optional, list and dict), or None."""
    hints = get_type_hints(struct)
    return {
        wire: _inner(hints[name])
        for name, wire in zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)  # type: ignore[attr-defined]
    }


def _inner(hint: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    arguments = getattr(hint, "__args__", ())
    for argument in arguments:
        found = _inner(argument)
        if found is not None:
            return found
    return None


def _overlay(base: Any, new: Any, struct: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(new, dict) and struct is not None):
        return new
    known = _fields(struct)
    merged = {k: v for k, v in base.items() if k not in known}
    for key, value in new.items():
        inner = known.get(key)
        old = base.get(key)
        merged[key] = (
            _overlay_items(old, value, inner) if isinstance(old, list) else _overlay(old, value, inner)
        )
    return merged


def _overlay_items(base: list[Any], new: Any, struct: Any) -> Any:
    """Items in the order of `new`, each laid over the item of `base` that says the same."""
    if struct is None or not isinstance(new, list) or not _unknown(base, struct, ""):
        return new
    former: dict[bytes, list[Any]] = {}
    for item in base:
        former.setdefault(_known(item, struct), []).append(item)
    merged = []
    for item in new:
        same = former.get(_canonical(item))
        merged.append(_overlay(same.pop(0), item, struct) if same else item)
    return merged


def _known(item: Any, struct: Any) -> bytes:
    """What this version knows of an item; empty when it can't read it."""
    try:
        return _canonical(msgspec.to_builtins(msgspec.convert(item, struct)))
    except msgspec.ValidationError:
        return b""


_canonical = msgspec.json.Encoder(order="sorted").encode


def _unknown(value: Any, struct: Any, at: str) -> list[str]:
    if struct is None:
        return []
    found: list[str] = []
    if isinstance(value, list):
        for n, item in enumerate(value):
            if isinstance(item, dict | list):
                found += _unknown(item, struct, f"{at}[{n}]")
        return found
    if not isinstance(value, dict):
        return found
    known = _fields(struct)
    for key, item in value.items():
        if key not in known:
            found.append(f"{at}.{key}" if at else key)
        elif known[key] is not None and isinstance(item, dict | list):
            found += _unknown(item, known[key], f"{at}.{key}" if at else key)
    return found
