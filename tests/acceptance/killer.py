"""Kills processes of a running demo at random moments, as power cuts and crashes do, and keeps account.

Victims are drawn from a deck that holds each process once, so each has its turn. Sometimes two die at once,
sometimes one is killed again while it is starting, sometimes one dies right after somebody began to work
on a host. The laboratory starts what ended, after a pause that grows with each end in a row; the killer cuts
some of these pauses short. It kills nothing more than three times in a minute before it was ready, for at the
fifth the laboratory would give it up.
"""

from __future__ import annotations

import json
import queue
import random
import re
import socket
import threading
import time
from collections import Counter, deque
from typing import Any

from tests.acceptance.running import Demo

Raw = dict[str, Any]
PAUSE = 4.5
EARLY_WINDOW = 70.0
MOST_EARLY = 3
LOOK = 0.25
_KILLED = re.compile(r"process (\d+), is killed")


class Killer:
    """One that kills, from `start` until `stop`; and one that looks at processes all the time."""

    def __init__(self, demo: Demo, seed: str) -> None:
        self._demo = demo
        self._random = random.Random(f"{seed}/killer")
        self._enough = threading.Event()
        self._work: queue.Queue[tuple[str, str]] = queue.Queue(100)
        self._early: dict[str, deque[float]] = {}
        self._deck: list[str] = []
        self._killed: set[int] = set()
        self.names = sorted(demo.processes())
        self.before = demo.processes()
        self.kills: Counter[str] = Counter()
        self.while_starting: Counter[str] = Counter()
        self.amid_work: Counter[str] = Counter()
        self.at_once = 0
        self.not_ready = dict.fromkeys(self.names, 0.0)
        self.now: dict[str, Raw] = self.before
        self.problems: list[str] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), name=run.__name__, daemon=True)
            for run in (self._kill_on, self._look_on)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def ask_to_stop(self) -> None:
        self._enough.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), f"{thread.name} does not end"

    def begun(self, cloud: str, host: str) -> None:
        """Somebody begins to work on a host: a good moment."""
        if not self._work.full():
            self._work.put((cloud, host))

    def _guarded(self, run: Any) -> None:
        try:
            run()
        except Exception as error:
            self.problems.append(f"the killer could not go on: {error!r}")

    # -- killing

    def _kill_on(self) -> None:
        while not self._enough.is_set():
            moment = self._random.random()
            try:
                cloud, host = self._work.get_nowait() if moment < 0.25 else ("", "")
            except queue.Empty:
                cloud, host = "", ""
            if cloud:
                self._enough.wait(self._random.random() * 1.5)
                victim = f"{cloud}-{self._random.choice((host, host, 'controller-0'))}"
                self.amid_work[victim] += self._kill(victim)
            else:
                victims = [self._next() for _ in range(2 if moment > 0.82 else 1)]
                killed = sum(self._kill(victim) for victim in victims)
                self.at_once += killed > 1
                if self._random.random() < 0.2:
                    self._kill_starting(victims[0])
            self._shorten()
            self._enough.wait(self._random.expovariate(1 / PAUSE))

    def _next(self) -> str:
        if not self._deck:
            self._deck = self._random.sample(self.names, len(self.names))
        # One that runs rather than one that is dead: on a slow machine the dead take long to come back.
        ready = [name for name in self._deck if self.now[name]["state"] == "ready"]
        name = (ready or self._deck)[-1]
        self._deck.remove(name)
        return name

    def _kill(self, name: str) -> int:
        """End it, unless it has been ended early too often, or is dead. How many were killed."""
        state = self._demo.processes()[name]["state"]
        if state == "starting" and not self._bears(name):
            return 0
        said = _KILLED.search(_tell(self._demo, "kill", name).get("text", ""))
        # On a busy machine one that was killed may not be gone yet, and is killed a second time.
        if said is None or int(said[1]) in self._killed:
            return 0
        self._killed.add(int(said[1]))
        self.kills[name] += 1
        if state == "starting":
            self.while_starting[name] += 1
            self._early[name].append(time.monotonic())
        return 1

    def _bears(self, name: str) -> bool:
        """Whether one more early end leaves the laboratory patient."""
        recent = self._early.setdefault(name, deque())
        while recent and time.monotonic() - recent[0] > EARLY_WINDOW:
            recent.popleft()
        return len(recent) < MOST_EARLY

    def _kill_starting(self, name: str) -> None:
        end = time.monotonic() + 5
        _tell(self._demo, "resume", name)
        while time.monotonic() < end and not self._enough.is_set():
            if self._demo.processes()[name]["state"] == "starting":
                self._enough.wait(self._random.random() * 2)
                self._kill(name)
                return
            self._enough.wait(0.1)

    def _shorten(self) -> None:
        for name, one in self._demo.processes().items():
            if one["state"] == "resting" and self._random.random() < 0.4:
                _tell(self._demo, "resume", name)

    # -- looking

    def _look_on(self) -> None:
        last = time.monotonic()
        while not self._enough.is_set():
            self.now = self._demo.processes()
            now = time.monotonic()
            for name, one in self.now.items():
                if one["state"] != "ready":
                    self.not_ready[name] += now - last
            last = now
            self._enough.wait(LOOK)

    # -- afterwards

    def judge(self, reboots_asked: Counter[str]) -> list[str]:
        """Processes that ended otherwise than by us or by an operator's order."""
        found = list(self.problems)
        for name, one in self._demo.processes().items():
            was = self.before[name]
            restarts, reboots = one["restarts"] - was["restarts"], one["reboots"] - was["reboots"]
            # One that was about to restart by order, and was killed in that moment, counts as one of the two.
            if not self.kills[name] - reboots <= restarts <= self.kills[name]:
                found.append(f"{name} was killed {self.kills[name]} times and started again {restarts} times")
            if reboots > reboots_asked[name]:
                found.append(f"{name} restarted {reboots} times and was told to {reboots_asked[name]} times")
            if one["state"] != "ready":
                found.append(f"{name} is {one['state']} ({one['last_end']})")
            if not restarts and not reboots and one["pid"] != was["pid"]:
                found.append(f"{name} is another process, and nobody ended it")
        return found

    def table(self) -> list[str]:
        """What was killed, for people."""
        return [
            f"{name:22} {self.kills[name]} kills, {self.while_starting[name]} of them while it was starting, "
            f"{self.amid_work[name]} amid work on a host; not ready for {self.not_ready[name]:.0f} s in all"
            for name in self.names
        ]


def _tell(demo: Demo, verb: str, name: str) -> Raw:
    """A verb of the laboratory, by its socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(15)
        asking.connect(str(demo.directory / "control.sock"))
        asking.sendall(json.dumps({"verb": verb, "process": name}).encode() + b"\n")
        pieces = b""
        while not pieces.endswith(b"\n"):
            piece = asking.recv(65_536)
            if not piece:
                return {}
            pieces += piece
    found: Raw = json.loads(pieces)
    return found
