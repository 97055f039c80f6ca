"""How the demo comes up: real processes in a laboratory of namespaces, set up through the API alone.

1. The central cloud starts in its namespace; its API listens on a socket of this machine's own.
2. Subclouds are declared; each gets a one-time enrolment token in a file only its owner can read.
3. The first controller of each site starts with its token and enrols through the site's router.
4. Through the links, each site gets its platform networks and its further hosts; their agents enrol.
5. Subclouds are managed, a firewall policy is declared at the centre, hosts are unlocked.
6. It is ready when every host is available and the policy is in force everywhere.

Each wait has a deadline and says what it waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from roost.cli import kubeconfig
from roost.cli.client import Client
from roost.cli.kinds import FIREWALL_POLICY, HOST, PLATFORM_NETWORK, SUBCLOUD, Kind
from roost.cli.kubeconfig import Target
from roost.cli.problems import Failed, NotFound, Problem, Unreachable
from roost.model.meta import API_VERSION
from roost.sim.lab.lab import Lab
from roost.sim.lab.supervisor import Process
from roost.sim.lab.topology import CENTRE, HostPlan, SitePlan

CENTRAL = "central"
LINK_PORT = 7444
POLICY = "site-baseline"
READY_WITHIN = 60.0
STEP_WITHIN = 90.0
THRESHOLDS: dict[str, dict[str, int]] = {
    "processor": {"minor": 0, "major": 0, "critical": 0},
    "memory": {"minor": 0, "major": 80, "critical": 0},
    "filesystem": {"minor": 0, "major": 80, "critical": 0},
}
"""All hosts share one machine: its load and its full disk are nobody's here, and degrade no host."""
T = TypeVar("T")
Raw = dict[str, Any]


