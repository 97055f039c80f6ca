"""Outages of generated fleets, whose causes are known, and how the judgement of them compares.

    python -m tests.fleet.outages [COUNT]

A fleet is a core, regions, routers and sites. Routers, regions, or the core go down; some sites go down for
reasons of their own in the same two minutes; some have another way and stay. A loss is noticed within 8
seconds. An incident is right when it names the cause that was planted and the very sites that went with it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable

import msgspec

from roost.fleet.causes import Site, Topology, judge

NOTICED_WITHIN = 8.0
LASTS = 120.0
OTHER_WAY = 0.03

Truth = set[tuple[str, frozenset[str]]]


class Score(msgspec.Struct, frozen=True):
    """`precision`: how many of the incidents told were right; `recall`: how many of the causes were told."""

    told: int
    planted: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.told if self.told else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.planted if self.planted else 1.0


class Outage(msgspec.Struct, frozen=True):
    """What was lost when, and the truth of it."""

    sites: list[Site]
    below: dict[str, int]
    topology: Topology
    truth: Truth

    @classmethod
    def of(cls, seed: int) -> Outage:
        """An outage; the same for the same seed."""
        chance = random.Random(seed)
        behind, places = _fleet(chance)
        topology, below = Topology(behind), dict.fromkeys(behind, 0)
        for uplink in places.values():
            for one in topology.way(uplink):
                below[one] += 1
        down = _down(chance, behind)
        alone = {
            name: chance.uniform(0, LASTS) for name in chance.sample(sorted(places), chance.randrange(6))
        }
        other_way = {name for name in places if chance.random() < OTHER_WAY}
        lost: dict[str, tuple[float, str]] = {}
        for name, uplink in sorted(places.items()):
            causes = [(at, name) for at in [alone.get(name)] if at is not None]
            if name not in other_way:
                causes += [(down[one], one) for one in topology.way(uplink) if one in down]
            if causes:
                lost[name] = min(causes)
        noticed = {name: at + chance.uniform(1, NOTICED_WITHIN) for name, (at, _) in lost.items()}
        truth: dict[str, set[str]] = {}
        for name, (_, cause) in lost.items():
            truth.setdefault(_last(cause, topology), set()).add(name)
        sites = [Site(name=name, uplink=places[name], lost_at=at) for name, at in noticed.items()]
        return cls(sites, below, topology, {(cause, frozenset(names)) for cause, names in truth.items()})

    def told(self) -> Truth:
        """What is made of it."""
        judged = judge(self.sites, self.below, self.topology, 10 * LASTS)
        return {(cause.name, frozenset(cause.sites)) for cause in judged.causes}


def _fleet(chance: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    behind, places = {"core": ""}, dict[str, str]()
    for region in range(chance.randint(1, 6)):
        behind[f"region-{region}"] = "core"
        for router in range(chance.randint(1, 6)):
            name = f"router-{region}-{router}"
            behind[name] = f"region-{region}"
            for site in range(chance.randint(2, 60)):
                places[f"{name}-site-{site:03}"] = name
    return behind, places


def _last(cause: str, topology: Topology) -> str:
    """The last uplink of a chain without branches; only the last have sites of their own here."""
    while len(branches := topology.branches(cause)) == 1:
        cause = branches[0]
    return cause


def _down(chance: random.Random, behind: dict[str, str]) -> dict[str, float]:
    chosen = chance.sample(sorted(behind), min(len(behind), chance.choice([0, 1, 1, 1, 2, 3])))
    return {uplink: chance.uniform(0, LASTS) for uplink in chosen}


def score(outages: Iterable[Outage]) -> Score:
    """All of them together."""
    told = planted = right = 0
    for outage in outages:
        judged = outage.told()
        told, planted = told + len(judged), planted + len(outage.truth)
        right += len(judged & outage.truth)
    return Score(told, planted, right)


def main(count: int) -> None:
    """Print the score of so many outages."""
    found = score(map(Outage.of, range(count)))
    print(f"{found.planted} causes planted, {found.told} incidents told, {found.right} of them right")
    print(f"precision {found.precision:.4f}, recall {found.recall:.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
