"""Which one cause explains several troubles of a fleet. Pure: facts in, incidents out.

What is known exactly is used, and nothing else: a host is in its subcloud, a subcloud is reached through its
uplink, that perhaps through another. The rules, from the widest cause to the narrowest:

1. **Uplink.** Subclouds that were lost together, within TOGETHER seconds, and are most of those that were
   reached through an uplink, were lost with it. The widest such uplink is named, unless all of them lie in
   one of its branches, which then says more, or a branch of it lost nothing, which shows that it works. One
   subcloud alone makes no uplink a cause.
2. **Certificate.** A subcloud whose link's certificate is over is offline for that.
3. **Subcloud.** A subcloud that is offline and is not explained so is its own cause. It explains nothing that
   it told before: that is what was last known.
4. **Host.** All alarms of a host are one incident of that host.

While losses still come in, those of the last SETTLE seconds are not judged yet: ten thousand sites that go
silent at once are noticed within some seconds, and must not be shown one by one meanwhile.

An uplink that was told as a cause stays one until the last subcloud that was lost with it is back, unless a
wider one explains them all: when half are back the others are not a thousand causes of their own. Which were
lost with it follows from when they were, so it is the same after a restart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from roost.model.fault import Severity
from roost.model.incident import CauseKind, Certainty

TOGETHER = 12.0
"""Seconds within which subclouds are lost that are lost together: a link is missed after four, on a far and
lossy way after up to ten more; its subcloud is offline five later, or sixty after a restart of the centre."""
MOST = 0.6
"""Share of the subclouds reached through an uplink that have to be lost together for it to be the cause."""
SETTLE = 3.0
DEEPEST = 32
EVENTS = 8
"""So many times of losses are looked at for an uplink; what was lost at others is judged further down."""
_RANK: dict[Severity, int] = {"warning": 0, "minor": 1, "major": 2, "critical": 3}


class Trouble(msgspec.Struct, frozen=True):
    """All alarms of one host: how many, the worst, since when (seconds since the epoch)."""

    host: str
    alarms: int
    severity: Severity
    since: float
    reason: str


class Site(msgspec.Struct, frozen=True):
    """What is known of one enrolled subcloud."""

    name: str
    uplink: str = ""
    lost_at: float | None = None
    """When it went offline, in seconds since the epoch; None while it is online."""
    expired: bool = False
    """Whether its link's certificate is over."""
    troubles: tuple[Trouble, ...] = ()


class Cause(msgspec.Struct, frozen=True):
    """One incident. `sites` are the subclouds that it concerns, in order."""

    kind: CauseKind
    name: str
    sites: tuple[str, ...]
    since: float
    severity: Severity
    alarms: int
    reason: str
    chain: tuple[str, ...]
    certainty: Certainty = "certain"
    most: int = 1
    """Subclouds at its height."""


class Told(msgspec.Struct, frozen=True):
    """An uplink that was told as a cause: since when, of how many at its height, how surely."""

    uplink: str
    since: float
    most: int
    certainty: Certainty


class Judgement(msgspec.Struct, frozen=True):
    """The incidents, and when to look again (seconds from now) because something is not judged yet."""

    causes: tuple[Cause, ...]
    again: float | None = None


class Topology:
    """Uplinks as trees. An uplink behind itself, or behind one that is not declared, is reached directly."""

    def __init__(self, behind: Mapping[str, str]) -> None:
        self._behind = dict(behind)
        self._ways: dict[str, tuple[str, ...]] = {}
        self._branches: dict[str, list[str]] = defaultdict(list)
        for uplink, nearer in self._behind.items():
            self._branches[nearer].append(uplink)

    def branches(self, uplink: str) -> list[str]:
        """The uplinks that are reached through this one, and no other between."""
        return self._branches.get(uplink, [])

    def way(self, uplink: str) -> tuple[str, ...]:
        """The uplinks through which something behind this one is reached, the nearest first."""
        if uplink not in self._ways:
            way, one = list[str](), uplink
            while one in self._behind and one not in way and len(way) < DEEPEST:
                way.append(one)
                one = self._behind[one]
            self._ways[uplink] = tuple(way)
        return self._ways[uplink]


