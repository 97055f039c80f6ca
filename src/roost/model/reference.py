"""The reference pages of docs/reference, made from the declarations of the kinds and of the alarms.

`python -m roost.model.reference DIRECTORY` writes them; a test fails when the committed pages are not
what `pages` gives. A page has one row per field, by its path on the wire: `[]` stands for each item of
a list, `.KEY` for each value of a map. Defaults inside a struct are those of its place: the same struct
may stand in two fields with two defaults.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from roost.model.alarms import ALARMS, AlarmDefinition
from roost.model.kind import Flow, KindInfo
from roost.model.meta import API_VERSION, Condition, Metadata, Owner
from roost.model.ownership import status_owners
from roost.model.registry import KINDS

MADE = "<!-- Made by `python -m roost.model.reference docs/reference`; change the declarations instead. -->"
COMMON = frozenset({Metadata, Condition})
_WRITERS = {
    Owner.OPERATOR: "operators",
    Owner.CLOUD: "the cloud's controllers",
    Owner.HOST: "the host's agent",
    Owner.FLEET: "the fleet's controllers",
}
_FLOWS = {
    Flow.DOWN: "Flows down a link to the node it is meant for; its status comes back up.",
    Flow.UP: "Flows up a link: the upper level has a copy that is only read there.",
    Flow.BOTH: "Flows down where its home is above and up where its home is here or below.",
    Flow.LOCAL: "Does not travel over links.",
}
_REQUIRED = object()
_PARTS = ("metadata", "spec", "status")


class Field(msgspec.Struct, frozen=True):
    """One row of a page."""

    path: str
    type: str
    default: str
    description: str


def pages() -> dict[str, str]:
    """Every page by file name."""
    made = {f"{info.singular}.md": kind_page(info) for info in KINDS}
    return {"README.md": index_page(), "alarms.md": alarms_page(), **made}


def index_page() -> str:
    """The list of kinds, and what all kinds share."""
    rows = [
        (f"[{info.kind}]({info.singular}.md)", f"`{info.plural}`", _short(info), info.description)
        for info in KINDS
    ]
    parts = [
        MADE,
        "# Reference of the kinds",
        f"Kinds are of `{API_VERSION}` unless their page says otherwise. "
        "What alarms mean stands in [alarms](alarms.md).",
        _table(("Kind", "Plural", "Short", "What it is"), rows),
        "## metadata",
        "Every resource has it. Operators write `name`, `generateName`, `labels`, `annotations` and "
        "`finalizers`; the rest is the server's.",
        _fields_table(fields(Metadata, "metadata"), "Default"),
        "## conditions",
        "The items of every `status.conditions`.",
        _fields_table(fields(Condition, "status.conditions[]"), "Default"),
    ]
    return "\n\n".join(parts) + "\n"


def kind_page(info: KindInfo) -> str:
    """The page of one kind."""
    facts = [
        ("API version", f"`{info.api_version}`"),
        ("Plural", f"`{info.plural}`"),
        ("Short", _short(info)),
        ("Scope", "a namespace, which is a cloud" if info.namespaced else "the whole API"),
        ("Served", "yes" if info.served else "no: it never leaves the store"),
        ("Names", f"fit `{info.name_pattern}`"),
        ("Links", _FLOWS[info.flow]),
        ("Field selectors", ", ".join(f"`{p}`" for p in _selectable(info))),
    ]
    parts = [MADE, f"# {info.kind}", info.description, _table(("", ""), facts)]
    structs = dict(zip(info.type.__struct_fields__, _struct_fields(info.type), strict=True))
    beside = [row for row in fields(info.type, "") if re.split(r"\W", row.path)[1] not in _PARTS]
    beside = [msgspec.structs.replace(row, path=row.path.removeprefix(".")) for row in beside]
    if beside:
        parts += ["## Fields", "They stand beside `metadata`.", _fields_table(beside, "Default")]
    if "spec" in structs:
        parts += [
            "## spec",
            f"What should be. Written by {_WRITERS[info.spec_owner]} alone.",
            _fields_table(_part(structs["spec"], "spec"), "Default"),
        ]
    if "status" in structs:
        owners = {path: _WRITERS[owner] for path, owner in status_owners(info).items()}
        rows = [
            (f"`{f.path}`", f.type, owners[f.path.split(".")[1].split("[")[0]], f.description)
            for f in _part(structs["status"], "status")
        ]
        table = _table(("Field", "Type", "Written by", "Description"), rows)
        parts += ["## status", "What is. Never written by people.", table]
    if info.columns:
        columns = [
            (c.name, f"`{c.path}`", "always" if c.priority == 0 else "with `-o wide`", c.description)
            for c in info.columns
        ]
        parts += ["## Columns", _table(("Column", "From", "Shown", "Description"), columns)]
    return "\n\n".join(parts) + "\n"


def alarms_page() -> str:
    """The dictionary of alarms."""
    parts = [
        MADE,
        "# Alarms",
        "An alarm is there while its cause is there: nothing raises or clears it by hand. A host whose "
        'alarms reach the severity under "degrades" is degraded, and no software update begins while one '
        'reaches that under "blocks updates"; an [AlarmPolicy](alarmpolicy.md) sets both otherwise. Those '
        "that are suppressible can be kept from counting by an [AlarmSuppression](alarmsuppression.md). "
        "`roost alarm explain ID` shows the same at a terminal; [alarms](../alarms.md) tells how to work "
        "with them.",
    ]
    for alarm in ALARMS.values():
        parts += [f"## {alarm.alarm_id} {alarm.title}", _table(("", ""), _alarm_facts(alarm))]
    return "\n\n".join(parts) + "\n"


def fields(struct: type[msgspec.Struct], at: str) -> list[Field]:
    """The fields of a struct and of the structs inside it, by path."""
    return list(_walk(inspect.type_info(struct), at, _REQUIRED))


def _alarm_facts(alarm: AlarmDefinition) -> list[tuple[str, str]]:
    return [
        ("Entity", f"`{alarm.entity}`"),
        ("Severities", ", ".join(alarm.severities)),
        ("What it means", alarm.meaning),
        ("Effect", alarm.effect),
        ("What to do", alarm.repair),
        ("Type", alarm.type),
        ("Probable cause", alarm.cause),
        ("Service affecting", _yes(alarm.service_affecting)),
        ("Suppressible", _yes(alarm.suppressible)),
        ("Degrades", f"from {alarm.degrades_from} on" if alarm.degrades_from else "no"),
        ("Blocks updates", f"from {alarm.blocks_updates_from} on" if alarm.blocks_updates_from else "no"),
    ]


def _part(field: inspect.Field, at: str) -> list[Field]:
    inner, _ = _unwrapped(field.type)
    return list(_walk(inner, at, _default_of(field)))


def _walk(kind: inspect.Type, at: str, instance: Any) -> Iterator[Field]:
    """Rows of a struct; `instance` is its default in this place, when it has one."""
    if not isinstance(kind, inspect.StructType):
        return
    for field in kind.fields:
        inner, notes = _unwrapped(field.type)
        default = _default_of(field)
        if isinstance(instance, msgspec.Struct) and default is not _REQUIRED:
            default = getattr(instance, field.name)
        path = f"{at}.{field.encode_name}"
        yield Field(path, _type(inner), _shown(default), str(notes.get("description", "")))
        below, suffix = _below(inner)
        if isinstance(below, inspect.StructType) and below.cls not in COMMON:
            yield from _walk(below, path + suffix, default)


def _below(kind: inspect.Type) -> tuple[inspect.Type, str]:
    """The type inside a list, a map or an optional, and what it adds to the path."""
    if isinstance(kind, inspect.ListType):
        return _unwrapped(kind.item_type)[0], "[]"
    if isinstance(kind, inspect.DictType):
        return _unwrapped(kind.value_type)[0], ".KEY"
    if isinstance(kind, inspect.UnionType):
        rest = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
        return _unwrapped(rest[0])[0], ""
    return kind, ""


def _unwrapped(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """A type without the notes around it, and the notes."""
    notes: dict[str, Any] = {}
    while isinstance(kind, inspect.Metadata):
        notes = {**(kind.extra_json_schema or {}), **notes}
        kind = kind.type
    return kind, notes


def _struct_fields(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    kind = inspect.type_info(struct)
    return kind.fields if isinstance(kind, inspect.StructType) else ()


def _default_of(field: inspect.Field) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return _REQUIRED


def _type(kind: inspect.Type) -> str:
    """A type in words, with its bounds."""
    match kind:
        case inspect.LiteralType():
            return ", ".join(f"`{v}`" for v in kind.values)
        case inspect.ListType():
            most = f", at most {kind.max_length}" if kind.max_length else ""
            least = f", at least {kind.min_length}" if kind.min_length else ""
            return f"list of {_type(_unwrapped(kind.item_type)[0])}{least}{most}"
        case inspect.DictType():
            return f"map to {_type(_unwrapped(kind.value_type)[0])}"
        case inspect.UnionType():
            return _type(_below(kind)[0]) + ", or absent"
        case inspect.StructType():
            return "object"
        case inspect.IntType() | inspect.FloatType():
            word = "integer" if isinstance(kind, inspect.IntType) else "number"
            bounds = [f"from {kind.ge}"] if kind.ge is not None else []
            bounds += [f"to {kind.le}"] if kind.le is not None else []
            return " ".join([word, *bounds])
        case inspect.StrType():
            return f"text, at most {kind.max_length}" if kind.max_length else "text"
        case inspect.BoolType():
            return "boolean"
        case _:
            return type(kind).__name__.removesuffix("Type").lower()


def _shown(default: Any) -> str:
    if default is _REQUIRED:
        return "required"
    if default is None:
        return "absent"
    if isinstance(default, msgspec.Struct) or default == "":
        return ""
    return f"`{msgspec.json.encode(default).decode()}`"


def _selectable(info: KindInfo) -> tuple[str, ...]:
    own = ("metadata.name", "metadata.namespace") if info.namespaced else ("metadata.name",)
    return (*own, *info.selectable)


def _short(info: KindInfo) -> str:
    return ", ".join(f"`{n}`" for n in info.short_names)


def _yes(fact: bool) -> str:  # noqa: FBT001 - a fact, not a switch
    return "yes" if fact else "no"


def _fields_table(rows: list[Field], default: str) -> str:
    cells = [(f"`{f.path}`", f.type, f.default, f.description) for f in rows]
    return _table(("Field", "Type", default, "Description"), cells)


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines)


def main(arguments: list[str]) -> int:
    """Write the pages into a directory."""
    if len(arguments) != 1:
        print("usage: python -m roost.model.reference DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
