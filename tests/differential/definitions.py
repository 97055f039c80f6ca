"""Our kinds as CustomResourceDefinitions, so that a Kubernetes API server serves them too.

The schema is the one we publish, made structural: references are put in place, metadata is left to the
server, formats and defaults stay. What a definition of Kubernetes 1.20 cannot say is left out: rules
between fields, columns that count, field selectors.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from roost.model import schema
from roost.model.codec import Raw
from roost.model.kind import Column, KindInfo
from roost.model.meta import DNS_LABEL

_NOT_STRUCTURAL = ("x-kubernetes-group-version-kind", "discriminator")


def definition(info: KindInfo) -> Raw:
    """The CustomResourceDefinition of a kind, as apiextensions.k8s.io/v1 takes it."""
    version: Raw = {
        "name": info.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _accepted(structural(info))},
        "additionalPrinterColumns": [_column(c) for c in info.columns if "|count" not in c.path],
    }
    if "status" in info.type.__struct_fields__:
        version["subresources"] = {"status": {}}
    names: Raw = {
        "kind": info.kind,
        "plural": info.plural,
        "singular": info.singular,
        "listKind": f"{info.kind}List",
        "shortNames": list(info.short_names),
        "categories": list(info.categories),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{info.group}"},
        "spec": {
            "group": info.group,
            "scope": "Namespaced" if info.namespaced else "Cluster",
            "names": names,
            "versions": [version],
        },
    }


def structural(info: KindInfo) -> Raw:
    """The published schema of a kind without references; metadata holds only the pattern of names."""
    found = schema.definitions(info.group, info.version)
    properties = dict(found[schema.schema_name(info)]["properties"])
    properties["metadata"] = {"type": "object"}
    if info.name_pattern == DNS_LABEL:
        properties["metadata"]["properties"] = {"name": {"type": "string", "pattern": info.name_pattern}}
    properties.pop("apiVersion")
    properties.pop("kind")
    required = [name for name in found[schema.schema_name(info)].get("required", ()) if name in properties]
    body: Raw = {"type": "object", "properties": properties}
    if required:
        body["required"] = required
    resolved: Raw = _resolved(body, found)
    return resolved


def with_defaults(shape: Raw, value: Any) -> Any:
    """A value with the defaults of its schema filled in, as Kubernetes stores it; null is absent."""
    if isinstance(value, list) and "items" in shape:
        return [with_defaults(shape["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    properties: Raw = shape.get("properties", {})
    filled = {k: with_defaults(properties.get(k, {}), v) for k, v in value.items() if v is not None}
    for name, inner in properties.items():
        if name not in filled and "default" in inner:
            filled[name] = with_defaults(inner, inner["default"])
    return filled


def _accepted(value: Any) -> Any:
    """A schema without defaults that are empty text: Kubernetes 1.20 reads those as null and refuses them."""
    if isinstance(value, list):
        return [_accepted(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {k: _accepted(v) for k, v in value.items() if not (k == "default" and v == "")}


def _column(column: Column) -> Raw:
    path = re.sub(r"(conditions)\[(\w+)\]", r'\1[?(@.type=="\2")]', column.path)
    return {
        "name": column.name,
        "type": column.type,
        "description": column.description,
        "priority": column.priority,
        "jsonPath": f".{path}",
    }


def _resolved(value: Any, found: dict[str, Raw]) -> Any:
    """A schema with every reference replaced by what it names, and nothing that is not structural."""
    if isinstance(value, list):
        return [_resolved(item, found) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str):
        rest = {k: v for k, v in value.items() if k != "$ref"}
        return _resolved({**found[value["$ref"].removeprefix("#/")], **rest}, found)
    kept = {k: _resolved(v, found) for k, v in value.items() if k not in _NOT_STRUCTURAL}
    return msgspec.json.decode(msgspec.json.encode(kept))
