"""What a JWT says before anybody has verified it: only good for finding the key to verify it with."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

LONGEST = 16 * 1024


class Unfit(ValueError):
    """Not a JWT."""


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims; raises Unfit. Nothing of it may be believed."""
    if len(token) > LONGEST:
        raise Unfit("too long")
    parts = token.split(".")
    if len(parts) != 3:
        raise Unfit("not three parts")
    return _object(parts[0]), _object(parts[1])


def _object(part: str) -> dict[str, Any]:
    try:
        padded = part.encode("ascii") + b"=" * (-len(part) % 4)
        value = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unfit("not JSON in base64url") from error
    if not isinstance(value, dict):
        raise Unfit("not an object")
    return value
