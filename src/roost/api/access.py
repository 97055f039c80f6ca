"""The gate of the API: who asks, and whether he may.

Known by: the link a call came through (authenticated at its upper end), a client certificate of our
authority (common name = user, organisations = groups), a bearer token (of a User, a session, a service
account), or a further way that `program` hands in. A certificate counts only when it carries one of our
user groups: the certificates of hosts and subclouds come from the same authority, and a host named like a
user must not become that user. Whom an issuer elsewhere knows is never a User of this cloud.

The role of a User is a group (`roost:readers` and so on), so that it means the same when the call goes on
through a link. There, the groups alone decide, and a local User of that name can only take the access
away. What groups and names may do is RBAC as in Kubernetes (`identity.grants`). Nothing here reads the
database: all comes from the `identity.directory`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.types import Scope

from roost.api.context import ApiContext
from roost.api.identity import accounts, impersonation
from roost.api.identity.bearer import bearer
from roost.api.identity.directory import PRESENTED, Directory
from roost.api.identity.foreign import Foreign
from roost.api.identity.grants import SUPERUSERS
from roost.api.identity.rules import Attributes
from roost.api.identity.shipped import AUTHENTICATED, GROUPS, ROLES
from roost.api.status import ApiError
from roost.api.target import Target
from roost.engine import credentials
from roost.link.exchange import Caller
from roost.model import access as users
from roost.model import time
from roost.model.kind import KindInfo
from roost.model.meta import Owner

ADMINISTRATORS = SUPERUSERS
READERS = GROUPS["reader"]
USERS = "roost:users"
USER_GROUPS = frozenset({*GROUPS.values(), USERS})

CALLER = "roost.caller"
"""Key of an ASGI scope under which `through` puts the caller of a link. Sockets can't set it."""
PEER = "roost.peer"
"""Key under which `server` puts the verified client certificate, as ssl.getpeercert gives it."""
AT_ONCE = "roost.at-once"
"""Key under which `server` puts what sends part of an answer past its task (`fanout.AtOnce`)."""
NAMED = 5
"""Namespaces that a refusal names at most."""
_MEANS: dict[users.Role, str] = {
    "configurator": "its role is configurator, which changes configuration, not access",
    "operator": "its role is operator, which acts on what exists",
    "reader": "its role is reader, which only looks",
}


class Known(Caller, frozen=True):
    """A caller, and how he would be known at another moment: for answers that last. `until` is when what
    he showed ends, in seconds of the epoch."""

    anew: Callable[[], Caller] = lambda: _nobody()
    until: float = math.inf


class _Proof(NamedTuple):
    """How a caller is known, to be asked again while the answer lasts, and when that ends by itself."""

    known: Callable[[], Caller]
    until: Callable[[], float] = lambda: math.inf
    """To be asked when he is known: of a token that nobody has verified nothing may be believed."""


def _fields(caller: Caller) -> dict[str, Any]:
    """What every caller has, whatever else this one has."""
    return {f: getattr(caller, f) for f in Caller.__struct_fields__}


def _nobody() -> Caller:
    raise unauthorized("no credential was given")


def unauthorized(reason: str) -> ApiError:
    """401 with what to do."""
    return ApiError(
        401,
        f"Unauthorized: {reason}; use a client certificate of this cloud or a bearer token",
        headers={"WWW-Authenticate": 'Bearer realm="roost"'},
    )


