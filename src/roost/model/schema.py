"""Schemas of all kinds for OpenAPI, made from the structs and their field documentation.

`definitions` gives one schema per struct and kind of a group and version (`all_definitions`: of all of
them), by OpenAPI name, with references as `#/NAME`:
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
from roost.model.meta import Owner
from roost.model.ownership import status_owners
from roost.model.registry import SERVED

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
LIST_META = f"{META}ListMeta"
_SHARED = {
    "Metadata": "ObjectMeta",
    "OwnerReference": "OwnerReference",
    "ManagedFieldsEntry": "ManagedFieldsEntry",
    "Condition": "Condition",
}
LIST_TYPE, MAP_TYPE = "x-kubernetes-list-type", "x-kubernetes-map-type"
GVK = "x-kubernetes-group-version-kind"

API_VERSION_TEXT = "Group and version of this schema."
KIND_TEXT = "Kind of the resource, in CamelCase."
_WRITERS = {
    Owner.OPERATOR: "Written by operators.",
    Owner.CLOUD: "Written by the cloud's controllers alone.",
    Owner.HOST: "Written by the host's agent alone.",
    Owner.FLEET: "Written by the fleet's controllers alone.",
}


def prefix(group: str, version: str) -> str:
    """How the OpenAPI names of a group's version begin: `edge.roost.v1.`, `io.k8s.api.core.v1.`."""
    if not group or group.endswith(".k8s.io"):
        return f"io.k8s.api.{group.removesuffix('.k8s.io').split('.')[0] or 'core'}.{version}."
    return f"{'.'.join(reversed(group.split('.')))}.{version}."


def schema_name(info: KindInfo) -> str:
    """OpenAPI name of a kind; that of its list has `List` at the end."""
    return f"{prefix(info.group, info.version)}{info.kind}"


@cache
def definitions(group: str, version: str) -> dict[str, Raw]:
    """The schemas of a group's version by name. Do not change them in place."""
    served = [info for info in SERVED if (info.group, info.version) == (group, version)]
    start = prefix(group, version)
    kinds = {info.type.__name__: info.kind for info in served}
    _, components = msgspec.json.schema_components([info.type for info in served], ref_template="#/{name}")

    def name_of(struct: str) -> str:
        shared = _SHARED.get(struct)
        return f"{META}{shared}" if shared else f"{start}{kinds.get(struct, struct)}"

    found = {name_of(name): _clean(schema, name_of) for name, schema in components.items()}
    for info in served:
        name = schema_name(info)
        found[name] = _kind(info, found[name])
        found[f"{name}List"] = _list(info, name)
    found[f"{META}ObjectMeta"]["properties"].update(_BOOKKEEPING)
    found[LIST_META] = _LIST_META
    return found


@cache
def all_definitions() -> dict[str, Raw]:
    """The schemas of everything that is served."""
    versions = dict.fromkeys((info.group, info.version) for info in SERVED)
    return {name: schema for at in versions for name, schema in definitions(*at).items()}


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


def _clean(schema: Any, name_of: Callable[[str], str]) -> Any:
    """msgspec's JSON schema as OpenAPI has it: no titles or null; enums and lists say their types."""
    if isinstance(schema, list):
        return [_clean(item, name_of) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "anyOf" in schema:
        choices = [c for c in schema["anyOf"] if c.get("type") != "null"]
        rest = {k: v for k, v in schema.items() if k != "anyOf"}
        if rest.get("default", ...) is None:
            del rest["default"]
        return _clean({**choices[0], **rest}, name_of)
    cleaned: Raw = {}
    for key, value in schema.items():
        if key == "$ref":
            cleaned[key] = "#/" + name_of(value.removeprefix("#/"))
        elif key == "properties":
            cleaned[key] = {name: _clean(inner, name_of) for name, inner in value.items()}
        elif key in ("title", "unit") or (key == "required" and not value):
            continue
        elif key in ("default", "enum", "required"):
            cleaned[key] = value
        else:
            cleaned[key] = _clean(value, name_of)
    if "enum" in cleaned and "type" not in cleaned:
        cleaned["type"] = "string"
    if cleaned.get("type") == "array":
        cleaned.setdefault(LIST_TYPE, "atomic")
        if MAP_TYPE in cleaned:
            cleaned["items"] = {**cleaned["items"], MAP_TYPE: cleaned.pop(MAP_TYPE)}
    if cleaned.get("type") == "integer":
        cleaned.setdefault("format", "int64")
    if cleaned.get("type") == "number":
        cleaned.setdefault("format", "double")
    if cleaned.get("format") == "date-time" and cleaned.get("default") == "":
        # Empty is how a struct says that there is none; as a default it would not fit its own format.
        del cleaned["default"]
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
        GVK: [{"group": info.group, "version": info.version, "kind": info.kind}],
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
        GVK: [{"group": info.group, "version": info.version, "kind": f"{info.kind}List"}],
    }


_BOOKKEEPING: dict[str, Raw] = {
    "selfLink": {"type": "string", "description": "Not used; taken and dropped."},
    "deletionGracePeriodSeconds": {
        "type": "integer",
        "format": "int64",
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
