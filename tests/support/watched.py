"""A cloud of real processes in namespaces: a controller and workers on two platform networks, watched.

    controller  10.40.1.1 mgmt0, 10.40.2.1 cluster0
    worker-N    10.40.1.1N       10.40.2.1N

With `NETWORKS6` in place of `NETWORKS` there are IPv6 addresses alone. Each network is a bridge in
a namespace of its own; a host's ways are cut in the host's own namespace, by nft.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.namespaces import Namespace, World, namespaces

ROOST = str(Path(sys.executable).parent / "roost")
NETWORKS = {"mgmt0": ("mgmt", "10.40.1"), "cluster0": ("cluster-host", "10.40.2")}
NETWORKS6 = {"mgmt0": ("mgmt", "fd00:40:1:"), "cluster0": ("cluster-host", "fd00:40:2:")}
Networks = Mapping[str, tuple[str, str]]
"""Ports of every host, each the name of its network too: the network's type and what addresses begin with."""
OF_SILENCE = ("200.004", "200.005", "200.009", "200.202", "200.203")
WITHIN = 90.0
Raw = dict[str, Any]


class Watched:
    """The cloud. `cut` and `mend` a host's networks, `alarms` and `host` tell what the controller says."""

    def __init__(self, world: World, place: Path, workers: Sequence[str], networks: Networks) -> None:
        self._world, self._place, self.workers = world, place, tuple(workers)
        self._networks = networks
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    # -- building

    def build(self, heartbeat: Raw) -> None:
        """Networks, the controller, and its workers enrolled, unlocked and watched."""
        for number, host in enumerate(("controller", *self.workers)):
            last = 1 if host == "controller" else 10 + number
            for port, (_, prefix) in self._networks.items():
                inside = f"{_address(prefix, last)}/{_length(prefix)}"
                self._world.join(host, port, [inside], "switch", f"{port[0]}-{host}", [])
        switch = self._world["switch"]
        for port in self._networks:
            switch.run("ip", "link", "add", f"br-{port}", "type", "bridge")
            switch.run("ip", "link", "set", f"br-{port}", "up")
            for host in ("controller", *self.workers):
                switch.run("ip", "link", "set", f"{port[0]}-{host}", "master", f"br-{port}")
        self.start_controller()
        self.declare(heartbeat)
        for worker in self.workers:
            self._enrol(worker)
        for worker in self.workers:
            self.until(f"{worker} is there", lambda w=worker: self.host(w)["availability"] == "online")
            self.roost("host", "unlock", worker)
        for worker in self.workers:
            self.until(f"{worker} serves", lambda w=worker: self.serves(w))

    def start_controller(self) -> None:
        """`roost up`, until it answers."""
        self._start(
            "controller",
            *("up", "--name", "watched", "--mode", "standard", "--address", "127.0.0.1:7443"),
            *("--link-address", self._link_address(), "--contained"),
        )
        self.until("the cloud answers", lambda: self.roost("status", check=False).returncode == 0)

    def _link_address(self) -> str:
        address = _address(self._networks["mgmt0"][1], 1)
        return f"[{address}]:7444" if ":" in address else f"{address}:7444"

    def declare(self, heartbeat: Raw) -> None:
        """Platform networks, and how hosts are watched."""
        things: list[Raw] = [
            {
                "apiVersion": "roost.edge/v1",
                "kind": "PlatformNetwork",
                "metadata": {"name": name, "namespace": "watched"},
                "spec": {"type": kind, "subnets": [f"{_address(prefix, 0)}/{_length(prefix)}"]},
            }
            for name, (kind, prefix) in self._networks.items()
        ]
        things.append(
            {
                "apiVersion": "roost.edge/v1",
                "kind": "Cloud",
                "metadata": {"name": "watched"},
                "spec": {"systemMode": "standard", "heartbeat": heartbeat},
            }
        )
        text = "\n---\n".join(json.dumps(thing) for thing in things)
        done = self.roost("apply", "-f", "-", text=text)
        assert done.returncode == 0, done.stderr

    def _enrol(self, worker: str) -> None:
        token = self.roost("host", "add", worker, "--personality", "worker", "-o", "json")
        file = self._place / f"{worker}.token"
        file.write_text(json.loads(token.stdout)["token"])
        self._start(worker, "agent", "--join", str(file), "--contained")

    def _start(self, host: str, *arguments: str) -> None:
        output = (self._place / f"{host}.log").open("ab")
        self._processes[host] = subprocess.Popen(
            [*self._world[host].prefix, ROOST, *arguments],
            env={**os.environ, "ROOST_HOME": str(self._place / host)},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        output.close()

    def close(self) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    # -- faults

    def cut(self, host: str, *networks: str) -> float:
        """Drop all that a host sends and gets on these networks; returns when that was done, since 1970."""
        rules = "add table inet cut\nflush table inet cut\n"
        for hook, way in (("input", "iifname"), ("output", "oifname")):
            rules += f"add chain inet cut {hook} {{ type filter hook {hook} priority -300; }}\n"
            for network in networks:
                rules += f'add rule inet cut {hook} {way} "{network}" drop\n'
        self._world[host].run("nft", "-f", "-", data=rules)
        return time.time()

    def mend(self, host: str) -> float:
        """Let everything pass again."""
        self._world[host].run("nft", "delete", "table", "inet", "cut")
        return time.time()

    def signal(self, host: str, number: signal.Signals) -> None:
        """Signal everything of a host's processes."""
        os.killpg(self._processes[host].pid, number)

    # -- what is said

    def roost(
        self, *arguments: str, text: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.controller.prefix, ROOST, *arguments],
            env={**os.environ, "ROOST_HOME": str(self._place / "controller"), "KUBECONFIG": ""},
            input=text,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    @property
    def controller(self) -> Namespace:
        return self._world["controller"]

    def log(self, host: str) -> str:
        return (self._place / f"{host}.log").read_text()

    def alarms(self) -> dict[tuple[str, str], Raw]:
        """Statuses of the alarms that speak of silence, by id and entity; the machine may be loaded."""
        found = json.loads(self.roost("get", "alarms", "-o", "json").stdout)["items"]
        statuses = [a["status"] for a in found]
        return {(a["alarmId"], a["entity"]): a for a in statuses if a["alarmId"] in OF_SILENCE}

    def told(self, since: float) -> list[tuple[str, str]]:
        """Alarms that speak of silence and were set since then, from the log: id and entity."""
        found = json.loads(self.roost("get", "logentries", "-o", "json").stdout)["items"]
        statuses = [e["status"] for e in found]
        return [
            (e["alarmId"], e["entity"])
            for e in statuses
            if e["event"] == "alarm-set" and e["alarmId"] in OF_SILENCE and seconds(e["time"]) >= since
        ]

    def serves(self, name: str) -> bool:
        """Whether a host is in service."""
        return bool(self.host(name)["operational"] == "enabled")

    def host(self, name: str) -> Raw:
        status: Raw = json.loads(self.roost("get", "host", name, "-o", "json").stdout)["status"]
        return status

    def heartbeats(self, name: str) -> Raw:
        """Where a host is told to send its heartbeats."""
        found = json.loads(self.roost("get", "hostconfiguration", name, "-o", "json").stdout)
        told: Raw = found["spec"]["heartbeat"]
        return told

    def conditions(self) -> dict[str, Raw]:
        """Conditions of the Cloud, by type."""
        found = json.loads(self.roost("get", "cloud", "watched", "-o", "json").stdout)["status"]
        return {c["type"]: c for c in found["conditions"]}

    def until(self, what: str, holds: Any, within: float = WITHIN) -> None:
        """Wait until something holds."""
        start, last = time.monotonic(), None
        while time.monotonic() - start < within:
            try:
                last = holds()
            except (AssertionError, KeyError, ValueError) as error:
                last = error
            if last is True:
                return
            time.sleep(0.1)
        logs = "\n".join(f"{h}: {self.log(h)[-3000:]}" for h in self._processes)
        raise AssertionError(f"after {within:g} s still not: {what}: {last!r}\n{logs}")


def _address(prefix: str, last: int) -> str:
    return f"{prefix}:{last}" if ":" in prefix else f"{prefix}.{last}"


def _length(prefix: str) -> int:
    return 64 if ":" in prefix else 24


def seconds(stamp: str) -> float:
    """A time of the API as seconds since 1970."""
    return datetime.fromisoformat(stamp).astimezone(UTC).timestamp()


@contextlib.contextmanager
def watched(
    place: Path, workers: Sequence[str], heartbeat: Raw, networks: Networks = NETWORKS
) -> Iterator[Watched]:
    """The cloud, built and in service."""
    with namespaces("switch", "controller", *workers) as world:
        made = Watched(world, place, workers, networks)
        try:
            made.build(heartbeat)
            yield made
        finally:
            made.close()
