"""What a kind is: its names, scope, columns, owners and invariants, in one declaration.

`KindInfo` is made once per kind beside its structs and gathered by `registry`. Everything that
differs between kinds and is not a struct field stands here, so that API, store, link and docs
need no list of their own.

Flow says how a kind travels over links:
- DOWN: intent. Copied to the lower node named by the resource; its status comes back up.
- UP: observation. The lower node's resources are mirrored at the upper one, read-only.
- LOCAL: stays where it is.
- BOTH: DOWN when its home is above, UP when its home is here or below.

A kind is stored in one version. Another version of it that is served is a `KindInfo` of its own, with
its own structs and with `conversion` to and from the stored one; `registry.VERSIONS` has them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Literal

import msgspec

from roost.model.meta import DNS_LABEL, GROUP, VERSION, Owner, Resource


class Flow(Enum):
    DOWN = "down"
    UP = "up"
    BOTH = "both"
    LOCAL = "local"


class Column(msgspec.Struct, frozen=True):
    """A column of the table that lists print.

    `path` is dotted, in wire names (`status.availability`); of several, joined by commas, the first that has
    something is shown; `[*]` joins a list; `|count` counts it;
    `[Type]` after `conditions` picks the condition of that type. Priority 0 is always shown,
    1 only with `-o wide`.
    """

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "date", "boolean", "number"] = "string"
    priority: int = 0


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with a resource: where, why, and what to do about it."""

    field: str
    reason: str
    remedy: str = ""


class Conversion(msgspec.Struct, frozen=True):
    """How another version of a kind follows from the stored one. Both ways take and give whole raw objects.

    Neither changes what it is given, and nothing is lost on the way there and back: what a version can't
    say it keeps in an annotation.
    """

    to_stored: Callable[[dict[str, Any]], dict[str, Any]]
    from_stored: Callable[[dict[str, Any]], dict[str, Any]]


class KindInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a kind that is not a field of its structs."""

    kind: str
    plural: str
    singular: str
    type: type[Resource]
    description: str
    columns: tuple[Column, ...]
    group: str = GROUP
    version: str = VERSION
    conversion: Conversion | None = None
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    served: bool = True
    flow: Flow = Flow.LOCAL
    spec_owner: Owner = Owner.OPERATOR
    status_owner: Owner = Owner.CLOUD
    name_pattern: str = DNS_LABEL
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = lambda raw: raw
    """What is made of a user's whole object before it is checked; it does not change what it is given."""
    invariants: Callable[[Any], list[Problem]] = lambda _: []
    transition: Callable[[dict[str, Any], dict[str, Any]], list[Problem]] = lambda _old, _new: []
    """What is wrong with a change from one stored object to another, as two invariants can't say."""
    selectable: tuple[str, ...] = ()
    """Field selectors besides metadata.name and metadata.namespace, as dotted wire paths."""
    operating: tuple[str, ...] = ()
    """Fields of spec, by their wire names, that who has the verb `operate` may change without `update` or
    `patch`: acting on what exists, as locking a host."""

    @property
    def api_version(self) -> str:
        """`GROUP/VERSION`, or `VERSION` alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """`hosts.roost.edge`, as messages name a kind; `secrets` in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural
