"""Conditions on the fields of objects: `memory>=64Gi`, `availability!=available`, `model~xeon`.

    condition = FIELD | "!" FIELD | FIELD OPERATOR VALUE {"," VALUE}
    OPERATOR  = "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~"

- A field alone holds where there is something: text that is not empty, true, any number. `!FIELD` is its
  opposite, which holds where there is nothing as well.
- `=` holds when one of the object's values is one of those given; an empty value stands for nothing. `!=` is
  its opposite. `~` holds when one of the values has one of the texts in it, whatever the case; `!~` is its
  opposite. Commas that belong to a value have a backslash before them.
- `<`, `<=`, `>`, `>=` hold when one of the values does: numbers as numbers, times as times, severities by how
  bad they are, other text by the numbers in it, so that version 0.10 is above 0.9. Where there is no value
  they don't hold.
- A number may have a unit: `64Gi` of a field in MiB is 65536. A time may be given from now: `-2h`.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

import msgspec

from roost.model import time
from roost.model.fields import Field, Scalar, resolve
from roost.model.kind import KindInfo
from roost.model.values import Values

Operator = Literal["is", "!", "=", "!=", "<", "<=", ">", ">=", "~", "!~"]
LONGEST = 2048
MOST = 32
"""Conditions of one question."""
SEVERITIES = ("info", "warning", "minor", "major", "critical")

_CONDITION = re.compile(
    r"(?P<not>!?)\s*(?P<field>[A-Za-z](?:\[[^\[\]]*\]|[\w./-])*)\s*"
    r"(?:(?P<operator>!=|!~|==|<=|>=|=|<|>|~)\s*(?P<value>.*))?",
    re.DOTALL,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPPOSITES: dict[str, str] = {"!": "is", "!=": "=", "!~": "~"}


class ConditionError(ValueError):
    """A condition that can't be read. The message names it and what is wrong."""


class Condition(msgspec.Struct, frozen=True):
    """One condition, as `name` of a field was written. `wanted` is what values are compared with."""

    field: Field
    name: str
    operator: Operator
    wanted: tuple[Any, ...] = ()

    def holds(self, values: Values) -> bool:
        """Whether the values of an object fulfil it."""
        opposite = _OPPOSITES.get(self.operator)
        if opposite is not None:
            return not self._one(opposite, values)
        return self._one(self.operator, values)

    def _one(self, operator: str, values: Values) -> bool:
        match operator:
            case "is":
                return any(value is not False and value != "" for value in values)
            case "=":
                return any(v in self.wanted for v in values) or ("" in self.wanted and not values)
            case "~":
                return any(text in str(value).lower() for value in values for text in self.wanted)
        compare, bound = _COMPARE[operator], self.wanted[0]
        for value in values:
            known = ordered(self.field, value)
            if known is not None and compare(known, bound):
                return True
        return False

    @property
    def literal(self) -> str:
        """Text that the JSON of every object that fulfils it holds; empty when there is none to be sure of.

        It is looked for in stored objects, which are written without blanks.
        """
        if self.operator != "=" or len(self.wanted) != 1 or self.field.type in ("number", "time"):
            return ""
        wanted = self.wanted[0]
        if wanted == "" or wanted in self.field.defaults or not _plain(f"{wanted}{self.field.leaf}"):
            return ""
        if self.field.steps[-1].holds == "list":
            return f'"{wanted}"' if isinstance(wanted, str) else ""
        if isinstance(wanted, str):
            return f'"{self.field.leaf}":"{wanted}"'
        return f'"{self.field.leaf}":{str(wanted).lower() if isinstance(wanted, bool) else wanted}'


def _plain(text: str) -> bool:
    """Whether JSON and the patterns of databases have a text as it is. Their wildcards only find more."""
    return text.isascii() and text.isprintable() and not set(text) & {'"', "\\"}


def parse(info: KindInfo, text: str, now: datetime) -> Condition:
    """Read a condition; raises ConditionError and FieldError."""
    if len(text) > LONGEST:
        raise ConditionError(f"a condition is longer than {LONGEST} characters")
    match = _CONDITION.fullmatch(text.strip())
    if match is None or (match["not"] and match["operator"]):
        raise ConditionError(
            f"{text[:100]!r} is no condition: write FIELD, !FIELD, or FIELD, one of = != < <= > >= ~ !~, "
            "and a value"
        )
    field = resolve(info, match["field"])
    if not match["operator"]:
        return Condition(field, match["field"], "!" if match["not"] else "is")
    sign: Any = "=" if match["operator"] == "==" else match["operator"]
    try:
        wanted = _wanted(field, sign, match["value"], now)
    except ValueError as error:
        raise ConditionError(f"{text[:100]!r}: {error}") from error
    return Condition(field, match["field"], sign, wanted)


def parse_all(info: KindInfo, texts: Sequence[str], now: datetime) -> list[Condition]:
    """Several conditions; raises ConditionError and FieldError."""
    if len(texts) > MOST:
        raise ConditionError(f"there are more than {MOST} conditions")
    return [parse(info, text, now) for text in texts]


def _wanted(field: Field, sign: str, value: str, now: datetime) -> tuple[Any, ...]:
    parts = [part.strip() for part in _split(value)]
    if sign in _COMPARE:
        if len(parts) != 1 or not parts[0]:
            raise ValueError(f"{sign} takes one value")
        if field.type == "boolean" or (field.type == "choice" and not _are_severities(field)):
            raise ValueError(f"{field.leaf} has no order; ask with = or !=")
        return (_bound(field, parts[0], now),)
    if sign in ("~", "!~"):
        if not all(parts):
            raise ValueError(f"{sign} takes the text that is looked for")
        return tuple(part.lower() for part in parts)
    return tuple("" if part == "" else _value(field, part, now) for part in parts)


