"""What a link costs the process that holds its upper end: memory, and processor at rest.

The upper end is a process with a store and links and nothing else; simulated sites stand beside it, over
mutual TLS on loopback. Each tells one host with its inventory, then nothing more. What the kernel does for
the connections is not in the process's own time: for it stands the time that the processors of this machine
were busy with anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.figures import Row
from bench.process import START_WITHIN, memory, processor_seconds, running
from roost.link import pki
from roost.link.node import subcloud
from roost.link.upper import Settings, UpperLink
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.meta import Metadata
from roost.program.timing import TIMING
from roost.sim.crowd.enrolling import Identities
from roost.sim.crowd.many import Many
from roost.sim.subcloud import site_name
from roost.store.database import sqlite_url
from roost.store.store import Store
from roost.store.transaction import Transaction

NAME = "central"
LINKS = (1000, 4000)
SETTLE, REST = 20.0, 30.0
WITHIN = 300.0


def measure() -> list[Row]:
    """All rows of this module."""
    return [row for count in LINKS for row in _rows(count)]


def _rows(count: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(_run(Path(directory), count))
    return [
        Row(room="link", what=f"{what}, {count:,} links", unit=unit, runs=[value])
        for what, unit, value in found
    ]


async def _run(directory: Path, count: int) -> list[tuple[str, str, float]]:
    sites = directory / "sites"
    now = datetime.now(UTC)
    authority = pki.Authority.open(directory / "pki", NAME, now)
    identities = Identities(sites)
    request = pki.request(identities.key)
    for number in range(count):
        name = site_name(number)
        certificate = authority.sign_node(request, subcloud(name), now, timedelta(days=1))
        identities.keep(name, certificate, authority.certificate_pem)
    log = directory / "upper.log"
    command = [sys.executable, "-m", "bench.links", str(directory), str(count)]
    with running(command, log) as process:
        port = await _port(directory / "port")
        before = memory(process.pid).resident
        many = Many(
            count=count, hosts=1, endpoint=f"127.0.0.1:{port}", directory=sites, heartbeat=TIMING.heartbeat
        )
        async with many:
            began = time.monotonic()
            await many.begin()
            async with asyncio.timeout(WITHIN):
                while (await many.standing())[0]["inStep"] < count:  # noqa: ASYNC110 - processes are asked
                    await asyncio.sleep(0.5)
            took = time.monotonic() - began
            await asyncio.sleep(SETTLE)
            pids = [process.pid, *many.pids]
            used, machine = [processor_seconds(pid) for pid in pids], _busy()
            await asyncio.sleep(REST)
            spent = [processor_seconds(pid) - was for pid, was in zip(pids, used, strict=True)]
            rest = _busy() - machine - sum(spent)
            resident = memory(process.pid).resident
    return [
        ("all are linked and have told", "s", took),
        ("memory of the upper end for each", "KiB", (resident - before) * 1024 / count),
        ("processor at rest", "% of a core", 100 * spent[0] / REST),
        ("processor at rest, sites", "% of a core", 100 * sum(spent[1:]) / REST),
        ("processor at rest, all else of the machine", "% of a core", 100 * rest / REST),
    ]


async def _port(where: Path) -> int:
    async with asyncio.timeout(START_WITHIN):
        while not where.exists() or not where.read_text():  # noqa: ASYNC110, ASYNC240 - another process writes
            await asyncio.sleep(0.1)
    return int(where.read_text())  # noqa: ASYNC240


def _busy() -> float:
    """Seconds that the processors of this machine were not idle."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / 100


# -- the upper end


async def _serve(directory: Path, count: int) -> None:
    def work(tx: Transaction) -> None:
        for number in range(count):
            spec = SubcloudSpec(management_state="managed")
            tx.save(Subcloud(metadata=Metadata(name=site_name(number)), spec=spec))

    def now() -> datetime:
        return datetime.now(UTC)

    store = await Store.open(sqlite_url(directory / "upper.db"), clock=now)
    await store.transact(work)
    authority = pki.Authority.open(directory / "pki", NAME, now())
    settings = Settings(addresses=[("127.0.0.1", 0)], server_names=["127.0.0.1"])
    link = UpperLink(
        store, authority, name=NAME, directory=directory, clock=now, settings=settings, timing=TIMING
    )
    await link.start()
    (directory / "port").write_text(str(link.ports[0]))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await link.stop()
    await store.close()


def _main(directory: Path, count: int) -> None:
    import uvloop

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(directory, count))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
