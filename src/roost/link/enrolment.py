"""Enrolment, at the lower end: from a token to an identity on disk.

1. Dial an endpoint of the token, verifying nothing, only to be given the CA certificate; its SHA-256
   must be the token's pin. Nothing of ours is said on that connection.
2. Dial again, now verified against that CA. Only here are the secret and the request sent.
3. The certificate that comes back is checked to be for our key, and all is written.

The key is written before it is used, under the token's id: when the answer is lost, the same token
works again with the same key, and only with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog

from roost.link import identity, messages, pki, sockets
from roost.link import token as tokens
from roost.link.errors import BadMessage, ConnectionLost, LinkError, Refused
from roost.link.files import write_private
from roost.link.messages import EnrolHello, Enrolled, EnrolRequest, Refusal
from roost.link.node import BadNode, parse
from roost.link.sockets import CannotConnect, SocketConnection
from roost.link.token import Token

log = structlog.get_logger(__name__)

PATIENCE = 60.0
DIAL_WITHIN = 10.0
PAUSE = 1.0


class EnrolmentFailed(LinkError):
    """No identity came about; `reason` and `remedy` are for people. `unreached`: nobody has refused it."""

    def __init__(self, reason: str, remedy: str, *, unreached: bool = False) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy, self.unreached = reason, remedy, unreached


async def enrol(
    text: str,
    directory: Path,
    *,
    facts: dict[str, str],
    clock: Callable[[], datetime],
    within: float = PATIENCE,
    highest: int = 0,
) -> identity.Identity:
    """Use a token; keeps trying its endpoints for `within` seconds. Raises BadToken, EnrolmentFailed.

    `highest` is the highest epoch under which the node was ever owned, besides what the directory tells.
    """
    token = tokens.decode(text)
    highest = max(highest, _highest(directory))
    key = _key(directory, token)
    problem = "no endpoint was tried"
    try:
        async with asyncio.timeout(within):
            while True:
                for where in token.endpoints:
                    try:
                        return await _enrol(token, where, key, directory, facts, clock, highest)
                    except (CannotConnect, ConnectionLost, TimeoutError, _Busy) as error:
                        problem = str(error) or f"{where}: no answer came in time"
                        log.info("enrolment.retry", endpoint=where, reason=problem)
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        raise EnrolmentFailed(
            f"within {within:g} s the upper cloud was not reached: {problem}",
            "check the network and the endpoints, then repeat with the same token",
            unreached=True,
        ) from None


def _highest(directory: Path) -> int:
    """The highest epoch that an identity kept here tells of."""
    try:
        return identity.load(directory).highest
    except identity.NotEnrolled:
        return 0


def _key(directory: Path, token: Token) -> bytes:
    """The key to enrol with: the one this token was tried with before, else a new one."""
    path = directory / f"enrol-{token.id}.key"
    if path.exists():
        return path.read_bytes()
    key = pki.new_key()
    write_private(path, key)
    for other in directory.glob("enrol-*.key"):
        if other != path:
            other.unlink()
    return key


async def _enrol(
    token: Token,
    where: str,
    key: bytes,
    directory: Path,
    facts: dict[str, str],
    clock: Callable[[], datetime],
    highest: int,
) -> identity.Identity:
    async with asyncio.timeout(DIAL_WITHIN * 2):
        offered = await _fetch_authority(where)
        if pki.pin(offered.ca.encode()) != token.ca:
            raise EnrolmentFailed(
                f"what answers at {where} is not the cloud this token is from (its CA is another)",
                "check the endpoint; if it is right, someone may be in between",
            )
        answer = await _ask(where, offered, token, key, facts, highest)
    try:
        node = parse(answer.node)
        pki.check_issued(answer.certificate.encode(), key, node)
    except (BadNode, pki.BadCertificate) as error:
        raise EnrolmentFailed(f"the upper cloud answered wrongly: {error}", "see its log") from None
    return identity.save(
        directory,
        node=node,
        upper=offered.upper,
        endpoints=token.endpoints,
        authority=offered.ca.encode(),
        key=key,
        certificate=answer.certificate.encode(),
        now=clock(),
        token=token.id,
        epoch=answer.epoch,
        highest=highest,
    )


async def _fetch_authority(where: str) -> EnrolHello:
    context = sockets.anyone_context()
    connection = await sockets.connect(where, context, sockets.ENROL_PATH, within=DIAL_WITHIN)
    try:
        return await _hello(connection)
    finally:
        await sockets.close_quietly(connection)


async def _ask(
    where: str, offered: EnrolHello, token: Token, key: bytes, facts: dict[str, str], highest: int
) -> Enrolled:
    context = sockets.verified_context(offered.ca)
    connection = await sockets.connect(where, context, sockets.ENROL_PATH, within=DIAL_WITHIN)
    try:
        await _hello(connection)
        request = EnrolRequest(
            secret=token.secret, request=pki.request(key).decode(), facts=facts, epoch=highest
        )
        await connection.send(messages.pack(request))
        answer = _understood(await connection.receive())
        if not isinstance(answer, Enrolled):
            raise BadMessage("no certificate came")
        return answer
    finally:
        await sockets.close_quietly(connection)


async def _hello(connection: SocketConnection) -> EnrolHello:
    message = _understood(await connection.receive())
    if not isinstance(message, EnrolHello):
        raise BadMessage("the first word was no hello")
    return message


def _understood(frame: bytes) -> messages.AnyMessage | None:
    try:
        message = messages.unpack(frame)
    except BadMessage as error:
        raise EnrolmentFailed(str(error), "what answers there is no Roost cloud of a near version") from None
    if isinstance(message, Refusal):
        if message.code == "busy":
            raise _Busy(message.code, message.reason, message.remedy)
        raise EnrolmentFailed(message.reason, message.remedy)
    return message


class _Busy(Refused):
    """The upper end has too many at its door."""
