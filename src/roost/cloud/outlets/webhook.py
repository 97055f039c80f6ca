"""Webhook: messages as JSON by POST, signed when its Secret has `hmac-key`.

`Roost-Signature: t=SECONDS,v1=HEX` is HMAC-SHA256 of `SECONDS.BODY`; the time in it lets a receiver refuse
what somebody else sends again later. `Roost-Delivery` is the id of the first message.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from roost.cloud.outlets.http import Poster
from roost.cloud.outlets.messages import Message
from roost.cloud.outlets.sink import Settings
from roost.model import time
from roost.model.meta import API_VERSION


def body_of(messages: Sequence[Message], settings: Settings, now: datetime) -> bytes:
    """What is posted."""
    return msgspec.json.encode(
        {
            "apiVersion": API_VERSION,
            "kind": "AlarmDelivery",
            "outlet": settings.name,
            "cloud": settings.namespace,
            "sentAt": time.stamp(now),
            "messages": messages,
        }
    )


def signature(key: bytes, body: bytes, now: datetime) -> str:
    """The value of Roost-Signature."""
    seconds = int(now.timestamp())
    digest = hmac.new(key, f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


class Webhook:
    """One webhook."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._settings, self._clock = settings, clock
        self._poster = Poster(settings, clock)

    async def send(self, messages: Sequence[Message]) -> None:
        """POST; 2xx acknowledges."""
        now = self._clock()
        body = body_of(messages, self._settings, now)
        headers = {"roost-delivery": messages[0].id}
        if key := self._settings.credentials.get("hmac-key"):
            headers["roost-signature"] = signature(key, body, now)
        await self._poster.post(self._settings.spec.endpoint, body, headers)

    async def close(self) -> None:
        await self._poster.close()
