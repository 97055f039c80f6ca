"""Books: what stands in a store, as plain rows, for laws that decide nothing with the code they watch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec

Key = tuple[str, str, str]
Raw = dict[str, Any]
Table = list[dict[str, Any]]

HERE, UP = "", "up"


class Row:
    """One resource. `origin` is where its home is: "" here, "up" above, "down:NODE" below."""

    def __init__(self, kind: str, namespace: str, name: str, origin: str, revision: int, data: str) -> None:
        self.kind, self.namespace, self.name = kind, namespace, name
        self.origin, self.revision, self.data = origin, revision, data

    @property
    def key(self) -> Key:
        return (self.kind, self.namespace, self.name)

    @cached_property
    def raw(self) -> Raw:
        """The object, without the revision, which is each store's own."""
        raw: Raw = msgspec.json.decode(self.data)
        raw.get("metadata", {}).pop("resourceVersion", None)
        return raw

    @property
    def spec(self) -> Raw:
        return self.raw.get("spec") or {}

    @property
    def status(self) -> Raw:
        return self.raw.get("status") or {}

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"].get("uid", ""))


class Restore(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A restore that a store tells of: it went on from revision `at` of store `snapshot_of`."""

    at: int
    snapshot_of: str
    base: int = 0


class Book:
    """Everything in one store."""

    def __init__(self, tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
        self._tables = tables

    def table(self, name: str) -> list[Mapping[str, Any]]:
        """Rows of a table."""
        return list(self._tables.get(name, ()))

    @cached_property
    def rows(self) -> dict[Key, Row]:
        """Resources by key."""
        found = (
            Row(
                str(r["kind"]),
                str(r["namespace"]),
                str(r["name"]),
                str(r["origin"]),
                int(r["revision"]),
                str(r["data"]),
            )
            for r in self._tables.get("resources", ())
        )
        return {row.key: row for row in found}

    @cached_property
    def properties(self) -> dict[str, str]:
        return {str(r["name"]): str(r["value"]) for r in self._tables.get("properties", ())}

    @cached_property
    def counters(self) -> dict[str, int]:
        return {str(r["name"]): int(r["value"]) for r in self._tables.get("counters", ())}

    @cached_property
    def cursors(self) -> dict[str, tuple[str, int]]:
        """Identity and revision up to which each peer's stream was taken in."""
        return {
            str(r["peer"]): (str(r["store_id"]), int(r["revision"])) for r in self._tables.get("cursors", ())
        }

    @property
    def identity(self) -> str:
        return self.properties.get("store-id", "")

    @cached_property
    def restores(self) -> list[Restore]:
        """Restores that led to this store, the oldest first."""
        return msgspec.json.decode(self.properties.get("restores", "[]"), type=list[Restore])

    def of(self, kind: str, *, origin: str | None = None, namespace: str | None = None) -> list[Row]:
        """Resources of a kind."""
        return [
            row
            for row in self.rows.values()
            if row.kind == kind and origin in (None, row.origin) and namespace in (None, row.namespace)
        ]
