"""Calls through a link: a request with its caller's identity, a streamed response.

The API room answers such requests at the lower node as if they had come to its own door, with the
caller's own rights; the upper node's API forwards `/clouds/NAME/...` into them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec


class Caller(msgspec.Struct, frozen=True):
    """Who asks, as authenticated where the request came in.

    `by` is the user who was authenticated when he acts as another (impersonation), else empty. `linked`
    says that the call came through a link, where names mean users of the upper cloud: groups alone decide.
    """

    name: str
    groups: list[str]
    uid: str = ""
    extra: dict[str, list[str]] = {}
    by: str = ""
    linked: bool = False


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `path` carries the query; header names are lower case."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    caller: Caller


class Response:
    """One response; `body` is read once. `aclose` ends it early at both ends."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: AsyncIterator[bytes]) -> None:
        self.status, self.headers, self.body = status, headers, body

    async def aclose(self) -> None:
        """Say that no more of the body is wanted."""
        close = getattr(self.body, "aclose", None)
        if close is not None:
            await close()


Handler = Callable[[Request], Awaitable[Response]]


class Unreachable(Exception):
    """The node's link is down, or did not answer in time."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"{node} can't be reached: {reason}")
        self.node, self.reason = node, reason
