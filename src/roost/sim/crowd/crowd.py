"""The simulated sites of one process, and what befalls them.

Dialling is spread: DIALLING sites are on their way at a time, as a centre's door takes them. Heartbeats of
all sites come from one task that goes round, SPOKES turns for each. What a step of the script asks for is
done beside what others ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from typing import Protocol

import msgspec
from websockets.asyncio.client import ClientConnection

from roost.link import messages
from roost.link.lower import Backoff
from roost.link.messages import Entry, Heartbeat
from roost.model.cloud import AlarmCounts
from roost.sim.crowd import things
from roost.sim.crowd.script import Step, chosen
from roost.sim.crowd.site import FAILURES, Heard, Phase, Site
from roost.sim.subcloud import site_name

DIALLING = 100
SPOKES = 50
TICK = 0.05
DELAYS_KEPT = 200_000
OLD_VERSION = "0.0.1"
_SENT = re.compile(rb'"roost\.edge/sent-at":"([0-9.]{1,32})"')


class Dialer(Protocol):
    """How the sites of a process get connections."""

    async def __call__(self, number: int, name: str) -> ClientConnection:
        """A connection of a site. Raises one of FAILURES."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a process simulates: sites from `first` on, each with so many hosts."""

    first: int
    count: int
    hosts: int = 1
    heartbeat: float = 1.0
    backoff: Backoff = Backoff()


class Crowd:
    """Sites by number. `begin`, then `do` steps; `end` in the end."""

    def __init__(self, plan: Plan, dialer: Dialer) -> None:
        self.plan, self._dialer = plan, dialer
        self.heard = Heard()
        self.heard.on_intent = self._note_delay
        self.delays: list[float] = []
        """Seconds from when intent was declared to when a site had it, where the intent says when."""
        self._turns = asyncio.Semaphore(DIALLING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarms = Counter[int]()
        numbers = range(plan.first, plan.first + plan.count)
        self.sites = {number: self._site(number) for number in numbers}

    def _site(self, number: int, version: str = "") -> Site:
        async def dial(name: str) -> ClientConnection:
            async with self._turns:
                return await self._dialer(number, name)

        return Site(
            site_name(number),
            self.plan.hosts,
            dial,
            self.heard,
            version=version,
            backoff=self.plan.backoff,
        )

    # -- life

    def begin(self) -> None:
        """Have all dial."""
        self._spawn(self._beat())
        for site in self.sites.values():
            site.start()

    async def end(self) -> None:
        """End all, as a process that is killed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(site.stop() for site in self.sites.values()))

    # -- looking

    def standing(self) -> dict[str, float]:
        """Numbers of what is and was, to be printed or added up."""
        phases = Counter(site.phase for site in self.sites.values())
        heard = self.heard
        return {
            "sites": len(self.sites),
            "linked": phases[Phase.LINKED],
            "cut": sum(site.cut_off for site in self.sites.values()),
            "inStep": sum(s.phase is Phase.LINKED and s.stream.in_step for s in self.sites.values()),
            "dialled": heard.dialled,
            "failed": heard.failed,
            "refused": heard.refused,
            "batches": heard.batches,
            "entries": heard.entries,
            "acknowledged": heard.acknowledged,
            "intent": heard.intent,
        }

    def _note_delay(self, entry: Entry) -> None:
        if len(self.delays) < DELAYS_KEPT and (found := _SENT.search(entry.data)):
            self.delays.append(time.time() - float(found[1]))

    # -- acting

    async def follow(self, steps: Sequence[Step]) -> None:
        """Do the steps of a script, each at its time from now on."""
        began = asyncio.get_running_loop().time()
        for step in steps:
            await asyncio.sleep(max(0.0, began + step.at - asyncio.get_running_loop().time()))
            self.do(step)

    def do(self, step: Step) -> None:
        """Begin a step; what takes its time goes on beside."""
        sites = [self.sites[number] for number in chosen(step, list(self.sites))]
        match step.action:
            case "cut":
                for site in sites:
                    site.cut()
            case "silence":
                for site in sites:
                    site.freeze()
            case "mend":
                for site in sites:
                    site.mend()
            case "change":
                self._spawn(self._change(sites, step))
            case "alarms":
                for site in sites:
                    self._raise(site, step.count)
            case "clear":
                for site in sites:
                    self._raise(site, 0)
            case "log":
                for site in sites:
                    site.say(*(things.log_entry(site.name, f"entry {n}") for n in range(step.count)))
            case "flood":
                for site in sites:
                    self._spawn(self._flood(site, step.seconds))
            case "nonsense":
                for site in sites:
                    self._spawn(site.utter(b"\0\xc1 nothing of the kind"))
            case "claim":
                for site in sites:
                    site.say(things.host(site_name(self.plan.first + self.plan.count), 0))
            case "old":
                self._spawn(self._grow_old(list(chosen(step, list(self.sites)))))

    def _raise(self, site: Site, count: int) -> None:
        """Let it have so many alarms."""
        number = int(site.name.rpartition("-")[2])
        before, self._alarms[number] = self._alarms[number], count
        now = time.time()
        more = [things.alarm(site.name, n, sent_at=now) for n in range(before, count)]
        less = [things.no_alarm(site.name, n) for n in range(count, before)]
        site.say(*more, *less, things.cloud(site.name, site.hosts, AlarmCounts(major=count)))

    async def _change(self, sites: Sequence[Site], step: Step) -> None:
        """Hosts change, one after the other, at an even rate whatever the delays of this process."""
        if not sites:
            return
        loop = asyncio.get_running_loop()
        began, done = loop.time(), 0
        turn: Iterator[Site] = itertools.cycle(sites)
        while (passed := loop.time() - began) < step.seconds:
            for _ in range(int(passed * step.rate) - done):
                site = next(turn)
                done += 1
                site.say(things.host(site.name, 0, sent_at=time.time()))
            await asyncio.sleep(TICK / 5)

    async def _flood(self, site: Site, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            await site.utter(messages.pack(Heartbeat(sequence=1)))
            await asyncio.sleep(0)

    async def _grow_old(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            await self.sites[number].stop()
            self.sites[number] = self._site(number, OLD_VERSION)
            self.sites[number].start()

    async def _beat(self) -> None:
        """Heartbeats of all, spread over the time between two."""
        loop = asyncio.get_running_loop()
        for spoke in itertools.cycle(range(SPOKES)):
            began = loop.time()
            for site in list(self.sites.values())[spoke::SPOKES]:
                await site.beat(began)
            await asyncio.sleep(max(0.0, self.plan.heartbeat / SPOKES - (loop.time() - began)))

    def _spawn(self, work: Awaitable[None]) -> None:
        async def quietly() -> None:
            with contextlib.suppress(*FAILURES):
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