def _split(value: str) -> list[str]:
    """At commas that no backslash stands before."""
    parts = re.split(r"(?<!\\),", value)
    return [part.replace("\\,", ",") for part in parts]


def _value(field: Field, text: str, now: datetime) -> Scalar:
    """What `=` compares with. Raises ValueError."""
    match field.type:
        case "boolean":
            low = text.lower()
            if low not in ("true", "false", "yes", "no"):
                raise ValueError(f"{text!r} is neither true nor false")
            return low in ("true", "yes")
        case "whole" | "number":
            return number(text, field.unit)
        case "choice":
            _check_choice(field, text)
            return text
        case "time":
            raise ValueError("ask for a time with < or >")
        case "text":
            return text


def _bound(field: Field, text: str, now: datetime) -> Any:
    match field.type:
        case "whole" | "number":
            return number(text, field.unit)
        case "time":
            return _moment(text, now)
        case "choice":
            _check_choice(field, text)
            return SEVERITIES.index(text)
        case _:
            return version_of(text)


def _check_choice(field: Field, text: str) -> None:
    if text not in field.choices:
        near = difflib.get_close_matches(text, field.choices, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"{text!r} is no value of it; {meant}there are {', '.join(field.choices)}")


def _are_severities(field: Field) -> bool:
    return bool(field.choices) and set(field.choices) <= set(SEVERITIES)


def ordered(field: Field, value: Scalar) -> Any:
    """A value as it is compared with others of its field; None when it can't be."""
    match field.type:
        case "whole" | "number":
            return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        case "time":
            return _stamp(str(value))
        case "choice":
            return SEVERITIES.index(value) if isinstance(value, str) and value in SEVERITIES else None
        case "boolean":
            return None
        case "text":
            return version_of(value) if isinstance(value, str) and value else None


@lru_cache(4096)
def _stamp(text: str) -> datetime | None:
    try:
        return time.parse(text)
    except ValueError:
        return None


# -- numbers and times

_NUMBER = re.compile(r"(-?[0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z%][A-Za-z/%]*)?")
_BINARY = {f"{p}{b}": 1024**n for n, p in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi")) for b in ("", "B")}
_DECIMAL = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_UNITS: dict[str, dict[str, int]] = {
    "bytes": {**_BINARY, **_DECIMAL, **{f"{p}B": n for p, n in _DECIMAL.items()}, "bytes": 1},
    "rate": {**{f"{p}{r}": n for p, n in _DECIMAL.items() for r in ("", "bit/s", "bit", "bps")}},
    "frequency": {**{f"{p}{h}": n for p, n in _DECIMAL.items() for h in ("", "Hz", "hz")}},
    "time": {**_SECONDS, "seconds": 1},
    "share": {"%": 1, "percent": 1},
}
_OF: dict[str, tuple[str, int]] = {
    "bytes": ("bytes", 1),
    "KiB": ("bytes", 1024),
    "MiB": ("bytes", 1024**2),
    "GiB": ("bytes", 1024**3),
    "Mbit/s": ("rate", 10**6),
    "MHz": ("frequency", 10**6),
    "seconds": ("time", 1),
    "percent": ("share", 1),
}
"""Which units a field in a unit can be asked in, and how many of the smallest of them its own is."""


def number(text: str, unit: str) -> float | int:
    """A number in the unit of a field. Raises ValueError."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no number")
    given, suffix = match[1], match[2]
    plain: float | int = float(given) if "." in given else int(given)
    if not suffix:
        return plain
    sort, own = _OF.get(unit, ("", 1))
    factor = _UNITS.get(sort, {}).get(suffix)
    if factor is None:
        known = f"it is in {unit}" if unit else "it has no unit"
        raise ValueError(f"{suffix!r} is no unit of it; {known}")
    whole = plain * factor / own
    return int(whole) if whole == int(whole) else whole


_AGO = re.compile(r"-((?:[0-9]{1,6}[smhdw])+)")


def _moment(text: str, now: datetime) -> datetime:
    ago = _AGO.fullmatch(text)
    if ago is not None:
        seconds = sum(int(n) * _SECONDS[u] for n, u in re.findall(r"([0-9]+)([smhdw])", ago[1]))
        try:
            return now - timedelta(seconds=seconds)
        except OverflowError:
            raise ValueError(f"{text!r} is before all times") from None
    try:
        return time.parse(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: write 2026-11-23T04:05:06Z, or how long ago, as -2h"
        ) from None


_TOKEN = re.compile(r"[0-9]+|[A-Za-z]+")
_PARTS = 24
_Version = tuple[tuple[int, int, str], ...]


@lru_cache(4096)
def version_of(text: str) -> _Version:
    """Text in the order of versions: 1.10 is above 1.9, 1.2 is 1.2.0, 1.2rc1 is below 1.2."""
    tokens = _TOKEN.findall(text.partition("+")[0])[:_PARTS]
    parts = [(1, int(t[:18]), "") if t[0].isdigit() else (0, 0, t.lower()) for t in tokens]
    # Beyond the last part there are zeros, which are above words: these say what is not yet.
    return tuple(parts + [(1, 0, "")] * (_PARTS - len(parts)))
