"""What follows from the heartbeats that came: a state of each network, a verdict on each host. Pure.

Silence is counted in missed beats, from the last beat or from when the observer began to look, whichever
is later: nothing is judged on time in which it did not look. A network is

- `well`, `minor`, `degraded`, `failed` by how many beats in a row are missing now;
- `unknown` while nothing has come since the observer began to look and it is too early to call that a
  failure, and after a gap until beats have come again for as long as a failure takes. Unknown neither
  raises nor clears: an alarm does not come and go with single beats.

A host is `alive` when beats come on one network, or when its link has carried something after all beats had
stopped; `failed` when all networks have, and the link is silent as well; `suspect` on the way there, which is
when its link is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from roost.model.heartbeat import Heartbeat

LINK_FRESH = 2.5
"""Seconds for which something heard on a link proves its host: heartbeats go there each second."""

NetworkState = Literal["unknown", "well", "minor", "degraded", "failed"]
Verdict = Literal["none", "unknown", "alive", "suspect", "failed"]


class Thresholds(msgspec.Struct, frozen=True):
    """Missed beats in a row."""

    minor: int = 4
    degraded: int = 6
    failed: int = 9


class NetworkHeartbeat(msgspec.Struct, frozen=True):
    """One network of a host. `silent` is in seconds; `beats` says whether beats come now."""

    network: str
    state: NetworkState
    missed: int = 0
    silent: float = 0.0
    beats: bool = False


class HostHeartbeat(msgspec.Struct, frozen=True):
    """One host. `awaited`: it is about to register, and nothing can be said of its networks until then.

    `silent` is for how long nothing has come on any network, in seconds.
    """

    verdict: Verdict = "none"
    networks: tuple[NetworkHeartbeat, ...] = ()
    silent: float = 0.0
    awaited: bool = False


Heartbeats = Callable[[str], HostHeartbeat]
"""Heartbeats by name of the host; to be called from any thread."""

NOT_WATCHED = HostHeartbeat()


def not_watched(_: str) -> HostHeartbeat:
    """The heartbeats of a cloud that takes none."""
    return NOT_WATCHED


class Arrivals(msgspec.Struct):
    """When the beats of one host came on one network; times are monotonic, in seconds.

    `expected_since` is when the host registered, `streak_since` the first beat after the last gap.
    """

    network: str
    period: float
    expected_since: float
    sequence: int = 0
    arrived: float | None = None
    streak_since: float = 0.0

    def take(self, at: float, sequence: int, thresholds: Thresholds, looking_since: float) -> bool:
        """Note a beat; False for a repetition, or one that another has overtaken."""
        if sequence <= self.sequence:
            return False
        self.sequence = sequence
        last = self.arrived
        gap = thresholds.degraded * self.period
        if last is None or last < looking_since or at - last >= gap:
            self.streak_since = at
        self.arrived = at if last is None else max(last, at)
        return True


def thresholds_of(heartbeat: Heartbeat) -> Thresholds:
    """The thresholds of a cloud's settings."""
    return Thresholds(heartbeat.minor_after, heartbeat.degraded_after, heartbeat.failed_after)


def judge_network(
    arrivals: Arrivals, looking_since: float, thresholds: Thresholds, now: float
) -> NetworkHeartbeat:
    """The state of one network of a host."""
    began = max(arrivals.expected_since, looking_since)
    heard = arrivals.arrived is not None and arrivals.arrived >= began
    base = arrivals.arrived if heard and arrivals.arrived is not None else began
    silent = max(0.0, now - base)
    missed = int(silent / arrivals.period + 1e-9)
    soak = thresholds.failed * arrivals.period
    state: NetworkState
    if missed >= thresholds.failed:
        state = "failed"
    elif not heard:
        state = "unknown"
    elif missed >= thresholds.degraded:
        state = "degraded"
    elif base - max(arrivals.streak_since, began) < soak:
        state = "unknown"
    else:
        state = "minor" if missed >= thresholds.minor else "well"
    return NetworkHeartbeat(
        arrivals.network, state, missed, silent, beats=heard and missed < thresholds.degraded
    )


def judge_host(
    networks: Iterable[NetworkHeartbeat], link_heard: float | None, suspected: float, now: float
) -> HostHeartbeat:
    """The verdict on a host from its networks and from when its link last carried something.

    `suspected` is the longest time for which beats may be missing before a host is suspected, in seconds.
    """
    judged = tuple(networks)
    if not judged:
        return NOT_WATCHED
    silent = min(n.silent for n in judged)
    return HostHeartbeat(_verdict(judged, silent, link_heard, suspected, now), judged, silent)


def _verdict(
    judged: tuple[NetworkHeartbeat, ...],
    silent: float,
    link_heard: float | None,
    suspected: float,
    now: float,
) -> Verdict:
    if any(n.beats for n in judged):
        return "alive"
    if link_heard is not None and now - link_heard < LINK_FRESH and link_heard > now - silent + suspected:
        return "alive"
    if all(n.state == "failed" for n in judged):
        return "failed"
    if all(n.state in ("failed", "degraded") for n in judged):
        return "suspect"
    return "unknown"
