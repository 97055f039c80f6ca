"""Heartbeats and deadlines of every link of this version."""

from __future__ import annotations

from roost.link.session import Timing

TIMING = Timing(heartbeat=1.0, lost_after=4.0)
