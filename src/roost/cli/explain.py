"""`roost explain`: what a kind and its fields mean, from the cloud's own OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from roost.cli import kinds, output
from roost.cli.problems import OK, NotFound
from roost.cli.session import CONNECT, Connect, opened

Schema = dict[str, Any]
DEEPEST = 12


def explain(
    what: Annotated[str, Parameter(name="KIND[.FIELD...]", help="A kind, or a field of it.")],
    /,
    *,
    recursive: Annotated[bool, Parameter(help="Show the fields of fields as well.")] = False,
    connect: Connect = CONNECT,
) -> int:
    """Tell what a kind or a field means, takes, and is by default.

    For example:
        roost explain host
        roost explain host.spec.personalities
        roost explain firewallpolicy.spec --recursive
    """
    word, *steps = what.strip(".").split(".")
    with opened(connect) as session:
        kind = kinds.find(word, session.client)
        at = f"/openapi/v3{kind.group_path}"
        document = session.client.document(at, dict[str, Any], "read the description of kinds")
        output.print_lines(explanation(document, kind.kind, steps, recursive=recursive))
    return OK


def explanation(document: Schema, kind: str, steps: list[str], *, recursive: bool = False) -> list[Text]:
    """The lines about a kind or a field. Raises NotFound."""
    schemas: dict[str, Schema] = document.get("components", {}).get("schemas", {})
    schema = _of_kind(schemas, kind)
    described = schema
    for depth, step in enumerate(steps):
        properties = _resolve(_item(schema, schemas), schemas).get("properties", {})
        if step not in properties:
            at = ".".join([kind.lower(), *steps[:depth]])
            known = ", ".join(sorted(properties)) or "no fields"
            raise NotFound(f"{at} has no field {step!r}", f"it has: {known}")
        described = properties[step]
        schema = _resolve(described, schemas)
    text = described.get("description") or schema.get("description", "")
    heading = [("Kind", kind)]
    if steps:
        heading += [("Field", f"{'.'.join(steps)} <{_type(described, schemas)}>")]
    lines = output.fields([*heading, ("Description", text), *_limits({**schema, **described})])
    inner = _resolve(_item(schema, schemas), schemas)
    if inner.get("properties"):
        lines += [Text(), Text("Fields", "bold underline")]
        lines += _fields(inner, schemas, 1, DEEPEST if recursive else 1)
    return lines


def _fields(schema: Schema, schemas: dict[str, Schema], depth: int, deepest: int) -> list[Text]:
    lines: list[Text] = []
    required = schema.get("required", [])
    for name, inner in schema.get("properties", {}).items():
        line = Text("  " * depth)
        line.append(name, "bold")
        line.append(f"  <{_type(inner, schemas)}>", "cyan")
        if name in required:
            line.append("  required", "yellow")
        lines.append(line)
        whole = _resolve(inner, schemas)
        if deepest == 1:
            text = inner.get("description") or whole.get("description", "")
            limits = "; ".join(f"{n.lower()}: {v}" for n, v in _limits({**whole, **inner}))
            for part in (text, limits):
                if part:
                    lines.append(Text("  " * (depth + 2) + part))
        elif depth < deepest:
            lines += _fields(_resolve(_item(whole, schemas), schemas), schemas, depth + 1, deepest)
    return lines


def _limits(schema: Schema) -> list[tuple[str, str]]:
    names = {
        "default": "Default",
        "minimum": "At least",
        "maximum": "At most",
        "minLength": "Shortest",
        "maxLength": "Longest",
        "minItems": "Fewest",
        "maxItems": "Most",
        "pattern": "Pattern",
        "format": "Format",
    }
    told = [("One of", ", ".join(map(str, schema["enum"])))] if schema.get("enum") else []
    return told + [(n, str(schema[k])) for k, n in names.items() if schema.get(k) not in (None, "", [], {})]


def _of_kind(schemas: dict[str, Schema], kind: str) -> Schema:
    for schema in schemas.values():
        marks = schema.get("x-kubernetes-group-version-kind", [])
        if any(mark.get("kind") == kind for mark in marks):
            return schema
    raise NotFound(f"the cloud does not describe kind {kind}")


def _resolve(schema: Schema, schemas: dict[str, Schema]) -> Schema:
    """The schema a reference points at, through allOf and anyOf of one."""
    for _ in range(DEEPEST):
        if "$ref" in schema:
            schema = schemas.get(schema["$ref"].rsplit("/", 1)[-1], {})
            continue
        joined = schema.get("allOf") or [s for s in schema.get("anyOf", []) if s.get("type") != "null"]
        if len(joined) != 1:
            break
        schema = joined[0]
    return schema


def _item(schema: Schema, schemas: dict[str, Schema]) -> Schema:
    """Of a list or a map the schema of what is in it, else the schema itself."""
    schema = _resolve(schema, schemas)
    inside = schema.get("items") or schema.get("additionalProperties")
    return _resolve(inside, schemas) if isinstance(inside, dict) and inside else schema


def _type(schema: Schema, schemas: dict[str, Schema]) -> str:
    whole = _resolve(schema, schemas)
    if whole.get("type") == "array":
        return f"list of {_type(whole.get('items', {}), schemas)}"
    inside = whole.get("additionalProperties")
    if whole.get("type") == "object" and isinstance(inside, dict):
        return f"map of {_type(inside, schemas)}"
    kind = whole.get("type", "any")
    return "/".join(kind) if isinstance(kind, list) else str(kind)
