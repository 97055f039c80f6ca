"""What a list is asked beyond Kubernetes' selectors, taken from its query. Pure.

| parameter | what it asks |
| --- | --- |
| `where` | a condition on a field (`model.conditions`); several must all hold |
| `show` | fields to tell of each object, with commas between; else those of the conditions, or columns |
| `countBy` | how many objects have each value of a field |
| `sum` | fields to add up, with commas between, over all or by what is counted |
| `inSubclouds`, `inGroup` | only what lies in subclouds with such labels, in a group; clouds: these |
| `fields` | true: which fields there are |

Any of them makes the answer a table of just that. They go with lists alone: a watch or a deletion that asks
so is refused, for it would be of more than was meant. Kubernetes' own selectors are left out: `where` says
the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from roost.api.forms import View
from roost.api.snapshots import Continue, Key
from roost.api.status import ApiError, bad_request
from roost.api.target import Target, number, truth
from roost.model.cloud import SUBCLOUD
from roost.model.conditions import Condition, ConditionError, parse_all
from roost.model.fields import Field, FieldError, resolve
from roost.model.kind import KindInfo
from roost.model.registry import BY_KIND
from roost.model.selector import Requirement, SelectorError, parse_labels

ASKED = frozenset({"where", "show", "countBy", "sum", "inSubclouds", "inGroup", "fields"})
_NOT_WITH = ("labelSelector", "fieldSelector", "watch", "resourceVersionMatch", "sendInitialEvents")
MOST_ROWS = 1000
"""Rows of one answer; the token in it goes on."""
MOST_FIELDS = 32
_CLOUDS = ("Cloud", "Subcloud")
SUBCLOUDS = Target(verb="list", info=SUBCLOUD)
"""What who chooses subclouds must be allowed."""


class Query(Protocol):
    """The parameters of a request."""

    def get(self, key: str, default: str) -> str:
        """The last value of one."""

    def getlist(self, key: str) -> list[str]:
        """All values of one."""

    def keys(self) -> object:
        """Which there are."""


class Named(msgspec.Struct, frozen=True):
    """A field as who asks calls it."""

    name: str
    field: Field


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the objects of a kind, in a namespace (all: ""), or after a key."""

    info: KindInfo
    namespace: str = ""
    conditions: tuple[Condition, ...] = ()
    shown: tuple[Named, ...] = ()
    count_by: Named | None = None
    sums: tuple[Named, ...] = ()
    labels: tuple[Requirement, ...] = ()
    group: str = ""
    limit: int = MOST_ROWS
    after: Key | None = None

    @property
    def counts(self) -> bool:
        """Whether objects are counted and not told one by one."""
        return self.count_by is not None or bool(self.sums)

    @property
    def chooses(self) -> bool:
        """Whether it asks of some subclouds alone."""
        return bool(self.labels or self.group)

    @property
    def told(self) -> tuple[Named, ...]:
        """The fields whose values are wanted."""
        return (*((self.count_by,) if self.count_by else ()), *self.sums, *self.shown)


def is_one(query: Mapping[str, str]) -> bool:
    """Whether a query asks more than Kubernetes' API has."""
    return not ASKED.isdisjoint(query)


def read(view: View, target: Target, query: Query, now: datetime) -> Question:
    """The question of a list; raises ApiError 400."""
    info = view.info
    if BY_KIND.get(info.kind) is not info or view.sources != (info.kind,):
        raise bad_request(f"{info.plural} of {info.api_version} are shown from other objects: ask these")
    for name in _NOT_WITH:
        if query.get(name, ""):
            raise bad_request(
                f"{name} does not go together with {', '.join(sorted(ASKED))}; say it with where"
            )
    try:
        return _question(info, target, query, now)
    except (ConditionError, FieldError, SelectorError) as error:
        raise _wrong(error) from error


def _question(info: KindInfo, target: Target, query: Query, now: datetime) -> Question:
    conditions = parse_all(info, [text for text in query.getlist("where") if text.strip()], now)
    shown, sums = _named(info, query.get("show", "")), _named(info, query.get("sum", ""))
    by = _named(info, query.get("countBy", ""))
    for one in sums:
        if one.field.type not in ("whole", "number"):
            raise FieldError(f"{one.name!r} is no number, and can't be added up")
    if len(by) > 1:
        raise FieldError("countBy takes one field")
    if shown and (by or sums):
        raise FieldError("show does not go together with countBy and sum, which tell of no single object")
    token = query.get("continue", "")
    asked = Question(
        info=info,
        namespace=target.namespace,
        conditions=tuple(conditions),
        shown=() if by or sums else shown or _of_conditions(conditions) or _columns(info),
        count_by=by[0] if by else None,
        sums=sums,
        labels=parse_labels(query.get("inSubclouds", "")),
        group=query.get("inGroup", ""),
        limit=min(number({"limit": query.get("limit", "")}, "limit", MOST_ROWS) or MOST_ROWS, MOST_ROWS),
        after=_key(Continue.parse(token)) if token else None,
    )
    if asked.chooses and not info.namespaced and info.kind not in _CLOUDS:
        raise FieldError(f"{info.plural} lie in no subcloud: ask labels.KEY=VALUE of their own labels")
    if asked.counts and token:
        raise FieldError("continue goes with rows, not with counts")
    return asked


def _key(start: Continue) -> Key:
    return (start.namespace, start.name)


def chooses(query: Mapping[str, str]) -> bool:
    """Whether subclouds are looked at to tell what is asked about."""
    return bool(query.get("inSubclouds") or query.get("inGroup"))


def wants_fields(query: Mapping[str, str]) -> bool:
    """Whether only the fields of the kind are asked for."""
    return truth(query, "fields")


def refuse(target: Target) -> ApiError:
    """That a request that is no list has parameters of a question."""
    return bad_request(
        f"{', '.join(sorted(ASKED))} go with lists; this would {target.verb} {target.info.plural}"
    )


def _named(info: KindInfo, text: str) -> tuple[Named, ...]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if len(names) > MOST_FIELDS:
        raise FieldError(f"more than {MOST_FIELDS} fields are asked for")
    return tuple(Named(name, resolve(info, name)) for name in names)


def _of_conditions(conditions: Sequence[Condition]) -> tuple[Named, ...]:
    """The fields of the conditions, each once, under the name it first had; but for the object's own name."""
    found: dict[tuple[object, ...], Named] = {}
    for condition in conditions:
        if condition.field.path not in ("metadata.name", "metadata.namespace"):
            found.setdefault(condition.field.steps, Named(condition.name, condition.field))
    return tuple(found.values())


def _columns(info: KindInfo) -> tuple[Named, ...]:
    """What lists of the kind always show, as far as it stands in plain fields."""
    found = []
    for column in info.columns:
        path = column.path.replace("[*]", "")
        if column.priority == 0 and not set(path) & set("[|,"):
            try:
                found.append(Named(column.name, resolve(info, path)))
            except FieldError:
                continue
    return tuple(found)


def _wrong(error: Exception) -> ApiError:
    return bad_request(str(error))
