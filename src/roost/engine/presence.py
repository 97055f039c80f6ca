"""What is known of a lower node's link: a fact from outside the store, handed to controllers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec


class Presence(msgspec.Struct, frozen=True):
    """Whether a node's link is up, and since when that is so.

    For a node that has not connected since this process started, `since` is that start: a restart
    here gives every node its time to come back.
    """

    connected: bool
    since: datetime
    version: str = ""
    certificate_expires_at: str = ""


Presences = Callable[[str], Presence]
"""Presence by name: of a host in its cloud, of a subcloud at its central cloud."""
