"""The shortest plan that still breaks the same law: delta debugging over events, then sizes and durations.

`shrink(plan, fails)` asks `fails` about ever smaller plans. Events go in halves, quarters and at last one by
one (ddmin, Zeller and Hildebrandt 2002); then sites, hosts and seconds that nothing needs; then arguments and
times are made plain. A fault that leaves a law broken must often end, so pairs (a crash and its start) go
together first. Bounded by tries and by wall time: what has been found by then is the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec

from roost.sim.deterministic.events import Event, Plan

TRIES = 400
SECONDS = 120.0
SHORTEST = 5.0

Fails = Callable[[Plan], bool]
"""Whether a plan still breaks the law in question."""

_ENDS = {
    "crash": "start",
    "power-cut": "start",
    "stop": "start",
    "cut": "mend",
    "full-disk": "free-disk",
    "snapshot": "restore",
}


class Shrunk(msgspec.Struct, frozen=True, kw_only=True):
    """What shrinking found, and after how many tries. `whole` is false when a bound ended it."""

    plan: Plan
    tries: int
    whole: bool


class _Enough(Exception):
    """A bound is reached."""


class _Trial:
    """Asks `fails` while that is allowed, and remembers the smallest plan."""

    def __init__(self, plan: Plan, fails: Fails, tries: int, seconds: float) -> None:
        self.plan, self.tried = plan, 0
        self._fails, self._tries = fails, tries
        self._until = time.monotonic() + seconds
        self._seen = {msgspec.json.encode(plan)}

    def take(self, plan: Plan) -> bool:
        """Try a plan; when it fails, too, go on from it."""
        written = msgspec.json.encode(plan)
        if written in self._seen:
            return False
        if self.tried >= self._tries or time.monotonic() > self._until:
            raise _Enough
        self._seen.add(written)
        self.tried += 1
        if not self._fails(plan):
            return False
        self.plan = plan
        return True


def shrink(plan: Plan, fails: Fails, *, tries: int = TRIES, seconds: float = SECONDS) -> Shrunk:
    """The smallest plan found that fails, from one that does."""
    trial = _Trial(plan, fails, tries, seconds)
    try:
        before = None
        while before != trial.plan:
            before = trial.plan
            _targets(trial)
            _halves(trial)
            _pairs(trial)
            _sizes(trial)
            _plainer(trial)
    except _Enough:
        return Shrunk(plan=trial.plan, tries=trial.tried, whole=False)
    return Shrunk(plan=trial.plan, tries=trial.tried, whole=True)


def _targets(trial: _Trial) -> None:
    """Leave out all that happens to one node, or all of one action."""
    for key in ("target", "action"):
        for value in sorted({getattr(e, key) for e in trial.plan.events}):
            _keep(trial, [e for e in trial.plan.events if getattr(e, key) != value])


def _halves(trial: _Trial) -> None:
    """Leave out runs of events, ever shorter ones."""
    size = len(trial.plan.events) // 2
    while size:
        at = 0
        while at < len(trial.plan.events):
            events = list(trial.plan.events)
            if not _keep(trial, events[:at] + events[at + size :]):
                at += size
        size //= 2


def _pairs(trial: _Trial) -> None:
    """Leave out a fault together with what ends it."""
    at = 0
    while at < len(trial.plan.events):
        events = list(trial.plan.events)
        first = events[at]
        ending = next((n for n in range(at + 1, len(events)) if _ends(first, events[n])), None)
        if ending is None or not _keep(trial, [e for n, e in enumerate(events) if n not in (at, ending)]):
            at += 1


def _ends(first: Event, second: Event) -> bool:
    if first.target != second.target:
        return False
    return second.action == _ENDS.get(first.action, first.action)


def _sizes(trial: _Trial) -> None:
    """Leave out sites and hosts that nothing happens to, and time in which nothing happens."""
    for smaller in _smaller(trial.plan):
        trial.take(smaller)
    last = max((e.at for e in trial.plan.events), default=0.0)
    for seconds in (SHORTEST, last + 1.0, last + SHORTEST, last + 20.0):
        if last < seconds < trial.plan.seconds:
            trial.take(msgspec.structs.replace(trial.plan, seconds=round(seconds, 3)))


def _smaller(plan: Plan) -> Iterator[Plan]:
    named = "\n".join(
        f"{e.target} {e.arguments.get('site', '')} {e.arguments.get('host', '')}" for e in plan.events
    )
    for sites in range(1, plan.sites):
        if all(f"site-{n:04d}" not in named for n in range(sites, plan.sites)):
            yield msgspec.structs.replace(plan, sites=sites)
            break
    for hosts in range(1, plan.hosts):
        if all(f"controller-{n}" not in named for n in range(hosts, plan.hosts)):
            yield msgspec.structs.replace(plan, hosts=hosts)
            break


def _plainer(trial: _Trial) -> None:
    """Times without fractions, and all as early as they come."""
    for digits in (0, 1):
        _times(trial, [round(e.at, digits) for e in trial.plan.events])
    if trial.plan.events:
        first = trial.plan.events[0].at
        if first > 1.0:
            _times(trial, [round(e.at - first + 1.0, 3) for e in trial.plan.events])
    for n in range(len(trial.plan.events)):
        at = trial.plan.events[n].at
        for digits in (0, 1, 2):
            if round(at, digits) != at and _time(trial, n, round(at, digits)):
                break


def _time(trial: _Trial, number: int, at: float) -> bool:
    return _times(trial, [at if n == number else e.at for n, e in enumerate(trial.plan.events)])


def _times(trial: _Trial, times: list[float]) -> bool:
    if times != sorted(times) or (times and times[-1] >= trial.plan.seconds):
        return False
    moved = [msgspec.structs.replace(e, at=at) for e, at in zip(trial.plan.events, times, strict=True)]
    return trial.take(msgspec.structs.replace(trial.plan, events=tuple(moved)))


def _keep(trial: _Trial, events: list[Event]) -> bool:
    return trial.take(msgspec.structs.replace(trial.plan, events=tuple(events)))
