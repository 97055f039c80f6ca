"""Sets of fields in the form of fieldsV1, which is also the form in which they are stored and sent.

A set is a tree of dicts: `f:NAME` is a field or a key of a map, `k:{...}` an item of a list by its keys,
`v:VALUE` a member of a set, `i:N` an item by its place. A node without children is a member; one with
children is a member too when it has the child `.`. The empty root is the empty set.

Nothing here changes its arguments, and results share parts with them: sets are never changed in place.

Source: Kubernetes API reference, FieldsV1; structured-merge-diff, package fieldpath.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

Fields = dict[str, Any]
Path = tuple[str, ...]

SELF = "."
MEMBER: Fields = {}
NONE: Fields = {}
DEEPEST = 128
_sorted = msgspec.json.Encoder(order="sorted").encode


def is_member(node: Fields | None) -> bool:
    """Whether a node stands for itself, not only for what is below it."""
    return node is not None and (not node or SELF in node)


def union(first: Fields, second: Fields) -> Fields:
    """Everything in either."""
    if not second or first is second:
        return first
    if not first:
        return second
    both = dict(first)
    for token, theirs in second.items():
        mine = both.get(token)
        if mine is None:
            both[token] = theirs
        elif mine is not theirs and mine != theirs:
            both[token] = _shut(union(_opened(mine), _opened(theirs)))
    return both


def difference(first: Fields, second: Fields) -> Fields:
    """Members of the first that are no members of the second; what is below a member stays."""
    if not first or not second:
        return first
    left: Fields = {}
    for token, mine in first.items():
        theirs = second.get(token)
        if theirs is None:
            left[token] = mine
        elif token != SELF:
            rest = difference(_opened(mine), _opened(theirs))
            if rest:
                left[token] = _shut(rest)
    return left


def without(first: Fields, removed: Fields) -> Fields:
    """The first without the members of the second and everything below them."""
    if not first or not removed:
        return first
    left: Fields = {}
    for token, mine in first.items():
        gone = removed.get(token)
        if gone is None:
            left[token] = mine
        elif not is_member(gone):
            rest = without(_opened(mine), gone)
            if rest:
                left[token] = _shut(rest)
    return left


def intersection(first: Fields, second: Fields) -> Fields:
    """Members of both."""
    both: Fields = {}
    for token, mine in first.items():
        theirs = second.get(token)
        if theirs is None:
            continue
        if token == SELF:
            both[SELF] = MEMBER
            continue
        shared = intersection(_opened(mine), _opened(theirs))
        if shared:
            both[token] = _shut(shared)
    return both


def members(fields: Fields, at: Path = ()) -> Iterator[Path]:
    """Every member as a path, the upper before what is below it."""
    for token, node in sorted(fields.items()):
        if token == SELF:
            continue
        path = (*at, token)
        if is_member(node):
            yield path
        yield from members(node, path)


def text(path: Path) -> str:
    """A path as messages have it: `.spec.interfaces[port="eth0"].networks[="oam"]`."""
    parts = []
    for token in path:
        form, rest = token[0], token[2:]
        if form == "f":
            parts.append(f".{rest}")
        elif form == "v":
            parts.append(f"[={rest}]")
        elif form == "k":
            keys: dict[str, Any] = msgspec.json.decode(rest)
            pairs = (f"{k}={msgspec.json.encode(v).decode()}" for k, v in keys.items())
            parts.append(f"[{','.join(pairs)}]")
        else:
            parts.append(f"[{rest}]")
    return "".join(parts)


def canonical(given: Any, depth: int = DEEPEST) -> Fields:
    """A set that somebody sent, its keys in our form; raises ValueError when it is none."""
    if not isinstance(given, dict) or depth == 0:
        raise ValueError("not a set of fields")
    made: Fields = {}
    for token, node in given.items():
        made[_canonical_token(token)] = canonical(node, depth - 1)
    return made


def value_token(value: Any) -> str:
    """The name of a member of a set."""
    return f"v:{_sorted(value).decode()}"


def key_token(keys: dict[str, Any]) -> str:
    """The name of an item of a list by its keys."""
    return f"k:{_sorted(keys).decode()}"


def _canonical_token(token: str) -> str:
    if token == SELF:
        return token
    form, rest = token[:2], token[2:]
    try:
        if form == "f:":
            return token
        if form == "v:":
            return value_token(msgspec.json.decode(rest))
        if form == "k:":
            keys = msgspec.json.decode(rest)
            if isinstance(keys, dict) and keys:
                return key_token(keys)
        if form == "i:":
            return f"i:{int(rest)}"
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{token[:100]!r} is not an element of a path") from error
    raise ValueError(f"{token[:100]!r} is not an element of a path")


_ALONE: Fields = {SELF: MEMBER}


def _opened(node: Fields) -> Fields:
    """A node with its own membership written out."""
    return node or _ALONE


def _shut(node: Fields) -> Fields:
    """A node in its shortest form."""
    return MEMBER if len(node) == 1 and SELF in node else node
