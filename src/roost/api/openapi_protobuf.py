"""OpenAPI v2 as protobuf, the only form that kubectl before 1.27 reads.

A small writer for the messages of gnostic's OpenAPIv2.proto; the numbers below are its field numbers.
Only what our own document has is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from roost.api.protobuf import double, integer, part, text, truth
from roost.model.codec import Raw

_OPERATIONS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
_SCHEMA_TEXT = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_SCHEMA_DOUBLE = {"maximum": 7, "minimum": 9}
_SCHEMA_INTEGER = {"maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15}


def document(raw: Raw) -> bytes:
    """The Document message of an OpenAPI v2 document."""
    info = text(1, raw["info"]["title"]) + text(2, raw["info"]["version"])
    paths = b"".join(part(2, _named(path, _path_item(item))) for path, item in raw["paths"].items())
    definitions = _schemas(raw["definitions"])
    return text(1, raw["swagger"]) + part(2, info) + part(8, paths) + part(9, definitions)


def _path_item(item: Raw) -> bytes:
    operations = (part(_OPERATIONS[m], _operation(o)) for m, o in item.items() if m in _OPERATIONS)
    return b"".join(operations) + _parameters(9, item.get("parameters", []))


def _operation(operation: Raw) -> bytes:
    responses = b"".join(
        part(1, _named(code, part(1, _response(r)))) for code, r in operation["responses"].items()
    )
    return b"".join(
        [
            text(3, operation["description"]),
            text(5, operation["operationId"]),
            *(text(6, media) for media in operation["produces"]),
            *(text(7, media) for media in operation["consumes"]),
            _parameters(8, operation["parameters"]),
            part(9, responses),
            _extensions(13, operation),
        ]
    )


def _response(response: Raw) -> bytes:
    return text(1, response["description"]) + part(2, part(1, _schema(response["schema"])))


def _parameters(number: int, parameters: Iterable[Raw]) -> bytes:
    return b"".join(part(number, part(1, _parameter(p))) for p in parameters)


def _parameter(parameter: Raw) -> bytes:
    """Parameter: a body parameter (1), or a query (3) or path (4) one inside a non-body one (2)."""
    about = parameter.get("description", "")
    where, name = parameter["in"], parameter["name"]
    if where == "body":
        body = (
            text(1, about) + text(2, name) + text(3, where) + truth(4) + part(5, _schema(parameter["schema"]))
        )
        return part(1, body)
    common = text(2, where) + text(3, about) + text(4, name)
    if where == "path":
        return part(2, part(4, truth(1) + common + text(5, parameter["type"])))
    return part(2, part(3, common + text(6, parameter["type"])))


def _schemas(schemas: dict[str, Raw]) -> bytes:
    return b"".join(part(1, _named(name, _schema(schema))) for name, schema in schemas.items())


def _schema(schema: Raw) -> bytes:
    out = [text(n, schema[key]) for key, n in _SCHEMA_TEXT.items() if key in schema]
    if "default" in schema:
        out.append(part(5, _any(schema["default"])))
    out += [double(n, schema[key]) for key, n in _SCHEMA_DOUBLE.items() if key in schema]
    out += [integer(n, schema[key]) for key, n in _SCHEMA_INTEGER.items() if key in schema]
    out += [text(19, name) for name in schema.get("required", [])]
    out += [part(20, _any(value)) for value in schema.get("enum", [])]
    inner = schema.get("additionalProperties")
    if isinstance(inner, dict):
        out.append(part(21, part(1, _schema(inner))))
    if "type" in schema:
        out.append(part(22, text(1, schema["type"])))
    if "items" in schema:
        out.append(part(23, part(1, _schema(schema["items"]))))
    if "properties" in schema:
        out.append(part(25, _schemas(schema["properties"])))
    out.append(_extensions(31, schema))
    return b"".join(out)


def _extensions(number: int, raw: Raw) -> bytes:
    found = ((key, value) for key, value in raw.items() if key.startswith("x-"))
    return b"".join(part(number, _named(key, _any(value))) for key, value in found)


def _any(value: Any) -> bytes:
    """Any: the value as YAML, of which JSON is a part."""
    return text(2, msgspec.json.encode(value).decode() + "\n")


def _named(name: str, value: bytes) -> bytes:
    return text(1, name) + part(2, value)
