"""What all resources share: metadata, conditions, field documentation and field ownership.

A resource is a frozen struct with `metadata`, `spec` (intent) and `status` (observation). Each field
is declared once, with `doc(...)`: that declaration gives validation, the OpenAPI schema, table
columns and the reference page. Field ownership is part of the declaration: `owner=` at a field, or
the kind's defaults (`KindInfo.spec_owner`, `KindInfo.status_owner`), say who alone may write it. How
several of an owner's managers share a list is declared with `list_type`, `list_keys` and `map_type`.

Struct fields are snake_case here and camelCase on the wire, as the Kubernetes API conventions ask.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import msgspec

GROUP = "roost.edge"
VERSION = "v1"
API_VERSION = f"{GROUP}/{VERSION}"

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
DNS_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"


class Owner(Enum):
    """Who alone may write a field (law 1: one writer per fact)."""

    OPERATOR = "operator"
    CLOUD = "cloud"
    HOST = "host"
    FLEET = "fleet"


def doc(
    description: str,
    *,
    unit: str | None = None,
    owner: Owner | None = None,
    format: str | None = None,
    default: Any = None,
    list_type: Literal["atomic", "set", "map"] | None = None,
    list_keys: tuple[str, ...] = (),
    map_type: Literal["atomic"] | None = None,
    secret: bool = False,
    **constraints: Any,
) -> msgspec.Meta:
    """Document one field. `constraints` are msgspec's own: ge, le, pattern, min_length, max_length.

    `list_type`, `list_keys` (wire names) and `map_type` say how several owners share the field, as
    x-kubernetes-list-type, x-kubernetes-list-map-keys and x-kubernetes-map-type do: a list is atomic (has
    one owner as a whole) unless it is a set of scalars or a map of items by their keys. At a list,
    `map_type` speaks of its items.

    A `secret` field, or each value of one that is an object of texts, is written and never shown: see
    `model.secrecy`.
    """
    schema: dict[str, Any] = {}
    text = f"{description} Unit: {unit}." if unit else description
    if format is not None:
        schema["format"] = format
    if default is not None:
        schema["default"] = default
    extra: dict[str, Any] = {"unit": unit, "owner": owner}
    if list_type is not None:
        schema["x-kubernetes-list-type"] = extra["list_type"] = list_type
    if list_keys:
        extra["list_keys"] = list_keys
        schema["x-kubernetes-list-map-keys"] = list(list_keys)
    if map_type is not None:
        schema["x-kubernetes-map-type"] = extra["map_type"] = map_type
    if secret:
        # Not OpenAPI's writeOnly: a mark that a value is set is served in its place.
        schema["x-roost-write-only"] = extra["secret"] = True
        schema.setdefault("format", "password")
    return msgspec.Meta(description=text, extra_json_schema=schema or None, extra=extra, **constraints)


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of every struct inside a resource."""


class OwnerReference(Part, frozen=True, kw_only=True):
    """Another resource on whose life this one depends."""

    api_version: Annotated[str, doc("API version of the owner.")] = API_VERSION
    kind: Annotated[str, doc("Kind of the owner.")]
    name: Annotated[str, doc("Name of the owner.")]
    uid: Annotated[str, doc("Unique identity of the owner.")]
    controller: Annotated[bool, doc("True for the owner that manages this resource.")] = False
    block_owner_deletion: Annotated[bool, doc("True when the owner waits for this one's removal.")] = False


class ManagedFieldsEntry(Part, frozen=True, kw_only=True):
    """The fields that one manager owns, by which kind of write (Kubernetes: Server-Side Apply)."""

    manager: Annotated[str, doc("Name of the program or person that wrote.", max_length=128)] = ""
    operation: Annotated[str, doc("Apply or Update.")] = ""
    api_version: Annotated[str, doc("Version of the resource in which the fields were written.")] = ""
    time: Annotated[str, doc("When the set of fields last changed.", format="date-time")] = ""
    fields_type: Annotated[str, doc("Form of fieldsV1; always FieldsV1.")] = ""
    fields_v1: Annotated[dict[str, Any], doc("The set of fields.")] = {}
    subresource: Annotated[str, doc("Subresource that was written; empty for the resource itself.")] = ""


class Metadata(Part, frozen=True, kw_only=True):
    """Identity and bookkeeping of a resource. Only labels, annotations and finalizers are free to write."""

    name: Annotated[str, doc("Name, unique per kind and namespace.", max_length=253)] = ""
    generate_name: Annotated[str, doc("Prefix from which the server makes a name.", max_length=200)] = ""
    namespace: Annotated[str, doc("The cloud this resource belongs to.", max_length=63)] = ""
    uid: Annotated[str, doc("Unique identity over all time, given by the server.")] = ""
    resource_version: Annotated[str, doc("Revision of the store at the last change.")] = ""
    generation: Annotated[int, doc("Counts changes of spec.")] = 0
    creation_timestamp: Annotated[str | None, doc("When it was created.", format="date-time")] = None
    deletion_timestamp: Annotated[str | None, doc("When deletion was asked for.", format="date-time")] = None
    labels: Annotated[dict[str, str], doc("Names to select by.")] = {}
    annotations: Annotated[dict[str, str], doc("Notes for programs and people.")] = {}
    finalizers: Annotated[list[str], doc("Who must finish before removal.", list_type="set")] = []
    owner_references: Annotated[
        list[OwnerReference],
        doc("Resources this one depends on.", list_type="map", list_keys=("uid",), map_type="atomic"),
    ] = []
    managed_fields: Annotated[
        list[ManagedFieldsEntry], doc("Which manager owns which fields; kept by the server.", max_length=1000)
    ] = []


class Condition(Part, frozen=True, kw_only=True):
    """One aspect of the state: whether it holds, why, and since when (Kubernetes API conventions)."""

    type: Annotated[str, doc("Aspect, in CamelCase.", max_length=64)]
    status: Annotated[Literal["True", "False", "Unknown"], doc("Whether it holds.")]
    reason: Annotated[str, doc("One CamelCase word for the cause.", max_length=128)]
    message: Annotated[str, doc("For people: what happened, and the next action.", max_length=4096)] = ""
    last_transition_time: Annotated[str, doc("When status last changed.", format="date-time")] = ""
    observed_generation: Annotated[int, doc("Generation of spec this speaks of.")] = 0


class Resource(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of every kind. Subclasses add `spec` and `status`."""

    metadata: Annotated[Metadata, doc("Identity and bookkeeping.")] = Metadata()


def set_condition(conditions: list[Condition], new: Condition, now: str) -> list[Condition]:
    """Return `conditions` with `new` in its place; its transition time moves only when status does."""
    kept = next((c for c in conditions if c.type == new.type), None)
    since = kept.last_transition_time if kept and kept.status == new.status else now
    stamped = msgspec.structs.replace(new, last_transition_time=since)
    if kept is None:
        return [*conditions, stamped]
    return [stamped if c.type == new.type else c for c in conditions]


def condition_is(conditions: list[Condition], type: str, status: str = "True") -> bool:
    """Whether a condition of this type is present with this status."""
    return any(c.type == type and c.status == status for c in conditions)
