"""A central cloud as a real process, and SUBCLOUDS simulated sites in this one, over mutual TLS on loopback.

The sites are opened with their ways cut; then all dial at once. Every site has one host with an
inventory. Half of them are cut, both sides change, and they return at once. What is waited for is
asked of the centre's API.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from bench.client import MERGE_PATCH, Client, access, is_ready
from bench.figures import RUNS, Row
from bench.process import free_port, memory, processor_seconds, roost, running, wait_for
from roost.link.lower import Backoff
from roost.link.node import subcloud as subcloud_node
from roost.link.pki import Authority
from roost.link.session import Timing
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.meta import Metadata
from roost.program.enrolments import remember_enrolment
from roost.sim.cloud import World
from roost.sim.fleet import seldom_collect
from roost.sim.subcloud import Above, SimulatedSubcloud, SitePlan, open_all, site_name
from roost.store.database import sqlite_url
from roost.store.store import Store
from roost.store.transaction import Transaction

SUBCLOUDS = 200
NAME = "central"
GROUP = "/apis/roost.edge/v1"
POLICIES = f"{GROUP}/namespaces/{NAME}/firewallpolicies"
TIMING = Timing(heartbeat=1.0, lost_after=30.0, hello_within=60.0)
WITHIN = 120.0
REST = 10.0

Found = dict[str, list[float]]


def measure() -> list[Row]:
    """All rows of this module."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    seldom_collect()
    found: Found = {}
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as directory:
            _once(Path(directory), found)
    units = {"per subcloud": "KiB", "processor": "% of a core"}
    return [
        Row(
            room="fleet",
            what=what,
            unit=next((unit for part, unit in units.items() if part in what), "s"),
            runs=runs,
        )
        for what, runs in found.items()
    ]


def _once(directory: Path, found: Found) -> None:
    home, log, link = directory / "home", directory / "central.log", free_port()
    up = roost("up", "--home", str(home), "--name", NAME, "--no-host", "--contained")
    up += ["--address", f"127.0.0.1:{free_port()}", "--link-address", f"127.0.0.1:{link}"]
    with running(up, log) as process:
        wait_for(lambda: is_ready(home / "kubeconfig"), process, log)
    # Declared and enrolled while nobody runs there: the door takes two enrolments a second.
    asyncio.run(_enrol(home))
    with running(up, log) as process:
        wait_for(lambda: is_ready(home / "kubeconfig"), process, log)
        asyncio.run(_Run(directory, home, link, process, found).run())


async def _enrol(home: Path) -> None:
    """Declare every subcloud in the centre's store, and remember that it has enrolled."""

    def work(tx: Transaction) -> None:
        for n in range(SUBCLOUDS):
            name = site_name(n)
            spec = SubcloudSpec(management_state="managed")
            tx.save(Subcloud(metadata=Metadata(name=name), spec=spec))
            remember_enrolment(tx, subcloud_node(name), {})

    store = await Store.open(sqlite_url(home / "cloud.db"))
    try:
        await store.transact(work)
    finally:
        await store.close()


class _Run:
    """One run against one centre."""

    def __init__(
        self, directory: Path, home: Path, link: int, process: subprocess.Popen[bytes], found: Found
    ) -> None:
        self._directory, self._home, self._link = directory, home, link
        self._process, self._found = process, found
        self._client: Client

    async def run(self) -> None:
        world = World(
            directory=self._directory / "sites",
            authority=Authority.open(self._home / "pki", NAME, _now()),
            clock=_now,
            timing=TIMING,
            backoff=Backoff(first=0.2, cap=2.0),
        )
        above = Above(name=NAME, endpoint=f"127.0.0.1:{self._link}")
        sites = [SimulatedSubcloud(n, world, above, SitePlan(cut=True)) for n in range(SUBCLOUDS)]
        try:
            await open_all(sites)
            async with Client(access(self._home / "kubeconfig")) as self._client:
                await self._measure(sites)
        finally:
            await asyncio.gather(*(site.close() for site in sites))

    async def _measure(self, sites: list[SimulatedSubcloud]) -> None:
        resident = memory(self._process.pid).resident
        began = time.monotonic()
        for site in sites:
            site.mend()
        await self._until(self._all_online, began, f"{SUBCLOUDS} subclouds dial at once: all online")
        await self._until(self._all_mirrored, began, f"{SUBCLOUDS} subclouds dial at once: all mirrored")
        began = time.monotonic()
        spec = {"networks": ["oam"], "rules": [{"action": "allow"}], "subclouds": {}}
        policy = _body("FirewallPolicy", {"metadata": {"name": "base"}, "spec": spec})
        await self._client.good("POST", POLICIES, policy)
        what = f"a shared policy is in force on the hosts of {SUBCLOUDS} subclouds"
        await self._until(self._all_in_sync, began, what)
        await asyncio.sleep(REST)
        used = processor_seconds(self._process.pid)
        await asyncio.sleep(REST)
        used = 100 * (processor_seconds(self._process.pid) - used) / REST
        self._note(f"centre with {SUBCLOUDS} quiet subclouds: processor", used)
        grown = memory(self._process.pid).resident - resident
        self._note("memory of the centre per subcloud", grown * 1024 / SUBCLOUDS)
        await self._cut_and_return(sites)

    async def _cut_and_return(self, sites: list[SimulatedSubcloud]) -> None:
        cut = sites[::2]
        began = time.monotonic()
        for site in cut:
            site.cut()
        await self._until(
            lambda: self._availability("offline", len(cut)), began, "half are cut at once: all seen offline"
        )
        patch = b'{"spec": {"rules": [{"action": "allow", "protocol": "tcp", "ports": ["22"]}]}}'
        await self._client.good("PATCH", f"{POLICIES}/base", patch, MERGE_PATCH)
        began = time.monotonic()
        for site in cut:
            site.mend()
        await self._until(
            self._all_settled, began, "they return at once: online, changed policy in force, no alarm left"
        )

    # -- what is waited for

    async def _until(self, condition: Callable[[], Any], began: float, what: str) -> None:
        async with asyncio.timeout(WITHIN):
            while not await condition():  # noqa: ASYNC110 - a real API is asked
                await asyncio.sleep(0.1)
        self._note(what, time.monotonic() - began)

    async def _items(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = msgspec.json.decode(await self._client.good("GET", path))["items"]
        return items

    async def _availability(self, wanted: str, count: int) -> bool:
        subclouds = await self._items(f"{GROUP}/subclouds")
        return [s["status"]["availability"] for s in subclouds].count(wanted) == count

    async def _all_online(self) -> bool:
        return await self._availability("online", SUBCLOUDS)

    async def _all_mirrored(self) -> bool:
        hosts = await self._items(f"{GROUP}/hosts")
        return sum(h["status"].get("inventory") is not None for h in hosts) == SUBCLOUDS

    async def _all_in_sync(self) -> bool:
        policy = msgspec.json.decode(await self._client.good("GET", f"{POLICIES}/base"))
        status = policy.get("status", {})
        fresh = status.get("observedGeneration") == policy["metadata"]["generation"]
        return bool(fresh and status["inSync"] == status["subclouds"] == SUBCLOUDS)

    async def _all_settled(self) -> bool:
        lost = await self._items(f"{GROUP}/namespaces/{NAME}/alarms")
        return not lost and await self._all_in_sync() and await self._all_online()

    def _note(self, what: str, value: float) -> None:
        self._found.setdefault(what, []).append(value)


def _now() -> datetime:
    return datetime.now(UTC)


def _body(kind: str, parts: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"apiVersion": "roost.edge/v1", "kind": kind, **parts})
