"""The fields of a kind that questions can be asked about, by the names that people give them.

All follow from the structs: every scalar of metadata, spec and status, in lists and maps as well, with type,
unit and words. Secret fields are none of them: who may not see a value must not find it by asking.

A field is named by its whole path (`status.inventory.processors.model`), or by less as long as it is clear:
without `metadata.`, `status.` or `spec.` (of several the first in this order); by an alias; by the name of a
column; by the end of its path, when that is the end of one field alone. `labels.KEY` is one label.
`[KEY]` behind a list picks the item of that key, as `conditions[Ready]` or `ports[eth0].speed`; without it a
list stands for all its items.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import msgspec
from msgspec import NODEFAULT, inspect

from roost.model.kind import KindInfo
from roost.model.secrecy import secret_fields

FieldType = Literal["text", "choice", "number", "whole", "boolean", "time"]
Scalar = str | int | float | bool
LONGEST_NAME = 512

ALIASES: dict[str, dict[str, str]] = {
    "Host": {
        "cpu": "status.inventory.processors",
        "memory": "status.inventory.memory.total",
        "version": "status.agent.version",
    },
}
"""Further names of fields, and of what fields lie in, by kind."""
_ELSEWHERE = {"resourceVersion", "generateName", "managedFields", "ownerReferences"}
"""Of metadata: bookkeeping, or not kept with the object."""
_CLOUDS = ("cloud", "subcloud")
"""Names of the namespace, which is a cloud."""
_SUGGESTED = 3
_AMBIGUOUS = 6


class FieldError(ValueError):
    """A field that is not there, or that is not clear. The message says what was meant, perhaps."""


class Step(msgspec.Struct, frozen=True):
    """One step down a path: a member, and how it holds what is inside. `keys` is by which member the items
    of a list are told apart, `pick` the key of the only item meant, or of a map's value."""

    name: str
    holds: Literal["one", "list", "map"] = "one"
    keys: str = ""
    pick: str = ""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A scalar of a kind, or the scalars of one list or map. `steps` lead to it in wire names; `defaults` is
    what it may be where it is left out."""

    path: str
    type: FieldType
    steps: tuple[Step, ...]
    unit: str = ""
    choices: tuple[str, ...] = ()
    description: str = ""
    defaults: tuple[Scalar, ...] = ()

    @property
    def several(self) -> bool:
        """Whether an object may have several values of it."""
        return any(step.holds == "list" and not step.pick for step in self.steps)

    @property
    def leaf(self) -> str:
        """The member that holds the value."""
        last = self.steps[-1]
        return last.pick if last.holds == "map" else last.name


@cache
def fields_of(info: KindInfo) -> dict[str, Field]:
    """The fields of a kind by their paths; a map's is `PATH.*`. Do not change it in place."""
    whole = inspect.type_info(info.type)
    if not isinstance(whole, inspect.StructType):
        raise TypeError(f"{info.kind} is no struct")
    secret = {pattern[:-1] if pattern[-1] == "*" else pattern for pattern in secret_fields(info.type)}
    found = _members(whole, None, (), ())
    kept = (field for field in found if tuple(s.name for s in field.steps) not in secret)
    return {field.path: field for field in kept if _asked(field)}


def _asked(field: Field) -> bool:
    at = field.steps
    return not (at[0].name == "metadata" and at[1].name in _ELSEWHERE)


def resolve(info: KindInfo, name: str) -> Field:
    """The field that is called so; raises FieldError."""
    if len(name) > LONGEST_NAME:
        raise FieldError(f"a field's name is longer than {LONGEST_NAME} characters")
    bare, picks = _without_picks(name)
    known = fields_of(info)
    lower = {path.lower(): path for path in known}
    for path, key in _candidates(info, bare, lower):
        return _picked(known[path], _segments(bare, path), picks, key, name)
    if name.endswith("]"):
        # conditions[Ready]: the status of the item that is picked, or its name, which says that it is there.
        for member in ("status", "name"):
            with contextlib.suppress(FieldError):
                return resolve(info, f"{name}.{member}")
    return _unknown(info, name)


