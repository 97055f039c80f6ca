"""A central cloud as real processes, and thousands of simulated sites beside it, on the same processors.

For each number of subclouds a new centre is started, on SQLite or PostgreSQL: one process, or on PostgreSQL
as many as can hold the links, for a process may open so many files only. The sites are declared through its
API, enrol at its door and dial, all over mutual TLS on loopback. What is waited for is asked of the centre's
API; changes are seen in a watch on it. Times of changes are of one machine's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.support import postgresql

from bench.client import Access, Client, access, is_ready
from bench.figures import Row, percentile
from bench.process import family, free_port, memory, processor_seconds, roost, running, wait_for
from roost.sim.crowd.many import Many
from roost.sim.crowd.script import Action, Step
from roost.sim.crowd.things import SENT_AT
from roost.sim.subcloud import site_name

NAME = "central"
GROUP = "/apis/roost.edge/v1"
ALL = "all"
"""The SubcloudGroup that all sites are in: its figures say how many are online."""
HOSTS = 1
HEARTBEAT = 1.0
LINKS = 18_000
"""At one process of the centre at most."""
AT_ONCE = 16
WITHIN = 600.0
REST, RATE_SECONDS = 20.0, 20.0
RATES = (100, 1000)
ALARMS = 10
_SENT = re.compile(rb'"roost\.edge/sent-at":"([0-9.]+)"')

Found = dict[str, tuple[str, list[float]]]


class Choice(msgspec.Struct, frozen=True):
    """What to measure: numbers of subclouds, on which databases, how often."""

    subclouds: Sequence[int] = (1000,)
    engines: Sequence[str] = ("postgresql",)
    runs: int = 1


def measure(choice: Choice) -> list[Row]:
    """All rows of this module."""
    rows = []
    for engine in choice.engines:
        for count in choice.subclouds:
            found: Found = {}
            for _ in range(choice.runs):
                with (
                    tempfile.TemporaryDirectory() as directory,
                    _database(engine, Path(directory)) as database,
                ):
                    asyncio.run(_Run(Path(directory), database, count, found).run())
            rows += [
                Row(room=f"{count:,} on {engine}", what=what, unit=unit, runs=runs)
                for what, (unit, runs) in found.items()
            ]
    return rows


class _Database(msgspec.Struct, frozen=True):
    environment: dict[str, str] = {}
    pid: int = 0


@contextlib.contextmanager
def _database(engine: str, directory: Path) -> Iterator[_Database]:
    if engine == "sqlite":
        yield _Database()
        return
    with contextlib.closing(postgresql.Server({"shared_buffers": "256MB"})) as server:
        url = server.url(server.new_database())
        pid = int((server.directory / "data" / "postmaster.pid").read_text().split()[0])
        yield _Database({"ROOST_DATABASE": url}, pid)


class _Centre:
    """One process of the centre: where it lies, and where it listens."""

    def __init__(self, directory: Path, number: int) -> None:
        self.home, self.log = directory / f"home-{number}", directory / f"central-{number}.log"
        self.door, self.links = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes]

    def command(self, keys: Path, all_links: Sequence[str]) -> list[str]:
        up = roost("up", "--home", str(self.home), "--name", NAME, "--no-host", "--contained")
        up += ["--keys", str(keys), "--address", self.door, "--link-address", self.links]
        return up + [part for where in all_links for part in ("--advertise", where)]

    def share_authority(self, other: _Centre) -> None:
        (other.home / "pki").mkdir(parents=True, mode=0o700, exist_ok=True)
        for name in ("ca.crt", "ca.key"):
            shutil.copy(self.home / "pki" / name, other.home / "pki" / name)


class _Run:
    """One number of subclouds on one centre."""

    def __init__(self, directory: Path, database: _Database, count: int, found: Found) -> None:
        self._directory, self._database, self._count, self._found = directory, database, count, found
        several = -(-count // LINKS) if database.pid else 1
        self._centres = [_Centre(directory, number) for number in range(several)]
        self._home = self._centres[0].home
        self._many: Many

    async def run(self) -> None:
        self._many = Many(
            count=self._count,
            hosts=HOSTS,
            endpoint=self._centres[0].links,
            more=[centre.links for centre in self._centres[1:]],
            directory=self._directory / "sites",
            heartbeat=HEARTBEAT,
        )
        async with self._many:
            async with self._up():
                tokens = await self._declare()
                await self._enrol(tokens)
                async with self._client() as client:
                    await self._dial(client)
                    await self._at_rest()
                    await self._changes()
                    await self._intent()
                    await self._storm(client)
                    await self._lost_and_back(client)
            async with self._up():
                began = time.monotonic()
                async with self._client() as client:
                    await self._until(self._linked, began, "the centre starts again: all linked")
                    await self._until(
                        lambda: self._online(client), began, "the centre starts again: all online"
                    )

    # -- what is done

    async def _declare(self) -> dict[int, str]:
        began, tokens = time.monotonic(), dict[int, str]()
        numbers = iter(range(self._count))

        async with self._client() as client:
            await client.good(
                "POST", f"{GROUP}/subcloudgroups", _body("SubcloudGroup", {"metadata": {"name": ALL}})
            )

        async def some() -> None:
            async with self._client() as client:
                for number in numbers:
                    body = _subcloud(site_name(number))
                    await client.good("POST", f"{GROUP}/subclouds", body)
                    path = f"{GROUP}/subclouds/{site_name(number)}/enrolment"
                    answer = await client.good("POST", path, b'{"spec":{"expirationSeconds":86400}}')
                    tokens[number] = msgspec.json.decode(answer)["status"]["token"]

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        self._note("declared, and a token made for each", "s", time.monotonic() - began)
        return tokens

    async def _enrol(self, tokens: dict[int, str]) -> None:
        began = time.monotonic()
        wrong = await self._many.enrol(tokens)
        if wrong:
            raise RuntimeError("; ".join(wrong))
        self._note("all enrol", "s", time.monotonic() - began)

    async def _dial(self, client: Client) -> None:
        began = time.monotonic()
        await self._many.begin()
        await self._until(self._linked, began, "all dial: all linked")
        await self._until(lambda: self._online(client), began, "all dial: all online and in step")

    async def _at_rest(self) -> None:
        await asyncio.sleep(REST)
        used = self._used()
        await asyncio.sleep(REST)
        self._note(
            "at rest: processor of centre and database", "% of a core", 100 * (self._used() - used) / REST
        )
        resident = sum(memory(centre.process.pid).resident for centre in self._centres)
        self._note("at rest: processes of the centre", "", len(self._centres))
        self._note("at rest: memory of the centre", "MiB", resident)
        if self._database.pid:
            shares = sum(memory(pid).proportional for pid in family(self._database.pid))
            self._note("at rest: memory of PostgreSQL", "MiB", shares)

    async def _changes(self) -> None:
        for rate in RATES:
            delays = list[float]()
            watching = asyncio.ensure_future(self._watch(delays))
            await asyncio.sleep(1)
            await self._do("change", rate=float(rate), seconds=RATE_SECONDS)
            await asyncio.sleep(RATE_SECONDS + 5)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            what = f"{rate:,} changes a second at sites: seen in a watch"
            self._delays(what, delays)
            self._note(f"{what}, of those made", "%", 100 * len(delays) / (rate * RATE_SECONDS))

    async def _watch(self, delays: list[float]) -> None:
        async with self._client() as client:
            listed = msgspec.json.decode(await client.good("GET", f"{GROUP}/hosts?limit=1"))
            since = listed["metadata"]["resourceVersion"]
            async for line in client.watch(f"{GROUP}/hosts?watch=true&resourceVersion={since}"):
                now = time.time()
                if sent := _SENT.search(line):
                    delays.append(now - float(sent[1]))

    async def _intent(self) -> None:
        """Policies that are shared with one site each, declared at a rate."""
        for rate in RATES:
            await self._many.delays()
            began, made = time.monotonic(), 0
            places = iter(range(10**9))

            async def some(began: float = began, rate: int = rate, places: Iterator[int] = places) -> None:
                nonlocal made
                async with self._client() as client:
                    for place in places:
                        due = began + place / rate
                        if max(due, time.monotonic()) - began > RATE_SECONDS:
                            return
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
                        await _share(client, site_name(place % self._count), f"own-{rate}-{place}")
                        made += 1

            await asyncio.gather(*(some() for _ in range(AT_ONCE)))
            took = time.monotonic() - began
            await asyncio.sleep(5)
            what = f"{rate:,} policies a second at the centre: at their sites"
            self._delays(what, await self._many.delays())
            self._note(f"{what}, made in fact", "1/s", made / took)

    async def _storm(self, client: Client) -> None:
        began = time.monotonic()
        await self._do("alarms", count=ALARMS)
        await self._until(
            lambda: self._alarms(client, ALARMS * self._count), began, f"{ALARMS} alarms each: all here"
        )
        took = self._found[f"{ALARMS} alarms each: all here"][1][-1]
        self._note("alarms taken in", "1/s", ALARMS * self._count / took)
        await self._do("clear")
        await self._until(lambda: self._alarms(client, 0), time.monotonic(), "and all over")

    async def _lost_and_back(self, client: Client) -> None:
        began = time.monotonic()
        await self._do("cut")
        await self._until(
            lambda: self._lost(client), began, "all are lost at once: offline, an alarm for each"
        )
        began = time.monotonic()
        await self._do("mend")
        await self._until(lambda: self._online(client), began, "all return: online")
        await self._until(lambda: self._alarms(client, 0), began, "all return: no alarm left")

    # -- what is waited for

    async def _until(self, condition: Callable[[], Awaitable[bool]], began: float, what: str) -> None:
        async with asyncio.timeout(WITHIN):
            while not await condition():  # noqa: ASYNC110 - a real API is asked
                await asyncio.sleep(0.25)
        self._note(what, "s", time.monotonic() - began)

    async def _linked(self) -> bool:
        standing, _ = await self._many.standing()
        return standing["linked"] == standing["sites"]

    async def _online(self, client: Client) -> bool:
        standing, _ = await self._many.standing()
        return standing["inStep"] == self._count and await _online(client) == self._count

    async def _lost(self, client: Client) -> bool:
        return await _online(client) == 0 and await self._alarms(client, self._count)

    async def _alarms(self, client: Client, wanted: int) -> bool:
        head = msgspec.json.decode(await client.good("GET", f"{GROUP}/alarms?limit=1"))
        left = head["metadata"].get("remainingItemCount", 0)
        return len(head["items"]) + int(left) == wanted

    # -- inside

    @contextlib.asynccontextmanager
    async def _up(self) -> AsyncIterator[None]:
        links = [centre.links for centre in self._centres]
        first = self._centres[0]
        async with contextlib.AsyncExitStack() as running_ones:
            for centre in self._centres:
                if centre is not first:
                    first.share_authority(centre)
                up = centre.command(self._directory / "keys", links)
                centre.process = running_ones.enter_context(
                    running(up, centre.log, **self._database.environment)
                )
                kubeconfig = centre.home / "kubeconfig"
                ready = lambda kubeconfig=kubeconfig: is_ready(kubeconfig)  # noqa: E731 - asked in a thread
                await asyncio.to_thread(wait_for, ready, centre.process, centre.log)
            yield

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        where: Access = access(self._home / "kubeconfig")
        async with Client(where) as client:
            yield client

    async def _do(self, action: Action, **said: Any) -> None:
        await self._many.do(Step(action=action, **said))

    def _used(self) -> float:
        pids = [centre.process.pid for centre in self._centres]
        pids += family(self._database.pid) if self._database.pid else []
        return sum(map(processor_seconds, pids))

    def _delays(self, what: str, delays: list[float]) -> None:
        if delays:
            self._note(f"{what}, median", "ms", 1000 * percentile(delays, 0.5))
            self._note(f"{what}, 99th percentile", "ms", 1000 * percentile(delays, 0.99))
            self._note(f"{what}, maximum", "ms", 1000 * max(delays))

    def _note(self, what: str, unit: str, value: float) -> None:
        self._found.setdefault(what, (unit, []))[1].append(value)
        print(f"  {what}: {value:,.2f} {unit}", file=sys.stderr, flush=True)


def _subcloud(name: str) -> bytes:
    spec = {"managementState": "managed", "group": ALL}
    return _body("Subcloud", {"metadata": {"name": name}, "spec": spec})


async def _share(client: Client, site: str, name: str) -> None:
    """Share a policy with one site. Its labels go down with it, and say when it was declared."""
    metadata = {"name": name, "labels": {SENT_AT: f"{time.time():.6f}"}}
    rules = [{"action": "allow", "protocol": "tcp", "ports": ["22"]}]
    spec = {"networks": ["oam"], "rules": rules, "subclouds": {"names": [site]}}
    body = _body("FirewallPolicy", {"metadata": metadata, "spec": spec})
    await client.good("POST", f"{GROUP}/namespaces/{NAME}/firewallpolicies", body)


async def _online(client: Client) -> int:
    """How many subclouds are online, as the centre has added up: to ask each time for all would be a load."""
    group = msgspec.json.decode(await client.good("GET", f"{GROUP}/subcloudgroups/{ALL}"))
    return int(group["status"]["online"])


def _body(kind: str, parts: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"apiVersion": "roost.edge/v1", "kind": kind, **parts})
