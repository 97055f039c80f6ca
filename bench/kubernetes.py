"""Roost's API server beside Kubernetes' own: the same requests, the same objects, the same run.

Each server gets the same 10,000 FirewallPolicies of about 1.8 KB as Roost sends them; Kubernetes sends
more for the same object, as it adds `managedFields`. Runs alternate between the servers, so that a slow
moment of the machine meets all of them. Rates come from wrk (`bench.load`), delays of watches from a
process of their own (`bench.watchers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import msgspec
from tests.support.kubernetes import NotHere

from bench import load
from bench.client import MERGE_PATCH, Access, Client
from bench.figures import RUNS, Row, percentile
from bench.load import Load, Work
from bench.servers import KUBERNETES, NAMESPACE, SERVERS, Server
from bench.watchers import watched
from roost.model.codec import Raw

OBJECTS = 10_000
MANY = 100_000
PAGE = 500
SECONDS = 3.0
LOADERS = 16
NAMES = 10_000_000
GROUPS = 100
POLICIES = f"/apis/roost.edge/v1/namespaces/{NAMESPACE}/firewallpolicies"

ABOVE, BELOW = "1 or more", "1 or less"
Figures = dict[str, tuple[str, float, str]]
"""By what was measured: its unit, its value, and what its ratio to Kubernetes' should be."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: names of MEASUREMENTS and SERVERS, and how often. No names are all."""

    only: Sequence[str] = ()
    engines: Sequence[str] = ()
    runs: int = RUNS
    alone: bool = False


def creates(server: Server) -> Figures:
    """Creates by connections."""
    found = {n: load.run(server.access, _new(), connections=n, seconds=SECONDS) for n in (1, 8, 64)}
    return {f"create, {_over(n)}": ("1/s", made.rate, ABOVE) for n, made in found.items()}


def _new() -> Work:
    """Policies with names that nobody had: with generateName 20,000 meet each other now and then."""
    body = msgspec.json.encode(policy("@NAME@")).decode()
    stem = f"created-{secrets.token_hex(4)}-"
    return Work(method="POST", path=f"{POLICIES}/{stem}", names=NAMES, body=body)


def gets(server: Server) -> Figures:
    """Single gets of names that go round."""
    work = Work(path=f"{POLICIES}/policy-", names=1000)
    one = load.run(server.access, work, connections=1, seconds=SECONDS)
    eight = load.run(server.access, work, connections=8, seconds=SECONDS)
    return {
        "get, one connection: median": ("ms", one.median / 1000, BELOW),
        "get, one connection: 99th percentile": ("ms", one.tail / 1000, BELOW),
        f"get, {_over(8)}": ("1/s", eight.rate, ABOVE),
    }


def updates(server: Server) -> Figures:
    """PUT with the last resourceVersion, and merge patch; every one changes spec."""
    patch = Work(
        method="PATCH",
        path=f"{POLICIES}/policy-",
        names=1000,
        content=MERGE_PATCH,
        body='{"spec":{"order":@N@}}',
    )
    whole = policy("@NAME@")
    whole["metadata"]["resourceVersion"] = "@REVISION@"
    whole["spec"]["order"] = 4711
    text = msgspec.json.encode(whole).decode().replace("4711", "@N@")
    replace = Work(method="PUT", path=f"{POLICIES}/policy-", names=16, body=text)
    figures: Figures = {}
    for what, work in (("merge patch", patch), ("PUT", replace)):
        for connections in (1, 8):
            made = load.run(server.access, work, connections=connections, seconds=SECONDS)
            figures[f"{what}, {_over(connections)}"] = ("1/s", made.rate, ABOVE)
    return figures


def lists(server: Server) -> Figures:
    """A list of everything: whole, and as of any revision (which Kubernetes has in memory)."""
    whole = _enough(server, Work(path=POLICIES))
    remembered = _enough(server, Work(path=f"{POLICIES}?resourceVersion=0"))
    return {
        f"list of {OBJECTS:,}, whole": ("ms", whole.median / 1000, BELOW),
        f"list of {OBJECTS:,}, size": ("MB", asyncio.run(_size(server)) / 1e6, ""),
        f"list of {OBJECTS:,}, resourceVersion=0": ("ms", remembered.median / 1000, BELOW),
    }


