"""Memory and processor load of real processes at rest: simplex clouds, and agents of hosts on their own.

RUNS of each are started side by side, each in a home of its own, left alone for SETTLE seconds, then
watched for WINDOW seconds. Each simplex has this machine's real inventory and its host unlocked; each
agent is joined by token to a cloud that is not measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec

from bench.client import Client, access, is_ready
from bench.figures import RUNS, Row
from bench.process import free_port, memory, processor_seconds, roost, running, wait_for

SETTLE = 30.0
WINDOW = 30.0
CLOUD = "bench"
HOSTS = f"/apis/roost.edge/v1/namespaces/{CLOUD}/hosts"


def measure() -> list[Row]:
    """All rows of this module."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as processes:
        root = Path(directory)
        clouds = [_cloud(root / f"simplex-{n}", processes) for n in range(RUNS)]
        upper = [_cloud(root / f"upper-{n}", processes, "--mode", "standard") for n in range(RUNS)]
        agents = [_agent(root / f"agent-{n}", root / f"upper-{n}", processes) for n in range(RUNS)]
        for n in range(RUNS):
            asyncio.run(_wait_for_host(root / f"simplex-{n}", "controller-0"))
            asyncio.run(_wait_for_host(root / f"upper-{n}", "worker-0"))
        del upper
        time.sleep(SETTLE)
        return [
            row
            for name, measured, goal in (("simplex cloud", clouds, 100), ("agent", agents, 60))
            for row in _at_rest(name, measured, goal)
        ]


def _at_rest(name: str, processes: list[subprocess.Popen[bytes]], goal: int) -> list[Row]:
    pids = [p.pid for p in processes]
    before = [processor_seconds(pid) for pid in pids]
    time.sleep(WINDOW)
    used = [100 * (processor_seconds(pid) - b) / WINDOW for pid, b in zip(pids, before, strict=True)]
    sizes = [memory(pid) for pid in pids]
    resident, shared = [m.resident for m in sizes], [m.proportional for m in sizes]
    return [
        Row(room="memory", what=f"{name} at rest: VmRSS", unit="MiB", runs=resident, goal=f"under {goal}"),
        Row(room="memory", what=f"{name} at rest: Pss", unit="MiB", runs=shared),
        Row(room="memory", what=f"{name} at rest: processor", unit="% of a core", runs=used),
    ]


def _cloud(home: Path, processes: contextlib.ExitStack, *options: str) -> subprocess.Popen[bytes]:
    """A running cloud with this machine as its host."""
    log = home.with_suffix(".log")
    up = roost("up", "--home", str(home), "--name", CLOUD, "--contained", *options)
    up += ["--address", f"127.0.0.1:{free_port()}", "--link-address", f"127.0.0.1:{free_port()}"]
    process = processes.enter_context(running(up, log))
    wait_for(lambda: is_ready(home / "kubeconfig"), process, log)
    asyncio.run(_unlock(home))
    return process


def _agent(home: Path, upper: Path, processes: contextlib.ExitStack) -> subprocess.Popen[bytes]:
    """A running agent, joined to a cloud as `worker-0`."""
    token, log = home.with_suffix(".token"), home.with_suffix(".log")
    token.write_text(asyncio.run(_invite(upper)))
    token.chmod(0o600)
    command = roost("agent", "--home", str(home), "--join", str(token), "--contained")
    return processes.enter_context(running(command, log))


async def _unlock(home: Path) -> None:
    body = b'{"spec": {"administrativeState": "unlocked"}}'
    async with Client(access(home / "kubeconfig")) as client:
        await client.good("PATCH", f"{HOSTS}/controller-0", body, "application/merge-patch+json")


async def _invite(home: Path) -> str:
    """Declare a host and get a token for it."""
    host: dict[str, object] = {
        "apiVersion": "roost.edge/v1",
        "kind": "Host",
        "metadata": {"name": "worker-0"},
    }
    host["spec"] = {"administrativeState": "unlocked", "personalities": ["worker"]}
    async with Client(access(home / "kubeconfig")) as client:
        await client.good("POST", HOSTS, msgspec.json.encode(host))
        answer = await client.good("POST", f"{HOSTS}/worker-0/enrolment", b"{}")
    token: str = msgspec.json.decode(answer)["status"]["token"]
    return token


async def _wait_for_host(home: Path, name: str) -> None:
    """Until a host has told its inventory and is unlocked."""
    async with asyncio.timeout(60), Client(access(home / "kubeconfig")) as client:
        while True:
            status = msgspec.json.decode(await client.good("GET", f"{HOSTS}/{name}")).get("status", {})
            if status.get("inventory") and status.get("operational") == "enabled":
                return
            await asyncio.sleep(0.25)
