"""An applied configuration laid over the live object, and what goes when it is no longer applied.

`merge`: what is applied wins; maps and keyed lists are joined item by item. The order of a list is that of
the configuration; items that only the live object has keep their place between those they stood between.

`prune` removes what the manager applied last time, does not apply now, and nobody else owns. A struct
goes with the defaults that were filled in around what it owned; a map or list goes when nothing is left
in it. Whatever else nobody owns stays.

Neither changes its arguments: results share parts with them.
"""

from __future__ import annotations

from typing import Any

from roost.api.apply.comparing import same, tokens
from roost.api.apply.fields import NONE, Fields, is_member
from roost.api.apply.shapes import ABSENT, Shape, Sharing
from roost.model.codec import Raw

_KEYED = (Sharing.ITEMS, Sharing.SET)


def known(config: Any, shape: Shape) -> Any:
    """A configuration without the fields that this version does not know: nobody could own those."""
    if isinstance(config, dict):
        if shape.sharing is Sharing.STRUCT:
            return {
                key: known(value, shape.child(key)) if isinstance(value, dict | list) else value
                for key, value in config.items()
                if key in shape.fields or key in shape.untracked
            }
        if shape.sharing is Sharing.MAP:
            return {key: known(value, shape.item) for key, value in config.items()}
    if isinstance(config, list) and shape.sharing is Sharing.ITEMS:
        return [known(item, shape.item) for item in config]
    return config


def merge(live: Any, config: Any, shape: Shape) -> Any:
    """The live value with the applied one over it. What is not tracked stays as it lives."""
    sharing = shape.sharing
    if sharing is Sharing.LEAF:
        return config
    if isinstance(live, dict) and isinstance(config, dict) and sharing not in _KEYED:
        return _merge_maps(live, config, shape)
    if isinstance(live, list) and isinstance(config, list) and sharing in _KEYED:
        return _merge_lists(live, config, shape)
    return config


def prune(merged: Raw, shape: Shape, last: Fields, owned: Fields) -> Raw:
    """`merged` without what `last` names and `owned`, the fields that anybody owns now, does not."""
    if not last:
        return merged
    kept = _prune_map(merged, shape, last, owned, _State(under=False, lost=False))
    return kept if isinstance(kept, dict) else {}


class _State:
    """Of the values above: whether one was the manager's, and whether such a one is owned by nobody now."""

    __slots__ = ("lost", "under")

    def __init__(self, *, under: bool, lost: bool) -> None:
        self.under, self.lost = under, lost


def _merge_maps(live: Raw, config: Raw, shape: Shape) -> Raw:
    merged = dict(live)
    untracked = shape.untracked
    for key, value in config.items():
        if key in untracked:
            continue
        field = shape.fields.get(key)
        default = ABSENT if field is None else field.default
        before = live.get(key, default)
        merged[key] = value if before is ABSENT else merge(before, value, shape.child(key))
    return merged


def _merge_lists(live: list[Any], config: list[Any], shape: Shape) -> list[Any]:
    named, wanted = tokens(live, shape), tokens(config, shape)
    lives, applies = dict(zip(named, live, strict=True)), set(wanted)
    if len(lives) != len(live):
        return config
    shared = iter([token for token in wanted if token in lives])
    following = next(shared, "")
    merged: list[Any] = []
    at = 0
    for token, value in zip(wanted, config, strict=True):
        while at < len(live) and named[at] != following:
            if named[at] not in applies:
                merged.append(live[at])
            at += 1
        known = token in lives and shape.sharing is Sharing.ITEMS
        merged.append(merge(lives[token], value, shape.item) if known else value)
        if token == following:
            following = next(shared, "")
    return merged + [live[n] for n in range(at, len(live)) if named[n] not in applies]


def _prune(value: Any, shape: Shape, last: Fields, owned: Fields, above: _State) -> Any:
    if shape.sharing is Sharing.LEAF or not last:
        return value
    if isinstance(value, dict) and shape.sharing not in _KEYED:
        return _prune_map(value, shape, last, owned, above)
    if isinstance(value, list) and shape.sharing in _KEYED:
        return _prune_list(value, shape, last, owned, above)
    return value


def _prune_map(value: Raw, shape: Shape, last: Fields, owned: Fields, above: _State) -> Raw:
    struct = shape.sharing is Sharing.STRUCT
    left: Raw = {}
    for key, inner in value.items():
        field = shape.fields.get(key)
        token = field.token if field is not None else f"f:{key}"
        was = last.get(token)
        if was is None or key in shape.untracked:
            left[key] = inner
            continue
        now = owned.get(token)
        has_owner = now is not None and (struct or is_member(now))
        state = _State(under=above.under or is_member(was), lost=above.lost)
        state.lost |= state.under and not has_owner
        if is_member(was) and state.lost:
            continue
        child = shape.child(key)
        rest = _prune(inner, child, was, now or NONE, state)
        default = ABSENT if field is None else field.default
        bare = rest is not inner and (_bare(rest, child) or same(rest, default, child))
        if bare and not has_owner and key != "metadata":
            continue
        if rest is not inner and not rest and not is_member(now):
            continue
        left[key] = rest
    return left if len(left) != len(value) or any(left[k] is not value[k] for k in left) else value


def _prune_list(value: list[Any], shape: Shape, last: Fields, owned: Fields, above: _State) -> list[Any]:
    left: list[Any] = []
    for token, inner in zip(tokens(value, shape), value, strict=True):
        was = last.get(token)
        if was is None:
            left.append(inner)
            continue
        now = owned.get(token)
        state = _State(under=above.under or is_member(was), lost=above.lost)
        state.lost |= state.under and not is_member(now)
        if is_member(was) and state.lost:
            continue
        if shape.sharing is Sharing.SET:
            left.append(inner)
        else:
            left.append(_prune(inner, shape.item, was, now or NONE, state))
    same = len(left) == len(value) and all(a is b for a, b in zip(left, value, strict=True))
    return value if same else left


def _bare(value: Any, shape: Shape) -> bool:
    """Whether nothing but defaults is left of a value."""
    if not value and isinstance(value, dict | list):
        return True
    if not isinstance(value, dict) or shape.sharing is not Sharing.STRUCT:
        return False
    for key, inner in value.items():
        field = shape.fields.get(key)
        if field is None or not (inner == field.default or _bare(inner, field.shape)):
            return False
    return True
