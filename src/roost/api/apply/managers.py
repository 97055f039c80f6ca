"""metadata.managedFields: one entry per manager and kind of write, with the fields it owns.

Rules, as Kubernetes has them:
- a plain write takes what it changed from every other manager, and all lose what it removed;
- an applied configuration claims its fields; where others own such a field with another value it
  conflicts, unless forced; with the same value both own it;
- an object without entries is not tracked by plain writes, except its creation; the first configuration
  applied to it finds what is there owned by `before-first-apply`. Other than in Kubernetes, a value that is
  the default is not: what the platform makes is not tracked, and nobody need have chosen its defaults;
- entries of plain writes are bounded: past MOST_UPDATERS the oldest are merged into `ancient-changes`;
- the time of an entry moves only when its manager changed something.

Entries are raw objects as in metadata, sorted; they are never changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from roost.api.apply import comparing, fields, merging
from roost.api.apply.fields import NONE, Fields, Path
from roost.api.apply.shapes import Shape
from roost.model.codec import Raw

APPLY, UPDATE = "Apply", "Update"
MOST_UPDATERS = 10
ANCIENT = "ancient-changes"
BEFORE = "before-first-apply"
FORM = "FieldsV1"


Elsewhere = Callable[[str], comparing.Difference | None]
"""What a write changes as another version of the resource has it; None for a version that is not known."""


class Writing(NamedTuple):
    """Who writes, in which version of the resource, and when (RFC 3339, seconds)."""

    manager: str
    api_version: str
    now: str


class Conflict(NamedTuple):
    """A field that another manager owns with another value."""

    manager: str
    path: str


class Conflicts(Exception):
    """An applied configuration wants other values than other managers do. `fields` is the whole set."""

    def __init__(self, found: Sequence[Conflict], wanted: Fields) -> None:
        super().__init__(f"{len(found)} conflicts")
        self.found, self.fields = list(found), wanted

    @property
    def message(self) -> str:
        """In Kubernetes' words."""
        if len(self.found) == 1:
            only = self.found[0]
            return f"Apply failed with 1 conflict: conflict with {only.manager}: {only.path}"
        by_manager: dict[str, list[str]] = {}
        for conflict in self.found:
            by_manager.setdefault(conflict.manager, []).append(conflict.path)
        lines: list[str] = []
        for manager in sorted(by_manager):
            lines += [f"conflicts with {manager}:", *(f"- {path}" for path in by_manager[manager])]
        return f"Apply failed with {len(self.found)} conflicts: " + "\n".join(lines)

    def causes(self) -> list[Raw]:
        """One Kubernetes status cause for each field."""
        return [
            {"reason": "FieldManagerConflict", "message": f"conflict with {c.manager}", "field": c.path}
            for c in self.found
        ]


class Applied(NamedTuple):
    """The object as it should be, and its entries."""

    body: Raw
    entries: list[Raw]


def given(raw: Any) -> list[Raw] | None:
    """Entries that somebody sent, in our form; None when they are none, so that the stored ones stay.

    An empty list, and a list of one empty entry, reset: they give no entries.
    """
    if not isinstance(raw, list):
        return None
    if not raw or raw == [{}]:
        return []
    made: dict[tuple[str, ...], Raw] = {}
    try:
        for entry in raw:
            checked = _checked(entry)
            made[_key(checked)] = checked
    except ValueError:
        return None
    return _sorted(list(made.values()))


def nowhere(api_version: str) -> comparing.Difference | None:
    """There is no other version."""
    return None


def updated(
    live: Raw,
    new: Raw,
    shape: Shape,
    entries: list[Raw],
    writing: Writing,
    elsewhere: Elsewhere = nowhere,
) -> list[Raw]:
    """Entries after a plain write that made `new` of `live`; an empty `live` is a creation."""
    if live and not entries:
        return entries
    if not live:
        found = comparing.Difference(comparing.created(new, shape), NONE)
    else:
        found = comparing.compare(live, new, shape)
    if not found.changed and not found.removed:
        return entries
    own = (writing.manager, UPDATE, writing.api_version, "")
    mine: Fields = NONE
    left: list[Raw] = []
    for entry in entries:
        owned, seen = _owned(entry), _seen(entry, writing, found, elsewhere)
        if seen is None:
            continue
        kept = fields.without(fields.difference(owned, seen.changed), seen.removed)
        if _key(entry) == own:
            mine = kept
            if not found.changed and kept:
                left.append({**entry, "fieldsV1": kept})
        elif kept:
            left.append(entry if kept is owned or kept == owned else {**entry, "fieldsV1": kept})
    if found.changed:
        left.append(_entry(writing, UPDATE, fields.union(mine, found.changed)))
    return _sorted(_capped(left))


