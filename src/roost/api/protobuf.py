"""OpenAPI v2 as protobuf, the only form that kubectl before 1.27 reads.

A small writer for the messages of gnostic's OpenAPIv2.proto; the numbers below are its field numbers.
Only what our own document has is written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import msgspec

from roost.model.codec import Raw

_LENGTH, _VARINT, _FIXED64 = 2, 0, 1

_OPERATIONS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
_SCHEMA_TEXT = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_SCHEMA_DOUBLE = {"maximum": 7, "minimum": 9}
_SCHEMA_INTEGER = {"maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15}


def document(raw: Raw) -> bytes:
    """The Document message of an OpenAPI v2 document."""
    info = _text(1, raw["info"]["title"]) + _text(2, raw["info"]["version"])
    paths = b"".join(_part(2, _named(path, _path_item(item))) for path, item in raw["paths"].items())
    definitions = _schemas(raw["definitions"])
    return _text(1, raw["swagger"]) + _part(2, info) + _part(8, paths) + _part(9, definitions)


def _path_item(item: Raw) -> bytes:
    operations = (_part(_OPERATIONS[m], _operation(o)) for m, o in item.items() if m in _OPERATIONS)
    return b"".join(operations) + _parameters(9, item.get("parameters", []))


def _operation(operation: Raw) -> bytes:
    responses = b"".join(
        _part(1, _named(code, _part(1, _response(r)))) for code, r in operation["responses"].items()
    )
    return b"".join(
        [
            _text(3, operation["description"]),
            _text(5, operation["operationId"]),
            *(_text(6, media) for media in operation["produces"]),
            *(_text(7, media) for media in operation["consumes"]),
            _parameters(8, operation["parameters"]),
            _part(9, responses),
            _extensions(13, operation),
        ]
    )


def _response(response: Raw) -> bytes:
    return _text(1, response["description"]) + _part(2, _part(1, _schema(response["schema"])))


def _parameters(number: int, parameters: Iterable[Raw]) -> bytes:
    return b"".join(_part(number, _part(1, _parameter(p))) for p in parameters)


def _parameter(parameter: Raw) -> bytes:
    """Parameter: a body parameter (1), or a query (3) or path (4) one inside a non-body one (2)."""
    text = parameter.get("description", "")
    where, name = parameter["in"], parameter["name"]
    if where == "body":
        body = (
            _text(1, text)
            + _text(2, name)
            + _text(3, where)
            + _truth(4)
            + _part(5, _schema(parameter["schema"]))
        )
        return _part(1, body)
    common = _text(2, where) + _text(3, text) + _text(4, name)
    if where == "path":
        return _part(2, _part(4, _truth(1) + common + _text(5, parameter["type"])))
    return _part(2, _part(3, common + _text(6, parameter["type"])))


def _schemas(schemas: dict[str, Raw]) -> bytes:
    return b"".join(_part(1, _named(name, _schema(schema))) for name, schema in schemas.items())


def _schema(schema: Raw) -> bytes:
    out = [_text(n, schema[key]) for key, n in _SCHEMA_TEXT.items() if key in schema]
    if "default" in schema:
        out.append(_part(5, _any(schema["default"])))
    out += [_double(n, schema[key]) for key, n in _SCHEMA_DOUBLE.items() if key in schema]
    out += [_integer(n, schema[key]) for key, n in _SCHEMA_INTEGER.items() if key in schema]
    out += [_text(19, name) for name in schema.get("required", [])]
    out += [_part(20, _any(value)) for value in schema.get("enum", [])]
    inner = schema.get("additionalProperties")
    if isinstance(inner, dict):
        out.append(_part(21, _part(1, _schema(inner))))
    if "type" in schema:
        out.append(_part(22, _text(1, schema["type"])))
    if "items" in schema:
        out.append(_part(23, _part(1, _schema(schema["items"]))))
    if "properties" in schema:
        out.append(_part(25, _schemas(schema["properties"])))
    out.append(_extensions(31, schema))
    return b"".join(out)


def _extensions(number: int, raw: Raw) -> bytes:
    found = ((key, value) for key, value in raw.items() if key.startswith("x-"))
    return b"".join(_part(number, _named(key, _any(value))) for key, value in found)


def _any(value: Any) -> bytes:
    """Any: the value as YAML, of which JSON is a part."""
    return _text(2, msgspec.json.encode(value).decode() + "\n")


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _part(2, value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _part(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(body)) + body


def _text(number: int, text: str) -> bytes:
    return _part(number, text.encode()) if text else b""


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _truth(number: int) -> bytes:
    return _integer(number, 1)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | _FIXED64) + struct.pack("<d", value)
