"""What fields an object has, and in which fields two objects differ.

`created` gives what a plain write makes its own: every node, those that hold others too. `applied`
gives what an applied configuration claims: what has a value, and the items of lists.

An absent field of a struct has its default (see `shapes`), so leaving a default out changes nothing, and
leaving out another value changes it to the default.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from roost.api.apply.fields import MEMBER, NONE, SELF, Fields, is_member, key_token, value_token
from roost.api.apply.shapes import ABSENT, Shape, Sharing
from roost.model.codec import Raw
from roost.model.kind import Problem

_HOLDER: Fields = {SELF: MEMBER}
_json = msgspec.json.encode


class Difference(NamedTuple):
    """`changed` was added or has another value; what `removed` names is gone with all below it."""

    changed: Fields
    removed: Fields


NOTHING = Difference(NONE, NONE)


def applied(body: Raw, shape: Shape) -> Fields:
    """Fields that an applied configuration claims."""
    return _plain_metadata(_below(body, shape, NONE) or NONE)


def created(body: Raw, shape: Shape) -> Fields:
    """Fields of an object that somebody has made."""
    made = _below(body, shape, _HOLDER) or NONE
    return _plain_metadata({token: node for token, node in made.items() if token != SELF})


def compare(old: Raw, new: Raw, shape: Shape) -> Difference:
    """In which fields `new` differs from `old`."""
    found = _compare(old, new, shape)
    if found is NOTHING:
        return found
    return Difference(_plain_metadata(found.changed), found.removed)


def tokens(items: list[Any], shape: Shape) -> list[str]:
    """The name of each item of a list that is an ITEMS or a SET."""
    if shape.sharing is Sharing.SET:
        return [value_token(item) for item in items]
    if len(shape.keys) == 1:
        ((key, default),) = shape.keys
        start = f'k:{{"{key}":'
        return [
            f"{start}{_json(item.get(key, default) if isinstance(item, dict) else None).decode()}}}"
            if not isinstance(item, dict) or item.get(key, default) is not ABSENT
            else f"{start}null}}"
            for item in items
        ]
    return [_keyed(item, shape) for item in items]


def duplicates(value: Any, shape: Shape, at: str = "") -> Iterable[Problem]:
    """Items of lists that stand there twice, with their paths."""
    match shape.sharing:
        case Sharing.STRUCT if isinstance(value, dict):
            for key, inner in value.items():
                field = shape.fields.get(key)
                if field is not None and isinstance(inner, dict | list):
                    yield from duplicates(inner, field.shape, f"{at}.{key}" if at else key)
        case Sharing.MAP if isinstance(value, dict) and shape.item.sharing is not Sharing.LEAF:
            for key, inner in value.items():
                yield from duplicates(inner, shape.item, f"{at}.{key}")
        case Sharing.ITEMS | Sharing.SET if isinstance(value, list):
            named = tokens(value, shape)
            if len(set(named)) != len(named):
                seen = set[str]()
                for n, token in enumerate(named):
                    if token in seen:
                        yield Problem(f"{at}[{n}]", f"Duplicate value: {token[2:]}", "list each once")
                    seen.add(token)
            if shape.sharing is Sharing.ITEMS and shape.item.sharing is not Sharing.LEAF:
                for n, inner in enumerate(value):
                    yield from duplicates(inner, shape.item, f"{at}[{n}]")


def _keyed(item: Any, shape: Shape) -> str:
    found = {key: item.get(key, default) if isinstance(item, dict) else None for key, default in shape.keys}
    return key_token({key: None if value is ABSENT else value for key, value in found.items()})


def _plain_metadata(fields: Fields) -> Fields:
    """Nobody owns metadata as such."""
    metadata = fields.get("f:metadata")
    if metadata is None or not is_member(metadata):
        return fields
    rest = {k: v for k, v in metadata.items() if k != SELF}
    others = {k: v for k, v in fields.items() if k != "f:metadata"}
    return {**others, "f:metadata": rest} if rest else others


def _below(value: Any, shape: Shape, holder: Fields) -> Fields | None:
    """The node of a value, None when it claims nothing; `holder` is what a node of others begins with."""
    sharing = shape.sharing
    if sharing is Sharing.LEAF:
        return MEMBER
    if isinstance(value, dict):
        if not value or sharing is Sharing.ITEMS or sharing is Sharing.SET:
            return MEMBER
        if sharing is Sharing.STRUCT:
            return _of_struct(value, shape, holder)
        item, found = shape.item, dict(holder)
        for key, inner in value.items():
            node = _below(inner, item, holder) if isinstance(inner, dict | list) else MEMBER
            found[f"f:{key}"] = _holding(node)
        return found
    if isinstance(value, list) and (sharing is Sharing.ITEMS or sharing is Sharing.SET):
        found = dict(holder)
        for token, inner in zip(tokens(value, shape), value, strict=True):
            node = _below(inner, shape.item, holder) if sharing is Sharing.ITEMS else MEMBER
            found[token] = _holding(node)
        return _ended(found)
    return MEMBER


def _of_struct(value: Raw, shape: Shape, holder: Fields) -> Fields | None:
    found = dict(holder)
    fields, untracked = shape.fields, shape.untracked
    for key, inner in value.items():
        field = fields.get(key)
        if field is None:
            if key in untracked:
                continue
            token, inside = f"f:{key}", shape.child(key)
        else:
            token, inside = field.token, field.shape
        node = _below(inner, inside, holder) if isinstance(inner, dict | list) else MEMBER
        if node is not None:
            found[token] = node
    return _ended(found)


def _ended(node: Fields) -> Fields | None:
    """A node in its shortest form; None for one that says nothing."""
    return (MEMBER if len(node) == 1 and SELF in node else node) if node else None


def _holding(node: Fields | None) -> Fields:
    """A node that stands for itself too, whatever is below it."""
    if not node:
        return MEMBER
    return node if SELF in node else {SELF: MEMBER, **node}


def _made(value: Any, shape: Shape) -> Fields:
    return _below(value, shape, _HOLDER) or MEMBER if isinstance(value, dict | list) else MEMBER


def _compare(old: Any, new: Any, shape: Shape) -> Difference:
    if old == new:
        return NOTHING
    sharing = shape.sharing
    if isinstance(old, dict) and isinstance(new, dict):
        if sharing is Sharing.STRUCT:
            return _compare_structs(old, new, shape)
        if sharing is Sharing.MAP or sharing is Sharing.ANY:
            named_old = {f"f:{k}": v for k, v in old.items()}
            named_new = {f"f:{k}": v for k, v in new.items()}
            return _compare_named(named_old, named_new, shape.item)
    if isinstance(old, list) and isinstance(new, list):
        if sharing is Sharing.SET:
            return _compare_named(dict.fromkeys(tokens(old, shape)), dict.fromkeys(tokens(new, shape)), shape)
        if sharing is Sharing.ITEMS:
            before = dict(zip(tokens(old, shape), old, strict=True))
            after = dict(zip(tokens(new, shape), new, strict=True))
            return _compare_named(before, after, shape.item)
    if sharing is Sharing.LEAF and shape.item is not shape and same(old, new, shape):
        return NOTHING
    return Difference(MEMBER, NONE)


def same(old: Any, new: Any, shape: Shape) -> bool:
    """Whether two values differ at most in defaults that one leaves out; lists keep their order."""
    if old == new:
        return True
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(same(a, b, shape.item) for a, b in zip(old, new, strict=True))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return False
    inner = shape.item if shape.sharing is Sharing.LEAF else shape
    for key in old.keys() | new.keys():
        field = inner.fields.get(key)
        default = ABSENT if field is None else field.default
        before, after = old.get(key, default), new.get(key, default)
        if before is ABSENT or after is ABSENT or not same(before, after, inner.child(key)):
            return False
    return True


def _compare_named(old: Raw, new: Raw, item: Shape) -> Difference:
    """Maps, and lists by the names of their items."""
    changed: Fields = {}
    removed: Fields = {}
    for token, value in new.items():
        if token in old:
            _note(token, _compare(old[token], value, item), changed, removed)
        else:
            changed[token] = _made(value, item)
    for token in old:
        if token not in new:
            removed[token] = MEMBER
    return _found(changed, removed)


def _compare_structs(old: Raw, new: Raw, shape: Shape) -> Difference:
    changed: Fields = {}
    removed: Fields = {}
    untracked = shape.untracked
    for key, value in new.items():
        if key in untracked:
            continue
        field = shape.fields.get(key)
        token = field.token if field is not None else f"f:{key}"
        inner = field.shape if field is not None else shape.child(key)
        before = old.get(key, ABSENT)
        if before is not ABSENT:
            if before is not value:
                _note(token, _compare(before, value, inner), changed, removed)
        elif field is None or field.default is ABSENT:
            changed[token] = _made(value, inner)
        else:
            found = _compare(field.default, value, inner)
            if found is not NOTHING:
                _note(token, Difference(_holding(found.changed), found.removed), changed, removed)
    for key, value in old.items():
        if key in new or key in untracked:
            continue
        field = shape.fields.get(key)
        if field is None or field.default is ABSENT:
            removed[f"f:{key}"] = MEMBER
            continue
        found = _compare(value, field.default, field.shape)
        if found is not NOTHING and field.default in ({}, []):
            removed[field.token] = MEMBER
        else:
            _note(field.token, found, changed, removed)
    return _found(changed, removed)


def _note(token: str, found: Difference, changed: Fields, removed: Fields) -> None:
    """Put what was found below a name there. A difference without children is the value's own."""
    if found is NOTHING:
        return
    if found.changed or not found.removed:
        changed[token] = found.changed
    if found.removed:
        removed[token] = found.removed


def _found(changed: Fields, removed: Fields) -> Difference:
    return Difference(changed, removed) if changed or removed else NOTHING
