"""The enrolment token: one string that a person carries from the upper cloud to a new node.

`roost1.` and then base64url of a msgpack map: where to dial, the SHA-256 of the CA certificate that must
answer there, and a one-time secret. It is a secret as a whole: never in logs or arguments.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated

import msgspec

PREFIX = "roost1."
TOKEN_LIMIT = 4096
_ENDPOINT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>\d{1,5})")


class BadToken(ValueError):
    """The string is no enrolment token; says why, never what it holds."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this is no enrolment token: {reason}; copy it whole, or ask for a new one")
        self.reason = reason


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What an enrolment token says."""

    endpoints: Annotated[list[str], msgspec.Meta(min_length=1, max_length=16)]
    ca: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    secret: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,64}\.[A-Za-z0-9_-]{16,128}$")]

    def __repr__(self) -> str:
        return f"Token(endpoints={self.endpoints!r}, ca={self.ca!r}, secret=...)"

    @property
    def id(self) -> str:
        """Name of the credential; no secret."""
        return self.secret.partition(".")[0]


def encode(token: Token) -> str:
    """The string to hand out."""
    for text in token.endpoints:
        endpoint(text)
    return PREFIX + base64.urlsafe_b64encode(msgspec.msgpack.encode(token)).rstrip(b"=").decode()


def decode(text: str) -> Token:
    """The token that a string holds; raises BadToken."""
    text = "".join(text.split())
    if not text.startswith(PREFIX):
        raise BadToken(f"it does not begin with {PREFIX}")
    if len(text) > TOKEN_LIMIT:
        raise BadToken("it is too long")
    body = text.removeprefix(PREFIX)
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        token = msgspec.msgpack.decode(raw, type=Token)
    except (binascii.Error, ValueError):
        raise BadToken("it is damaged or cut short") from None
    for address in token.endpoints:
        try:
            endpoint(address)
        except ValueError as error:
            raise BadToken(str(error)) from None
    return token


def endpoint(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[address]:port`; raises ValueError."""
    match = _ENDPOINT.fullmatch(text)
    if not match or not 1 <= int(match["port"]) <= 65535:
        raise ValueError(f"{text[:80]!r} is no host:port")
    return match["six"] or match["host"], int(match["port"])
