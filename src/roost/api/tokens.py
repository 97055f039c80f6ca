"""Tokens that the API hands out, each seen in its answer only.

POST users/NAME/token makes a bearer token of a User; removing the User revokes it in the same
transaction: a later user of that name must not find it in force. POST serviceaccounts/NAME/token makes
a token of a service account (`identity.accounts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from roost.api.context import ApiContext, Subresource
from roost.api.identity import accounts
from roost.api.identity.directory import Directory
from roost.api.status import ApiError, bad_request, forbidden, not_found
from roost.engine import admission, credentials
from roost.engine.vault import Vault, VaultError
from roost.link.exchange import Caller
from roost.model import time
from roost.model.access import USER, User
from roost.model.account import PASSWORD, SERVICE_ACCOUNT, SigningKey
from roost.model.codec import Raw
from roost.store.transaction import Transaction

SHORTEST, USUAL, LONGEST = 600, 24 * 3600, 366 * 24 * 3600
ACCOUNT_USUAL = 3600
AUDIENCES = 16


async def issue(context: ApiContext, caller: Caller, namespace: str, name: str, body: Raw) -> Raw:
    """A TokenRequest with the new token of user `name`."""
    lifetime = _lifetime(_spec(body), USUAL)

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
    return _request({"name": name}, {"expirationSeconds": int(lifetime.total_seconds())}, token, expires)


def for_account(directory: Directory) -> Subresource:
    """What answers POST serviceaccounts/NAME/token."""

    async def issue_account(context: ApiContext, caller: Caller, namespace: str, name: str, body: Raw) -> Raw:
        spec = _spec(body)
        audiences = _audiences(spec) or [context.issuer_url]
        lifetime = _lifetime(spec, ACCOUNT_USUAL)
        if spec.get("boundObjectRef"):
            raise bad_request("spec.boundObjectRef can't be used: tokens are bound to their account alone")
        account = directory.account(namespace, name)
        if account is None:
            raise not_found(SERVICE_ACCOUNT, name)
        now = context.clock()
        expires = now + lifetime
        vault, key = context.vault, accounts.suitable(directory.signing_keys(), now, expires)
        try:
            if key is None:
                key = await context.store.transact(lambda tx: accounts.prepare(tx, expires, vault))
            token = accounts.sign(key, context.issuer_url, account, audiences, now, expires, vault)
        except VaultError as error:
            raise _no_keys(error) from error
        given = {"audiences": audiences, "expirationSeconds": int(lifetime.total_seconds())}
        meta = {"name": name, "namespace": namespace}
        return _request(meta, given, token, time.seconds(expires))

    return issue_account


def published(keys: Iterable[SigningKey], vault: Vault | None) -> Raw:
    """/openid/v1/jwks; raises ApiError 503."""
    try:
        return accounts.jwks(keys, vault)
    except VaultError as error:
        raise _no_keys(error) from error


def _no_keys(error: VaultError) -> ApiError:
    return ApiError(503, f"the keys of tokens can't be used: {error}")


def revoke_with_user(tx: Transaction, request: admission.Request) -> None:
    """A rule that refuses nothing: when a user goes, its tokens, sessions and password go.

    And when one comes: what was handed out while the former one of that name was being deleted, or was
    left when the collector took it, is not the new one's.
    """
    subject = {"delete": request.old, "create": request.new}.get(request.operation)
    if subject is not None:
        name = subject.metadata.name
        credentials.revoke(tx, name, "bearer", "session")
        if tx.find(PASSWORD.kind, "", name) is not None:
            tx.remove(PASSWORD.kind, "", name)


RULES: Mapping[str, Sequence[admission.Rule]] = {"User": (revoke_with_user,)}


def _spec(body: Raw) -> Raw:
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        raise bad_request("spec must be an object")
    return spec


def _lifetime(spec: Raw, usual: int) -> timedelta:
    seconds: Any = spec.get("expirationSeconds", usual)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not SHORTEST <= seconds <= LONGEST:
        raise bad_request(f"spec.expirationSeconds must be a whole number from {SHORTEST} to {LONGEST}")
    return timedelta(seconds=seconds)


def _audiences(spec: Raw) -> list[str]:
    given = spec.get("audiences") or []
    fits = isinstance(given, list) and len(given) <= AUDIENCES
    if not fits or not all(isinstance(a, str) and 0 < len(a) <= 1024 for a in given):
        raise bad_request(f"spec.audiences must be a list of at most {AUDIENCES} texts")
    return list(given)


def _request(metadata: Raw, spec: Raw, token: str, expires: str) -> Raw:
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": metadata,
        "spec": spec,
        "status": {"token": token, "expirationTimestamp": expires},
    }
