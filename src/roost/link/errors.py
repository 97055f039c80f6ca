"""What can go wrong on a link. Each error carries what it is about, and can be shown to people."""

from __future__ import annotations


class LinkError(Exception):
    """Base of all errors of the link."""


class ConnectionLost(LinkError):
    """The connection is gone: cut, closed, or the peer fell silent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadMessage(LinkError):
    """The peer sent what no version of this protocol sends."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the peer broke the protocol: {reason}")
        self.reason = reason


class Refused(LinkError):
    """One end does not want the other: why, and what to do about it."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.code, self.reason, self.remedy = code, reason, remedy


class TakenOver(LinkError):
    """Another session of the same stream has moved the cursor; this one must not go on."""

    def __init__(self, peer: str) -> None:
        super().__init__(f"another session with {peer} took over")
        self.peer = peer