def pages(server: Server) -> Figures:
    """The same list page by page; apart, for a load of whole lists slows a server down for a while."""
    taken = median(_pages(server.access) for _ in range(10))
    return {f"list of {OBJECTS:,}, in pages of {PAGE}": ("ms", taken * 1000, BELOW)}


def selectors(server: Server) -> Figures:
    """Lists that choose few of many."""
    label = Work(path=f"{POLICIES}?labelSelector=bench-group%3Dgroup-7")
    field = Work(path=f"{POLICIES}?fieldSelector=metadata.name%3Dpolicy-77")
    figures: Figures = {}
    for what, work in ((f"label selector, {OBJECTS // GROUPS}", label), ("field selector, 1", field)):
        made = _enough(server, work)
        figures[f"list by {what} of {OBJECTS:,}"] = ("ms", made.median / 1000, BELOW)
    return figures


def watches(server: Server) -> Figures:
    """From the answer to a write until its event is with a watcher."""
    figures: Figures = {}
    for number, writes in ((1, 50), (100, 20), (1000, 10)):
        found = watched(server.access, POLICIES, "policy-0", watchers=number, writes=writes)
        who = "1 watcher" if number == 1 else f"{number:,} watchers"
        figures[f"watch, {who}: median delay"] = ("ms", median(found), BELOW)
        figures[f"watch, {who}: 99th percentile"] = ("ms", percentile(found, 0.99), BELOW)
    return figures


def resident(server: Server) -> Figures:
    """Resident memory as it is now."""
    return _memory(server, OBJECTS)


def start(server: Server) -> Figures:
    """How long the server took to be ready on an empty database."""
    return {"start to ready, empty database": ("s", server.started_in, BELOW)}


def many(server: Server) -> Figures:
    """Resident memory with MANY objects, made by several connections."""
    there = asyncio.run(_count(server.access))
    began, before = time.monotonic(), there
    while there < MANY:
        seconds = min(20, 1 + (MANY - there) / 800)
        there += load.run(server.access, _new(), connections=LOADERS, seconds=seconds).requests
    if there > before:
        _tell(f"{server.name}: {there - before} more objects in {time.monotonic() - began:.0f} s")
    time.sleep(5)
    return _memory(server, MANY)


MEASUREMENTS: dict[str, Callable[[Server], Figures]] = {
    "start": start,
    "memory": resident,
    "gets": gets,
    "pages": pages,
    "lists": lists,
    "selectors": selectors,
    "watches": watches,
    "updates": updates,
    "creates": creates,
    "many": many,
}
ONCE = frozenset({"memory", "many", "start"})
WITHOUT_OBJECTS = frozenset({"start", "creates"})
"""Measurements that need no policies to be there."""


