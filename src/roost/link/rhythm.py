"""Rhythm: how often the lower end of a link beats, and how long its silence may last. Pure.

The upper end chooses by how many links it has, so that all together beat BEATS times a second where they can,
and says so with each answer to a heartbeat. A lower end goes by it where that is slower than what it does by
itself.
"""

from __future__ import annotations

import msgspec

BEATS = 300.0
"""Heartbeats a second of all links of a process together."""
LONGEST = 60.0
SLACK = 1.5
"""Silence may last so many beats longer where beats are seldom: one that is late is no loss."""


class Rhythm(msgspec.Struct, frozen=True):
    """Seconds between heartbeats, and seconds that silence may last."""

    every: float
    silence: float


def chosen(links: int, usual: Rhythm) -> Rhythm:
    """The rhythm of each of so many links; `usual` while they are few."""
    return slowed(usual, min(LONGEST, round(links / BEATS, 1)))


def slowed(usual: Rhythm, every: float) -> Rhythm:
    """`usual`, or slower: a beat each `every` seconds."""
    more = max(0.0, every - usual.every)
    return Rhythm(usual.every + more, usual.silence + SLACK * more)


def told(usual: Rhythm, every: float) -> Rhythm:
    """What a lower end makes of the word of the upper one, which is a stranger's: it is never slower than
    LONGEST for it."""
    return slowed(usual, min(LONGEST, every)) if every == every else usual
