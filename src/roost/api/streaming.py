"""An answer that is made piece by piece, and whose making ends with it; and one that can not be made whole.

However the client leaves, the generator that makes the pieces is closed at once: what it holds and counts
must not wait until the garbage is collected.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class BrokenOff(Exception):
    """An answer has begun and can't be ended, as what it comes from is gone. The text says why.

    The connection has to end then, for half an answer must not look like a whole one.
    """


class Streamed(StreamingResponse):
    """What a generator gives, as it gives it."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(pieces, headers=headers, media_type=media_type)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()
