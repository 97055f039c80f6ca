"""User: who may use this cloud's API, and Credential: what proves it (never served, only hashes)."""

from __future__ import annotations

from typing import Annotated, Literal

from roost.model.kind import Column, Flow, KindInfo
from roost.model.meta import DNS_NAME, Owner, Part, Resource, doc

Role = Literal["administrator", "configurator", "operator", "reader"]
"""From the one that may do most to the one that may do least; docs/security.md has what each may."""


class UserSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the user may do."""

    role: Annotated[
        Role,
        doc(
            "Administrator: everything. Configurator: change configuration, not access. "
            "Operator: act on what exists. Reader: look."
        ),
    ] = "reader"
    description: Annotated[str, doc("For people.", max_length=255)] = ""
    disabled: Annotated[bool, doc("Refuse every credential of this user.")] = False


class User(Resource, frozen=True, kw_only=True):
    """Who may use the API."""

    spec: Annotated[UserSpec, doc("What the user may do.")] = UserSpec()


USER = KindInfo(
    kind="User",
    plural="users",
    singular="user",
    type=User,
    namespaced=False,
    description="Who may use this cloud's API, and in which role.",
    columns=(
        Column("Role", "spec.role", "What the user may do."),
        Column("Disabled", "spec.disabled", "Whether access is refused.", "boolean"),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)


class CredentialSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """A secret as its hash; the secret itself is shown once and kept nowhere."""

    purpose: Annotated[Literal["bearer", "session", "enrol-host", "enrol-subcloud"], doc("What it opens.")]
    subject: Annotated[str, doc("User, host (cloud/host) or subcloud it was made for.")]
    digest: Annotated[str, doc("SHA-256 of the secret, hexadecimal.")]
    expires_at: Annotated[str, doc("When it ends.", format="date-time")]
    used_at: Annotated[str, doc("When a one-time secret was used.", format="date-time")] = ""
    used_by: Annotated[str, doc("SHA-256 of the public key it was used with.")] = ""


class Credential(Resource, frozen=True, kw_only=True):
    """What proves an identity."""

    spec: Annotated[CredentialSpec, doc("The secret as its hash.")]


CREDENTIAL = KindInfo(
    kind="Credential",
    plural="credentials",
    singular="credential",
    type=Credential,
    namespaced=False,
    served=False,
    flow=Flow.LOCAL,
    spec_owner=Owner.CLOUD,
    name_pattern=DNS_NAME,
    description="Hash of a bearer or enrolment token.",
    columns=(),
)
