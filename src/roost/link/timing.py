"""Timing: the deadlines of a session."""

from __future__ import annotations

import msgspec

from roost.link.comparing import Pacing


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines of a session, in seconds."""

    heartbeat: float = 5.0
    lost_after: float = 15.0
    hello_within: float = 10.0
    acknowledge_within: float = 60.0
    send_within: float = 30.0
    answer_within: float = 30.0
    comparing: Pacing = Pacing()
