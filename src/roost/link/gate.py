"""The gate: enrolment at the upper end, the only thing open to who has no certificate.

Everything that passes is bounded before anything is read: how many at once, how often from one
address, how long, how large. The secret is never logged; a wrong one is answered with a sentence that
says nothing of why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from roost.engine import credentials
from roost.engine.allowance import Allowance
from roost.link import messages, pki, rehoming, renewal
from roost.link.errors import BadMessage, LinkError, Refused
from roost.link.messages import EnrolHello, Enrolled, EnrolRequest, Message, Refusal
from roost.link.node import Node, parse
from roost.link.wire import Connection
from roost.store.errors import StoreError
from roost.store.store import Store
from roost.store.transaction import Transaction

log = structlog.get_logger(__name__)

AT_ONCE = 64
ENROL_WITHIN = 20.0
FACTS_LIMIT = 32

Redeem = Callable[[Transaction, str, bytes], Node]
OnEnrolled = Callable[[Transaction, Node, dict[str, str]], None]


def redeem(tx: Transaction, secret: str, public_key: bytes) -> Node:
    """The node that a one-time credential names; raises BadCredential."""
    credential = credentials.redeem(tx, secret, public_key, "enrol-host", "enrol-subcloud")
    kind = credential.spec.purpose.removeprefix("enrol-")
    return parse(f"{kind}/{credential.spec.subject}")


def nothing_more(tx: Transaction, node: Node, facts: dict[str, str]) -> None:
    """What happens besides when a node enrols, where nothing does."""


class Gate:
    """Answers one enrolment connection at a time with `serve`."""

    def __init__(
        self,
        store: Store,
        authority: pki.Authority,
        *,
        name: str,
        clock: Callable[[], datetime],
        lifetime: timedelta,
        redeem: Redeem,
        on_enrolled: OnEnrolled,
        allowance: Allowance,
    ) -> None:
        self._store, self._authority, self._name = store, authority, name
        self._clock, self._lifetime = clock, lifetime
        self._redeem, self._on_enrolled, self._allowance = redeem, on_enrolled, allowance
        self._inside = 0

    async def serve(self, connection: Connection) -> None:
        """One connection, from hello to certificate or refusal."""
        address = connection.peer.address
        if self._inside >= AT_ONCE or self._allowance.take(address, asyncio.get_running_loop().time()):
            await _say(connection, Refusal(code="busy", reason="too many enrol now", remedy="try again soon"))
            return
        self._inside += 1
        try:
            async with asyncio.timeout(ENROL_WITHIN):
                hello = EnrolHello(ca=self._authority.certificate_pem.decode(), upper=self._name)
                await _say(connection, hello)
                await _say(connection, await self._answer(connection))
        except (LinkError, TimeoutError) as error:
            log.debug("enrolment.ended", address=address, reason=str(error))
        finally:
            self._inside -= 1

    async def _answer(self, connection: Connection) -> Message:
        asked = messages.unpack(await connection.receive())
        if not isinstance(asked, EnrolRequest):
            raise BadMessage("no enrolment request came")
        try:
            return await self._enrol(asked, connection.peer.address)
        except credentials.BadCredential as error:
            log.warning("enrolment.refused", address=connection.peer.address, reason=error.reason)
            return Refusal(
                code="token",
                reason="the token is not valid: it is wrong, used by another machine, or expired",
                remedy="ask for a new one",
            )
        except pki.BadCertificate as error:
            return Refusal(code="request", reason=str(error), remedy="enrol with a current version of Roost")
        except Refused as error:
            return Refusal(code=error.code, reason=error.reason, remedy=error.remedy)
        except StoreError as error:
            log.error("enrolment.store", reason=str(error))
            return Refusal(code="busy", reason="the upper cloud can't write now", remedy="try again soon")

    async def _enrol(self, asked: EnrolRequest, address: str) -> Message:
        request = asked.request.encode()
        public_key = pki.public_key(request)
        facts = {k[:64]: v[:256] for k, v in list(asked.facts.items())[:FACTS_LIMIT]}

        def work(tx: Transaction) -> tuple[Node, bytes, int]:
            node = self._redeem(tx, asked.secret, public_key)
            self._on_enrolled(tx, node, facts)
            certificate = self._authority.sign_node(request, node, self._clock(), self._lifetime)
            renewal.remember(tx, node, pki.pin(certificate))
            epoch = rehoming.grant(tx, node, asked.epoch) if node.kind == "subcloud" else 0
            return node, certificate, epoch

        node, certificate, epoch = await self._store.transact(work)
        log.info("enrolment.done", node=str(node), address=address)
        return Enrolled(node=str(node), certificate=certificate.decode(), epoch=epoch)


async def _say(connection: Connection, message: Message) -> None:
    await connection.send(messages.pack(message))
