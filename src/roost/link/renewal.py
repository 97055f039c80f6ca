"""New certificates for nodes that have one, at the upper end: over the link, or at a door of its own.

A site that was switched off for longer than its certificate lives comes back to a door that a certificate
opens. Nobody is there to carry a token. So one that is over still opens /renew, where nothing can be had but
a new one, when all of this holds:

- TLS has proven it: this cloud's CA signed it, and who dials has its key;
- the node is admitted: declared, and enrolled for the declaration that stands (`admit`);
- it ended no longer than `grace` ago by this cloud's clock;
- it is the one with which the node asked last, or one of the last that it was given, whose answers may have
  been lost (KNOWN together). A key from an old backup opens nothing.

Deleting a node, or declaring it anew, shuts it out here as it does at the link. What a node was given is
noted before the answer leaves. Nodes of which nothing is noted enrolled with an earlier version: they are let
in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from roost.engine.allowance import Allowance
from roost.engine.certificates import RENEWAL_GRACE
from roost.link import messages, pki
from roost.link.errors import BadMessage, LinkError, Refused
from roost.link.messages import Message, Refusal, RenewalRequest, Renewed
from roost.link.node import Node
from roost.link.wire import Connection, Peer
from roost.model import time
from roost.store.errors import StoreError
from roost.store.store import Store
from roost.store.transaction import Transaction

log = structlog.get_logger(__name__)

GRACE = timedelta(seconds=RENEWAL_GRACE)
RENEWALS = 10
RENEW_EVERY = 60.0
NODES = 25_000
SERVE_WITHIN = 20.0
ASK_AGAIN = 3600.0
KNOWN = 4

Admit = Callable[[Node], Awaitable[None]]


class TooOften(LinkError):
    """A node asked for more certificates than it needs."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"it was renewed often enough; again in {wait:.0f} s")
        self.wait = wait


def remember(tx: Transaction, node: Node, *fingerprints: str) -> None:
    """Note which certificates a node may have, the newest last."""
    tx.set_property(_property(node), " ".join(fingerprints))


def given(noted: tuple[str, ...], shown: str, new: str) -> tuple[str, ...]:
    """What a node may have once it was given a new certificate for one that it has shown. Pure."""
    others = [one for one in noted if one != shown]
    return tuple(one for one in [shown, *others[-(KNOWN - 2) :], new] if one)


def known(tx: Transaction, node: Node) -> tuple[str, ...]:
    """The certificates a node may have, as far as that is noted."""
    return tuple(tx.property(_property(node)).split())


def _property(node: Node) -> str:
    return f"certificates:{node}"


def check_return(node: Node, peer: Peer, noted: tuple[str, ...], grace: timedelta, now: datetime) -> None:
    """That a node with this certificate may have a new one. Pure. Raises Refused."""
    end = peer.certificate_expires_at
    if end is None:
        raise Refused("certificate", f"{node} shows no certificate", "enrol it")
    if now < end:
        return
    ended = f"the certificate of {node} expired at {time.seconds(end)}"
    verb = "host" if node.kind == "host" else "subcloud"
    remedy = (
        "ask the upper cloud for a new enrolment token and enrol again: "
        f"roost {verb} token {node.name}; if that time has not come yet, set the upper cloud's clock"
    )
    if now >= end + grace:
        said = f"{ended}, and could be renewed until {time.seconds(end + grace)}"
        raise Refused("ended", said, remedy, retry_after=ASK_AGAIN)
    if noted and peer.fingerprint not in noted:
        said = f"{ended}, and is not the last that this node was given"
        raise Refused("superseded", said, remedy, retry_after=ASK_AGAIN)


class Renewals:
    """Signs for nodes that are known already."""

    def __init__(
        self,
        store: Store,
        authority: pki.Authority,
        *,
        clock: Callable[[], datetime],
        lifetime: timedelta,
        grace: timedelta,
        admit: Admit,
    ) -> None:
        self._store, self._authority, self._clock = store, authority, clock
        self._lifetime, self._grace, self._admit = lifetime, grace, admit
        self._allowance = Allowance(RENEWALS, 1 / RENEW_EVERY, most=NODES)

    async def renew(self, node: Node, shown: str, request: bytes) -> bytes:
        """A fresh certificate for whom the one that was shown names.

        Raises BadCertificate, TooOften, StoreError.
        """
        wait = self._allowance.take(str(node), asyncio.get_running_loop().time())
        if wait > 0:
            raise TooOften(wait)
        certificate = self._authority.sign_node(request, node, self._clock(), self._lifetime)
        fingerprint = pki.pin(certificate)
        await self._store.transact(lambda tx: remember(tx, node, *given(known(tx, node), shown, fingerprint)))
        return certificate

    @property
    def authority(self) -> str:
        """The CA's certificate as it is now (PEM)."""
        return self._authority.certificate_pem.decode()

    async def serve(self, node: Node, connection: Connection) -> None:
        """The door of those whose certificate is over: one request, one answer."""
        address = connection.peer.address
        try:
            async with asyncio.timeout(SERVE_WITHIN):
                asked = messages.unpack(await connection.receive())
                if not isinstance(asked, RenewalRequest):
                    raise BadMessage("no request for a certificate came")
                await connection.send(messages.pack(await self._answer(node, connection.peer, asked)))
        except (LinkError, TimeoutError) as error:
            log.debug("renewal.ended", node=str(node), address=address, reason=str(error))

    async def _answer(self, node: Node, peer: Peer, asked: RenewalRequest) -> Message:
        try:
            await self._admit(node)
            noted = await self._store.read(lambda tx: known(tx, node))
            check_return(node, peer, noted, self._grace, self._clock())
            certificate = await self.renew(node, peer.fingerprint, asked.request.encode())
        except Refused as error:
            log.warning("renewal.refused", node=str(node), address=peer.address, reason=error.reason)
            return Refusal(
                code=error.code, reason=error.reason, remedy=error.remedy, retry_after=error.retry_after
            )
        except TooOften as error:
            return Refusal(code="busy", reason=str(error), remedy="try again then", retry_after=error.wait)
        except pki.BadCertificate as error:
            return Refusal(code="request", reason=str(error), remedy="see the upper cloud's log")
        except StoreError as error:
            log.error("renewal.store", node=str(node), reason=str(error))
            return Refusal(code="busy", reason="the upper cloud can't write now", remedy="try again soon")
        end = peer.certificate_expires_at
        log.info(
            "renewal.done", node=str(node), address=peer.address, had_ended=time.seconds(end) if end else ""
        )
        return Renewed(certificate=certificate.decode(), authority=self.authority)