def judge(
    sites: Iterable[Site],
    below: Mapping[str, int],
    topology: Topology,
    now: float,
    told: Sequence[Told] = (),
) -> Judgement:
    """The incidents of a fleet.

    `sites` are those in trouble; `below` counts, for each uplink, all enrolled subclouds that are reached
    through it, in trouble or not; `now` is in seconds since the epoch; `told` are the uplinks told before.
    """
    lost: dict[str, float] = {}
    ways: dict[str, tuple[str, ...]] = {}
    known = sorted(sites, key=lambda site: site.name)
    for site in known:
        if site.lost_at is not None and not site.expired:
            lost[site.name], ways[site.name] = site.lost_at, topology.way(site.uplink)
    present = _present(told, lost, ways, topology)
    held = {name for _, names in present for name in names}
    unsettled, again = _unsettled({n: at for n, at in lost.items() if n not in held}, ways, now)
    left = {name: at for name, at in lost.items() if name not in unsettled}
    causes = _wider(_uplinks(left, ways, below, topology), present, topology)
    for one, names in present:
        explained = {name for cause in causes for name in cause.sites}
        if remaining := [name for name in names if name not in explained]:
            causes.append(_still(one, remaining))
    explained = {name for cause in causes for name in cause.sites}
    causes += _uplinks({n: at for n, at in left.items() if n not in explained}, ways, below, topology)
    explained = {name for cause in causes for name in cause.sites}
    for site in known:
        if site.lost_at is not None and site.name not in explained and site.name not in unsettled:
            causes.append(_alone(site, site.lost_at))
        causes += [_host(site, trouble) for trouble in site.troubles]
    return Judgement(tuple(causes), again)


def _present(
    told: Sequence[Told],
    lost: Mapping[str, float],
    ways: Mapping[str, Sequence[str]],
    topology: Topology,
) -> list[tuple[Told, list[str]]]:
    """Uplinks told before with what was lost with them and is lost still, the widest first."""
    found, taken = list[tuple[Told, list[str]]](), set[str]()
    for one in sorted(told, key=lambda t: (len(topology.way(t.uplink)), t.since, t.uplink)):
        # Times are told in whole seconds.
        names = [
            name
            for name, at in lost.items()
            if name not in taken and one.uplink in ways[name] and -1 < at - one.since <= TOGETHER + 1
        ]
        taken.update(names)
        if names:
            found.append((one, names))
    return found


def _wider(
    causes: Iterable[Cause], present: Sequence[tuple[Told, list[str]]], topology: Topology
) -> list[Cause]:
    """Those causes that lie before one told, and explain all that it does."""
    return [
        cause
        for cause in causes
        if any(
            cause.name in topology.way(one.uplink)[1:] and set(names) <= set(cause.sites)
            for one, names in present
        )
    ]


def _unsettled(
    lost: Mapping[str, float], ways: Mapping[str, Sequence[str]], now: float
) -> tuple[set[str], float | None]:
    """Subclouds that are not judged yet, for others on their way are just being lost; and how long still."""
    latest: dict[str, float] = {}
    for name, at in lost.items():
        for uplink in ways[name]:
            latest[uplink] = max(latest.get(uplink, at), at)
    found, ends = set[str](), list[float]()
    for name, at in lost.items():
        last = max((latest[uplink] for uplink in ways[name]), default=at)
        # What was lost long before the others is judged as it was; a clock that runs ahead holds up nothing.
        if ways[name] and last - at <= TOGETHER and 0 <= now - last < SETTLE:
            found.add(name)
            ends.append(last + SETTLE - now)
    return found, min(ends, default=None)


