"""What happens in a run, from its seed alone: a small tree, what people do in it, and what breaks meanwhile.

`plan(seed)` is pure. A plan is made of episodes: a fault begins and mostly ends, people do something and
something breaks within moments of it. Each seed has a theme, which says what there is much of, so that over
many seeds rare things come together: a crash within a millisecond of an answer, a cut while a snapshot of the
link travels, a restart during a restart, a restored store below one that has gone on.

Loads of machines keep off the bands of hysteresis, so that alarms follow from the load alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from roost.sim.deterministic.events import Action, Argument, Event, Plan

CENTRE = "central"
POLICIES = ("web", "ssh", "dns")
NETWORKS = ("storage", "admin")
WELL: dict[str, Argument] = {"processor": 12.0, "memory": 40.0, "root": 30.0, "dark": "", "disks": 1}
SETTLING = 8.0
"""Seconds before the end in which nothing new begins."""


class Theme(msgspec.Struct, frozen=True, kw_only=True):
    """How much of what a plan has: weights of the episodes by name."""

    weights: dict[str, float]
    episodes: tuple[int, int]
    seconds: tuple[float, float] = (40.0, 120.0)


_EVEN = {
    "work": 5.0,
    "conflict": 1.0,
    "outage": 3.0,
    "flap": 1.5,
    "slow": 1.5,
    "power": 3.0,
    "torn": 2.0,
    "stop": 1.5,
    "disk": 1.5,
    "clock": 1.0,
    "backup": 1.0,
    "machine": 2.0,
    "fleet": 1.5,
    "skew": 0.5,
}
THEMES: dict[str, Theme] = {
    "even": Theme(weights=_EVEN, episodes=(3, 9)),
    "still": Theme(weights={"outage": 3, "flap": 2, "power": 3, "stop": 2, "slow": 1}, episodes=(2, 6)),
    "crashes": Theme(weights={**_EVEN, "power": 10, "torn": 5, "work": 8}, episodes=(4, 9)),
    "links": Theme(weights={**_EVEN, "outage": 9, "flap": 6, "slow": 6, "work": 9}, episodes=(4, 10)),
    "backups": Theme(weights={**_EVEN, "backup": 10, "work": 8}, episodes=(3, 7)),
    "people": Theme(weights={**_EVEN, "work": 16, "conflict": 6, "fleet": 5}, episodes=(5, 12)),
    "machines": Theme(weights={**_EVEN, "machine": 12, "power": 5, "outage": 5}, episodes=(3, 8)),
}
_COMMON = ("even", "even", "even", "still", "crashes", "links", "backups", "people", "machines")


def plan(seed: int) -> Plan:
    """The plan of a seed; the same in every version of Python and on every machine."""
    return _Making(seed).make()


class _Making:
    """Chance, the tree, and the events so far."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._chance = random.Random(f"plan/{seed}")  # noqa: S311 - not a secret
        self._theme = THEMES[self._chance.choice(_COMMON)]
        self.sites = self._chance.choices((1, 2, 3), (6, 3, 1))[0]
        self.hosts = self._chance.choices((1, 2), (6, 4))[0]
        self.seconds = round(self._chance.uniform(*self._theme.seconds), 1)
        self._events: list[Event] = []

    def make(self) -> Plan:
        weights = {n: w for n, w in self._theme.weights.items() if w > 0}
        for _ in range(self._chance.randint(*self._theme.episodes)):
            name = self._chance.choices(list(weights), list(weights.values()))[0]
            EPISODES[name](self, self._moment())
        self._events.sort(key=lambda e: (e.at, e.target, e.action))
        return Plan(
            seed=self._seed,
            sites=self.sites,
            hosts=self.hosts,
            seconds=self.seconds,
            events=tuple(self._events),
        )

    # -- helps

    def _moment(self) -> float:
        return self._chance.uniform(0.0, self.seconds - SETTLING)

    def _add(self, at: float, action: Action, target: str, **arguments: Argument) -> None:
        last = self.seconds - 0.001
        self._events.append(
            Event(at=round(min(at, last), 3), action=action, target=target, arguments=arguments)
        )

    def _operate(self, at: float, target: str, verb: str, **arguments: Argument) -> None:
        self._add(at, "operate", target, verb=verb, **arguments)

    def _likely(self, share: float) -> bool:
        return self._chance.random() < share

    def _site(self) -> str:
        return f"site-{self._chance.randrange(self.sites):04d}"

    def _name_of_host(self) -> str:
        return f"controller-{self._chance.randrange(self.hosts)}"

    def _host(self, site: str = "") -> str:
        return f"{site or self._site()}/{self._name_of_host()}"

    def _lower(self) -> str:
        """A node with something above it."""
        return self._site() if self._likely(0.65) else self._host()

    def _node(self) -> str:
        return self._chance.choices((CENTRE, self._site(), self._host()), (3, 4, 3))[0]

    def _soon(self) -> float:
        """How long until something else happens: at once, in a moment, or in a while."""
        reach = self._chance.choices((0.004, 0.08, 1.5, 12.0), (3, 3, 3, 2))[0]
        return self._chance.uniform(0.0, reach)

    def _while(self) -> float:
        """How long a fault lasts: about a heartbeat, about a timeout, or longer than all of them."""
        low, high = self._chance.choices(((0.05, 2.0), (2.0, 12.0), (12.0, 45.0)), (4, 4, 3))[0]
        return self._chance.uniform(low, high)

    # -- episodes: what people do

    def work(self, at: float) -> None:
        """Somebody changes something, perhaps a few things; and perhaps something breaks right then."""
        for _ in range(self._chance.choice((1, 1, 1, 2, 3))):
            self._one_thing(at)
            at += self._soon()
        if self._likely(0.35):
            fault = self._chance.choice((self.power, self.torn, self.outage, self.flap, self.stop))
            fault(max(0.0, at + self._soon() - 0.002))

    def _one_thing(self, at: float) -> None:
        thing = self._chance.choices(
            (self._policy, self._shared, self._life, self._network, self._reboot, self._alarm, self._limits),
            (5, 5, 4, 2, 1.5, 1, 1.5),
        )[0]
        thing(at)

    def _policy(self, at: float) -> None:
        verb = self._chance.choices(("declare-policy", "delete-policy"), (4, 1))[0]
        port = self._chance.randrange(1, 60000)
        self._operate(at, self._site(), verb, name=self._chance.choice(POLICIES), port=port)

    def _shared(self, at: float) -> None:
        verb = self._chance.choices(("declare-policy", "delete-policy"), (4, 1))[0]
        port, name = self._chance.randrange(1, 60000), f"shared-{self._chance.choice(POLICIES)}"
        only = self._site() if self._likely(0.2) else "*"
        self._operate(at, CENTRE, verb, name=name, port=port, subclouds=only)

    def _life(self, at: float) -> None:
        site, host = self._site(), self._name_of_host()
        where = CENTRE if self._likely(0.25) else site
        verb = self._chance.choices(("lock", "force-lock", "unlock"), (3, 1, 3))[0]
        self._operate(at, where, verb, host=host, site=site)
        if self._likely(0.5):
            back = "lock" if verb == "unlock" else "unlock"
            self._operate(at + self._soon(), site, back, host=host, site=site)
        if self._likely(0.12):
            again = at + self._chance.uniform(3.0, 20.0)
            self._operate(again, site, "delete-host", host=host)
            self._operate(again + self._while(), site, "declare-host", host=host)

    def _network(self, at: float) -> None:
        verb = self._chance.choices(("declare-network", "delete-network"), (3, 1))[0]
        name, site = self._chance.choice(NETWORKS), self._site()
        where = CENTRE if self._likely(0.3) else site
        self._operate(at, where, verb, name=name, site=site, third=self._chance.randrange(200))

    def _reboot(self, at: float) -> None:
        site, host = self._site(), self._name_of_host()
        self._operate(at, site, "lock", host=host, site=site)
        at += self._chance.uniform(2.0, 6.0)
        self._operate(at, site, "reboot", host=host)
        if self._likely(0.3):
            self._operate(at + self._soon(), site, self._chance.choice(("pause", "abort")))
        if self._likely(0.7):
            self._operate(at + self._chance.uniform(0.5, 15.0), site, "unlock", host=host, site=site)

    def _alarm(self, at: float) -> None:
        self._operate(at, self._site(), self._chance.choice(("acknowledge-alarm", "delete-alarm")))

    def _limits(self, at: float) -> None:
        major = self._chance.choice((60, 80))
        self._operate(at, self._site(), "set-thresholds", host=self._name_of_host(), major=major)

    def conflict(self, at: float) -> None:
        """The same name at both ends, perhaps while they can't hear each other; perhaps solved later."""
        site, name = self._site(), self._chance.choice(POLICIES)
        if self._likely(0.5):
            self._add(at, "cut", site, direction="both")
            self._add(at + self._while(), "mend", site)
            at += 0.2
        ends = [(CENTRE, at + self._soon()), (site, at + self._soon())]
        for where, when in ends:
            port = self._chance.randrange(1, 60000)
            self._operate(when, where, "declare-policy", name=name, port=port, site=site)
        if self._likely(0.6):
            where, when = self._chance.choice(ends)
            self._operate(when + self._while(), where, "delete-policy", name=name, site=site)

    def fleet(self, at: float) -> None:
        """A subcloud is unmanaged, managed, or deleted and declared again."""
        site = self._site()
        self._operate(at, CENTRE, "unmanage", site=site)
        at += self._soon()
        if self._likely(0.5):
            self._operate(at, CENTRE, "delete-subcloud", site=site)
            at += self._while() if self._likely(0.6) else self._soon()
            self._operate(at, CENTRE, "declare-subcloud", site=site)
            at += self._soon()
        if self._likely(0.8):
            self._operate(at, CENTRE, "manage", site=site)

    # -- episodes: what breaks

    def outage(self, at: float) -> None:
        """A link is cut, one way or both, and mostly mended."""
        node = self._lower()
        self._add(at, "cut", node, direction=self._chance.choices(("both", "up", "down"), (4, 2, 2))[0])
        if self._likely(0.85):
            self._add(at + self._while(), "mend", node)

    def flap(self, at: float) -> None:
        """A link comes and goes, in time with what travels over it."""
        node = self._lower()
        for _ in range(self._chance.randint(2, 5)):
            if self._likely(0.5):
                self._add(at, "reset-link", node)
            else:
                self._add(at, "cut", node, direction="both")
                at += self._chance.uniform(0.05, 3.0)
                self._add(at, "mend", node)
            at += self._soon() + 0.05

    def slow(self, at: float) -> None:
        """A link has a satellite's delay, or worse."""
        node = self._lower()
        delay = round(self._chance.choice((0.02, 0.3, 1.0, 2.5)), 3)
        self._add(at, "slow-link", node, delay=delay, jitter=round(delay * self._chance.random(), 3))
        if self._likely(0.7):
            self._add(at + self._while(), "slow-link", node, delay=0.001, jitter=0.0)

    def power(self, at: float) -> None:
        """A process dies, told or not, and comes back; perhaps it dies again while it does."""
        node = self._node()
        self._add(at, "crash", node, silent=self._likely(0.5))
        for _ in range(self._chance.choice((0, 0, 1, 2))):
            at += self._chance.choice((0.1, 1.0, 4.0))
            self._add(at, "start", node)
            at += self._soon() + 0.001
            self._add(at, "crash", node, silent=self._likely(0.5))
        if self._likely(0.92):
            self._add(at + self._while(), "start", node)

    def torn(self, at: float) -> None:
        """Power goes in the midst of a commit, perhaps again in that which a start begins with."""
        node = self._node()
        for _ in range(self._chance.choice((1, 1, 2))):
            self._add(at, "power-cut", node)
            at += self._while()
            self._add(at, "start", node)
            at += self._soon() * 0.1

    def stop(self, at: float) -> None:
        """A process is ended in good order and begun again."""
        node = self._node()
        self._add(at, "stop", node)
        self._add(at + self._while(), "start", node)

    def disk(self, at: float) -> None:
        """A disk is slow or full."""
        node = self._node()
        if self._likely(0.6):
            self._add(at, "slow-disk", node, seconds=self._chance.choice((0.02, 0.2, 1.0)))
            self._add(at + self._while(), "slow-disk", node, seconds=0.0)
        else:
            self._add(at, "full-disk", node)
            self._add(at + self._while(), "free-disk", node)

    def clock(self, at: float) -> None:
        """A clock is set, or runs badly."""
        node = self._node()
        if self._likely(0.6):
            step = self._chance.choice((-3600.0, -30.0, -1.5, 2.0, 45.0, 7200.0))
            self._add(at, "clock-step", node, seconds=step)
            if self._likely(0.5):
                self._add(at + self._while(), "clock-step", node, seconds=-step)
        else:
            self._add(at, "clock-drift", node, ppm=self._chance.choice((-20000.0, 500.0, 50000.0)))
            self._add(at + self._while(), "clock-drift", node, ppm=0.0)

    def backup(self, at: float) -> None:
        """A store is saved, things go on, and then it is put back; perhaps while a neighbour is away."""
        node = self._chance.choices((CENTRE, self._site(), self._host()), (4, 4, 1))[0]
        self._add(at, "snapshot", node)
        for _ in range(self._chance.randint(0, 3)):
            at += self._soon()
            self._one_thing(at)
        at += self._while()
        if self._likely(0.3):
            below = self._site()
            self._add(at, "cut", below, direction="both")
            self._add(at + self._while(), "mend", below)
        self._add(at, "restore", node)

    def machine(self, at: float) -> None:
        """A machine is busy, full, unplugged or changed; mostly that ends."""
        host = self._host()
        sorts: tuple[dict[str, Argument], ...] = (
            {"memory": 85.0},
            {"memory": 97.0},
            {"root": 92.0},
            {"processor": 99.0},
            {"dark": "eth0"},
            {"dark": "eth1"},
            {"disks": 3},
            {"memory": 97.0, "dark": "eth0"},
        )
        busy = self._chance.choice(sorts)
        self._add(at, "machine", host, **busy)
        if self._likely(0.35):
            fault = self._chance.choice((self.power, self.outage, self.stop))
            fault(at + self._chance.uniform(0.0, 8.0))
        if self._likely(0.7):
            self._add(at + self._while() + 4.0, "machine", host, **WELL)

    def skew(self, at: float) -> None:
        """A node is of an older version for a while."""
        node = self._node()
        self._add(at, "skew", node, version="0.0.9", without=self._chance.choice(("again", "again,calls")))
        self._add(at + 0.01, "reset-link" if node != CENTRE else "stop", node)
        if node == CENTRE:
            self._add(at + 1.0, "start", node)


EPISODES: dict[str, Callable[[_Making, float], None]] = {
    "work": _Making.work,
    "conflict": _Making.conflict,
    "outage": _Making.outage,
    "flap": _Making.flap,
    "slow": _Making.slow,
    "power": _Making.power,
    "torn": _Making.torn,
    "stop": _Making.stop,
    "disk": _Making.disk,
    "clock": _Making.clock,
    "backup": _Making.backup,
    "machine": _Making.machine,
    "fleet": _Making.fleet,
    "skew": _Making.skew,
}
