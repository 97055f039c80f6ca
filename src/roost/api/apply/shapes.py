"""How each value of a kind is shared between managers: the tree that field sets, comparison and merge follow.

A shape is made once per type from the structs and their `doc(list_type=, list_keys=, map_type=)`:
- LEAF has one owner as a whole: scalars, and lists and maps that are atomic (then `item` says what is in
  them, for two values are the same when they differ but in defaults that are left out);
- STRUCT and MAP are owned field by field, key by key;
- ITEMS is a list whose items are told apart by keys, SET one whose scalars are;
- ANY is a field this version does not know: maps by key, everything else as a whole.

A field that is absent has its default. So that an omitted default is never taken for another value,
each field of a STRUCT carries its default as a raw value (ABSENT where there is none).

Not tracked at all: identity that the server gives, and status.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from roost.model.meta import Metadata, Resource

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()
UNTRACKED_META = frozenset(
    {
        "name",
        "namespace",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "uid",
        "generation",
        "managedFields",
        "resourceVersion",
    }
)
UNTRACKED_ROOT = frozenset({"apiVersion", "kind", "status"})


class Sharing(Enum):
    LEAF = "leaf"
    STRUCT = "struct"
    MAP = "map"
    ITEMS = "items"
    SET = "set"
    ANY = "any"


class Field:
    """One field of a STRUCT: its shape, its default, and its name in a field set."""

    __slots__ = ("default", "shape", "token")

    def __init__(self, name: str, shape: Shape, default: Any) -> None:
        self.token, self.shape, self.default = f"f:{name}", shape, default


class Shape:
    """How one value is shared. `item` is what a MAP, ITEMS or atomic list holds; `keys` tell items apart."""

    __slots__ = ("fields", "item", "keys", "sharing", "untracked")

    def __init__(
        self, sharing: Sharing, *, item: Shape | None = None, keys: tuple[tuple[str, Any], ...] = ()
    ) -> None:
        self.sharing, self.keys = sharing, keys
        self.item: Shape = item if item is not None else self
        self.fields: dict[str, Field] = {}
        self.untracked: frozenset[str] = frozenset()

    def child(self, key: str) -> Shape:
        """The shape of a field or of a value of a map."""
        field = self.fields.get(key)
        if field is not None:
            return field.shape
        return self.item if self.sharing is Sharing.MAP else ANY


LEAF, ANY, SET = Shape(Sharing.LEAF), Shape(Sharing.ANY), Shape(Sharing.SET)


@cache
def shape_of(kind: type[Resource]) -> Shape:
    """The shape of a whole resource."""
    known: dict[type, Shape] = {}
    shape = _struct(kind, known)
    shape.untracked = UNTRACKED_ROOT
    for name in UNTRACKED_ROOT:
        shape.fields.pop(name, None)
    known[Metadata].untracked = UNTRACKED_META
    for name in UNTRACKED_META:
        known[Metadata].fields.pop(name, None)
    return shape


def _struct(struct: type, known: dict[type, Shape]) -> Shape:
    if struct in known:
        return known[struct]
    shape = known[struct] = Shape(Sharing.STRUCT)
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        name = field.encode_name
        shape.fields[name] = Field(name, _hinted(hints[field.name], known), _default(field))
    return shape


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        value = field.default
    elif field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    else:
        return ABSENT
    return ABSENT if value is None else msgspec.to_builtins(value)


def _hinted(hint: Any, known: dict[type, Shape]) -> Shape:
    """The shape of a field's type with its declaration."""
    declared: dict[str, Any] = {}
    inner = hint
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        for note in notes:
            if isinstance(note, msgspec.Meta):
                declared |= note.extra or {}
    inner = _present(inner)
    origin = get_origin(inner)
    if origin is list:
        return _list(get_args(inner)[0], declared, known)
    if origin is dict:
        shape = Shape(Sharing.MAP, item=_hinted(get_args(inner)[1], known))
    elif isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        shape = _struct(inner, known)
    else:
        return ANY if inner is dict or inner is Any else LEAF
    return Shape(Sharing.LEAF, item=shape) if declared.get("map_type") == "atomic" else shape


def _list(item: Any, declared: dict[str, Any], known: dict[type, Shape]) -> Shape:
    match declared.get("list_type", "atomic"):
        case "set":
            return SET
        case "map":
            each = _hinted(item, known)
            keys = tuple((key, each.fields[key].default) for key in declared["list_keys"])
            shared = Shape(Sharing.LEAF, item=each) if declared.get("map_type") == "atomic" else each
            return Shape(Sharing.ITEMS, item=shared, keys=keys)
    return Shape(Sharing.LEAF, item=_hinted(item, known))


def _present(hint: Any) -> Any:
    """`X` of `X | None`; anything else as it is."""
    if get_origin(hint) in (Union, UnionType):
        choices = [a for a in get_args(hint) if a is not type(None)]
        if len(choices) == 1:
            only = choices[0]
            return get_args(only)[0] if get_origin(only) is Annotated else only
    return hint
