"""Schemas of all kinds for OpenAPI, made from the structs and their field documentation.

`definitions` gives one schema per struct and kind, by OpenAPI name, with references as `#/NAME`:
whoever serves them puts the prefix of its dialect there (`refer`). Nothing is written by hand but what
the structs can't say: apiVersion, kind, lists, and the bookkeeping fields that clients send along.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.meta import GROUP, VERSION, Owner
from roost.model.ownership import status_owners
from roost.model.registry import KINDS

OURS = "edge.roost.v1."
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
LIST_META = f"{META}ListMeta"
_SHARED = {"Metadata": "ObjectMeta", "OwnerReference": "OwnerReference", "Condition": "Condition"}
GVK = "x-kubernetes-group-version-kind"

API_VERSION_TEXT = "Group and version of this schema."
KIND_TEXT = "Kind of the resource, in CamelCase."
_WRITERS = {
    Owner.OPERATOR: "Written by operators.",
    Owner.CLOUD: "Written by the cloud's controllers alone.",
    Owner.HOST: "Written by the host's agent alone.",
    Owner.FLEET: "Written by the fleet's controllers alone.",
}


def name_of(struct: str) -> str:
    """OpenAPI name of a struct."""
    return f"{META}{_SHARED[struct]}" if struct in _SHARED else f"{OURS}{struct}"


@cache
def definitions() -> dict[str, Raw]:
    """All schemas by name. Do not change them in place."""
    served = [info for info in KINDS if info.served]
    _, components = msgspec.json.schema_components([info.type for info in served], ref_template="#/{name}")
    found = {name_of(name): _clean(schema) for name, schema in components.items()}
    for info in served:
        name = name_of(info.type.__name__)
        found[name] = _kind(info, found[name])
        found[f"{OURS}{info.kind}List"] = _list(info, name)
    found[name_of("Metadata")]["properties"].update(_BOOKKEEPING)
    found[LIST_META] = _LIST_META
    return found


def refer(schema: Any, reference: Callable[[str, Raw], Raw]) -> Any:
    """A copy of a schema in which `reference(name, rest)` stands for each reference and what is beside it."""
    if isinstance(schema, list):
        return [refer(item, reference) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        rest = {k: v for k, v in schema.items() if k != "$ref"}
        return reference(schema["$ref"].removeprefix("#/"), rest)
    return {k: refer(v, reference) for k, v in schema.items()}


def _clean(schema: Any) -> Any:
    """msgspec's JSON schema as OpenAPI has it: no titles, no null, a type beside every enum."""
    if isinstance(schema, list):
        return [_clean(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "anyOf" in schema:
        choices = [c for c in schema["anyOf"] if c.get("type") != "null"]
        rest = {k: v for k, v in schema.items() if k != "anyOf"}
        if rest.get("default", ...) is None:
            del rest["default"]
        return _clean({**choices[0], **rest})
    cleaned: Raw = {}
    for key, value in schema.items():
        if key == "$ref":
            cleaned[key] = "#/" + name_of(value.removeprefix("#/"))
        elif key == "properties":
            cleaned[key] = {name: _clean(inner) for name, inner in value.items()}
        elif key in ("title", "unit") or (key == "required" and not value):
            continue
        elif key in ("default", "enum", "required"):
            cleaned[key] = value
        else:
            cleaned[key] = _clean(value)
    if "enum" in cleaned and "type" not in cleaned:
        cleaned["type"] = "string"
    if cleaned.get("type") == "integer":
        cleaned.setdefault("format", "int64")
    if cleaned.get("type") == "number":
        cleaned.setdefault("format", "double")
    return cleaned


def _kind(info: KindInfo, schema: Raw) -> Raw:
    properties = {
        "apiVersion": {"type": "string", "description": API_VERSION_TEXT},
        "kind": {"type": "string", "description": KIND_TEXT},
        **schema["properties"],
    }
    for part in ("metadata", "spec", "status"):
        if part in properties:
            properties[part] = {k: v for k, v in properties[part].items() if k != "default"}
    for part, owner in (("spec", info.spec_owner), ("status", info.status_owner)):
        if part in properties:
            text = f"{properties[part].get('description', '')} {_writers(info, part, owner)}".strip()
            properties[part] = {**properties[part], "description": text}
    required = {"required": schema["required"]} if schema.get("required") else {}
    return {
        "type": "object",
        "description": info.description,
        **required,
        "properties": properties,
        GVK: [{"group": GROUP, "version": VERSION, "kind": info.kind}],
    }


def _writers(info: KindInfo, part: str, owner: Owner) -> str:
    text = _WRITERS[owner]
    if part == "spec":
        return text
    others: dict[Owner, list[str]] = {}
    for field, writer in status_owners(info).items():
        if writer is not owner:
            others.setdefault(writer, []).append(field)
    for writer, fields in others.items():
        rest = _WRITERS[writer].removeprefix("Written by ").removesuffix(" alone.")
        text = text.removesuffix(".") + f", except {', '.join(fields)}: by {rest}."
    return text


def _list(info: KindInfo, item: str) -> Raw:
    return {
        "type": "object",
        "description": f"{info.kind}List is a list of {info.plural}.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION_TEXT},
            "kind": {"type": "string", "description": KIND_TEXT},
            "metadata": {"$ref": f"#/{LIST_META}", "description": "Revision and continuation of the list."},
            "items": {"type": "array", "items": {"$ref": f"#/{item}"}, "description": "The resources."},
        },
        GVK: [{"group": GROUP, "version": VERSION, "kind": f"{info.kind}List"}],
    }


_BOOKKEEPING: dict[str, Raw] = {
    "selfLink": {"type": "string", "description": "Not used; taken and dropped."},
    "deletionGracePeriodSeconds": {
        "type": "integer",
        "format": "int64",
        "description": "Not used; taken and dropped.",
    },
    "managedFields": {
        "type": "array",
        "items": {"type": "object"},
        "description": "Not used; taken and dropped.",
    },
}
_LIST_META: Raw = {
    "type": "object",
    "description": "Revision and continuation of a list.",
    "properties": {
        "resourceVersion": {"type": "string", "description": "Revision of the store the list shows."},
        "continue": {"type": "string", "description": "Token for the next page; absent on the last."},
        "remainingItemCount": {"type": "integer", "format": "int64", "description": "Not given."},
    },
}