class Gate:
    """Knows callers and decides for one API."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self.directory = Directory(context.store)

    # -- who

    async def authenticate(self, scope: Scope, tell: Callable[[Caller], None]) -> Caller:
        """Who asks, with the groups his role gives him; raises ApiError 401 or 403, StoreError.

        Who wants to act as another is told first: he may be refused.
        """
        await self.directory.current()
        known, until = await self._proof(scope)
        asked = impersonation.asked(scope["headers"])

        if asked is not None:
            tell(known())

        def anew() -> Caller:
            caller = known()
            return caller if asked is None else self._as_another(caller, asked)

        caller = anew()
        return Known(**_fields(caller), anew=anew, until=until())

    async def _proof(self, scope: Scope) -> _Proof:
        """How the caller is known; raises ApiError 401."""
        linked = scope.get(CALLER)
        if isinstance(linked, Caller):
            return _Proof(lambda: self._linked(linked))
        for authenticator in self._context.authenticate:
            known = await authenticator(scope)
            if known is not None:
                return self._foreign_proof(known)
        token = _bearer(scope)
        if token:
            return await self._token_proof(token)
        peer = _of_certificate(scope.get(PEER))
        if peer is None:
            raise unauthorized("no credential was given")
        return _Proof(lambda: self._admitted(peer))

    def _foreign_proof(self, known: Caller) -> _Proof:
        until = known.until if isinstance(known, Foreign) else math.inf
        return _Proof(lambda: self._admitted(known), lambda: until)

    async def _token_proof(self, token: str) -> _Proof:
        if accounts.looks_like(token):
            await self._look_for_key(token)
            return _Proof(lambda: self._account(token, ()), lambda: accounts.until(token))
        return _Proof(lambda: self._credential(token), lambda: self._credential_until(token))

    async def _look_for_key(self, token: str) -> None:
        if accounts.key_id(token) not in self.directory.key_names():
            await self.directory.look_again()

    async def review_token(self, token: str, audiences: Sequence[str]) -> tuple[Caller, list[str]]:
        """Whom a bearer token stands for, and for which of the audiences, for who asks in a TokenReview.

        No audience asks for this API. Only tokens of service accounts are for others; raises ApiError 401
        or 403.
        """
        wanted = audiences or (self._context.issuer_url,)
        known, given = await self._reviewed(token, wanted)
        fitting = [a for a in wanted if a in given]
        if not fitting:
            raise unauthorized("a token for another audience")
        return known, fitting

    async def _reviewed(self, token: str, audiences: Sequence[str]) -> tuple[Caller, Sequence[str]]:
        """Whom a token stands for, and every audience it is for."""
        await self.directory.current()
        own = (self._context.issuer_url,)
        headers = [(b"authorization", b"Bearer " + token.encode("utf-8", "replace"))]
        for authenticator in self._context.authenticate:
            known = await authenticator({"type": "http", "headers": headers})
            if known is not None:
                return self._admitted(known), own
        if not accounts.looks_like(token):
            return self._credential(token), own
        await self._look_for_key(token)
        return self._account(token, audiences), accounts.audiences(token)

    def _credential(self, token: str) -> Caller:
        found = self.directory.credential(token.partition(".")[0])
        try:
            name = credentials.check(found, token, self._context.clock(), *PRESENTED).spec.subject
        except credentials.BadCredential as error:
            raise unauthorized(str(error)) from error
        if self.directory.user(name) is None:
            raise unauthorized("the token's user is no longer there")
        return self._admitted(Caller(name, []))

    def _credential_until(self, token: str) -> float:
        found = self.directory.credential(token.partition(".")[0])
        return time.parse(found.spec.expires_at).timestamp() if found else -math.inf

    def _account(self, token: str, audiences: Sequence[str]) -> Caller:
        try:
            caller = accounts.verify(
                self.directory,
                self._context.issuer_url,
                token,
                audiences,
                self._context.clock(),
                self._context.vault,
            )
        except credentials.BadCredential as error:
            raise unauthorized(str(error)) from error
        return msgspec.structs.replace(caller, groups=[*caller.groups, AUTHENTICATED])

    def _linked(self, caller: Caller) -> Caller:
        self._refuse_disabled(caller)
        groups = sorted({*caller.groups, AUTHENTICATED})
        return msgspec.structs.replace(caller, groups=groups, linked=True)

    def _admitted(self, caller: Caller) -> Caller:
        self._refuse_disabled(caller)
        role = [] if isinstance(caller, Foreign) else self.role_groups(caller.name)
        groups = {*caller.groups, *role, USERS, AUTHENTICATED}
        return msgspec.structs.replace(caller, groups=sorted(groups))

    def _as_another(self, caller: Caller, asked: impersonation.Asked) -> Caller:
        """The caller that is asked for, if the real one may act as him."""
        for attributes in impersonation.needed(asked):
            self.require(caller, attributes)
        other = impersonation.becomes(asked, caller)
        self._refuse_disabled(other)
        groups = {*other.groups, AUTHENTICATED}
        if not other.linked:
            groups |= set(self.role_groups(other.name))
        return msgspec.structs.replace(other, groups=sorted(groups))

    def role_groups(self, name: str) -> list[str]:
        """The group of the role of the User of this name."""
        user = self.directory.user(name)
        return [GROUPS[user.spec.role]] if user is not None else []

    def is_disabled(self, name: str) -> bool:
        """Whether the User of this name is disabled."""
        user = self.directory.user(name)
        return user is not None and user.spec.disabled

    def _refuse_disabled(self, caller: Caller) -> None:
        if self.is_disabled(caller.name):
            raise ApiError(
                403,
                f'user "{caller.name}" is disabled here; an administrator of this cloud can set '
                "spec.disabled of that user to false",
            )

    # -- may

    def may(self, caller: Caller, asked: Attributes) -> bool:
        """Whether a caller may do something, by what is known now."""
        return self.directory.grants.allowed(caller, asked)

    def require(self, caller: Caller, asked: Attributes) -> None:
        """Raise 403 in Kubernetes' wording unless the caller may."""
        if not self.may(caller, asked):
            raise self._refusal(caller, asked)

    def require_target(self, caller: Caller, target: Target) -> bool:
        """Raise 403 unless the caller may do what a request asks; whether he may only operate (then
        `guarding` holds him to the fields that are for that)."""
        asked = attributes_of(target)
        if self.may(caller, asked):
            return False
        changing = target.verb in ("update", "patch") and not target.subresource
        if changing and target.info.operating:
            operate = msgspec.structs.replace(asked, verb="operate")
            if self.may(caller, operate):
                return True
        raise self._refusal(caller, asked)

    def still_allowed(self, caller: Caller, asked: Attributes) -> bool:
        """Whether who began a request would be let in now; what can't be told is no."""
        if not isinstance(caller, Known) or caller.until <= self._context.clock().timestamp():
            return False
        try:
            return self.may(caller.anew(), asked)
        except ApiError:
            return False

    def groups_below(self, caller: Caller, cloud: str) -> Caller:
        """The caller as a subcloud is told of him: with the groups of the roles he is given here,
        everywhere or in the subcloud's namespace."""
        grants = self.directory.grants.grants(caller, cloud)
        given = {g.role.name for g in grants if g.role.kind == "ClusterRole"}
        groups = {GROUPS[role] for role, name in ROLES.items() if name in given}
        return Caller(**{**_fields(caller), "groups": sorted({*caller.groups, *groups} - {AUTHENTICATED})})

    def _refusal(self, caller: Caller, asked: Attributes) -> ApiError:
        reason = self._why_not(caller, asked.namespace)
        if asked.path:
            return ApiError(
                403,
                f'forbidden: User "{caller.name}" cannot {asked.verb} path "{asked.path}": {reason}; '
                "ask an administrator",
                details={},
            )
        plural, group = asked.combined, asked.group
        where = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
        thing = f"{plural}.{group}" if group else plural
        if asked.name:
            thing = f'{thing} "{asked.name}"'
        details = {"group": group, "kind": plural}
        return ApiError(
            403,
            f'{thing} is forbidden: User "{caller.name}" cannot {asked.verb} resource "{plural}" '
            f'in API group "{group}"{where}: {reason}; ask an administrator',
            details={"name": asked.name, **details} if asked.name else details,
        )

    def _why_not(self, caller: Caller, namespace: str) -> str:
        for role, means in _MEANS.items():
            if GROUPS[role] in caller.groups:
                return means
        grants = self.directory.grants.grants(caller, namespace)
        if any(not g.role.name.startswith("system:") for g in grants):
            return "none of its roles allows it"
        elsewhere = self.directory.grants.namespaces(caller)
        if not elsewhere:
            return "it has no role here"
        more = f" and {len(elsewhere) - NAMED} more" if len(elsewhere) > NAMED else ""
        return f"it has roles in these namespaces alone: {', '.join(elsewhere[:NAMED])}{more}"


