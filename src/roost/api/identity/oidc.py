"""People known by an OpenID Connect provider: ID tokens verified as Kubernetes' API server does.

Configuration is a JSON file (`Provider`). The issuer's discovery document and keys are fetched when a
token needs them, and again when a token names a key that is not among them (at most once in AGAIN
seconds) or after FRESH. Who waits for a fetch waits WITHIN at most. While the issuer can't be reached, keys
that are known go on verifying; other tokens are refused and the log says why.

Only signatures with public keys count (no `none`, no HMAC), only by keys whose id the token names. Names
and groups get a prefix. A name that begins with `system:` after that is refused; groups that begin with
`system:` or `roost:`, which have rights of themselves, are left out, and the log says so once of each.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import structlog
from starlette.types import Scope

from roost.api.identity.bearer import bearer
from roost.api.identity.foreign import Foreign, divided
from roost.api.identity.jwt import Unfit, unverified
from roost.api.status import ApiError

WITHIN = 5.0
AGAIN = 10.0
FRESH = 3600.0
LARGEST = 256 * 1024
MOST_KEYS = 32
MOST_GROUPS = 256
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
DISCOVERY = "/.well-known/openid-configuration"

_LOCAL = re.compile(r"http://127\.0\.0\.1(:[0-9]+)?(/|\Z)")
_log = structlog.get_logger("roost.api.identity")


class Provider(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Which tokens of which issuer count, and as whom.

    `username_prefix` and `groups_prefix` are put before names; "-" is none. `required_claims` must be in the
    token with these values. `leeway_seconds` is how far clocks may differ. `ca_file` is PEM of the authority
    of the issuer's certificate, when it is not one of the system's.
    """

    issuer: str
    audiences: list[str]
    username_claim: str = "sub"
    username_prefix: str = "oidc:"
    groups_claim: str = ""
    groups_prefix: str = "oidc:"
    required_claims: dict[str, str] = {}
    leeway_seconds: float = 10.0
    ca_file: str = ""


class BadProvider(ValueError):
    """The configuration can't be used: why, and what to do."""


class Refused(ValueError):
    """A token of the issuer that does not count."""


def read(path: Path) -> Provider:
    """The configuration in a file; raises BadProvider."""
    try:
        provider = msgspec.json.decode(path.read_bytes(), type=Provider)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadProvider(f"{path} does not configure an OIDC provider: {error}") from error
    if not provider.issuer.startswith("https://") and not _LOCAL.match(provider.issuer):
        raise BadProvider(f"{path}: issuer {provider.issuer!r} is not https; use an https issuer")
    if not provider.audiences:
        raise BadProvider(f"{path}: audiences is empty; name the client id that tokens are made for")
    return provider


def caller_of(claims: Mapping[str, Any], provider: Provider, now: float) -> tuple[Foreign, list[str]]:
    """Whom the claims of a verified token stand for, and the groups that were left out; raises Refused."""
    if claims.get("iss") != provider.issuer:
        raise Refused("it is of another issuer")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not set(provider.audiences).intersection(map(str, audiences)):
        raise Refused("it is for another audience")
    expires, begins = _seconds(claims, "exp"), _seconds(claims, "nbf")
    if expires is None or now >= expires + provider.leeway_seconds:
        raise Refused("it has ended or has no end")
    if begins is not None and now < begins - provider.leeway_seconds:
        raise Refused("it has not begun")
    for required, value in provider.required_claims.items():
        if claims.get(required) != value:
            raise Refused(f"the claim {required} is not as required")
    name = claims.get(provider.username_claim)
    if not isinstance(name, str) or not name or len(name) > 1024:
        raise Refused(f"the claim {provider.username_claim} names nobody")
    if provider.username_claim == "email" and claims.get("email_verified", True) is not True:
        raise Refused("its e-mail address is not verified")
    groups = claims.get(provider.groups_claim, []) if provider.groups_claim else []
    groups = [groups] if isinstance(groups, str) else groups
    if not isinstance(groups, list) or len(groups) > MOST_GROUPS:
        raise Refused(f"the claim {provider.groups_claim} is no list of at most {MOST_GROUPS} groups")
    known = [_prefixed(provider.groups_prefix, g) for g in groups if isinstance(g, str) and g]
    user = _prefixed(provider.username_prefix, name)
    if user.startswith("system:"):
        raise Refused("names that begin with system: are not an issuer's to give")
    kept, left_out = divided(known)
    return Foreign(user, kept, until=expires + provider.leeway_seconds), left_out


