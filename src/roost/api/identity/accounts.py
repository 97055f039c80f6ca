"""Tokens of service accounts: JWTs that this cloud signs (ES256), bound to an account, audiences and an end.

Keys are in the store, so that every API process on it signs and verifies with the same ones; each has in
memory what the directory keeps. A key signs for ROTATE; then the next token makes a new one. A key says
until when the last token made with it may live (`verifies_until`, in steps of a day, so that not each
token is a write) and goes after that. Verifying names one algorithm and takes the key only by its id.

A token holds while its account is there with the uid it was made for.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from roost.api.identity.grants import account_name
from roost.api.identity.impersonation import ACCOUNTS
from roost.api.identity.jwt import Unfit, unverified
from roost.engine.credentials import BadCredential
from roost.engine.vault import SEALED, BadKeys, Place, Vault, VaultError
from roost.link.exchange import Caller
from roost.model import time
from roost.model.account import SIGNING_KEY, ServiceAccount, SigningKey, SigningKeySpec
from roost.model.meta import Metadata
from roost.store.transaction import Transaction

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

    from roost.api.identity.directory import Directory

ALGORITHM = "ES256"
ROTATE = timedelta(days=30)
LEEWAY = timedelta(seconds=10)
"""How far clocks of processes on one store may differ."""
STEP = timedelta(days=1)
PRIVATE = "kubernetes.io"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"


def looks_like(token: str) -> bool:
    """Whether a bearer token has the form of a JWT: it is one or nothing."""
    return token.count(".") == 2


def key_id(token: str) -> str:
    """The id of the key that a token says it was signed with; empty when it says none."""
    try:
        return str(unverified(token)[0].get("kid", ""))
    except Unfit:
        return ""


def audiences(token: str) -> list[str]:
    """Whom a token says it is for: to be believed of one that has been verified."""
    try:
        return _audiences(unverified(token)[1])
    except Unfit:
        return []


def until(token: str) -> float:
    """When a token that has been verified ends, in seconds of the epoch."""
    return _number(unverified(token)[1].get("exp"))


def suitable(keys: Iterable[SigningKey], now: datetime, expires: datetime) -> SigningKey | None:
    """The key to sign a token with that ends then; None when a transaction must see to it first."""
    newest = max(keys, key=lambda k: k.spec.made_at, default=None)
    if newest is None or _is_due(newest, now) or time.parse(newest.spec.verifies_until) < expires:
        return None
    return newest


def prepare(tx: Transaction, expires: datetime, vault: Vault | None) -> SigningKey:
    """The key to sign with, made or prolonged where needed; keys that verify nothing more go.

    Raises VaultError.
    """
    keys = tx.every(SigningKey)
    for key in keys:
        if time.parse(key.spec.verifies_until) + LEEWAY < tx.now and _is_due(key, tx.now):
            tx.remove(SIGNING_KEY.kind, "", key.metadata.name)
    newest = max(keys, key=lambda k: k.spec.made_at, default=None)
    until = time.seconds(_next_step(expires))
    if newest is None or _is_due(newest, tx.now):
        name, private = secrets.token_hex(16), _new_key()
        kept = vault.seal(_place(name), private) if vault else private
        made = SigningKeySpec(private_key=kept, made_at=time.seconds(tx.now), verifies_until=until)
        return tx.save(SigningKey(metadata=Metadata(name=name), spec=made))
    if newest.spec.verifies_until < until:
        spec = msgspec.structs.replace(newest.spec, verifies_until=until)
        return tx.save(msgspec.structs.replace(newest, spec=spec))
    return newest


def sign(
    key: SigningKey,
    issuer: str,
    account: ServiceAccount,
    audiences: Sequence[str],
    now: datetime,
    expires: datetime,
    vault: Vault | None,
) -> str:
    """A token for an account, with the claims that Kubernetes puts into it. Raises VaultError."""
    from joserfc import jwt

    meta = account.metadata
    claims = {
        "iss": issuer,
        "sub": account_name(meta.namespace, meta.name),
        "aud": list(audiences),
        "iat": int(now.timestamp()),
        "nbf": int(now.timestamp()),
        "exp": int(expires.timestamp()),
        "jti": secrets.token_hex(16),
        PRIVATE: {
            "namespace": meta.namespace,
            "serviceaccount": {"name": meta.name, "uid": meta.uid},
        },
    }
    header = {"alg": ALGORITHM, "kid": key.metadata.name, "typ": "JWT"}
    return str(jwt.encode(header, claims, _opened(key, vault), algorithms=[ALGORITHM]))


def verify(
    directory: Directory,
    issuer: str,
    token: str,
    audiences: Sequence[str],
    now: datetime,
    vault: Vault | None,
) -> Caller:
    """Whose token it is; `audiences` are those that will do, none is the API's own. Raises BadCredential."""
    from joserfc import jwt
    from joserfc.errors import JoseError

    name = key_id(token)
    key = next((k for k in directory.signing_keys() if k.metadata.name == name), None)
    if key is None:
        raise BadCredential(f"no key {name[:64]!r}")
    try:
        claims = jwt.decode(token, _opened(key, vault), algorithms=[ALGORITHM]).claims
    except (JoseError, ValueError, TypeError, VaultError) as error:
        raise BadCredential(f"a token that does not verify: {type(error).__name__}") from error
    check_claims(claims, issuer, audiences or (issuer,), now)
    private = claims.get(PRIVATE)
    if not isinstance(private, Mapping) or not isinstance(private.get("serviceaccount"), Mapping):
        raise BadCredential("a token of no service account")
    namespace, bound = str(private.get("namespace", "")), private["serviceaccount"]
    account = directory.account(namespace, str(bound.get("name", "")))
    if account is None or account.metadata.uid != bound.get("uid"):
        raise BadCredential(f"the service account {claims.get('sub')} is gone or was made anew")
    if account.metadata.deletion_timestamp:
        raise BadCredential(f"the service account {claims.get('sub')} is being deleted")
    return Caller(
        account_name(namespace, account.metadata.name),
        [ACCOUNTS, f"{ACCOUNTS}:{namespace}"],
        account.metadata.uid,
        {CREDENTIAL_ID: [f"JTI={claims.get('jti', '')}"]},
    )


