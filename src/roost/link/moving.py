"""What a subcloud that moves says to upper clouds besides its sessions: a proof before, a last word after.

The proof is one session with the new owner, under the new identity: hello, one heartbeat there and back,
goodbye. It takes nothing in, so that the subcloud may still stay where it is. It shows that the network, both
certificates, the declaration and the epoch are right.

The last word is a hello that tells a former owner where the subcloud is now. The answer is a refusal, which
says that it was heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from roost.link import messages, sockets
from roost.link.errors import BadMessage, ConnectionLost, Refused
from roost.link.greeting import own_hello, their_hello
from roost.link.lower import TlsDialer
from roost.link.messages import Goodbye, Heartbeat, HeartbeatEcho, Hello, Message, Refusal
from roost.link.rehoming import check_owner
from roost.link.sockets import SocketConnection

WITHIN = 20.0
"""Seconds for all of it, from dialling to the last word."""

IGNORED = 1000
"""Messages that a new owner may say before it answers one heartbeat."""

SPOKEN_OF = ["Cloud"]
"""The kinds that the proof says it knows: none that flows down, so that nothing is sent for nothing."""


async def prove(
    directory: Path, store_id: str, *, clock: Callable[[], datetime], within: float = WITHIN
) -> Hello:
    """Have one session with the owner of the identity in a directory; its hello. Raises LinkError."""
    dialer = TlsDialer(directory, clock=clock)
    own = own_hello(str(dialer.identity.who()), store_id, ("", 0), of_host=False, epoch=dialer.epoch())
    try:
        async with asyncio.timeout(within):
            connection = await dialer.dial()
            try:
                return await _proven(connection, _narrow(own), dialer.epoch())
            finally:
                await sockets.close_quietly(connection)
    except TimeoutError:
        raise ConnectionLost(f"no whole session came about within {within:g} s") from None


async def _proven(connection: SocketConnection, own: Hello, epoch: int) -> Hello:
    await _say(connection, own)
    hello = their_hello(await connection.receive())
    if not hello.epoch:
        raise Refused(
            "version",
            f"{hello.node} runs version {hello.version}, which knows nothing of moving",
            "bring it to this version",
        )
    check_owner(hello.node, hello.epoch, epoch)
    await _say(connection, Heartbeat(sequence=1))
    for _ in range(IGNORED):
        answer = messages.unpack(await connection.receive())
        if isinstance(answer, HeartbeatEcho) and answer.sequence == 1:
            break
        if isinstance(answer, Refusal):
            raise Refused(answer.code, answer.reason, answer.remedy, retry_after=answer.retry_after)
        if isinstance(answer, Goodbye):
            raise ConnectionLost(answer.reason)
    else:
        raise BadMessage(f"a heartbeat was not answered within {IGNORED} messages")
    await _say(connection, Goodbye(reason="it has proven the way, and comes to stay", returning=True))
    return hello


async def say_last_word(
    directory: Path,
    store_id: str,
    *,
    moved_to: str,
    epoch: int,
    clock: Callable[[], datetime],
    within: float = WITHIN,
) -> Refused | None:
    """Tell the owner of the identity in a directory where its subcloud is now; the refusal that it answers.

    None of one that knows nothing of moving. Raises LinkError when it was not heard: it may be told again.
    """
    dialer = TlsDialer(directory, clock=clock)
    own = own_hello(
        str(dialer.identity.who()), store_id, ("", 0), of_host=False, epoch=epoch, moved_to=moved_to
    )
    try:
        async with asyncio.timeout(within):
            connection = await dialer.dial()
            try:
                await _say(connection, _narrow(own))
                their_hello(await connection.receive())
                # An earlier version: the goodbye is all that it shows of this.
                await _say(connection, Goodbye(reason=f"it has moved to {moved_to} at epoch {epoch}"))
                return None
            except Refused as refusal:
                return refusal
            finally:
                await sockets.close_quietly(connection)
    except TimeoutError:
        raise ConnectionLost(f"no answer came within {within:g} s") from None


def _narrow(hello: Hello) -> Hello:
    return msgspec.structs.replace(hello, kinds=list(SPOKEN_OF), features=[])


async def _say(connection: SocketConnection, message: Message) -> None:
    await connection.send(messages.pack(message))
