"""One object of any kind in full, for people: names spelled out, ages, conditions as a table. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from roost.cli.tables import Column, Grid, age, lay_out, style_of

_HIDDEN = ("managedFields", "resourceVersion", "uid", "selfLink")
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def describe(raw: Mapping[str, Any], now: datetime, width: int | None) -> list[Text]:
    """The lines that describe an object."""
    meta = raw.get("metadata", {})
    lines = [Text(f"{raw.get('kind', '')} {meta.get('name', '')}", "bold")]
    shown = {k: v for k, v in meta.items() if k not in (*_HIDDEN, "name")}
    lines += _mapping(shown, now, 0)
    for part in (k for k in raw if k not in ("apiVersion", "kind", "metadata")):
        value = raw[part]
        conditions = value.get("conditions", []) if isinstance(value, Mapping) else []
        rest = {k: v for k, v in value.items() if k != "conditions"} if isinstance(value, Mapping) else value
        lines += [Text(), Text(_words(part), "bold underline")]
        lines += _mapping(rest, now, 0) if isinstance(rest, Mapping) else [Text(f"  {rest}")]
        if conditions:
            lines += [Text(), Text("Conditions", "bold underline"), *_conditions(conditions, now, width)]
    return lines


def _mapping(value: Mapping[str, Any], now: datetime, depth: int) -> list[Text]:
    lines: list[Text] = []
    for key, inner in value.items():
        if inner in (None, "", [], {}):
            continue
        head = Text("  " * depth)
        head.append(f"{_words(key)}: ", "bold" if depth == 0 else "")
        if isinstance(inner, Mapping):
            lines += [head, *_mapping(inner, now, depth + 1)]
        elif isinstance(inner, list) and any(isinstance(i, Mapping) for i in inner):
            lines += [head, *_items(inner, now, depth + 1)]
        else:
            head.append_text(_scalar(inner, now))
            lines.append(head)
    return lines


def _items(values: Sequence[Any], now: datetime, depth: int) -> list[Text]:
    lines: list[Text] = []
    for value in values:
        inner = _mapping(value, now, depth + 1) if isinstance(value, Mapping) else [_scalar(value, now)]
        if not inner:
            continue
        first = Text("  " * depth + "- ")
        first.append_text(inner[0][2 * (depth + 1) :])
        lines += [first, *inner[1:]]
    return lines


def _scalar(value: Any, now: datetime) -> Text:
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list):
        return Text(", ".join(str(v) for v in value))
    text = str(value)
    if _TIME.match(text):
        return Text(f"{text} ({age(text, now)} ago)")
    return Text(text, style_of(text))


def _conditions(conditions: Sequence[Mapping[str, Any]], now: datetime, width: int | None) -> list[Text]:
    names = ("type", "status", "reason", "message", "lastTransitionTime")
    rows = [[c.get(n, "") for n in names] for c in conditions]
    columns = [Column("Condition"), Column("Status"), Column("Why"), Column("Message"), Column("Age", "date")]
    return lay_out(Grid(columns, rows), now, width=width)


def _words(name: str) -> str:
    """`administrativeState` as `Administrative state`."""
    if "/" in name or "." in name or "-" in name:
        return name
    text = _WORDS.sub(" ", name)
    return text[:1].upper() + text[1:].lower()