def check_claims(claims: Mapping[str, Any], issuer: str, audiences: Sequence[str], now: datetime) -> None:
    """Issuer, audience and times; raises BadCredential."""
    if claims.get("iss") != issuer:
        raise BadCredential(f"a token of issuer {str(claims.get('iss'))[:200]!r}")
    if not set(audiences).intersection(_audiences(claims)):
        raise BadCredential("a token for another audience")
    moment, leeway = now.timestamp(), LEEWAY.total_seconds()
    expires, begins = _number(claims.get("exp")), _number(claims.get("nbf", 0))
    if math.isnan(expires) or math.isnan(begins):
        raise BadCredential("a token without an end, or with times that are no numbers")
    if not begins - leeway <= moment < expires:
        raise BadCredential("a token that has ended or has not begun")


def discovery(issuer: str, base: str) -> dict[str, Any]:
    """/.well-known/openid-configuration, for who verifies tokens of this cloud."""
    return {
        "issuer": issuer,
        "jwks_uri": f"{base}/openid/v1/jwks",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    }


def jwks(keys: Iterable[SigningKey], vault: Vault | None) -> dict[str, Any]:
    """/openid/v1/jwks: the public halves. Raises VaultError."""
    found = []
    for key in keys:
        public = _opened(key, vault).as_dict(private=False)
        found.append({**public, "kid": key.metadata.name, "alg": ALGORITHM, "use": "sig"})
    return {"keys": found}


def _is_due(key: SigningKey, now: datetime) -> bool:
    return time.parse(key.spec.made_at) + ROTATE <= now


def _next_step(moment: datetime) -> datetime:
    seconds = int(STEP.total_seconds())
    return moment + timedelta(seconds=seconds - int(moment.timestamp()) % seconds)


def _place(name: str) -> Place:
    return Place(SIGNING_KEY.kind, "", name, "spec.privateKey")


def _opened(key: SigningKey, vault: Vault | None) -> ECKey:
    """The key pair of a key, unsealed where it is sealed. Raises VaultError."""
    text = key.spec.private_key
    if text.startswith(SEALED):
        if vault is None:
            raise BadKeys("this cloud has no keys for secret values", "set its file of keys")
        text = vault.unseal(_place(key.metadata.name), text)
    return _imported(text)


def _new_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@lru_cache(maxsize=64)
def _imported(pem: str) -> ECKey:
    from joserfc.jwk import ECKey

    return ECKey.import_key(pem)


def _audiences(claims: Mapping[str, Any]) -> list[str]:
    given = claims.get("aud")
    found = given if isinstance(given, list) else [given]
    return [a for a in found if isinstance(a, str)]


def _number(value: object) -> float:
    """A claim that is a number; not a number otherwise."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
