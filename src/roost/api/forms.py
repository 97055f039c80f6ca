"""In which form an answer goes out (the Accept header): plain objects, tables, metadata only; JSON or YAML.

A `View` says how stored resources are shown: usually as they are, but namespaces are a view of clouds.
Everything here is pure and runs in the store's reader threads for lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum

import msgspec
from starlette.responses import Response

from roost.api import tables
from roost.api.status import ApiError, bad_request
from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.secrecy import has_secrets, masked

JSON = "application/json"
YAML = "application/yaml"
META_VERSIONS = ("v1", "v1beta1")
MOST_CLAUSES = 64
INDENTED = 1024 * 1024
"""Bytes up to which an answer is indented: deeply nested ones grow many times over."""


def as_json(body: Raw, code: int = 200) -> Response:
    """An answer that has one form alone."""
    return Response(msgspec.json.encode(body), code, media_type=JSON)


def indent(response: Response) -> None:
    """Give an answer line ends and indents, for people, if it is whole, plain JSON of at most INDENTED bytes.

    What has an entity tag stays: the tag is that of these very bytes (RFC 9110 section 8.8.3).
    """
    body, headers = getattr(response, "body", b""), response.headers
    plain = headers.get("content-type", "") == JSON and not {"content-encoding", "etag"} & {*headers}
    if not plain or not body or body.endswith(b"\n") or len(body) > INDENTED:
        return
    response.body = msgspec.json.format(body, indent=2) + b"\n"
    headers["content-length"] = str(len(response.body))


def same(raw: Raw) -> Raw:
    """The object as it is."""
    return raw


class View(msgspec.Struct, frozen=True):
    """How resources of the stored kind `source` are shown, and `take`n in: as `info` has them.

    Those of the kinds `also` are shown beside them.
    """

    info: KindInfo
    source: str
    shape: Callable[[Raw], Raw] = same
    take: Callable[[Raw], Raw] = same
    also: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The stored kinds that are shown."""
        return (self.source, *self.also)

    @classmethod
    def of(cls, info: KindInfo) -> View:
        """The plain view of a kind, converted when it is served in another version than stored."""
        if info.conversion is None:
            return cls(info, info.kind, masked(info) if has_secrets(info) else same)
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
    """The form asked for; `include` is what a table's rows carry, `version` that of meta.k8s.io."""

    shape: Shape = Shape.OBJECT
    include: str = "Metadata"
    version: str = "v1"
    media: str = JSON

    @property
    def meta(self) -> str:
        """apiVersion of tables and of bare metadata."""
        return f"meta.k8s.io/{self.version}"


def negotiate(accept: str, query: Mapping[str, str], media: Sequence[str] = (JSON, YAML)) -> Form:
    """The form that the client prefers among those served; raises ApiError 406.

    By quality, then by order, as RFC 9110 section 12.5.1 and Kubernetes have it. A clause that asks for
    what is not served (protobuf, another kind of table) is passed over.
    """
    include = query.get("includeObject", "Metadata") or "Metadata"
    if include not in ("Metadata", "Object", "None"):
        raise bad_request(f"includeObject: {include[:32]!r} is none of Metadata, Object, None")
    if not accept.strip() or accept == JSON:
        return Form()
    for _, _, clause in sorted(_clauses(accept)):
        form = _form(clause, include, media)
        if form is not None:
            return form
    raise ApiError(406, f"only {' and '.join(media)} are served; ask for one of them in the Accept header")


def _clauses(accept: str) -> list[tuple[float, int, dict[str, str]]]:
    """The acceptable clauses of an Accept header with their place in the order of preference."""
    found = []
    for place, part in enumerate(accept.split(",", MOST_CLAUSES)[:MOST_CLAUSES]):
        media, *rest = [p.strip() for p in part.split(";")]
        parameters = dict(p.split("=", 1) for p in rest if "=" in p)
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            continue
        if 0 < quality <= 1:
            found.append((-quality, place, {**parameters, "media": media.lower()}))
    return found


def _form(clause: Mapping[str, str], include: str, served: Sequence[str]) -> Form | None:
    media = JSON if clause["media"] in ("application/*", "*/*") else clause["media"]
    if media not in served:
        return None
    kind, version = clause.get("as", ""), clause.get("v", "v1")
    if kind and (clause.get("g", "meta.k8s.io") != "meta.k8s.io" or version not in META_VERSIONS):
        return None
    match kind:
        case "":
            return Form(media=media)
        case "Table":
            return Form(Shape.TABLE, include, version, media)
        case "PartialObjectMetadata" | "PartialObjectMetadataList":
            return Form(Shape.PARTIAL, version=version, media=media)
    return None


def one(view: View, raw: Raw, form: Form, now: datetime, *, columns: bool = True) -> Raw:
    """A single resource in the form asked for; a table without its `columns` when they are known."""
    match form.shape:
        case Shape.TABLE:
            metadata = {"resourceVersion": raw["metadata"].get("resourceVersion", "")}
            head = table_head(view, form, metadata, columns=columns)
            return {**head, "rows": [tables.row(view.info, raw, now, form.include, form.meta)]}
        case Shape.PARTIAL:
            return tables.partial(raw, form.meta)
        case Shape.OBJECT:
            return raw


def table_head(view: View, form: Form, metadata: Raw, *, columns: bool = True) -> Raw:
    """A table but for its rows."""
    return {
        "kind": "Table",
        "apiVersion": form.meta,
        "metadata": metadata,
        "columnDefinitions": tables.definitions(view.info) if columns else [],
    }


def list_head(view: View, form: Form, metadata: Raw) -> Raw:
    """A list in the form asked for but for its items."""
    match form.shape:
        case Shape.TABLE:
            return table_head(view, form, metadata)
        case Shape.PARTIAL:
            return {"kind": "PartialObjectMetadataList", "apiVersion": form.meta, "metadata": metadata}
        case Shape.OBJECT:
            info = view.info
            return {"kind": f"{info.kind}List", "apiVersion": info.api_version, "metadata": metadata}


def several(view: View, items: Sequence[Raw], form: Form, now: datetime, metadata: Raw) -> Raw:
    """A list in the form asked for."""
    head = list_head(view, form, metadata)
    if form.shape is Shape.TABLE:
        rows = [tables.row(view.info, item, now, form.include, form.meta) for item in items]
        return {**head, "rows": rows}
    return {**head, "items": [one(view, item, form, now) for item in items]}