def _uplinks(
    lost: Mapping[str, float],
    ways: Mapping[str, Sequence[str]],
    below: Mapping[str, int],
    topology: Topology,
) -> list[Cause]:
    """Losses explained by uplinks, those furthest away first: what they explain is explained."""
    through: dict[str, list[str]] = defaultdict(list)
    depth: dict[str, int] = {}
    for name in lost:
        for distance, uplink in enumerate(reversed(ways[name])):
            through[uplink].append(name)
            depth[uplink] = distance
    causes, explained = list[Cause](), set[str]()
    for uplink in sorted(through, key=lambda u: (depth[u], u)):
        left = sorted((lost[name], name) for name in through[uplink] if name not in explained)
        for _ in range(EVENTS):
            together = _together(left)
            if len(together) < 2:
                break
            taken = set(together)
            left = [loss for loss in left if loss not in taken]
            names = [name for _, name in together]
            # What was lost before was not there to be lost; what was lost later was.
            before = sum(lost[name] < together[0][0] for name in through[uplink])
            alive = below.get(uplink, 0) - before
            if len(names) < MOST * alive or _lies_further_down(uplink, names, ways):
                continue
            if not _works(uplink, topology, below, through):
                explained.update(names)
                causes.append(_uplink(uplink, names, alive, lost))
    return causes


def _lies_further_down(uplink: str, together: Sequence[str], ways: Mapping[str, Sequence[str]]) -> bool:
    """Whether all that were lost lie in one branch: then that explains them as well, and says more."""
    branches = set()
    for name in together:
        at = ways[name].index(uplink)
        branches.add(ways[name][at - 1] if at else "")
    return len(branches) == 1 and "" not in branches


def _works(
    uplink: str, topology: Topology, below: Mapping[str, int], through: Mapping[str, Sequence[str]]
) -> bool:
    """Whether a branch of several subclouds has lost none of them."""
    return any(below.get(b, 0) >= 2 and not through.get(b) for b in topology.branches(uplink))


def _together(losses: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Of losses in order, the most within TOGETHER seconds; of as many, the first."""
    best, begin = (0, 0), 0
    for end in range(len(losses)):
        while losses[end][0] - losses[begin][0] > TOGETHER:
            begin += 1
        if end + 1 - begin > best[1] - best[0]:
            best = (begin, end + 1)
    return list(losses[best[0] : best[1]])


def _uplink(uplink: str, names: Sequence[str], alive: int, lost: Mapping[str, float]) -> Cause:
    certainty: Certainty = "certain" if len(names) >= alive else "likely"
    since = min(lost[name] for name in names)
    told = Told(uplink=uplink, since=since, most=len(names), certainty=certainty)
    return _still(told, names, of=alive)


def _still(told: Told, names: Sequence[str], *, of: int = 0) -> Cause:
    """The cause that an uplink is, while these subclouds are lost."""
    uplink, count, most = told.uplink, len(names), max(told.most, len(names))
    others = f" of {of}" if of > most else ""
    back = f"; {most - count} are back" if count < most else ""
    return Cause(
        kind="Uplink",
        name=uplink,
        sites=tuple(sorted(names)),
        since=told.since,
        severity="critical",
        alarms=count,
        reason=f"{most}{others} subclouds behind uplink {uplink} went offline together{back}.",
        chain=(f"uplink {uplink} is down", f"{count} subclouds are offline"),
        certainty=told.certainty,
        most=most,
    )


def _alone(site: Site, lost_at: float) -> Cause:
    kind: CauseKind = "Certificate" if site.expired else "Subcloud"
    chain: tuple[str, ...] = (f"subcloud {site.name} is offline",)
    reason = f"{site.name} is offline; nothing else that is known explains it."
    if site.expired:
        chain = (f"the certificate of {site.name} has expired", *chain)
        reason = f"{site.name} is offline because the certificate of its link has expired."
    return Cause(
        kind=kind,
        name=site.name,
        sites=(site.name,),
        since=lost_at,
        severity="critical",
        alarms=2 if site.expired else 1,
        reason=reason,
        chain=chain,
    )


def _host(site: Site, trouble: Trouble) -> Cause:
    more = f", and {trouble.alarms - 1} alarms more" if trouble.alarms > 1 else ""
    return Cause(
        kind="Host",
        name=f"{site.name}/{trouble.host}",
        sites=(site.name,),
        since=trouble.since,
        severity=trouble.severity,
        alarms=trouble.alarms,
        reason=f"{trouble.reason}{more}"[:1024],
        chain=(f"host {trouble.host} of {site.name} is in trouble",),
    )


def worst(severities: Iterable[Severity]) -> Severity:
    """The worst of some severities; of none, warning."""
    return max(severities, key=_RANK.__getitem__, default="warning")