def attributes_of(target: Target) -> Attributes:
    """What a request asks for, as rules speak of it."""
    return Attributes(
        verb=target.verb,
        group=target.info.group,
        resource=target.info.plural,
        subresource=target.subresource,
        namespace=target.namespace,
        name=target.name,
    )


def _bearer(scope: Scope) -> str:
    token = bearer(scope["headers"])
    if not token and any(name == b"authorization" for name, _ in scope["headers"]):
        raise unauthorized("only bearer tokens are understood in the Authorization header")
    return token


def _of_certificate(peer: dict[str, Any] | None) -> Caller | None:
    if not peer:
        return None
    names = [value for part in peer.get("subject", ()) for key, value in part if key == "commonName"]
    groups = [v for part in peer.get("subject", ()) for key, v in part if key == "organizationName"]
    if len(names) != 1 or not names[0]:
        raise unauthorized("the client certificate names nobody")
    if not USER_GROUPS.intersection(groups):
        raise unauthorized(f"the client certificate of {names[0]!r} is not a user's")
    return Caller(names[0], groups)


def verbs(info: KindInfo) -> list[str]:
    """Verbs a kind has for people. What the platform alone writes is only read."""
    reading = ["get", "list", "watch"]
    if info.spec_owner is not Owner.OPERATOR:
        return reading
    if info.kind == "Alarm":
        return [*reading, "update", "patch"]
    if info.kind == "Cloud":
        return [*reading, "update", "patch"]
    return [*reading, "create", "update", "patch", "delete", "deletecollection"]
