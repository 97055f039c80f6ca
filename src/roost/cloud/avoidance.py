"""When not to fail hosts: many silent at once are a fault of the network, or a site that comes up. Pure.

Silences that begin within a window, of at least so many hosts, are one event. Hosts of an event are not
failed until it ends: at its deadline, or when fewer than that are silent and the others have had SETTLING
seconds to return as well. A whole site that was powered up is an event of its own (`DeadOffice`): while the
controller's machine is young, and so many hosts have not come yet, they are given until its deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from roost.model.heartbeat import FailureAvoidance

SETTLING = 10.0
"""Seconds the last hosts of an event have to return after most of them did."""

Reason = Literal["MultiNodeFailure", "DeadOffice"]


class Event(msgspec.Struct, frozen=True):
    """Hosts that are not failed now, and until when. Times are seconds on the clock of `now`."""

    reason: Reason
    hosts: frozenset[str]
    began: float
    deadline: float
    many_at: float
    """When so many hosts were silent last."""


class Silence(msgspec.Struct, frozen=True):
    """Hosts in service that are silent, for how many seconds; and those that never came since the start."""

    silent: Mapping[str, float]
    absent: frozenset[str] = frozenset()
    machine_up: float = float("inf")
    """Seconds since the controller's machine started."""


def avoid(previous: Event | None, silence: Silence, limits: FailureAvoidance, now: float) -> Event | None:
    """The event that goes on, or begins; None when hosts are judged one by one."""
    if not limits.hosts:
        return None
    office = _dead_office(previous, silence, limits, now)
    if office is not None:
        return office
    since = {host: now - seconds for host, seconds in silence.silent.items()}
    if previous is not None and previous.reason == "MultiNodeFailure" and now < previous.deadline:
        going_on = _going_on(previous, since, limits, now)
        if going_on is not None:
            return going_on
    return _begins(since, limits, now)


def _dead_office(
    previous: Event | None, silence: Silence, limits: FailureAvoidance, now: float
) -> Event | None:
    left = limits.dead_office_seconds - silence.machine_up
    if left <= 0 or len(silence.absent) < limits.hosts:
        return None
    if previous is not None and previous.reason == "DeadOffice":
        return msgspec.structs.replace(previous, hosts=silence.absent, many_at=now)
    return Event("DeadOffice", silence.absent, now, now + left, now)


def _going_on(
    previous: Event, since: Mapping[str, float], limits: FailureAvoidance, now: float
) -> Event | None:
    first = previous.began - limits.window_seconds
    hosts = frozenset(host for host, began in since.items() if began >= first)
    if len(hosts) >= limits.hosts:
        return msgspec.structs.replace(previous, hosts=hosts, many_at=now)
    if hosts and now - previous.many_at < SETTLING:
        return msgspec.structs.replace(previous, hosts=hosts)
    return None


def _begins(since: Mapping[str, float], limits: FailureAvoidance, now: float) -> Event | None:
    """The oldest event among silences whose time is not over yet."""
    ordered = sorted((began, host) for host, began in since.items())
    for at, (began, _) in enumerate(ordered):
        if began + limits.timeout_seconds <= now:
            continue
        together = [host for start, host in ordered[at:] if start - began <= limits.window_seconds]
        if len(together) >= limits.hosts:
            hosts = frozenset(host for _, host in ordered[at:])
            return Event("MultiNodeFailure", hosts, began, began + limits.timeout_seconds, now)
    return None
