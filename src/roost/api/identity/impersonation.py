"""Acting as another: the Impersonate-* headers, and the rights they take (as in Kubernetes). Pure.

Impersonate-User names whom; Impersonate-Group (several), Impersonate-Uid and Impersonate-Extra-KEY add to
it. Each of them takes the verb `impersonate`: on users, or on serviceaccounts for
`system:serviceaccount:NAMESPACE:NAME`, on groups, and on uids and userextras/KEY of
authentication.k8s.io.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import unquote

import msgspec

from roost.api.identity.grants import ACCOUNT
from roost.api.identity.rules import Attributes
from roost.api.status import bad_request
from roost.link.exchange import Caller

PREFIX = b"impersonate-"
EXTRA = "extra-"
MOST = 64
ACCOUNTS = "system:serviceaccounts"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers ask for."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


def asked(headers: Iterable[tuple[bytes, bytes]]) -> Asked | None:
    """What the headers ask for; None when nothing. Raises ApiError 400."""
    user = uid = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}
    found = [
        (name[len(PREFIX) :].decode("latin-1"), value) for name, value in headers if name.startswith(PREFIX)
    ]
    if not found:
        return None
    if len(found) > MOST:
        raise bad_request(f"more than {MOST} Impersonate headers")
    for name, raw in found:
        try:
            value = raw.decode()
        except UnicodeDecodeError as error:
            raise bad_request(f"Impersonate-{name} is not UTF-8") from error
        match name:
            case "user" if not user:
                user = value
            case "uid" if not uid:
                uid = value
            case "group":
                groups.append(value)
            case _ if name.startswith(EXTRA) and len(name) > len(EXTRA):
                extra.setdefault(unquote(name.removeprefix(EXTRA)).lower(), []).append(value)
            case _:
                raise bad_request(f"Impersonate-{name} is unknown or given twice")
    if not user:
        raise bad_request("requested groups, uid or extra without impersonating a user; set Impersonate-User")
    more = tuple((key, tuple(values)) for key, values in extra.items())
    return Asked(user=user, groups=tuple(groups), uid=uid, extra=more)


def needed(asked: Asked) -> Iterator[Attributes]:
    """What the real caller must be allowed to do."""
    account = _account(asked.user)
    if account is not None:
        namespace, name = account
        yield Attributes(verb="impersonate", resource="serviceaccounts", namespace=namespace, name=name)
    else:
        yield Attributes(verb="impersonate", resource="users", name=asked.user)
    for group in asked.groups:
        yield Attributes(verb="impersonate", resource="groups", name=group)
    kubernetes = "authentication.k8s.io"
    if asked.uid:
        yield Attributes(verb="impersonate", group=kubernetes, resource="uids", name=asked.uid)
    for key, values in asked.extra:
        for value in values:
            yield Attributes(
                verb="impersonate", group=kubernetes, resource="userextras", subresource=key, name=value
            )


def becomes(asked: Asked, caller: Caller) -> Caller:
    """The caller that the headers make of the real one."""
    groups = list(asked.groups)
    account = _account(asked.user)
    if account is not None and not groups:
        groups = [ACCOUNTS, f"{ACCOUNTS}:{account[0]}"]
    extra = {key: list(values) for key, values in asked.extra}
    return Caller(asked.user, groups, asked.uid, extra, by=caller.by or caller.name, linked=caller.linked)


def _account(user: str) -> tuple[str, str] | None:
    """Namespace and name when the user is a service account."""
    if not user.startswith(ACCOUNT):
        return None
    namespace, _, name = user.removeprefix(ACCOUNT).partition(":")
    return (namespace, name) if namespace and name else None
