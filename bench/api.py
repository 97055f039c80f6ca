"""The API of a real `roost up` over HTTPS on loopback, beside a bare peer asked for as many bytes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import msgspec

from bench.client import MERGE_PATCH, Access, Client, access, is_ready
from bench.figures import RUNS, Row, percentile
from bench.process import free_port, roost, running, wait_for

SINGLE = 200
LISTED = 1000
LISTS = 10
WATCHED = 200
CONNECTIONS = 8
SECONDS = 3.0
CLOUD = "bench"
POLICIES = f"/apis/roost.edge/v1/namespaces/{CLOUD}/firewallpolicies"
Single = Callable[[Client, int], Awaitable[object]]


def measure() -> list[Row]:
    """All rows of this module."""
    with tempfile.TemporaryDirectory() as directory:
        return _measure(Path(directory))


def _measure(directory: Path) -> list[Row]:
    home, port = directory / "home", free_port()
    up = roost("up", "--home", str(home), "--name", CLOUD, "--no-host", "--contained")
    up += ["--address", f"127.0.0.1:{port}", "--link-address", f"127.0.0.1:{free_port()}"]
    log, kubeconfig = directory / "roost.log", home / "kubeconfig"
    with running(up, log) as process:
        wait_for(lambda: is_ready(kubeconfig), process, log)
        ours = access(kubeconfig)
        theirs = Access(ours.host, free_port(), ours.context)
        bare = ["-m", "bench.peer", str(theirs.port), str(home / "pki" / "server.pem")]
        peer_log = directory / "peer.log"
        with running([up[0], *bare], peer_log) as peer:
            wait_for(lambda: _listens(theirs), peer, peer_log)
            return asyncio.run(_runs(ours, theirs))


def _listens(where: Access) -> bool:
    async def ask() -> bool:
        async with Client(where) as client:
            return (await client.ask("GET", "/bytes/100"))[0] == 200

    try:
        return asyncio.run(ask())
    except OSError:
        return False


async def _runs(ours: Access, theirs: Access) -> list[Row]:
    found: dict[str, tuple[str, list[float], list[float]]] = {}

    def note(what: str, unit: str, value: float, peer: float | None = None) -> None:
        _, runs, peers = found.setdefault(what, (unit, [], []))
        runs.append(value)
        if peer is not None:
            peers.append(peer)

    for run in range(RUNS):
        async with Client(ours) as client, Client(theirs) as bare:
            await _singles(client, bare, run, note)
            await _watch(ours, client, run, note)
            await _lists(client, bare, run, note)
            await _throughput(ours, theirs, run, note)
            for n in range(LISTED):
                await client.good("DELETE", f"{POLICIES}/p{run}-{n}")
    return [
        Row(room="api", what=what, unit=unit, runs=runs, peer=peers)
        for what, (unit, runs, peers) in found.items()
    ]


Note = Callable[..., None]


async def _singles(client: Client, bare: Client, run: int, note: Note) -> None:
    """One request after the other on one connection."""
    size = len(await client.good("POST", POLICIES, _policy(f"first-{run}")))

    async def create(c: Client, n: int) -> None:
        await c.good("POST", POLICIES, _policy(f"p{run}-{n}"))

    async def get(c: Client, n: int) -> None:
        await c.good("GET", f"{POLICIES}/p{run}-{n}")

    async def update(c: Client, n: int) -> None:
        await c.good("PATCH", f"{POLICIES}/p{run}-{n}", _patch(n), MERGE_PATCH)

    for what, work, method, body in (
        ("create", create, "POST", _policy("p")),
        ("get", get, "GET", b""),
        ("update by merge patch", update, "PATCH", _patch(1)),
    ):

        async def peer(c: Client, _: int, method: str = method, body: bytes = body) -> None:
            await c.good(method, f"/bytes/{size}", body)

        mine, its = await _times(client, work), await _times(bare, peer)
        note(f"{what}, median of {SINGLE}", "ms", median(mine), median(its))
        note(f"{what}, 99th percentile", "ms", percentile(mine, 0.99), percentile(its, 0.99))
    await client.good("DELETE", f"{POLICIES}/first-{run}")


async def _times(client: Client, work: Single) -> list[float]:
    taken = []
    for n in range(SINGLE):
        began = time.perf_counter()
        await work(client, n)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


async def _watch(where: Access, client: Client, run: int, note: Note) -> None:
    """From the answer to a write until its event is here; below 0 when the event came first."""
    came: dict[str, float] = {}
    arrived = asyncio.Event()
    listed = msgspec.json.decode(await client.good("GET", POLICIES))
    since = listed["metadata"]["resourceVersion"]

    async def follow() -> None:
        async with Client(where) as watching:
            async for line in watching.watch(f"{POLICIES}?watch=true&resourceVersion={since}"):
                now = time.perf_counter()
                if line:
                    came.setdefault(msgspec.json.decode(line)["object"]["metadata"]["resourceVersion"], now)
                    arrived.set()

    following = asyncio.create_task(follow())
    delays = []
    for n in range(WATCHED):
        answer = await client.good("PATCH", f"{POLICIES}/p{run}-{n}", _patch(1000 + n), MERGE_PATCH)
        answered = time.perf_counter()
        revision = msgspec.json.decode(answer)["metadata"]["resourceVersion"]
        async with asyncio.timeout(10):
            while revision not in came:
                arrived.clear()
                await arrived.wait()
        delays.append((came[revision] - answered) * 1000)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    note(f"watch: event after the write's answer, median of {WATCHED}", "ms", median(delays))
    note("watch: event after the write's answer, 99th percentile", "ms", percentile(delays, 0.99))


async def _lists(client: Client, bare: Client, run: int, note: Note) -> None:
    for n in range(SINGLE, LISTED):
        await client.good("POST", POLICIES, _policy(f"p{run}-{n}"))
    size = len(await client.good("GET", POLICIES))
    mine, its = [], []
    for _ in range(LISTS):
        began = time.perf_counter()
        await client.good("GET", POLICIES)
        mine.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        await bare.good("GET", f"/bytes/{size}")
        its.append((time.perf_counter() - began) * 1000)
    note(f"list of {LISTED} firewall policies ({size / 1e6:.1f} MB)", "ms", median(mine), median(its))


async def _throughput(ours: Access, theirs: Access, run: int, note: Note) -> None:
    async def get(client: Client, worker: int, n: int) -> None:
        await client.good("GET", f"{POLICIES}/p{run}-{(worker + n * CONNECTIONS) % LISTED}")

    async def update(client: Client, worker: int, n: int) -> None:
        name = f"p{run}-{(worker + n * CONNECTIONS) % LISTED}"
        await client.good("PATCH", f"{POLICIES}/{name}", _patch(5000 + n), MERGE_PATCH)

    async def bare_get(client: Client, worker: int, n: int) -> None:
        await client.good("GET", "/bytes/900")

    async def bare_update(client: Client, worker: int, n: int) -> None:
        await client.good("PATCH", "/bytes/900", _patch(n), MERGE_PATCH)

    for what, work, peer in (("get", get, bare_get), ("update", update, bare_update)):
        mine, its = await _rate(ours, work), await _rate(theirs, peer)
        note(f"{what}, {CONNECTIONS} connections, {LISTED} policies", "1/s", mine, its)


async def _rate(where: Access, work: Callable[[Client, int, int], Awaitable[None]]) -> float:
    """Requests a second over all connections, each asking as soon as it is answered."""
    done, end = 0, time.perf_counter() + SECONDS

    async def one(worker: int) -> None:
        nonlocal done
        async with Client(where) as client:
            n = 0
            while time.perf_counter() < end:
                await work(client, worker, n)
                n, done = n + 1, done + 1

    began = time.perf_counter()
    await asyncio.gather(*(one(worker) for worker in range(CONNECTIONS)))
    return done / (time.perf_counter() - began)


def _policy(name: str) -> bytes:
    rule = {"action": "allow", "protocol": "tcp", "ports": ["22", "443"], "peers": ["192.0.2.0/24"]}
    return msgspec.json.encode(
        {
            "apiVersion": "roost.edge/v1",
            "kind": "FirewallPolicy",
            "metadata": {"name": name, "namespace": CLOUD},
            "spec": {"networks": ["oam"], "rules": [rule, {**rule, "direction": "egress"}]},
        }
    )


def _patch(n: int) -> bytes:
    return msgspec.json.encode({"spec": {"order": 1 + n % 9999}})