def measure(choice: Choice | None = None) -> list[Row]:
    """All rows asked for; without Kubernetes' programs those of Roost alone."""
    choice = choice or Choice()
    chosen = _known(choice.only, MEASUREMENTS)
    engines = [name for name in _known(choice.engines, SERVERS) if name != KUBERNETES]
    if not choice.alone:
        engines.append(KUBERNETES)
    found: dict[str, dict[str, list[float]]] = {}
    facts: dict[str, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        servers = [s for name in engines if (s := _opened(name, Path(directory), stack))]
        if not WITHOUT_OBJECTS.issuperset(chosen):
            for server in servers:
                _fill(server)
        for name in chosen:
            for _ in range(1 if name in ONCE else choice.runs):
                for server in servers:
                    for what, (unit, value, goal) in _measured(name, server).items():
                        facts[what] = (unit, goal)
                        found.setdefault(what, {}).setdefault(server.name, []).append(value)
    return _rows(found, facts)


def _measured(name: str, server: Server) -> Figures:
    """One measurement; none when requests failed, which is told: a rate of errors is no rate."""
    _tell(f"{name}: {server.name}")
    try:
        return MEASUREMENTS[name](server)
    except load.Failed as error:
        _tell(f"{name}: {server.name} failed: {error}")
        return {}


def policy(name: str) -> Raw:
    """A FirewallPolicy of about 1.8 KB."""
    metadata: Raw = {"name": name, "namespace": NAMESPACE}
    number = name.rpartition("-")[2]
    group = int(number) % GROUPS if number.isdigit() else 0
    metadata["labels"] = {"bench-group": f"group-{group}", "site": "harbor"}
    rules = [
        {
            "action": "allow",
            "protocol": "tcp",
            "ports": [str(1000 + n), f"{8000 + n}-{8010 + n}"],
            "peers": [f"192.0.{n}.0/24", "2001:db8::/32"],
            "description": "Management stations reach the platform here",
        }
        for n in range(7)
    ]
    spec = {"networks": ["oam", "mgmt"], "rules": rules}
    return {"apiVersion": "roost.edge/v1", "kind": "FirewallPolicy", "metadata": metadata, "spec": spec}


def _known(given: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names given, or all; raises SystemExit for one that is not there."""
    known = list(names)
    for name in given:
        if name not in known:
            raise SystemExit(f"there is no {name!r} to measure; choose from {', '.join(known)}")
    return [name for name in known if not given or name in given]


def _rows(found: dict[str, dict[str, list[float]]], facts: dict[str, tuple[str, str]]) -> list[Row]:
    rows = []
    for what, by_server in found.items():
        unit, goal = facts[what]
        peer = by_server.get("Kubernetes", [])
        rows += [
            Row(
                room=name,
                what=what,
                unit=unit,
                runs=runs,
                peer=peer,
                beside="Kubernetes",
                goal=goal and f"ratio {goal}",
            )
            for name, runs in by_server.items()
            if name != "Kubernetes" and runs
        ]
    return rows


def _opened(name: str, directory: Path, stack: contextlib.ExitStack) -> Server | None:
    home = directory / name
    home.mkdir()
    try:
        server = stack.enter_context(SERVERS[name](home))
    except NotHere as error:
        _tell(f"{name} is not measured: {error}")
        return None
    _tell(f"{server.name} is up")
    return server


def _fill(server: Server) -> None:
    """OBJECTS policies, named policy-0 and on."""

    async def some(first: int) -> None:
        async with Client(server.access) as client:
            for n in range(first, OBJECTS, LOADERS):
                await client.good("POST", POLICIES, msgspec.json.encode(policy(f"policy-{n}")))

    async def all_of_them() -> None:
        await asyncio.gather(*(some(first) for first in range(LOADERS)))

    began = time.monotonic()
    asyncio.run(all_of_them())
    _tell(f"{server.name} has {OBJECTS:,} policies after {time.monotonic() - began:.1f} s")


def _enough(server: Server, work: Work) -> Load:
    """One connection for as long as several answers need: wrk tells nothing of one whose end it missed."""

    async def once() -> float:
        async with Client(server.access) as client:
            began = time.monotonic()
            await client.good(work.method, work.path)
            return time.monotonic() - began

    seconds = max(SECONDS, 5 * asyncio.run(once()))
    return load.run(server.access, work, connections=1, seconds=seconds)


async def _size(server: Server) -> int:
    """Bytes of a whole list."""
    async with Client(server.access) as client:
        return len(await client.good("GET", POLICIES))


def _pages(where: Access) -> float:
    """Seconds for a whole list, page by page, on one connection that is already there."""
    connection = http.client.HTTPSConnection(where.host, where.port, context=where.context, timeout=60)
    with contextlib.closing(connection):
        connection.connect()
        began, token = time.perf_counter(), b""
        while True:
            after = f"&continue={token.decode()}" if token else ""
            headers = {"Authorization": f"Bearer {where.token}", "Accept": "application/json"}
            connection.request("GET", f"{POLICIES}?limit={PAGE}{after}", headers=headers)
            answer = connection.getresponse().read()
            found = re.search(rb'"continue":"([^"]+)"', answer[:2000])
            if found is None:
                return time.perf_counter() - began
            token = found[1]


async def _count(where: Access) -> int:
    """How many policies there are."""
    async with Client(where) as client:
        seen, token = 0, ""
        while True:
            page = await client.good("GET", f"{POLICIES}?limit=5000&continue={token}")
            decoded = msgspec.json.decode(page)
            seen += len(decoded["items"])
            token = decoded["metadata"].get("continue", "")
            if not token:
                return seen


def _memory(server: Server, objects: int) -> Figures:
    found = server.memory()
    what = f"resident memory with {objects:,} policies"
    figures: Figures = {what: ("MiB", sum(found.values()), BELOW)}
    if len(found) > 1:
        _tell(
            f"{server.name}, {what}: " + ", ".join(f"{name} {size:.0f} MiB" for name, size in found.items())
        )
    return figures


def _over(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"


def _tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
