"""The values of some fields of an object, read from its JSON without reading the rest.

For the fields that are asked for, a struct is made that has these members alone: what else the text holds is
skipped by the decoder and never built. What is left out has the value that the kind's structs give it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, get_args

import msgspec
from msgspec import NODEFAULT, inspect

from roost.model.fields import Field, Scalar, Step
from roost.model.kind import KindInfo

Values = tuple[Scalar, ...]
_Get = Callable[[Any], Values]
_NONE: Values = ()
_SCALARS = (str, int, float, bool)
_Tree = dict[str, Any]


class Unreadable(ValueError):
    """An object that is not as its kind is: no values can be told of it."""


def reader(info: KindInfo, fields: Sequence[Field]) -> Callable[[str], list[Values]]:
    """What gives the values of each of the fields of an object as JSON text; none where there is nothing.

    It raises Unreadable. What is no scalar where there should be one is left out.
    """
    tree: _Tree = {}
    for field in fields:
        at = tree
        for step in field.steps:
            at = at.setdefault(step.name, {})
            if step.holds == "list" and step.pick:
                at.setdefault(step.keys, {})
    whole = inspect.type_info(info.type)
    if not isinstance(whole, inspect.StructType):
        raise TypeError(f"{info.kind} is no struct")
    decode = msgspec.json.Decoder(_struct(whole, tree)).decode
    getters = [_getter(field.steps) for field in fields]

    def read(data: str) -> list[Values]:
        try:
            found = decode(data)
        except msgspec.ValidationError as error:
            raise Unreadable(str(error)) from error
        return [get(found) for get in getters]

    return read


def _struct(struct: inspect.StructType, tree: _Tree) -> type[msgspec.Struct]:
    """A struct of those members of another that are in a tree."""
    members = []
    for member in struct.fields:
        inside = tree.get(member.encode_name)
        if inside is not None:
            annotation, default = _member(member.type, inside, _default(member))
            members.append((member.encode_name, annotation, default))
    return msgspec.defstruct(f"Part{struct.cls.__name__}", members, frozen=True, gc=False)


def _member(kind: inspect.Type, tree: _Tree, left_out: Any) -> tuple[Any, Any]:
    """The annotation of a member and what it is where it is left out."""
    kind = _plain(kind)
    if isinstance(kind, inspect.StructType) and tree:
        made = _struct(kind, tree)
        return made | None, _like(made, left_out) if isinstance(left_out, msgspec.Struct) else None
    if isinstance(kind, inspect.ListType):
        item = _plain(kind.item_type)
        if isinstance(item, inspect.StructType) and tree:
            made = _struct(item, tree)
            return list[made] | None, None  # type: ignore[valid-type]
        return Any, None
    return Any, left_out if isinstance(left_out, _SCALARS) else None


def _plain(kind: inspect.Type) -> inspect.Type:
    """A type without what is said of it, and without None."""
    while True:
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            inner = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
            if len(inner) != 1:
                return kind
            kind = inner[0]
        else:
            return kind


def _default(member: inspect.Field) -> Any:
    return None if member.default is NODEFAULT else member.default


def _like(made: type[msgspec.Struct], instance: msgspec.Struct) -> msgspec.Struct:
    """A made struct with the values that an instance of the real one has."""
    real = dict(zip(instance.__struct_encode_fields__, instance.__struct_fields__, strict=True))
    given: dict[str, Any] = {}
    for name, annotation in made.__annotations__.items():
        value = getattr(instance, real[name])
        if isinstance(value, msgspec.Struct):
            given[name] = _like(get_args(annotation)[0], value)
        else:
            given[name] = value if isinstance(value, _SCALARS) else None
    return made(**given)


def _getter(steps: Sequence[Step]) -> _Get:
    """What gives the values at the end of some steps, of the made struct that they begin in."""
    if all(step.holds == "one" for step in steps):
        return _direct(".".join(step.name for step in steps))
    step, *rest = steps
    name, pick = step.name, step.pick
    if step.holds == "map":
        return lambda found: _scalar(_in_map(getattr(found, name, None), pick))
    if step.holds == "list" and not rest:
        return lambda found: _scalars(getattr(found, name, None))
    inside, keys = _getter(rest), step.keys
    if step.holds == "one":
        return lambda found: inside(getattr(found, name, None))
    return lambda found: tuple(
        value
        for item in getattr(found, name, None) or ()
        if not pick or getattr(item, keys) == pick
        for value in inside(item)
    )


def _direct(path: str) -> _Get:
    look = attrgetter(path)

    def get(found: Any) -> Values:
        try:
            return _scalar(look(found))
        except AttributeError:
            return _NONE

    return get


def _in_map(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _scalar(value: Any) -> Values:
    return (value,) if isinstance(value, _SCALARS) else _NONE


def _scalars(value: Any) -> Values:
    return tuple(v for v in value if isinstance(v, _SCALARS)) if isinstance(value, list) else _NONE
