"""A central cloud as a real process, HONEST nodes linked to it from this one, and a hostile node with a valid
certificate in a process of its own, that attacks for SECONDS in each way it knows (`roost.sim.hostile`).

Measured while it goes on: how long a heartbeat of the honest nodes takes there and back, and the memory of
the centre. All run on the same two cores, the attacker included.

Also: what a digest of a site costs.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import structlog

from bench.client import is_ready
from bench.figures import RUNS, Row, percentile
from bench.process import free_port, memory, roost, running, wait_for
from roost.link import digest, identity, pki
from roost.link.flow import Upward
from roost.link.lower import Backoff, LowerLink, State, TlsDialer
from roost.link.node import Node, subcloud
from roost.link.session import Timing
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.codec import overlay
from roost.model.fault import LogEntry, LogEntryStatus
from roost.model.meta import Metadata
from roost.program.enrolments import remember_enrolment
from roost.sim.hostile import ATTACKS
from roost.store.database import sqlite_url
from roost.store.store import Store
from roost.store.transaction import Transaction

NAME = "central"
HONEST = 20
SECONDS = 6.0
TIMING = Timing(heartbeat=0.2, lost_after=10.0)
ENTRIES = 5000

Found = dict[tuple[str, str], list[float]]


def measure() -> list[Row]:
    """All rows of this module."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    found: Found = {}
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as directory:
            _once(Path(directory), found)
            asyncio.run(_digest(Path(directory), found))
    return [Row(room="link", what=what, unit=unit, runs=runs) for (what, unit), runs in found.items()]


def _once(directory: Path, found: Found) -> None:
    home, log, link = directory / "home", directory / "central.log", free_port()
    up = roost("up", "--home", str(home), "--name", NAME, "--no-host", "--contained")
    up += ["--address", f"127.0.0.1:{free_port()}", "--link-address", f"127.0.0.1:{link}"]
    with running(up, log) as process:
        wait_for(lambda: is_ready(home / "kubeconfig"), process, log)
    nodes = [subcloud(f"site-{n}") for n in range(HONEST)]
    # Each attack by a node, and from an address, that nothing is known of yet.
    nodes += [subcloud(_attacker(attack)) for attack in ATTACKS]
    asyncio.run(_enrolled(directory, home, link, nodes))
    with running(up, log) as process:
        wait_for(lambda: is_ready(home / "kubeconfig"), process, log)
        asyncio.run(_besieged(directory, nodes[:HONEST], process.pid, found))


async def _enrolled(directory: Path, home: Path, link: int, nodes: list[Node]) -> None:
    """Declare the nodes in the centre's store, and give each its identity."""

    def work(tx: Transaction) -> None:
        for node in nodes:
            spec = SubcloudSpec(management_state="managed")
            tx.save(Subcloud(metadata=Metadata(name=node.name), spec=spec))
            remember_enrolment(tx, node, {})

    store = await Store.open(sqlite_url(home / "cloud.db"))
    await store.transact(work)
    await store.close()
    now = datetime.now(UTC)
    authority = pki.Authority.open(home / "pki", NAME, now)
    for node in nodes:
        key = pki.new_key()
        certificate = authority.sign_node(pki.request(key), node, now, timedelta(days=1))
        where = directory / node.name
        where.mkdir()
        identity.save(
            where,
            node=node,
            upper=NAME,
            endpoints=[f"127.0.0.1:{link}"],
            authority=authority.certificate_pem,
            key=key,
            certificate=certificate,
            now=now,
        )


async def _besieged(directory: Path, honest: list[Node], pid: int, found: Found) -> None:
    delays: list[float] = []
    downs = 0
    links, stores = [], []

    def changed(state: State) -> None:
        nonlocal downs
        if state.connected and state.proof is not None:
            delays.append((state.proof.proven_at - state.proof.sent_at).total_seconds())
        elif not state.connected:
            downs += 1

    for node in honest:
        store = await Store.open(sqlite_url(directory / f"{node.name}.db"), clock=_now)
        dialer = TlsDialer(directory / node.name, clock=_now)
        link = LowerLink(store, dialer, node=node, clock=_now, timing=TIMING, backoff=Backoff(cap=1.0))
        link.start()
        links.append(link)
        stores.append(store)
    async with asyncio.timeout(60):
        while not all(link.state.connected for link in links):  # noqa: ASYNC110 - real links
            await asyncio.sleep(0.1)
    for link in links:
        link.listen(changed)
    most = 0.0
    for number, attack in enumerate(("none", *ATTACKS), 10):
        delays.clear()
        downs = 0
        where, source = directory / _attacker(attack), f"127.0.0.{number}"
        command = (sys.executable, "-m", "roost.sim.hostile", str(where), attack, source)
        attacker = subprocess.Popen(command, stdout=subprocess.DEVNULL) if attack in ATTACKS else None  # noqa: ASYNC220
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                await asyncio.sleep(0.2)
                most = max(most, memory(pid).resident)
        finally:
            if attacker is not None:
                attacker.kill()
                attacker.wait()
        what = f"heartbeat of {HONEST} honest nodes there and back, attack: {attack.replace('_', '-')}"
        found.setdefault((f"{what}: median", "ms"), []).append(1000 * median(delays))
        found.setdefault((f"{what}: 99th percentile", "ms"), []).append(1000 * percentile(delays, 0.99))
        found.setdefault((f"honest links lost, attack: {attack.replace('_', '-')}", "links"), []).append(
            downs
        )
        if attack == "none":
            found.setdefault(("memory of the centre before", "MiB"), []).append(most)
    found.setdefault(("memory of the centre, the most at any attack", "MiB"), []).append(most)
    for link in links:
        await link.stop()
    for store in stores:
        await store.close()


async def _digest(directory: Path, found: Found) -> None:
    """Count a site of ENTRIES log entries as its centre does."""
    node = subcloud("harbor")
    store = await Store.open(sqlite_url(directory / "digest.db"))

    def work(tx: Transaction) -> None:
        for n in range(ENTRIES):
            status = LogEntryStatus(time="2026-11-23T00:00:00Z", source="harbor", sequence=n, text="x" * 200)
            entry = LogEntry(metadata=Metadata(name=f"log.{n}", namespace="harbor"), status=status)
            tx.copy(overlay({}, entry), node.origin)

    await store.transact(work)
    spent: list[float] = []
    stream = Upward(node)
    await digest.read(store, stream.held(), stream.taken, digest.Content((), ()), spent.append)
    found.setdefault((f"digest of a site of {ENTRIES:,} log entries: processor", "ms"), []).append(
        1000 * sum(spent)
    )
    found.setdefault(("the same, longest page", "ms"), []).append(1000 * max(spent))
    await store.close()


def _attacker(attack: str) -> str:
    return f"hostile-{attack.replace('_', '-')}"


def _now() -> datetime:
    return datetime.now(UTC)
