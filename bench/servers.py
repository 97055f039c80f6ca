"""The servers that are measured side by side: Roost's API on each database, and Kubernetes'.

Each runs in processes of its own on loopback, with TLS, on the same disk, and is asked with a bearer
token. FirewallPolicies are served by all: Kubernetes has them from a CustomResourceDefinition.

- `sqlite`, `postgresql`: Roost's API server alone (`bench.door`);
- `cloud`: a whole `roost up` on SQLite, whose controllers act on every policy that is written;
- `kubernetes`: kube-apiserver and etcd.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from tests.differential.definitions import definition
from tests.support import postgresql
from tests.support.kubernetes import NotHere, kubernetes

from bench import door
from bench.client import Access, Client, access, is_ready
from bench.process import family, free_port, memory, roost, running, wait_for
from roost.model.codec import Raw
from roost.model.firewall import FIREWALL_POLICY
from roost.store.database import sqlite_url

NAMESPACE = door.CLOUD
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ESTABLISHED_WITHIN = 30.0


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A running server. `processes` are pids by name; `started_in` is seconds from nothing to ready."""

    name: str
    access: Access
    processes: dict[str, int]
    started_in: float

    def memory(self) -> dict[str, float]:
        """MiB by process: resident memory, and for one with children the sum of all proportional shares."""
        found = {}
        for name, pid in self.processes.items():
            sizes = [memory(member) for member in family(pid)]
            found[name] = sizes[0].resident if len(sizes) == 1 else sum(s.proportional for s in sizes)
        return found


@contextlib.contextmanager
def _sqlite(directory: Path) -> Iterator[Server]:
    with door_of("SQLite", directory, sqlite_url(directory / "roost.db")) as server:
        yield server


@contextlib.contextmanager
def _postgresql(directory: Path) -> Iterator[Server]:
    if postgresql.programs() is None:
        raise NotHere("there is no PostgreSQL server: install Debian's postgresql")
    with contextlib.closing(postgresql.Server({"shared_buffers": "128MB"})) as database:
        database.stop()
        began = time.monotonic()
        database.start()
        url = database.url(database.new_database())
        with door_of("PostgreSQL", directory, url) as found:
            took = time.monotonic() - began
            pid = int((database.directory / "data" / "postmaster.pid").read_text().split()[0])
            processes = {**found.processes, "postgresql": pid}
            yield msgspec.structs.replace(found, processes=processes, started_in=took)


@contextlib.contextmanager
def door_of(name: str, directory: Path, url: str) -> Iterator[Server]:
    """Roost's API server alone on a database."""
    port, log, began = free_port(), directory / "door.log", time.monotonic()
    command = [sys.executable, "-m", "bench.door", str(directory), str(port), url]
    with running(command, log) as process:
        wait_for(lambda: _answers(directory, port), process, log)
        took = time.monotonic() - began
        processes = {"roost": process.pid}
        yield Server(name=name, access=_access(directory, port), processes=processes, started_in=took)


@contextlib.contextmanager
def _cloud(directory: Path) -> Iterator[Server]:
    home, port, log, began = directory / "home", free_port(), directory / "roost.log", time.monotonic()
    up = roost("up", "--home", str(home), "--name", NAMESPACE, "--no-host", "--contained")
    up += ["--address", f"127.0.0.1:{port}", "--link-address", f"127.0.0.1:{free_port()}"]
    with running(up, log) as process:
        wait_for(lambda: is_ready(home / "kubeconfig"), process, log)
        took = time.monotonic() - began
        yield Server(
            name="whole cloud on SQLite",
            access=asyncio.run(_with_token(access(home / "kubeconfig"))),
            processes={"roost": process.pid},
            started_in=took,
        )


@contextlib.contextmanager
def _kubernetes(directory: Path) -> Iterator[Server]:
    with kubernetes(directory) as found:
        context = ssl.create_default_context(cafile=str(found.authority))
        where = Access("127.0.0.1", found.port, context, found.token)
        asyncio.run(_define(where))
        yield Server(
            name="Kubernetes",
            access=where,
            processes={"kube-apiserver": found.apiserver, "etcd": found.etcd},
            started_in=found.started_in,
        )


KUBERNETES = "kubernetes"
SERVERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Server]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "cloud": _cloud,
    KUBERNETES: _kubernetes,
}


def _answers(directory: Path, port: int) -> bool:
    """Whether a door is open; its token is the last thing it writes before it listens."""
    if not (directory / "token").exists():
        return False

    async def ask() -> bool:
        async with asyncio.timeout(5), Client(_access(directory, port)) as client:
            return (await client.ask("GET", "/readyz"))[0] == 200

    try:
        return asyncio.run(ask())
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


def _access(directory: Path, port: int) -> Access:
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    return Access("127.0.0.1", port, context, (directory / "token").read_text())


async def _with_token(where: Access) -> Access:
    """A way in with a bearer token, for one with a client certificate."""
    user: Raw = {"apiVersion": "roost.edge/v1", "kind": "User", "metadata": {"name": door.USER}}
    user["spec"] = {"role": "administrator"}
    users = "/apis/roost.edge/v1/users"
    async with Client(where) as client:
        await client.good("POST", users, msgspec.json.encode(user))
        answer = await client.good("POST", f"{users}/{door.USER}/token", b"{}")
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=_authority(where))
    return Access(where.host, where.port, context, msgspec.json.decode(answer)["status"]["token"])


def _authority(where: Access) -> bytes:
    return b"".join(where.context.get_ca_certs(binary_form=True))


async def _define(where: Access) -> None:
    """FirewallPolicy and the namespace in a Kubernetes server; returns once both are served."""
    info = FIREWALL_POLICY
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    async with Client(where) as client, asyncio.timeout(ESTABLISHED_WITHIN):
        await client.good("POST", "/api/v1/namespaces", msgspec.json.encode(namespace))
        await client.good("POST", DEFINITIONS, msgspec.json.encode(definition(info)))
        served = f"/apis/{info.group}/{info.version}/namespaces/{NAMESPACE}/{info.plural}"
        while (await client.ask("GET", served))[0] != 200:  # noqa: ASYNC110 - it can only be asked
            await asyncio.sleep(0.1)