class Oidc:
    """An authenticator for the tokens of one issuer."""

    def __init__(
        self,
        provider: Provider,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._provider, self._clock, self._monotonic = provider, clock, monotonic
        self._transport = transport
        self._keys: dict[str, Any] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._left_out: set[str] = set()

    async def __call__(self, scope: Scope) -> Foreign | None:
        """Who is known by a token of this issuer; None for others' tokens. Raises ApiError 401."""
        token = bearer(scope["headers"])
        if token.count(".") != 2:
            return None
        try:
            header, claims = unverified(token)
        except Unfit:
            return None
        if claims.get("iss") != self._provider.issuer:
            return None
        try:
            verified = await self._verified(token, header)
            caller, left_out = caller_of(verified, self._provider, self._clock())
        except Refused as error:
            _log.info("oidc token refused", issuer=self._provider.issuer, reason=str(error))
            raise ApiError(
                401,
                "Unauthorized: the token is not valid: it is wrong, used or expired; ask for a new one",
                headers={"WWW-Authenticate": 'Bearer realm="roost"'},
            ) from error
        self._tell(left_out)
        return caller

    def _tell(self, left_out: list[str]) -> None:
        for group in left_out:
            if group not in self._left_out and len(self._left_out) < MOST_GROUPS:
                self._left_out.add(group)
                _log.warning(
                    "a group of an oidc token does not count: it is not the issuer's to give; bind a role to "
                    "a group of the issuer's own",
                    issuer=self._provider.issuer,
                    group=group[:200],
                )

    async def _verified(self, token: str, header: Mapping[str, Any]) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError

        algorithm, name = header.get("alg"), header.get("kid", "")
        if algorithm not in ALGORITHMS:
            raise Refused("its algorithm is not one with public keys")
        key = await self._key(str(name))
        try:
            return dict(jwt.decode(token, key, algorithms=[str(algorithm)]).claims)
        except (JoseError, ValueError, TypeError) as error:
            raise Refused(f"its signature does not verify: {type(error).__name__}") from error

    async def _key(self, name: str) -> Any:
        now = self._monotonic()
        missing = name not in self._keys
        wanted = missing or now > self._fetched_at + FRESH
        idle = self._fetching is None or self._fetching.done()
        if wanted and idle and now > self._tried_at + AGAIN:
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch())
        if missing and self._fetching is not None:
            await asyncio.wait([self._fetching], timeout=WITHIN)
        if name not in self._keys:
            raise Refused("the issuer's keys that are known have none of its key id")
        return self._keys[name]

    async def _fetch(self) -> None:
        """Read the issuer's keys; what fails is logged, and the keys that are known stay."""
        import ssl

        from joserfc.errors import JoseError

        issuer = self._provider.issuer
        try:
            verify: ssl.SSLContext | bool = True
            if self._provider.ca_file:
                verify = await asyncio.to_thread(ssl.create_default_context, cafile=self._provider.ca_file)
            async with (
                asyncio.timeout(WITHIN),
                httpx.AsyncClient(verify=verify, transport=self._transport, trust_env=False) as client,
            ):
                about = await _json(client, issuer.rstrip("/") + DISCOVERY)
                if about.get("issuer") != issuer:
                    raise ValueError(
                        f"its discovery document is of issuer {str(about.get('issuer'))[:200]!r}"
                    )
                found = await _json(client, str(about.get("jwks_uri", "")))
            self._keys = _imported(found)
            self._fetched_at = self._monotonic()
            _log.info("oidc keys read", issuer=issuer, keys=len(self._keys))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, JoseError) as error:
            reason = str(error) or type(error).__name__
            _log.warning("the issuer's keys can't be read", issuer=issuer, reason=reason)


async def _json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    body = bytearray()
    async with client.stream("GET", url, headers={"accept": "application/json"}) as response:
        response.raise_for_status()
        async for part in response.aiter_bytes():
            body += part
            if len(body) > LARGEST:
                raise ValueError(f"{url} answers with more than {LARGEST} bytes")
    value = msgspec.json.decode(bytes(body))
    if not isinstance(value, dict):
        raise ValueError(f"{url} does not answer with an object")
    return value


def _imported(found: Mapping[str, Any]) -> dict[str, Any]:
    """The public signing keys of a JWK set by their ids; those of other kinds are left out."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    keys: dict[str, Any] = {}
    listed = found.get("keys")
    for raw in (listed if isinstance(listed, list) else [])[:MOST_KEYS]:
        if not isinstance(raw, dict) or raw.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        if raw.get("use", "sig") != "sig":
            continue
        try:
            keys[str(raw.get("kid", ""))] = import_key(raw)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return keys


def _prefixed(prefix: str, name: str) -> str:
    return name if prefix == "-" else prefix + name


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
