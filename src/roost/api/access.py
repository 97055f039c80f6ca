"""Who asks, and what they may do.

Known by: a client certificate of our authority (common name = user, organisations = groups), a bearer
token, or the link a call came through (already authenticated at its upper end). A certificate
counts only when it carries one of our user groups: the certificates of hosts and subclouds come
from the same authority, and a host named like a user must not become that user.

Roles: administrators do everything that people may do; readers get, list and watch. A role comes from
a group, or from the User of that name; here it becomes a group, so that it means the same when the
call goes on through a link. There, the groups alone decide, and a local User of that name can only
take the access away.
"""

from __future__ import annotations

from typing import Any

from starlette.types import Scope

from roost.api.context import ApiContext
from roost.api.status import ApiError
from roost.engine import credentials
from roost.link.exchange import Caller
from roost.model.access import User
from roost.model.kind import KindInfo
from roost.model.meta import GROUP, Owner
from roost.store.transaction import Transaction

ADMINISTRATORS = "roost:administrators"
READERS = "roost:readers"
USERS = "roost:users"
USER_GROUPS = frozenset({ADMINISTRATORS, READERS, USERS})

CALLER = "roost.caller"
"""Key of an ASGI scope under which `through` puts the caller of a link. Sockets can't set it."""
PEER = "roost.peer"
"""Key under which `server` puts the verified client certificate, as ssl.getpeercert gives it."""

READING = frozenset({"get", "list", "watch"})
SELF = frozenset({"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"})


def unauthorized(reason: str) -> ApiError:
    """401 with what to do."""
    return ApiError(
        401,
        f"Unauthorized: {reason}; use a client certificate of this cloud or a bearer token",
        headers={"WWW-Authenticate": 'Bearer realm="roost"'},
    )


async def authenticate(context: ApiContext, scope: Scope) -> Caller:
    """Who asks, with the groups their role gives them; raises ApiError 401 or 403."""
    linked = scope.get(CALLER)
    if isinstance(linked, Caller):
        return await context.store.read(lambda tx: _admit_linked(tx, linked))
    known = await _otherwise(context, scope)
    token = "" if known else _bearer(scope)
    if token:
        return await context.store.read(lambda tx: _by_token(tx, token))
    caller = known or _of_certificate(scope.get(PEER))
    if caller is None:
        raise unauthorized("no credential was given")
    return await context.store.read(lambda tx: _admit(tx, caller))


async def _otherwise(context: ApiContext, scope: Scope) -> Caller | None:
    for authenticator in context.authenticate:
        caller = await authenticator(scope)
        if caller is not None:
            return caller
    return None


def _bearer(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise unauthorized("only bearer tokens are understood in the Authorization header")
            return str(token.strip())
    return ""


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


def _by_token(tx: Transaction, token: str) -> Caller:
    try:
        name = credentials.verify(tx, token, "bearer").spec.subject
    except credentials.BadCredential as error:
        raise unauthorized(str(error)) from error
    if tx.seek(User, "", name) is None:
        raise unauthorized("the token's user is no longer there")
    return _admit(tx, Caller(name, []))


def _admit(tx: Transaction, caller: Caller) -> Caller:
    user = tx.seek(User, "", caller.name)
    _refuse_disabled(user, caller)
    groups = set(caller.groups) | {USERS}
    if user is not None:
        groups.add(ADMINISTRATORS if user.spec.role == "administrator" else READERS)
    return Caller(caller.name, sorted(groups))


def _admit_linked(tx: Transaction, caller: Caller) -> Caller:
    _refuse_disabled(tx.seek(User, "", caller.name), caller)
    return caller


def _refuse_disabled(user: User | None, caller: Caller) -> None:
    if user is not None and user.spec.disabled:
        raise ApiError(
            403,
            f'user "{caller.name}" is disabled here; an administrator of this cloud can set '
            "spec.disabled of that user to false",
        )


def may(caller: Caller, verb: str) -> bool:
    """Whether the caller's role allows a verb on what this API serves."""
    if ADMINISTRATORS in caller.groups:
        return True
    return READERS in caller.groups and verb in READING


def allowed_verbs(info: KindInfo, caller: Caller) -> list[str]:
    """Verbs on a kind that the caller can use with success, as reviews and discovery tell them."""
    return [v for v in verbs(info) if may(caller, v)]


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


def require(
    caller: Caller,
    verb: str,
    plural: str,
    *,
    group: str = GROUP,
    namespace: str = "",
    name: str = "",
) -> None:
    """Raise 403 in Kubernetes' wording unless the caller's role allows it."""
    if may(caller, verb):
        return
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    thing = f'{plural}.{group} "{name}"' if name else f"{plural}.{group}"
    role = "its role is reader, which only looks" if READERS in caller.groups else "it has no role here"
    raise ApiError(
        403,
        f'{thing.rstrip(".")} is forbidden: User "{caller.name}" cannot {verb} resource "{plural}" '
        f'in API group "{group}"{where}: {role}; ask an administrator',
        details={"name": name, "group": group, "kind": plural} if name else {"group": group, "kind": plural},
    )
