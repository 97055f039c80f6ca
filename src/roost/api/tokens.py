"""Bearer tokens: POST users/NAME/token issues one, seen in the answer only.

Removing a user revokes its tokens in the same transaction: a later user of that name must not find
them in force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from roost.api.context import ApiContext
from roost.api.status import ApiError, bad_request, forbidden, not_found
from roost.engine import admission, credentials
from roost.link.exchange import Caller
from roost.model import time
from roost.model.access import USER, User
from roost.model.codec import Raw
from roost.store.transaction import Transaction

SHORTEST, USUAL, LONGEST = 600, 24 * 3600, 366 * 24 * 3600


async def issue(context: ApiContext, caller: Caller, namespace: str, name: str, body: Raw) -> Raw:
    """A TokenRequest with the new token of user `name`."""
    spec = body.get("spec") or {}
    seconds = spec.get("expirationSeconds", USUAL) if isinstance(spec, dict) else None
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not SHORTEST <= seconds <= LONGEST:
        raise bad_request(f"spec.expirationSeconds must be a whole number from {SHORTEST} to {LONGEST}")
    lifetime = timedelta(seconds=seconds)

    def work(tx: Transaction) -> tuple[str, str]:
        user = tx.seek(User, "", name)
        if user is None:
            raise not_found(USER, name)
        if user.spec.disabled:
            raise forbidden(USER, name, "the user is disabled", "set spec.disabled to false first")
        try:
            token = credentials.issue(tx, "bearer", name, lifetime)
        except credentials.TooManyCredentials as error:
            raise ApiError(403, f'users.roost.edge "{name}" is forbidden: {error}') from error
        return token, time.seconds(tx.now + lifetime)

    token, expires = await context.store.transact(work)
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name},
        "spec": {"expirationSeconds": seconds},
        "status": {"token": token, "expirationTimestamp": expires},
    }


def revoke_with_user(tx: Transaction, request: admission.Request) -> None:
    """A rule that refuses nothing: when a user goes, its tokens go."""
    if request.operation == "delete" and request.old is not None:
        credentials.revoke(tx, request.old.metadata.name, "bearer")


RULES: Mapping[str, Sequence[admission.Rule]] = {"User": (revoke_with_user,)}
