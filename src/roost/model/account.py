"""ServiceAccount: an identity for programs (core/v1), and what proves identities: SigningKey and Password.

The last two are never served. A SigningKey signs tokens of service accounts; every API process on one
store signs and verifies with the same ones. A Password is an Argon2id hash under its user's name.
"""

from __future__ import annotations

from typing import Annotated

from roost.model.kind import Column, Flow, KindInfo
from roost.model.meta import DNS_NAME, Owner, Part, Resource, doc


class ObjectReference(Part, frozen=True, kw_only=True):
    """Names another resource."""

    name: Annotated[str, doc("Its name.", max_length=253)] = ""


class ServiceAccount(Resource, frozen=True, kw_only=True, omit_defaults=True):
    """An identity for programs in one namespace; tokens are asked for at its `token` subresource."""

    secrets: Annotated[
        list[ObjectReference],
        doc("Kept; not used.", max_length=64, list_type="map", list_keys=("name",), map_type="atomic"),
    ] = []
    image_pull_secrets: Annotated[list[ObjectReference], doc("Kept; not used.", max_length=64)] = []
    automount_service_account_token: Annotated[bool | None, doc("Kept; not used.")] = None


SERVICE_ACCOUNT = KindInfo(
    kind="ServiceAccount",
    plural="serviceaccounts",
    singular="serviceaccount",
    short_names=("sa",),
    type=ServiceAccount,
    group="",
    name_pattern=DNS_NAME,
    description="An identity for programs in one namespace.",
    columns=(Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),),
)


class SigningKeySpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """A key pair and how long it matters."""

    private_key: Annotated[str, doc("PKCS#8 PEM of a P-256 key, sealed by the cloud's vault.", secret=True)]
    made_at: Annotated[str, doc("When it was made.", format="date-time")]
    verifies_until: Annotated[str, doc("No token signed with it lives longer.", format="date-time")]


class SigningKey(Resource, frozen=True, kw_only=True):
    """Signs tokens of service accounts. Its name is the key id."""

    spec: Annotated[SigningKeySpec, doc("The key pair.")]


SIGNING_KEY = KindInfo(
    kind="SigningKey",
    plural="signingkeys",
    singular="signingkey",
    type=SigningKey,
    namespaced=False,
    served=False,
    flow=Flow.LOCAL,
    spec_owner=Owner.CLOUD,
    name_pattern=DNS_NAME,
    description="Key that signs tokens of service accounts.",
    columns=(),
)


class PasswordSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """A password as its hash."""

    hash: Annotated[str, doc("Argon2id in PHC form.")]
    set_at: Annotated[str, doc("When it was set.", format="date-time")]


class Password(Resource, frozen=True, kw_only=True):
    """The password of the User of this name."""

    spec: Annotated[PasswordSpec, doc("The password as its hash.")]


PASSWORD = KindInfo(
    kind="Password",
    plural="passwords",
    singular="password",
    type=Password,
    namespaced=False,
    served=False,
    flow=Flow.LOCAL,
    spec_owner=Owner.CLOUD,
    name_pattern=DNS_NAME,
    description="Hash of a user's password.",
    columns=(),
)
