"""Label and field selectors: which resources a list or a watch is about.

Grammar as in the Kubernetes API conventions, requirements joined by commas (and):
- labels: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, `a>1`, `a<1`; `!=` and `notin`
  also hold where the label is absent, `>` and `<` only where it is a whole number of 64 bits;
- fields: `path=value`, `path==value`, `path!=value`, on metadata.name, metadata.namespace and the
  kind's selectable paths; an absent field reads as "".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from roost.model.codec import Raw

_NAME = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)"
_PREFIX = r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)"
LABEL_KEY = re.compile(rf"^({_PREFIX}/)?{_NAME}\Z")
LABEL_VALUE = re.compile(rf"^{_NAME}?\Z")

_TOKEN = re.compile(r"\s*(?P<token>==|!=|=|!|,|>|<|\(|\)|-?[A-Za-z0-9][-A-Za-z0-9_./]*)\s*")
_WHOLE = re.compile(r"^-?[0-9]{1,19}\Z")
_LONGEST = 8192


class SelectorError(ValueError):
    """A selector that can't be understood; the message names the place."""


class Operator(Enum):
    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "absent"
    ABOVE = ">"
    BELOW = "<"


class Requirement(msgspec.Struct, frozen=True):
    """One condition on the labels."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()
    bound: int = 0

    def holds(self, labels: dict[str, str]) -> bool:
        """Whether labels fulfil it."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.EXISTS:
                return value is not None
            case Operator.ABSENT:
                return value is None
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values
            case Operator.ABOVE | Operator.BELOW:
                number = _whole(value or "")
                if number is None:
                    return False
                return number > self.bound if self.operator is Operator.ABOVE else number < self.bound


class FieldRequirement(msgspec.Struct, frozen=True):
    """One condition on a field."""

    path: str
    value: str
    equal: bool = True


class Selector(msgspec.Struct, frozen=True):
    """All conditions of a list or watch; all must hold."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldRequirement, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing is asked."""
        return not self.labels and not self.fields

    def matches(self, raw: Raw) -> bool:
        """Whether a resource fulfils every condition."""
        if self.labels:
            labels = raw["metadata"].get("labels") or {}
            if not all(r.holds(labels) for r in self.labels):
                return False
        return all((text_at(raw, f.path) == f.value) is f.equal for f in self.fields)

    def exactly(self, path: str) -> str:
        """The value `path` must have; empty when it is not pinned."""
        return next((f.value for f in self.fields if f.path == path and f.equal), "")


def text_at(raw: Raw, path: str) -> str:
    """The value at a dotted wire path as text; absent is empty."""
    value: Any = raw
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Requirements of a label selector; raises SelectorError."""
    tokens = _tokens(text)
    found: list[Requirement] = []
    while tokens:
        found.append(_requirement(tokens, text))
        if tokens and tokens.pop(0) != ",":
            raise SelectorError(f"label selector {text!r}: expected a comma between requirements")
    return tuple(found)


def parse_fields(text: str, known: Sequence[str]) -> tuple[FieldRequirement, ...]:
    """Requirements of a field selector on `known` paths; raises SelectorError."""
    if len(text) > _LONGEST:
        raise SelectorError(f"field selector is longer than {_LONGEST} characters")
    found = []
    for part in _split(text):
        before, sign, value = part.partition("=")
        path, equal = before.removesuffix("!").strip(), not before.endswith("!")
        if not sign or not path or re.search(r"[!\\]", path):
            raise SelectorError(f"field selector {part!r} is not PATH=VALUE, PATH==VALUE or PATH!=VALUE")
        if path not in known:
            raise SelectorError(f"field label not supported: {path}; supported are {', '.join(known)}")
        wanted = value.removeprefix("=") if equal else value
        found.append(FieldRequirement(path, _unescape(wanted), equal))
    return tuple(found)


def _tokens(text: str) -> list[str]:
    if len(text) > _LONGEST:
        raise SelectorError(f"label selector is longer than {_LONGEST} characters")
    tokens, at = [], 0
    stripped = text.strip()
    while at < len(stripped):
        match = _TOKEN.match(stripped, at)
        if match is None:
            raise SelectorError(f"label selector {text!r}: can't read it from {stripped[at : at + 20]!r}")
        tokens.append(match["token"])
        at = match.end()
    return tokens


def _requirement(tokens: list[str], text: str) -> Requirement:
    first = tokens.pop(0)
    if first == "!":
        return Requirement(_key(tokens, text), Operator.ABSENT)
    tokens.insert(0, first)
    key = _key(tokens, text)
    if not tokens or tokens[0] == ",":
        return Requirement(key, Operator.EXISTS)
    operator = tokens.pop(0)
    match operator:
        case "=" | "==":
            return Requirement(key, Operator.IN, frozenset({_value(tokens)}))
        case "!=":
            return Requirement(key, Operator.NOT_IN, frozenset({_value(tokens)}))
        case "in" | "notin":
            return Requirement(key, Operator(operator), _values(tokens, text))
        case ">" | "<":
            given = tokens.pop(0) if tokens else ""
            bound = _whole(given)
            if bound is None:
                raise SelectorError(
                    f"label selector {text!r}: {given!r} after {operator!r} is no whole number"
                )
            return Requirement(key, Operator(operator), bound=bound)
        case _:
            raise SelectorError(f"label selector {text!r}: {operator!r} after {key!r} is no operator")


def _whole(text: str) -> int | None:
    """A whole number of 64 bits; None when the text is none."""
    if not _WHOLE.match(text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def _key(tokens: list[str], text: str) -> str:
    key = tokens.pop(0) if tokens else ""
    if not LABEL_KEY.match(key):
        raise SelectorError(f"label selector {text!r}: {key!r} is not a label key")
    return key


def _value(tokens: list[str]) -> str:
    if not tokens or tokens[0] == ",":
        return ""
    value = tokens.pop(0)
    if not LABEL_VALUE.match(value):
        raise SelectorError(f"{value!r} is not a label value: letters, digits, '-', '_', '.', 63 at most")
    return value


def _values(tokens: list[str], text: str) -> frozenset[str]:
    if not tokens or tokens.pop(0) != "(":
        raise SelectorError(f"label selector {text!r}: expected '(' after in or notin")
    values = {_value_in_list(tokens)}
    while tokens:
        match tokens.pop(0):
            case ",":
                values.add(_value_in_list(tokens))
            case ")":
                return frozenset(values)
            case other:
                raise SelectorError(f"label selector {text!r}: expected ',' or ')' before {other!r}")
    raise SelectorError(f"label selector {text!r}: ')' is missing")


def _value_in_list(tokens: list[str]) -> str:
    return "" if tokens and tokens[0] == ")" else _value(tokens)


def _split(text: str) -> list[str]:
    """At commas that no backslash stands before; empty parts are left out."""
    parts = re.findall(r"(?:\\.|[^,\\])+", text, re.DOTALL)
    return [p for p in parts if p.strip()]


def _unescape(value: str) -> str:
    return re.sub(r"\\([\\,=])", r"\1", value)