class Story:
    """One run of the demo on a laboratory that stands."""

    def __init__(
        self,
        lab: Lab,
        api: tuple[str, int],
        report: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is for every process besides what the demo sets."""
        self._environment = {"ROOST_RETRY_SECONDS": "2", **(environment or {})}
        self._lab, self._directory = lab, lab.directory
        self._address = f"{api[0]}:{api[1]}"
        self._report = report
        self._upper = f"{lab.plan.centre.ipv4}:{LINK_PORT}"
        self.kubeconfig = self._directory / "kubeconfig"

    async def bring_up(self, listener: int) -> None:
        """Everything, in order; raises LabError or Problem."""
        await self._central(listener)
        await asyncio.gather(*(self._site(site) for site in self._lab.plan.sites))
        self._report("every host has enrolled; unlocking them")
        await self._policy()
        await self._patch(HOST, CENTRAL, CENTRAL, "controller-0", {"spec": {"thresholds": THRESHOLDS}})
        await asyncio.gather(*(self._unlock(CENTRAL, "controller-0"), *self._unlocks()))
        await self._settled()

    # -- the central cloud

    async def _central(self, listener: int) -> None:
        self._report("starting the central cloud")
        home = self._directory / CENTRE
        self._add(
            CENTRE,
            CENTRE,
            "up",
            home,
            "--name",
            CENTRAL,
            "--address",
            self._address,
            "--link-address",
            f"0.0.0.0:{LINK_PORT}",
            "--advertise",
            self._upper,
            pass_fds={"api": listener},
        )
        await self._lab.supervisor.ready(CENTRE, within=READY_WITHIN)
        self._write_kubeconfig(home / "kubeconfig")
        self._report(f"the central cloud answers at https://{self._address}")

    def _write_kubeconfig(self, of_central: Path) -> None:
        """One context per cloud; the subclouds' go through the centre."""
        _, raw = kubeconfig.read(of_central)
        cluster, user = raw["clusters"][0]["cluster"], raw["users"][0]["user"]
        made: Raw = {}
        for name in (*(site.name for site in self._lab.plan.sites), CENTRAL):
            server = cluster["server"] if name == CENTRAL else f"{cluster['server']}/clouds/{name}"
            made = kubeconfig.remember(made, name, {**cluster, "server": server}, user, name)
        kubeconfig.write(self.kubeconfig, made)

    # -- sites

    async def _site(self, site: SitePlan) -> None:
        await self._create(SUBCLOUD, CENTRAL, "", {"name": site.name}, {"description": site.mode})
        token = await self._token(CENTRAL, SUBCLOUD, "", site.name)
        first = site.hosts[0]
        self._add(
            first.name,
            first.name,
            "up",
            self._home(first),
            "--name",
            site.name,
            "--mode",
            site.mode,
            "--join",
            str(self._keep(first.name, token)),
            "--link-address",
            f"{first.mgmt.ipv4}:{LINK_PORT}",
            "--advertise",
            f"{first.mgmt.ipv4}:{LINK_PORT}",
        )
        await self._lab.supervisor.ready(first.name, within=READY_WITHIN)
        await self._until(f"{site.name} is online", lambda: self._is_online(site.name))
        self._report(f"{site.name} has enrolled through its router")
        await self._networks(site)
        patch = {"spec": {"managementState": "managed"}}
        await self._patch(SUBCLOUD, CENTRAL, "", site.name, patch)
        await self._host_facts(site, first)
        await asyncio.gather(*(self._host(site, host) for host in site.hosts[1:]))

    async def _networks(self, site: SitePlan) -> None:
        for name, subnets in (("oam", site.oam_subnets), ("mgmt", site.mgmt_subnets)):
            spec = {"type": name, "subnets": list(subnets)}
            await self._create(PLATFORM_NETWORK, site.name, site.name, {"name": name}, spec)

    async def _host_facts(self, site: SitePlan, host: HostPlan) -> None:
        patch = {"spec": {"personalities": list(host.personalities), "thresholds": THRESHOLDS}}
        await self._patch(HOST, site.name, site.name, host.host, patch)

    async def _host(self, site: SitePlan, host: HostPlan) -> None:
        spec = {"personalities": list(host.personalities), "thresholds": THRESHOLDS}
        await self._create(HOST, site.name, site.name, {"name": host.host}, spec)
        token = await self._token(site.name, HOST, site.name, host.host)
        join = str(self._keep(host.name, token))
        self._add(host.name, host.name, "agent", self._home(host), "--join", join)
        await self._lab.supervisor.ready(host.name, within=READY_WITHIN)
        self._report(f"{host.name} has enrolled with {site.name}")

    def _unlocks(self) -> Iterator[Awaitable[None]]:
        return (self._unlock(site.name, h.host) for site in self._lab.plan.sites for h in site.hosts)

    async def _unlock(self, cloud: str, host: str) -> None:
        await self._patch(HOST, cloud, cloud, host, {"spec": {"administrativeState": "unlocked"}})

    async def _policy(self) -> None:
        text = (Path(__file__).parent / "policy.yaml").read_text()
        body = yaml.safe_load(text)
        await self._create(FIREWALL_POLICY, CENTRAL, CENTRAL, {"name": POLICY}, body["spec"])
        self._report(f"firewall policy {POLICY} is declared at the centre for every subcloud")

    async def _settled(self) -> None:
        hosts = len(self._lab.plan.hosts) + 1
        await self._until(f"all {hosts} hosts are available", lambda: self._available(hosts))
        await self._until(f"policy {POLICY} is in force on every site", self._in_force)

    # -- looking

    def _is_online(self, name: str) -> bool:
        with self._client(CENTRAL) as client:
            raw = client.seek(SUBCLOUD, "", name) or {}
        if raw.get("status", {}).get("availability") != "online":
            return False
        with self._client(name) as client:
            return client.seek(HOST, name, "controller-0") is not None

    def _available(self, hosts: int) -> bool:
        with self._client(CENTRAL) as client:
            items, _ = client.list_items(HOST, None, dict)
        states = [i.get("status", {}).get("availability") for i in items]
        return sum(state in ("available", "degraded") for state in states) == hosts

    def _in_force(self) -> bool:
        with self._client(CENTRAL) as client:
            raw = client.seek(FIREWALL_POLICY, CENTRAL, POLICY) or {}
        status = raw.get("status", {})
        return bool(status.get("subclouds") == len(self._lab.plan.sites) == status.get("inSync"))

    async def _until(self, what: str, holds: Callable[[], bool], within: float = STEP_WITHIN) -> None:
        end = time.monotonic() + within
        last = "it is not so yet"
        while time.monotonic() < end:
            try:
                if await asyncio.to_thread(holds):
                    return
            except Problem as problem:
                last = problem.reason
            await asyncio.sleep(0.2)
        raise Failed(
            f"after {within:.0f} s it is still not so that {what}: {last}",
            f"see the logs in {self._directory / 'log'}",
        )

    # -- doing

    def _add(
        self,
        name: str,
        host: str,
        verb: str,
        home: Path,
        *options: str,
        pass_fds: dict[str, int] | None = None,
    ) -> None:
        argv = (sys.executable, "-m", "roost.program", verb, "--home", str(home), "--contained")
        self._lab.add(
            Process(
                name=name,
                host=host,
                argv=(*argv, *options),
                environment=self._environment,
                pass_fds=pass_fds or {},
            )
        )

    def _home(self, host: HostPlan) -> Path:
        return self._directory / host.name

    def _keep(self, name: str, token: str) -> Path:
        """Put a token where its process alone finds it."""
        path = self._directory / "tokens" / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(token + "\n")
        return path

    @contextlib.contextmanager
    def _client(self, cloud: str) -> Iterator[Client]:
        with Client(self._target(cloud), timeout=10.0) as client:
            yield client

    def _target(self, cloud: str) -> Target:
        config, _ = kubeconfig.read(self.kubeconfig)
        return kubeconfig.choose(config, self.kubeconfig, cloud)

    async def _create(self, kind: Kind, cloud: str, namespace: str, meta: Raw, spec: Raw) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": kind.kind,
            "metadata": {**meta, **({"namespace": namespace} if namespace else {})},
            "spec": spec,
        }
        await self._call(cloud, lambda client: client.create(kind, namespace, body))

    async def _patch(self, kind: Kind, cloud: str, namespace: str, name: str, body: Raw) -> None:
        await self._call(cloud, lambda client: client.patch(kind, namespace, name, body))

    async def _token(self, cloud: str, kind: Kind, namespace: str, name: str) -> str:
        answer = await self._call(cloud, lambda c: c.token(kind, namespace, name, "enrolment", {}))
        return answer.token

    async def _call(self, cloud: str, work: Callable[[Client], T]) -> T:
        """One request; repeated for a while when a link is just coming up."""

        def attempt() -> T:
            with self._client(cloud) as client:
                return work(client)

        end = time.monotonic() + STEP_WITHIN
        while True:
            try:
                return await asyncio.to_thread(attempt)
            except (Unreachable, NotFound):
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(0.2)


def clear(directory: Path) -> None:
    """Remove what an earlier demo left, so that each starts from nothing."""
    for path in directory.iterdir():
        if path.name in ("lock", "control.sock", "notify.sock"):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