def apply(
    live: Raw,
    config: Raw,
    shape: Shape,
    entries: list[Raw],
    writing: Writing,
    *,
    force: bool,
    elsewhere: Callable[[Raw], Elsewhere] = lambda body: nowhere,
) -> Applied:
    """The configuration applied to a stored object; raises Conflicts unless forced."""
    if not entries:
        first = Writing(BEFORE, writing.api_version, writing.now)
        there = comparing.compare({}, live, shape).changed
        entries = [_entry(first, UPDATE, there)] if there else []
    own = (writing.manager, APPLY, "", "")
    former = next((e for e in entries if _key(e) == own), None)
    others = [e for e in entries if e is not former]
    last = _owned(former) if former else NONE
    mine = comparing.applied(config, shape)
    owned = mine
    for entry in others:
        owned = fields.union(owned, _owned(entry))
    body = merging.prune(merging.merge(live, config, shape), shape, last, owned)
    found = comparing.compare(live, body, shape)
    seen = [(entry, _seen(entry, writing, found, elsewhere(body))) for entry in others]
    left = _yielded(seen, force=force)
    if mine:
        still = former is not None and not found.changed and not found.removed and last == mine
        same_version = former is not None and former.get("apiVersion") == writing.api_version
        left.append(former if former and still and same_version else _entry(writing, APPLY, mine))
    return Applied(body, _sorted(left))


def first_applied(config: Raw, shape: Shape, writing: Writing) -> list[Raw]:
    """Entries of an object that an applied configuration makes."""
    mine = comparing.applied(config, shape)
    return [_entry(writing, APPLY, mine)] if mine else []


def _seen(
    entry: Raw, writing: Writing, found: comparing.Difference, elsewhere: Elsewhere
) -> comparing.Difference | None:
    """What a write changes in the version that an entry speaks of."""
    version = str(entry.get("apiVersion", ""))
    return found if version == writing.api_version else elsewhere(version)


def _yielded(others: Sequence[tuple[Raw, comparing.Difference | None]], *, force: bool) -> list[Raw]:
    """Entries of other managers without what the configuration takes; raises Conflicts unless forced."""
    conflicts: list[Conflict] = []
    wanted: Fields = NONE
    left: list[Raw] = []
    for entry, found in others:
        if found is None:
            continue
        owned = _owned(entry)
        taken = fields.intersection(owned, found.changed)
        if taken:
            wanted = fields.union(wanted, taken)
            conflicts += [Conflict(_told(entry), fields.text(path)) for path in _paths(taken)]
        kept = fields.without(fields.difference(owned, taken), found.removed)
        if kept:
            left.append(entry if kept == owned else {**entry, "fieldsV1": kept})
    if conflicts and not force:
        raise Conflicts(sorted(conflicts), wanted)
    return left


def _paths(taken: Fields) -> list[Path]:
    return list(fields.members(taken))


def _told(entry: Raw) -> str:
    """A manager as conflicts name it."""
    name = '"' + str(entry.get("manager", "")).replace("\\", "\\\\").replace('"', '\\"') + '"'
    if entry.get("subresource"):
        name += f' with subresource "{entry["subresource"]}"'
    if entry.get("operation") == UPDATE:
        name += f" using {entry.get('apiVersion', '')}"
    return name


def _owned(entry: Raw) -> Fields:
    owned: Fields = entry.get("fieldsV1") or NONE
    return owned


def _key(entry: Raw) -> tuple[str, ...]:
    """What tells entries apart: appliers are the same in every version."""
    operation = str(entry.get("operation", ""))
    version = "" if operation == APPLY else str(entry.get("apiVersion", ""))
    return (str(entry.get("manager", "")), operation, version, str(entry.get("subresource", "")))


def _entry(writing: Writing, operation: str, owned: Fields) -> Raw:
    return {
        "manager": writing.manager,
        "operation": operation,
        "apiVersion": writing.api_version,
        "time": writing.now,
        "fieldsType": FORM,
        "fieldsV1": owned,
    }


def _capped(entries: list[Raw]) -> list[Raw]:
    """Entries of plain writes down to the bound: the oldest of each version become one."""
    updaters = [e for e in entries if e.get("operation") == UPDATE]
    excess = len(updaters) - MOST_UPDATERS
    if excess <= 0:
        return entries
    merged = {id(e): e for e in entries}
    first: dict[str, Raw] = {}
    for entry in sorted(updaters, key=lambda e: (str(e.get("time", "")), _key(e))):
        if excess <= 0:
            break
        version = str(entry.get("apiVersion", ""))
        if version not in first:
            first[version] = entry
            continue
        older = first[version]
        owned = fields.union(_owned(older), _owned(entry))
        bucket = {**older, "manager": ANCIENT, "time": entry.get("time", ""), "fieldsV1": owned}
        del merged[id(older)], merged[id(entry)]
        merged[id(bucket)] = first[version] = bucket
        excess -= 1
    return list(merged.values())


def _sorted(entries: list[Raw]) -> list[Raw]:
    return sorted(
        entries,
        key=lambda e: (
            str(e.get("operation", "")),
            str(e.get("time", "")),
            str(e.get("manager", "")),
            str(e.get("apiVersion", "")),
            str(e.get("subresource", "")),
        ),
    )


def _checked(entry: Any) -> Raw:
    """An entry that somebody sent; raises ValueError."""
    if not isinstance(entry, dict) or entry.get("operation") not in (APPLY, UPDATE):
        raise ValueError("not an entry")
    texts = ("manager", "operation", "apiVersion", "time", "subresource")
    if entry.get("fieldsType", FORM) != FORM or not all(isinstance(entry.get(k, ""), str) for k in texts):
        raise ValueError("not an entry")
    if len(entry.get("manager", "")) > 128 or len(entry.get("apiVersion", "")) > 256:
        raise ValueError("not an entry")
    kept: Raw = {k: entry[k] for k in texts if entry.get(k)}
    kept |= {"fieldsType": FORM, "fieldsV1": fields.canonical(entry.get("fieldsV1", {}))}
    return kept
