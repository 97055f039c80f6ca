"""What can go wrong on a link. Each error carries what it is about, and can be shown to people."""

from __future__ import annotations

SAID = 500
"""Characters of a reason that a peer gave, at most: it may say what it likes."""


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
    """One end does not want the other: why, and what to do about it.

    `retry_after`: seconds after which it may be worth to come again; 0 leaves that to who was refused.
    """

    def __init__(self, code: str, reason: str, remedy: str, *, retry_after: float = 0.0) -> None:
        super().__init__(f"{reason[:SAID]}; {remedy[:SAID]}")
        self.code, self.reason, self.remedy = code[:63], reason[:SAID], remedy[:SAID]
        self.retry_after = retry_after


class Flooded(Refused):
    """The peer sent more than its budget for too long, though it was held back."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            "flood",
            f"more came on this link than any node has to say, for {seconds:.0f} s",
            "see the log of the node; it may dial again later",
            retry_after=300.0,
        )


class TookNothing(ConnectionLost):
    """The peer speaks, and takes nothing of what it is told."""


class TakenOver(LinkError):
    """Another session of the same stream has moved the cursor; this one must not go on."""

    def __init__(self, peer: str) -> None:
        super().__init__(f"another session with {peer} took over")
        self.peer = peer
