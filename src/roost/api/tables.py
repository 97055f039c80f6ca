"""Server-side tables: what `kubectl get` prints, from the columns of a kind.

A column's path is compiled once into a list of steps. Paths: `a.b` goes into an object, `[*]` takes
every item of a list (the rest of the path applies to each, joined by commas), `conditions[Ready]`
picks the condition of that type, `|count` at the end counts.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import cache
from typing import Any, get_type_hints

import msgspec

from roost.model import time
from roost.model.codec import Raw
from roost.model.kind import Column, KindInfo

_STEP = re.compile(r"(?P<field>[^.\[\]|]+)|\[(?P<index>[^\]]+)\]")
META = "meta.k8s.io/v1"


@cache
def definitions(info: KindInfo) -> list[Raw]:
    """Column definitions, the name first."""
    name = {
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "Name, unique per kind and namespace.",
        "priority": 0,
    }
    rest = [
        {
            "name": c.name,
            "type": c.type,
            "format": "",
            "description": c.description,
            "priority": c.priority,
        }
        for c in info.columns
    ]
    return [name, *rest]


def cells(info: KindInfo, raw: Raw, now: datetime) -> list[Any]:
    """The cells of one row."""
    return [raw["metadata"]["name"], *(cell(info, c, raw, now) for c in info.columns)]


def cell(info: KindInfo, column: Column, raw: Raw, now: datetime) -> Any:
    """One cell: text, a number, a boolean, or None where there is nothing to count."""
    found = _found(column.path, raw) or _default(info, column, raw)
    if column.path.endswith("|count"):
        return sum(len(v) for v in found if isinstance(v, (list, dict)))
    if column.type == "date":
        return age(found[0], now) if found and found[0] else ""
    if not found:
        return None if column.type in ("integer", "number") else ""
    if "[*]" in column.path:
        return ",".join(_text(v) for v in found)
    value = found[0]
    return value if isinstance(value, (int, float, bool)) else _text(value)


def _found(path: str, raw: Raw) -> list[Any]:
    """What is at the first of the alternatives where there is anything."""
    return next((found for p in path.split(",") if (found := _walk([raw], _compile(p)))), [])


def age(stamp: object, now: datetime) -> str:
    """Time since a point in time, as kubectl prints it."""
    try:
        return human(now - time.parse(str(stamp)))
    except ValueError:
        return "<unknown>"


def human(span: timedelta) -> str:
    """5s, 3m20s, 12m, 4h5m, 30h, 3d4h, 90d, 2y40d, 9y: two units while they matter."""
    seconds = int(span.total_seconds())
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def partial(raw: Raw, version: str = META) -> Raw:
    """Only the metadata of a resource."""
    return {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": raw["metadata"]}


def row(info: KindInfo, raw: Raw, now: datetime, include: str, version: str = META) -> Raw:
    """One row of a table. `include` is what it carries of the resource: Metadata, Object or None."""
    made: Raw = {"cells": cells(info, raw, now)}
    if include == "Object":
        made["object"] = raw
    elif include == "Metadata":
        made["object"] = partial(raw, version)
    return made


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


@cache
def _compile(path: str) -> tuple[str, ...]:
    """Steps of a path: a field's name, `*`, or `?Type` for the condition of that type."""
    steps = []
    for match in _STEP.finditer(path.removesuffix("|count")):
        index = match["index"]
        if index is None:
            steps.append(match["field"])
        else:
            steps.append("*" if index == "*" else f"?{index}")
    return tuple(steps)


def _walk(values: list[Any], steps: tuple[str, ...]) -> list[Any]:
    for step in steps:
        if step == "*":
            values = [item for v in values if isinstance(v, list) for item in v]
        elif step.startswith("?"):
            lists = [v for v in values if isinstance(v, list)]
            values = [i for v in lists for i in v if isinstance(i, dict) and i.get("type") == step[1:]]
        else:
            values = [v[step] for v in values if isinstance(v, dict) and v.get(step) is not None]
    return values


def _default(info: KindInfo, column: Column, raw: Raw) -> list[Any]:
    """The default of a plain field that its parent left out, as structs do on the wire."""
    parent, _, leaf = column.path.rpartition(".")
    if not parent or set("[|,") & set(column.path) or not _walk([raw], _compile(parent)):
        return []
    default = _leaf_default(info, parent, leaf)
    return [] if default is None else [default]


@cache
def _leaf_default(info: KindInfo, parent: str, leaf: str) -> Any:
    struct: Any = info.type
    for step in parent.split("."):
        struct = _struct_in(struct, step)
        if struct is None:
            return None
    names = dict(zip(struct.__struct_encode_fields__, msgspec.structs.fields(struct), strict=True))
    default = names[leaf].default if leaf in names else None
    return default if isinstance(default, (str, int, float, bool)) else None


def _struct_in(struct: Any, wire: str) -> Any:
    """The struct inside a field, None when it holds none."""
    for name, encoded in zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True):
        if encoded == wire:
            hint = get_type_hints(struct)[name]
            choices = [hint, *getattr(hint, "__args__", ())]
            return next((c for c in choices if isinstance(c, type) and issubclass(c, msgspec.Struct)), None)
    return None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)
