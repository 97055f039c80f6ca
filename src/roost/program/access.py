"""The administrator's way in, and the tokens that a cloud hands out."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from roost.api.access import ADMINISTRATORS
from roost.api.context import ApiContext, Authenticator, Subresource
from roost.api.identity.tokenfile import TokenFile
from roost.cli import kubeconfig
from roost.cli.problems import Problem
from roost.engine.admission import Refused
from roost.engine.credentials import issue
from roost.link import exchange, token
from roost.link.errors import LinkError
from roost.link.node import host as host_node
from roost.link.node import subcloud as subcloud_node
from roost.link.pki import Authority, expires_at
from roost.model import time
from roost.model.cloud import SUBCLOUD
from roost.model.codec import Raw
from roost.model.host import HOST
from roost.program.enrolments import readmit
from roost.program.home import Settings, StartError
from roost.store.transaction import Transaction

ADMINISTRATOR = "admin"
CERTIFICATE_LIFETIME = timedelta(days=365)
TOKEN_LIFETIME = timedelta(hours=24)
LONGEST_TOKEN_LIFETIME = timedelta(days=30)


def keep_kubeconfig(path: Path, cloud: str, address: str, authority: Authority, now: datetime) -> None:
    """A kubeconfig for the administrator, readable by its owner alone.

    Made anew when it is missing, unreadable, for another address or CA, or when a third of its
    certificate's life is left.
    """
    server, ca = f"https://{address}", _b64(authority.certificate_pem)
    if _is_current(path, server, ca, now):
        return
    issued = authority.issue_user(ADMINISTRATOR, [ADMINISTRATORS], now, CERTIFICATE_LIFETIME)
    user = {"client-certificate-data": _b64(issued.certificate), "client-key-data": _b64(issued.key)}
    cluster = {"server": server, "certificate-authority-data": ca}
    kubeconfig.write(path, kubeconfig.remember({}, cloud, cluster, user, cloud))


def _is_current(path: Path, server: str, ca: str, now: datetime) -> bool:
    try:
        _, raw = kubeconfig.read(path)
        cluster, user = raw["clusters"][0]["cluster"], raw["users"][0]["user"]
        end = expires_at(base64.b64decode(user["client-certificate-data"]))
    except (Problem, LinkError, LookupError, TypeError, ValueError):
        return False
    same = cluster.get("server") == server and cluster.get("certificate-authority-data") == ca
    return same and end - now > CERTIFICATE_LIFETIME / 3


def authenticators(settings: Settings) -> list[Authenticator]:
    """Further ways to know people that a cloud was started with; raises StartError."""
    found: list[Authenticator] = []
    if settings.token_file:
        found.append(TokenFile(Path(settings.token_file)))
    if settings.oidc_file:
        from roost.api.identity import oidc

        try:
            found.append(oidc.Oidc(oidc.read(Path(settings.oidc_file))))
        except oidc.BadProvider as error:
            raise StartError(str(error), "mend the file, or start with another --oidc-file") from error
    return found


def enrolment_subresources(
    cloud: str, authority: Authority, endpoints: Callable[[], Sequence[str]]
) -> dict[tuple[str, str], Subresource]:
    """POST hosts/NAME/enrolment and subclouds/NAME/enrolment: one-time tokens.

    With `spec.readmit` no token is made: the node that enrolled under this name before is let in again.
    """

    async def enrol_host(
        context: ApiContext, caller: exchange.Caller, namespace: str, name: str, body: Raw
    ) -> Raw:
        def work(tx: Transaction) -> str:
            tx.get(HOST.kind, namespace, name)
            if again:
                readmit(tx, host_node(namespace, name))
                return ""
            return issue(tx, "enrol-host", f"{namespace}/{name}", lifetime)

        lifetime, again = _lifetime(body), _readmits(body)
        return _answer(await context.store.transact(work), lifetime, context.clock())

    async def enrol_subcloud(
        context: ApiContext, caller: exchange.Caller, namespace: str, name: str, body: Raw
    ) -> Raw:
        def work(tx: Transaction) -> str:
            tx.get(SUBCLOUD.kind, "", name)
            if again:
                readmit(tx, subcloud_node(name))
                return ""
            return issue(tx, "enrol-subcloud", name, lifetime)

        lifetime, again = _lifetime(body), _readmits(body)
        return _answer(await context.store.transact(work), lifetime, context.clock())

    def _answer(secret: str, lifetime: timedelta, now: datetime) -> Raw:
        if not secret:
            # Who is let in again has all it needs.
            status = {"token": "", "expirationTimestamp": time.seconds(now)}
            return {"apiVersion": "roost.edge/v1", "kind": "TokenRequest", "status": status}
        there = list(endpoints())
        if not there:
            raise Refused(
                f"{cloud} takes no links: it has no link address",
                "start it with --link-address and --advertise",
            )
        made = token.encode(token.Token(endpoints=there, ca=authority.pin, secret=secret))
        return {
            "apiVersion": "roost.edge/v1",
            "kind": "TokenRequest",
            "status": {"token": made, "expirationTimestamp": time.seconds(now + lifetime)},
        }

    return {("hosts", "enrolment"): enrol_host, ("subclouds", "enrolment"): enrol_subcloud}


def _readmits(body: Raw) -> bool:
    asked: Any = (body.get("spec") or {}).get("readmit", False)
    if not isinstance(asked, bool):
        raise Refused(f"{asked!r} is neither true nor false", "write true or false", field="spec.readmit")
    return asked


def _lifetime(body: Raw) -> timedelta:
    asked: Any = (body.get("spec") or {}).get("expirationSeconds", TOKEN_LIFETIME.total_seconds())
    longest = LONGEST_TOKEN_LIFETIME.total_seconds()
    if not isinstance(asked, int | float) or isinstance(asked, bool) or not 60 <= asked <= longest:
        raise Refused(
            f"a token can't live {asked!r} seconds",
            f"ask for 60 to {longest:.0f}",
            field="spec.expirationSeconds",
        )
    return timedelta(seconds=asked)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
