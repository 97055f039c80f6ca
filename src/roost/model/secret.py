"""Secret and ConfigMap, as Kubernetes' core group has them: what programs need to know and people keep.

The values of a Secret are secret fields: sealed before they are stored, never shown (`model.secrecy`).
`stringData` is for writing alone: it goes into `data`, base64-encoded.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any

from roost.model.kind import Column, KindInfo, Problem
from roost.model.meta import DNS_NAME, Resource, doc

LARGEST = 1024 * 1024
"""Bytes of all keys and values together, as in Kubernetes."""
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
OPAQUE = "Opaque"


class Secret(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """Values that are written and never shown."""

    type: Annotated[
        str, doc("What the values are for; programs may expect certain keys.", max_length=253)
    ] = ""
    data: Annotated[dict[str, str], doc("Values by key, base64.", secret=True)] = {}
    string_data: Annotated[dict[str, str], doc("Values by key, as text; goes into data.", secret=True)] = {}
    immutable: Annotated[bool, doc("Neither values nor this can be changed.")] = False


class ConfigMap(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """Values that are no secret."""

    data: Annotated[dict[str, str], doc("Text by key.")] = {}
    binary_data: Annotated[dict[str, str], doc("Bytes by key, base64.")] = {}
    immutable: Annotated[bool, doc("Neither values nor this can be changed.")] = False


def _prepared(raw: dict[str, Any]) -> dict[str, Any]:
    """`stringData` in `data`, and a type."""
    given, data = raw.get("stringData"), raw.get("data")
    made = {**raw, "type": raw.get("type") or OPAQUE}
    if isinstance(given, dict) and isinstance(data, dict | None):
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in given.items() if isinstance(v, str)}
        if len(encoded) == len(given):
            del made["stringData"]
            made["data"] = {**(data or {}), **encoded}
    return made


def _secret_problems(secret: Secret) -> list[Problem]:
    return [*_problems("data", secret.data, {}), *_not_base64("data", secret.data)]


def _config_map_problems(config: ConfigMap) -> list[Problem]:
    problems = _problems("data", config.data, config.binary_data)
    problems += [
        Problem(f"binaryData.{key}", "the key is in data too", "keep one of them")
        for key in config.binary_data
        if key in config.data
    ]
    return [*problems, *_not_base64("binaryData", config.binary_data)]


def _problems(field: str, first: dict[str, str], second: dict[str, str]) -> list[Problem]:
    problems = [
        Problem(f"{field}.{key[:100]}", "this is no key", "letters, digits, '-', '_' and '.', 253 at most")
        for key in (*first, *second)
        if not _KEY.fullmatch(key) or key in (".", "..")
    ]
    size = sum(len(k) + len(v.encode()) for k, v in first.items())
    size += sum(len(k) + len(v) * 3 // 4 for k, v in second.items())
    if size > LARGEST:
        problems.append(Problem(field, f"{size} bytes, {LARGEST} are allowed", "keep large data elsewhere"))
    return problems


def _not_base64(field: str, values: dict[str, str]) -> list[Problem]:
    return [
        Problem(f"{field}.{key}", "the value is not base64", "encode it: base64 -w0")
        for key, value in values.items()
        if not _is_base64(value)
    ]


def _transition(old: dict[str, Any], new: dict[str, Any]) -> list[Problem]:
    """What is immutable stays, as Kubernetes has it; a Secret's type always does."""
    fields = ("type", "data", "binaryData", "immutable") if old.get("immutable") else ("type",)
    return [
        Problem(field, "the field is immutable", "delete it and make it anew")
        for field in fields
        if (old.get(field) or None) != (new.get(field) or None)
    ]


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


_DATA = Column("Data", "data|count", "How many values it has.", "integer")
_AGE = Column("Age", "metadata.creationTimestamp", "Time since creation.", "date")

SECRET = KindInfo(
    kind="Secret",
    plural="secrets",
    singular="secret",
    group="",
    type=Secret,
    description="Values that programs need and nobody is shown, by key.",
    name_pattern=DNS_NAME,
    columns=(Column("Type", "type", "What the values are for."), _DATA, _AGE),
    selectable=("type",),
    prepare=_prepared,
    invariants=_secret_problems,
    transition=_transition,
)

CONFIG_MAP = KindInfo(
    kind="ConfigMap",
    plural="configmaps",
    singular="configmap",
    short_names=("cm",),
    group="",
    type=ConfigMap,
    description="Values that programs need and everybody may see, by key.",
    name_pattern=DNS_NAME,
    columns=(_DATA, _AGE),
    invariants=_config_map_problems,
    transition=_transition,
)
