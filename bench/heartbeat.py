"""Failure detection by heartbeat while all processors are busy with other things.

Real senders in one process, a real observer in another, real datagrams over loopback addresses, and for each
processor a loop that never rests, at the same priority as everything else of the machine. Each of the hosts
goes silent at a random moment of its period; what is measured is the time until the observer calls it failed.
Then nobody goes silent, and every verdict or state that is not good counts as false.

    python -m bench heartbeat
    python -m bench.heartbeat 3600     hold still for an hour, instead of HOLD seconds
    python -m bench.heartbeat 3600 still   only that; the loops then yield to the machine's other work
"""

from __future__ import annotations

import json
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from bench.figures import Row, percentile, table
from bench.process import free_port

HOSTS = 100
NETWORKS = ("mgmt0", "cluster0")
ROUNDS = {100: 5, 1000: 3}
SILENCED = 20
HOLD = 600.0
GOOD = {"well", "unknown"}
WITHIN = 60.0

Raw = dict[str, Any]


class Peer:
    """One of the two processes."""

    def __init__(self, role: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.heartbeat_peers", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.told: queue.Queue[Raw] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.put(json.loads(line))

    def ask(self, **asked: Any) -> None:
        assert self._process.stdin is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)

    def until(self, field: str) -> Raw:
        """The next word with this field; what comes before it is dropped."""
        while field not in (said := self.told.get(timeout=WITHIN)):
            continue
        return said

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Site:
    """Hosts that beat, and who listens."""

    def __init__(self, period: int) -> None:
        self.period, self.port = period, free_port()
        self.observer, self.senders = Peer("observer"), Peer("senders")
        self.observer.ask(port=self.port)
        for number in range(HOSTS):
            self.beat(f"host-{number}")

    def beat(self, name: str) -> None:
        """Register a host anew and have it send."""
        self.observer.ask(register=name, networks=NETWORKS, period=self.period)
        made = self.observer.until("registered")
        self.senders.ask(
            send=name,
            id=made["id"],
            secret=made["secret"],
            port=self.port,
            networks=NETWORKS,
            period=self.period,
        )

    def drain(self, seconds: float) -> list[Raw]:
        """What is told in the time to come."""
        end, found = time.monotonic() + seconds, []
        while (left := end - time.monotonic()) > 0:
            try:
                found.append(self.observer.told.get(timeout=left))
            except queue.Empty:
                break
        return found

    def costs(self) -> tuple[Raw, Raw]:
        """Counters and processor time of both, so far."""
        self.observer.ask(stop=1)
        observer = self.observer.until("counters")
        self.senders.ask(stop=1)
        return observer, self.senders.until("processor")

    def close(self) -> None:
        self.senders.close()
        self.observer.close()


@contextmanager
def busy(nice: int = 0) -> Iterator[None]:
    """Each processor has something else to do, all the time."""
    loop = ["nice", "-n", str(nice), sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(loop) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def detections(period: int) -> tuple[list[float], int]:
    """Seconds from a host's silence until it is failed; and how many others were called failed wrongly."""
    site, found, wrong = Site(period), [], 0
    try:
        site.drain(period / 1000 * 12)
        for _ in range(ROUNDS[period]):
            chosen = random.sample(range(HOSTS), SILENCED)
            silent: dict[str, float] = {}
            for number in chosen:
                time.sleep(random.uniform(0, period / 1000 / 4))
                site.senders.ask(silence=f"host-{number}")
                said = site.senders.until("silent")
                silent[said["silent"]] = said["at"]
            for said in site.drain(period / 1000 * 12):
                if said.get("verdict") == "failed":
                    if said["host"] in silent:
                        found.append(said["at"] - silent[said["host"]])
                    else:
                        wrong += 1
            for number in chosen:
                site.beat(f"host-{number}")
            site.drain(period / 1000 * 12)
    finally:
        site.close()
    return found, wrong


def still(seconds: float, period: int = 100) -> Raw:
    """Nobody goes silent for so long: what was told all the same, and what it cost."""
    site = Site(period)
    try:
        site.drain(5)
        before, senders_before = site.costs()
        began = time.monotonic()
        told = site.drain(seconds)
        lasted = time.monotonic() - began
        after, senders_after = site.costs()
    finally:
        site.close()
    states = [s for said in told for s in said.get("states", {}).values()]
    return {
        "seconds": lasted,
        "failed": sum(said.get("verdict") == "failed" for said in told),
        "alarms": sum(s in ("degraded", "failed") for s in states),
        "noted": sum(s == "minor" for s in states),
        "processor": (after["processor"] - before["processor"]) / lasted * 100,
        "senders": (senders_after["processor"] - senders_before["processor"]) / lasted * 100,
        "counters": after["counters"],
        "priority": after["priority"],
        "senders_priority": senders_after["priority"],
    }


def measure(hold: float = HOLD) -> list[Row]:
    """All rows of this module."""
    rows: list[Row] = []
    with busy():
        for period in ROUNDS:
            found, wrong = detections(period)
            what = f"{HOSTS} hosts, a beat each {period} ms: a silent one is failed"
            goal = "1 s" if period == 100 else ""
            rows += [
                Row(
                    room="heartbeat",
                    what=f"{what}, median of {len(found)}",
                    unit="s",
                    runs=[percentile(found, 0.5)],
                    goal=goal,
                ),
                Row(
                    room="heartbeat",
                    what=f"{what}, 99th percentile",
                    unit="s",
                    runs=[percentile(found, 0.99)],
                ),
                Row(
                    room="heartbeat",
                    what=f"{what}: others failed with it",
                    unit="",
                    runs=[float(wrong)],
                    goal="0",
                ),
            ]
        calm = still(hold)
    print(json.dumps(calm), file=sys.stderr)
    what = f"{HOSTS} hosts on {len(NETWORKS)} networks, a beat each 100 ms, {calm['seconds']:.0f} s"
    rows += [
        Row(
            room="heartbeat",
            what=f"{what}: hosts failed wrongly",
            unit="",
            runs=[calm["failed"]],
            goal="0 in an hour",
        ),
        Row(room="heartbeat", what=f"{what}: alarms of networks, wrongly", unit="", runs=[calm["alarms"]]),
        Row(
            room="heartbeat",
            what=f"{what}: observer, processor",
            unit="% of a core",
            runs=[calm["processor"]],
        ),
        Row(
            room="heartbeat",
            what=f"{what}: all senders, processor",
            unit="% of a core",
            runs=[calm["senders"]],
        ),
    ]
    return rows


def hold_still(seconds: float) -> None:
    """Both periods side by side, each with its own hosts and observer; the load of each minute beside it."""
    loads: list[float] = []
    with busy(19), ThreadPoolExecutor() as pool:
        calm = {period: pool.submit(still, seconds, period) for period in ROUNDS}
        while not all(one.done() for one in calm.values()):
            wait(calm.values(), timeout=60)
            loads.append(os.getloadavg()[0])
    for period, one in calm.items():
        print(json.dumps({"period": period, **one.result()}))
    print(json.dumps({"load": [min(loads), percentile(loads, 0.5), max(loads)]}))


if __name__ == "__main__":
    asked = float(sys.argv[1]) if len(sys.argv) > 1 else HOLD
    if sys.argv[2:] == ["still"]:
        hold_still(asked)
    else:
        print(table(measure(asked)))