def short(info: KindInfo, field: Field) -> str:
    """The shortest usual name of a field."""
    for start in ("metadata.", "status.", "spec."):
        rest = field.path.removeprefix(start)
        if rest != field.path:
            try:
                if resolve(info, rest.replace(".*", ".KEY")).path == field.path:
                    return rest
            except FieldError:
                break
    return field.path


def names(info: KindInfo) -> list[str]:
    """The usual name of each field."""
    return [short(info, field) for field in fields_of(info).values()]


# -- names


def _candidates(info: KindInfo, name: str, lower: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Paths that a name may mean, the best first, with the key in a map. Raises FieldError."""
    low = name.lower()
    if info.namespaced and low in _CLOUDS:
        low = "metadata.namespace"
    for start in ("", "metadata.", "status.", "spec."):
        for path in (start + low, f"{start}{low}.*"):
            if path in lower:
                yield lower[path], ""
    for alias, target in ALIASES.get(info.kind, {}).items():
        if low == alias or low.startswith(f"{alias}."):
            path = (target + name[len(alias) :]).lower()
            if path in lower:
                yield lower[path], ""
    for column in info.columns:
        if column.name.lower().replace(" ", "") == low and column.path.lower() in lower:
            yield lower[column.path.lower()], ""
    ends = [lower[path] for path in lower if path.endswith(f".{low}")]
    if len(ends) > 1:
        listed = ", ".join(_plain(path) for path in ends[:_AMBIGUOUS])
        more = " and more" if len(ends) > _AMBIGUOUS else ""
        raise FieldError(f"{name!r} may be several fields of {info.plural}: {listed}{more}; say which")
    if ends:
        yield ends[0], ""
    for path in lower:
        if path.endswith(".*"):
            start = path[:-1]
            for begin in (start, start.partition(".")[2]):
                if begin and low.startswith(begin) and len(low) > len(begin):
                    yield lower[path], name[len(begin) :]


def _plain(path: str) -> str:
    return path.removeprefix("status.").removeprefix("spec.").removeprefix("metadata.")


_PICK = re.compile(r"\[([^\[\]]*)\]")


def _without_picks(name: str) -> tuple[str, dict[int, str]]:
    """The name without what is in brackets, and that by how many segments, from the front, lie before."""
    picks: dict[int, str] = {}
    bare, at = "", 0
    for match in _PICK.finditer(name):
        bare += name[at : match.start()]
        picks[bare.count(".")] = match[1]
        at = match.end()
    return bare + name[at:], picks


def _segments(bare: str, path: str) -> int:
    """How many segments of a path lie before those of a name."""
    return max(0, path.removesuffix(".*").count(".") - bare.count("."))


def _picked(field: Field, before: int, picks: dict[int, str], key: str, name: str) -> Field:
    steps = list(field.steps)
    if key:
        steps[-1] = msgspec.structs.replace(steps[-1], pick=key)
    for place, pick in picks.items():
        at = before + place
        if key or not pick or at >= len(steps) or steps[at].holds == "one":
            raise FieldError(f"{name!r}: what is before [{pick}] is no list or map")
        if steps[at].holds == "list" and not steps[at].keys:
            raise FieldError(f"{name!r}: the items of this list have no keys to pick one by")
        steps[at] = msgspec.structs.replace(steps[at], pick=pick)
    if steps[-1].holds == "map" and not steps[-1].pick:
        raise FieldError(f"{name!r} is a map: say which key, as {_plain(field.path)[:-1]}KEY")
    return msgspec.structs.replace(field, steps=tuple(steps))


def _unknown(info: KindInfo, name: str) -> Field:
    near = nearest(info, name)
    meant = f"; nearest are {', '.join(near)}" if near else ""
    raise FieldError(f"{info.plural} have no field {name[:100]!r}{meant}")


def nearest(info: KindInfo, name: str) -> list[str]:
    """Names of fields that are much like a name that is none."""
    words: dict[str, str] = {}
    for known in names(info):
        words.setdefault(known.lower(), known)
        words.setdefault(known.rpartition(".")[2].lower(), known)
    for alias in ALIASES.get(info.kind, {}):
        words.setdefault(alias, alias)
    for column in info.columns:
        words.setdefault(column.name.lower().replace(" ", ""), column.name.lower().replace(" ", ""))
    low = name.lower()
    for alias, target in ALIASES.get(info.kind, {}).items():
        if low.startswith(f"{alias}."):
            low = _plain(target) + low[len(alias) :]
    close = difflib.get_close_matches(low, list(words), n=_SUGGESTED, cutoff=0.6)
    close += difflib.get_close_matches(low.rpartition(".")[2], list(words), n=_SUGGESTED, cutoff=0.6)
    return list(dict.fromkeys(words[word] for word in close))[:_SUGGESTED]


# -- the structs


def _members(
    struct: inspect.StructType, instance: Any, at: tuple[Step, ...], above: tuple[type, ...]
) -> Iterator[Field]:
    """The fields in a struct. `instance` is what stands there when all is left out, if anything."""
    if struct.cls in above:
        return
    for member in struct.fields:
        own = None if member.default is NODEFAULT else member.default
        left_out = getattr(instance, member.name) if instance is not None else own
        yield from _inside(
            member.type,
            Step(member.encode_name),
            _Words(),
            (own, left_out),
            at,
            (*above, struct.cls),
        )


class _Words(msgspec.Struct, frozen=True):
    """What is said of a member at its type."""

    description: str = ""
    unit: str = ""
    format: str = ""
    keys: str = ""


def _inside(
    kind: inspect.Type,
    step: Step,
    words: _Words,
    defaults: tuple[Any, Any],
    at: tuple[Step, ...],
    above: tuple[type, ...],
) -> Iterator[Field]:
    match kind:
        case inspect.Metadata():
            yield from _inside(kind.type, step, _told(kind, words), defaults, at, above)
        case inspect.UnionType():
            inner = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
            if len(inner) == 1:
                yield from _inside(inner[0], step, words, defaults, at, above)
            elif all(isinstance(_bare(t), inspect.LiteralType | inspect.StrType) for t in inner):
                yield _field(inspect.StrType(), step, words, defaults, at)
        case inspect.StructType():
            instance = defaults[1] if isinstance(defaults[1], msgspec.Struct) else None
            yield from _members(kind, instance, (*at, step), above)
        case inspect.ListType():
            if step.holds == "one":
                listed = msgspec.structs.replace(step, holds="list", keys=words.keys)
                yield from _inside(kind.item_type, listed, words, (None, None), at, above)
        case inspect.DictType() if step.holds == "one":
            if isinstance(_bare(kind.value_type), inspect.StrType | inspect.IntType):
                mapped = msgspec.structs.replace(step, holds="map")
                yield from _inside(kind.value_type, mapped, words, (None, None), at, above)
        case inspect.StrType() | inspect.LiteralType() | inspect.IntType() | inspect.FloatType():
            yield _field(kind, step, words, defaults, at)
        case inspect.BoolType():
            yield _field(kind, step, words, defaults, at)


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _told(kind: inspect.Metadata, words: _Words) -> _Words:
    schema, extra = kind.extra_json_schema or {}, kind.extra or {}
    return _Words(
        description=schema.get("description", "") or words.description,
        unit=extra.get("unit") or words.unit,
        format=schema.get("format", "") or words.format,
        keys=next(iter(extra.get("list_keys", ())), "") or words.keys,
    )


def _field(
    kind: inspect.Type, step: Step, words: _Words, defaults: tuple[Any, Any], at: tuple[Step, ...]
) -> Field:
    steps = (*at, step)
    path = ".".join(s.name for s in steps) + (".*" if step.holds == "map" else "")
    type, choices = _type(kind, words)
    return Field(
        path=path,
        type=type,
        steps=steps,
        unit=words.unit,
        choices=choices,
        description=words.description,
        defaults=tuple(dict.fromkeys(d for d in defaults if isinstance(d, (str, int, float)))),
    )


def _type(kind: inspect.Type, words: _Words) -> tuple[FieldType, tuple[str, ...]]:
    match kind:
        case inspect.BoolType():
            return "boolean", ()
        case inspect.IntType():
            return "whole", ()
        case inspect.FloatType():
            return "number", ()
        case inspect.LiteralType() if all(isinstance(v, str) for v in kind.values):
            return "choice", tuple(str(v) for v in kind.values)
        case _:
            return ("time" if words.format == "date-time" else "text"), ()
