"""In which form an answer goes out: plain objects, tables, or metadata only (the Accept header).

A `View` says how stored resources are shown: usually as they are, but namespaces are a view of clouds.
Everything here is pure and runs in the store's reader threads for lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Literal

import msgspec

from roost.api import tables
from roost.api.status import ApiError, bad_request
from roost.model.codec import Raw
from roost.model.kind import KindInfo

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]


def same(raw: Raw) -> Raw:
    """The object as it is."""
    return raw


class View(msgspec.Struct, frozen=True):
    """How resources of the stored kind `source` are shown, and `take`n in: as `info` has them."""

    info: KindInfo
    source: str
    shape: Callable[[Raw], Raw] = same
    take: Callable[[Raw], Raw] = same

    @classmethod
    def of(cls, info: KindInfo) -> View:
        """The plain view of a kind, converted when it is served in another version than stored."""
        if info.conversion is None:
            return cls(info, info.kind)
        return cls(info, info.kind, info.conversion.from_stored, info.conversion.to_stored)

    @property
    def as_stored(self) -> bool:
        """Whether resources are shown as the store has them."""
        return self.shape is same


class Shape(Enum):
    OBJECT = "object"
    TABLE = "table"
    PARTIAL = "partial"


class Form(msgspec.Struct, frozen=True):
    """The form asked for; `include` is what a table's rows carry."""

    shape: Shape = Shape.OBJECT
    include: str = "Metadata"


def negotiate(accept: str, query: Mapping[str, str]) -> Form:
    """The first form in the Accept header that is served; raises ApiError 406."""
    include = query.get("includeObject", "Metadata") or "Metadata"
    if include not in ("Metadata", "Object", "None"):
        raise bad_request(f"includeObject: {include[:32]!r} is none of Metadata, Object, None")
    if not accept.strip():
        return Form()
    for part in accept.split(","):
        media, *rest = [p.strip() for p in part.split(";")]
        parameters = dict(p.split("=", 1) for p in rest if "=" in p)
        if media not in ("application/json", "application/*", "*/*"):
            continue
        kind = parameters.get("as", "")
        if kind and parameters.get("g", "meta.k8s.io") != "meta.k8s.io":
            continue
        match kind:
            case "":
                return Form()
            case "Table":
                return Form(Shape.TABLE, include)
            case "PartialObjectMetadata" | "PartialObjectMetadataList":
                return Form(Shape.PARTIAL)
    raise ApiError(406, "only application/json is served; ask for that in the Accept header")


def one(view: View, raw: Raw, form: Form, now: datetime) -> Raw:
    """A single resource in the form asked for."""
    match form.shape:
        case Shape.TABLE:
            metadata = {"resourceVersion": raw["metadata"].get("resourceVersion", "")}
            return tables.table(view.info, [raw], now, metadata=metadata, include=form.include)
        case Shape.PARTIAL:
            return tables.partial(raw)
        case Shape.OBJECT:
            return raw


def several(view: View, items: Sequence[Raw], form: Form, now: datetime, metadata: Raw) -> Raw:
    """A list in the form asked for."""
    match form.shape:
        case Shape.TABLE:
            return tables.table(view.info, items, now, metadata=metadata, include=form.include)
        case Shape.PARTIAL:
            return {
                "kind": "PartialObjectMetadataList",
                "apiVersion": tables.META,
                "metadata": metadata,
                "items": [tables.partial(i) for i in items],
            }
        case Shape.OBJECT:
            return {
                "apiVersion": view.info.api_version,
                "kind": f"{view.info.kind}List",
                "metadata": metadata,
                "items": list(items),
            }


class Events:
    """Writes one watcher's events, one JSON object a line. A table's columns come with the first only."""

    def __init__(self, view: View, form: Form) -> None:
        self._view, self._form, self._columns = view, form, True

    def event(self, type: EventType, raw: Raw, now: datetime) -> bytes:
        """A change, or the state at the beginning."""
        return _line(type, self._object(raw, now))

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        """Tells how far the watcher has come."""
        metadata: Raw = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        info = self._view.info
        if self._form.shape is Shape.TABLE:
            body: Raw = {"kind": "Table", "apiVersion": tables.META, "metadata": metadata}
            return _line("BOOKMARK", {**body, "columnDefinitions": [], "rows": []})
        kind, version = info.kind, self._view.info.api_version
        if self._form.shape is Shape.PARTIAL:
            kind, version = "PartialObjectMetadata", tables.META
        return _line("BOOKMARK", {"kind": kind, "apiVersion": version, "metadata": metadata})

    def error(self, error: ApiError) -> bytes:
        """The last event of a watch that can't go on."""
        return _line("ERROR", error.body())

    def _object(self, raw: Raw, now: datetime) -> Raw:
        if self._form.shape is not Shape.TABLE:
            return one(self._view, raw, self._form, now)
        first, self._columns = self._columns, False
        metadata = {"resourceVersion": raw["metadata"].get("resourceVersion", "")}
        return tables.table(
            self._view.info, [raw], now, metadata=metadata, include=self._form.include, columns=first
        )


def _line(type: EventType, body: Raw) -> bytes:
    return msgspec.json.encode({"type": type, "object": body}) + b"\n"
