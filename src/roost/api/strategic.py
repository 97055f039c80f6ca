"""Strategic merge patch, which kubectl and client-go send for Kubernetes' own kinds.

A merge patch (RFC 7386) in which some lists are merged too, and with directives:

- `$patch: replace` puts what stands beside it in place of an object; `$patch: delete` takes the object away;
- `$retainKeys` names the fields of an object that stay;
- a list of objects in MERGED is merged by its key; an item with `$patch: delete` is taken away, and an item
  `{$patch: replace}` says that the list is to be the others;
- a list of texts in UNITED gains what the patch has; `$deleteFromPrimitiveList/NAME` names what goes;
- `$setElementOrder/NAME` gives the order of such a list: what it names comes so, the rest follows.

Source: Kubernetes, "Strategic Merge Patch" (sig-api-machinery); the keys are those of its Go types.
"""

from __future__ import annotations

from typing import Any

from roost.api.status import ApiError, bad_request
from roost.model.codec import Raw

MEDIA_TYPE = "application/strategic-merge-patch+json"
MERGED = {"ownerReferences": "uid", "secrets": "name", "imagePullSecrets": "name"}
UNITED = frozenset({"finalizers"})
_PATCH, _RETAIN = "$patch", "$retainKeys"
_DELETE, _ORDER = "$deleteFromPrimitiveList/", "$setElementOrder/"


class _Gone:
    """What `$patch: delete` leaves."""


def merge(current: Raw, patch: Raw) -> Raw:
    """The patched object; `current` stays as it is. Raises ApiError 400."""
    merged = _object(current, patch)
    if isinstance(merged, _Gone):
        raise bad_request("$patch: delete can't delete the object itself; send DELETE")
    return merged


def _object(current: Raw, patch: Raw) -> Raw | _Gone:
    directive = patch.get(_PATCH)
    if directive == "delete":
        return _Gone()
    if directive not in (None, "replace", "merge"):
        raise bad_request(f"$patch: {str(directive)[:32]!r} is none of replace, merge, delete")
    merged = {} if directive == "replace" else dict(current)
    retained = patch.get(_RETAIN)
    if retained is not None:
        kept = set(_texts(retained, _RETAIN))
        merged = {k: v for k, v in merged.items() if k in kept}
    for key, value in patch.items():
        if key.startswith(_DELETE):
            name, gone = key.removeprefix(_DELETE), _texts(value, key)
            merged[name] = [item for item in _list(merged.get(name)) if item not in gone]
        elif not key.startswith("$"):
            new = _value(key, merged.get(key), value)
            if isinstance(new, _Gone):
                merged.pop(key, None)
            else:
                merged[key] = new
    for key, value in patch.items():
        name = key.removeprefix(_ORDER)
        if name != key and isinstance(merged.get(name), list):
            merged[name] = _ordered(name, merged[name], _list(value))
    return merged


def _value(name: str, current: Any, patch: Any) -> Any:
    if patch is None:
        return _Gone()
    if isinstance(patch, dict):
        return _object(current if isinstance(current, dict) else {}, patch)
    if isinstance(patch, list) and name in UNITED:
        there = _list(current)
        return [*there, *(item for item in patch if item not in there)]
    if isinstance(patch, list) and name in MERGED:
        return _items(MERGED[name], name, _list(current), patch)
    return patch


def _items(key: str, name: str, current: list[Any], patch: list[Any]) -> list[Any]:
    """A list of objects, merged by their key."""
    if not all(isinstance(item, dict) for item in patch):
        raise bad_request(f"{name}: its items must be objects with {key}")
    if any(item.get(_PATCH) == "replace" for item in patch):
        return [item for item in patch if _PATCH not in item]
    merged = {_key_of(item, key): item for item in current}
    for item in patch:
        if key not in item:
            raise ApiError(400, f"{name}: an item of the patch lacks its key {key}")
        at = str(item[key])
        before = merged.get(at)
        new = _object(before if isinstance(before, dict) else {}, item)
        if isinstance(new, _Gone):
            merged.pop(at, None)
        else:
            merged[at] = new
    return list(merged.values())


def _ordered(name: str, items: list[Any], order: list[Any]) -> list[Any]:
    """Items in the order given; those it does not name come last, as they were."""
    key = MERGED.get(name)
    places = {_key_of(item, key): place for place, item in enumerate(order)}
    return sorted(items, key=lambda item: places.get(_key_of(item, key), len(places)))


def _key_of(item: Any, key: str | None) -> str:
    return str(item.get(key)) if key is not None and isinstance(item, dict) else str(item)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise bad_request(f"{name[:100]} must be a list of texts")
    return value
