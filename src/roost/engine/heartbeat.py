"""The datagrams of the heartbeat between hosts and the active process of their cloud, and their registration.

A host draws a fresh key each time its link comes up and registers it by a call through that link, which
mutual TLS has authenticated. Both ends keep the key in memory only. From then on a datagram of at most
`LONGEST` bytes goes out each period on each network:

    4  magic and version   8  id of the registration   8  sequence   8  when it was sent, in nanoseconds
    1  length of the name  n  name of the network      16 keyed BLAKE2b of all that goes before

The id stands for the host: the cloud drew it and knows whose it is. Sequences of one registration and
network only grow, and one that is not above the last is a repetition. So what was recorded is worth nothing,
neither at once nor after a restart at either end. What is not of this form costs a comparison of a few
bytes, what has an unknown id one more look into a table, what is forged one BLAKE2b.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from hashlib import blake2b
from typing import Annotated

import msgspec

PATH = "/link/heartbeat"
"""Where a lower node registers with its upper."""

MAGIC = b"RHB1"
SECRET_BYTES = 32
ID_BYTES = 8
TAG_BYTES = 16
LONGEST_NAME = 63
NETWORKS = 16
"""Networks of one registration at most."""

_HEAD = struct.Struct("!4s8sQQB")
LONGEST = _HEAD.size + LONGEST_NAME + TAG_BYTES


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What a host is going to send. Unknown fields are ignored: neighbours' versions differ."""

    secret: Annotated[bytes, msgspec.Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    period_milliseconds: Annotated[int, msgspec.Meta(ge=10, le=60_000)]
    networks: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]],
        msgspec.Meta(min_length=1, max_length=NETWORKS),
    ]

    def __repr__(self) -> str:
        return f"Registration(networks={self.networks!r}, period_milliseconds={self.period_milliseconds})"


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """The cloud's answer."""

    id: Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]


class Beat(msgspec.Struct, frozen=True, gc=False):
    """One heartbeat. `sent_at` is the sender's monotonic clock in nanoseconds."""

    id: bytes
    sequence: int
    sent_at: int
    network: str


class BadBeat(Exception):
    """A datagram that is no heartbeat, or not of who it says."""


def new_secret() -> bytes:
    """A fresh key."""
    return secrets.token_bytes(SECRET_BYTES)


def new_id() -> bytes:
    """A fresh id of a registration."""
    return secrets.token_bytes(ID_BYTES)


def seal(beat: Beat, secret: bytes) -> bytes:
    """The datagram of a heartbeat. Raises ValueError for a name that is too long."""
    name = beat.network.encode()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise ValueError(f"{beat.network!r} is no name of at most {LONGEST_NAME} bytes")
    body = _HEAD.pack(MAGIC, beat.id, beat.sequence, beat.sent_at, len(name)) + name
    return body + _tag(body, secret)


def claimed_id(datagram: bytes) -> bytes:
    """The id that a datagram gives, which proves nothing yet. Raises BadBeat."""
    if len(datagram) <= _HEAD.size + TAG_BYTES or len(datagram) > LONGEST or datagram[:4] != MAGIC:
        raise BadBeat("it has not the form of a heartbeat")
    return datagram[4 : 4 + ID_BYTES]


def unseal(datagram: bytes, secret: bytes) -> Beat:
    """The heartbeat in a datagram whose form `claimed_id` has looked at. Raises BadBeat."""
    body, tag = datagram[:-TAG_BYTES], datagram[-TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(body, secret)):
        raise BadBeat("it was not sealed with the key of its registration")
    _, id_, sequence, sent_at, length = _HEAD.unpack_from(body)
    name = body[_HEAD.size :]
    if len(name) != length:
        raise BadBeat("its length is not what it says")
    try:
        return Beat(id_, sequence, sent_at, name.decode())
    except UnicodeDecodeError as error:
        raise BadBeat("the name of its network is no text") from error


def _tag(body: bytes, secret: bytes) -> bytes:
    return blake2b(body, key=secret, digest_size=TAG_BYTES).digest()
