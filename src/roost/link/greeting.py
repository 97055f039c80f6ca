"""The first words of a link: what a hello says of its speaker, and which hello is taken."""

from __future__ import annotations

import roost
from roost.link import messages
from roost.link.errors import BadMessage, Refused
from roost.link.flow import TRAVELLING
from roost.link.merging import owned_by_host
from roost.link.messages import Hello, Refusal
from roost.link.node import Node

HELLO_LIMIT = 64 * 1024


def own_hello(
    speaker: str,
    store_id: str,
    taken: tuple[str, int],
    *,
    of_host: bool,
    epoch: int = 0,
    moved_to: str = "",
) -> Hello:
    """A hello. `taken` is how far the peer's stream was taken in: of which store, to which revision."""
    return Hello(
        protocol_min=messages.PROTOCOL_MIN,
        protocol_max=messages.PROTOCOL,
        version=roost.__version__,
        node=speaker,
        store_id=store_id,
        taken_store_id=taken[0],
        taken_revision=taken[1],
        features=list(messages.FEATURES),
        kinds=list(TRAVELLING),
        owned=owned_by_host() if of_host else {},
        epoch=epoch,
        moved_to=moved_to,
    )


def their_hello(frame: bytes) -> Hello:
    """The peer's first word. Raises Refused for its refusal and for versions too far apart, BadMessage."""
    if len(frame) > HELLO_LIMIT:
        raise BadMessage(f"a first word of {len(frame)} bytes, a hello has {HELLO_LIMIT} at most")
    message = messages.unpack(frame)
    if isinstance(message, Refusal):
        raise refused(message)
    if not isinstance(message, Hello):
        raise BadMessage("the first word was no hello")
    low = max(message.protocol_min, messages.PROTOCOL_MIN)
    if low > min(message.protocol_max, messages.PROTOCOL):
        raise Refused(
            "version",
            f"version {message.version} speaks protocol {message.protocol_min} to "
            f"{message.protocol_max}, version {roost.__version__} {messages.PROTOCOL_MIN} to "
            f"{messages.PROTOCOL}",
            "bring the two within two releases of each other",
        )
    return message


def check_identity(hello: Hello, node: Node) -> None:
    """Raises Refused when a lower node names itself otherwise than its certificate does."""
    if hello.node != str(node):
        raise Refused(
            "identity",
            f"the hello says {hello.node[:120]}, the certificate {node}",
            "enrol the node again under the name it has",
        )


def refused(said: Refusal) -> Refused:
    """A peer's refusal as the error it is here."""
    return Refused(said.code, said.reason, said.remedy, retry_after=said.retry_after)
