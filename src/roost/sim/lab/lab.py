"""The laboratory as a whole: a network, its hosts, the processes in them, and its faults.

    ground = prepare(Path(".demo"))                      # before any thread and before the event loop
    async def main() -> None:
        async with Lab(ground, DEMO, report=print) as lab:
            listener = open_listener(7443)               # in the machine's own namespace
            lab.add(Process(name="central", host=CENTRE, argv=(...), pass_fds={"api": listener.fileno()}))
            await lab.supervisor.ready("central", within=20)
            await lab.until_stopped()
    asyncio.run(main())

Leaving the block ends the processes first, then whatever was started in a host from another
terminal, then lets go of the namespaces; with them the kernel removes ports, bridges and rules.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from roost.sim.lab.control import (
    MAXIMUM_COMMAND_SECONDS,
    ControlServer,
    Cut,
    Done,
    Execute,
    Finished,
    Halt,
    Kill,
    LabStatus,
    Mend,
    NodeStatus,
    Pause,
    Reply,
    Request,
    Resume,
    SiteStatus,
    Slow,
    Status,
    Stop,
)
from roost.sim.lab.errors import LabError
from roost.sim.lab.ground import Ground
from roost.sim.lab.namespaces import SEARCH_PATH, Namespaces, user_namespace
from roost.sim.lab.network import (
    Direction,
    Manner,
    Repair,
    build,
    change_rules,
    fault_rules,
    mend_rules,
)
from roost.sim.lab.slowing import Slowing
from roost.sim.lab.spawn import Place, spawn
from roost.sim.lab.strays import MARK
from roost.sim.lab.supervisor import Process, Supervisor
from roost.sim.lab.topology import CENTRE, Plan, Port, SitePlan, Topology, plan
from roost.sim.lab.uplink import Impairment

_MAXIMUM_OUTPUT = 1_048_576
_MAXIMUM_COMMANDS = 16
_PORTS_TRIED = 50
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def open_listener(port: int, *, address: str = "127.0.0.1") -> socket.socket:
    """A listening socket on this port or the next free one; a socket stays where it was made.

    A process in any host that is given it answers there, and connections that arrive while that
    process is started again wait for it.
    """
    for candidate in range(port, min(port + _PORTS_TRIED, 65_536)):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # A port whose last connections still fade away counts as free; one that is listened on does not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, candidate))
            listener.listen(512)
        except OSError as error:
            listener.close()
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise LabError(f"cannot listen on {address}: {error.strerror}", "choose another") from error
            continue
        listener.setblocking(False)
        return listener
    raise LabError(
        f"no port from {port} to {port + _PORTS_TRIED - 1} of {address} is free",
        "choose another to start from",
    )


class Lab:
    """A running laboratory, between entering and leaving `async with`."""

    def __init__(self, ground: Ground, topology: Topology, *, report: Callable[[str], None]) -> None:
        self.ground = ground
        self.directory = ground.directory
        self.plan: Plan = plan(topology)
        self.supervisor: Supervisor
        self._report = report
        self._namespaces: Namespaces
        self._slowing: Slowing
        self._cuts: dict[str, Direction] = {}
        self._changing_links = asyncio.Lock()
        self._commands = asyncio.Semaphore(_MAXIMUM_COMMANDS)
        self._stop = asyncio.Event()
        self._control = ControlServer(self.directory, self._handle)
        self._started = time.time()

    async def __aenter__(self) -> Lab:
        try:
            self._namespaces = Namespaces(self.plan.namespaces)
        except OSError as error:
            self.ground.release()
            raise LabError(
                f"the kernel gives no more network namespaces ({error.strerror})",
                "raise the limit with `sudo sysctl -w user.max_net_namespaces=15000`",
            ) from error
        try:
            self._slowing = Slowing(self._namespaces)
            await build(self.plan, self._namespaces)
            self.supervisor = Supervisor(self.directory, self._place, self._report, {MARK: self.ground.mark})
            await self._control.open()
        except BaseException:
            self._namespaces.close()
            self.ground.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.supervisor.stop()
            await self._control.close()
        finally:
            # The ground first: it ends what was started in a host from another terminal.
            self.ground.release()
            self._slowing.close()
            self._namespaces.close()
            for number in _STOP_SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(number)

    # Processes

    def _place(self, host: str) -> Place:
        return Place(self._namespaces[host], host)

    def add(self, process: Process) -> None:
        """Take a process on, to be kept running."""
        self.supervisor.add(process)

    async def run(self, host: str, argv: Sequence[str], *, within: float = 10.0) -> Finished:
        """Run a command in a host to its end and return what it wrote."""
        if not argv:
            raise LabError("no command given", "name a program, as `ip addr`")
        pieces: list[bytes] = []
        room = _MAXIMUM_OUTPUT
        truncated = False

        def collect(data: bytes) -> None:
            nonlocal room, truncated
            truncated = truncated or len(data) > room
            pieces.append(data[:room])
            room -= len(pieces[-1])

        async with self._commands:
            child = spawn(
                argv,
                place=self._place(host),
                environment={**os.environ, "PATH": SEARCH_PATH, MARK: self.ground.mark},
                directory=self.directory,
                output=collect,
                listening={},
            )
            try:
                async with asyncio.timeout(within):
                    code = await asyncio.shield(child.ended)
            except TimeoutError:
                raise LabError(
                    f"{argv[0]} in {host} did not end within {within:g} s", "give it more time, or less to do"
                ) from None
            finally:
                child.signal_group(signal.SIGKILL)
        return Finished(code=code, output=b"".join(pieces).decode(errors="replace"), truncated=truncated)

    # Faults

    def _site(self, name: str) -> SitePlan:
        for site in self.plan.sites:
            if site.name == name:
                return site
        known = ", ".join(site.name for site in self.plan.sites)
        raise LabError(f"there is no site named {name}", f"choose one of: {known}")

    async def cut(self, site: str, direction: Direction = "both", manner: Manner = "silent") -> None:
        """Stop what passes a site's link, without a word or with resets; replaces an earlier cut."""
        router = self._site(site).router
        async with self._changing_links:
            await change_rules(self._namespaces, router, fault_rules(direction, manner))
            self._cuts[site] = direction

    async def slow(self, site: str, impairment: Impairment) -> None:
        """Let a site's wide-area link suffer this; replaces an earlier impairment."""
        found = self._site(site)
        async with self._changing_links:
            await self._slowing.apply(found, impairment)

    async def mend(self, site: str, only: Repair = "all") -> None:
        """Let everything pass again, at full speed; a link that is whole stays so."""
        found = self._site(site)
        async with self._changing_links:
            if only != "cut":
                await self._slowing.remove(found)
            if only != "slow":
                await change_rules(self._namespaces, found.router, mend_rules())
                self._cuts.pop(site, None)

    # The end

    async def until_stopped(self) -> None:
        """Wait for Ctrl-C, a signal to end, or the verb stop. A second signal ends everything at once."""
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self.request_stop)
        await self._stop.wait()

    def request_stop(self) -> None:
        """Ask for the end; asked again, do not wait for anybody."""
        if self._stop.is_set():
            self.supervisor.hurry()
        self._stop.set()

    # What it tells and is told

    def status(self) -> LabStatus:
        """Everything about this laboratory now."""
        return LabStatus(
            pid=os.getpid(),
            mark=self.ground.mark,
            rights=str(self.ground.rights),
            user_namespace=user_namespace(),
            started=self._started,
            sites=[
                SiteStatus(
                    name=site.name,
                    mode=site.mode,
                    router=site.router,
                    address=site.wan.ipv4,
                    cut=self._cuts.get(site.name),
                    slow=self._slowing.of(site.name),
                )
                for site in self.plan.sites
            ],
            nodes=self._nodes(),
            processes=self.supervisor.status(),
        )

    def _nodes(self) -> list[NodeStatus]:
        def node(
            name: str, site: str, ports: tuple[Port, ...], personalities: Sequence[str] = ()
        ) -> NodeStatus:
            return NodeStatus(
                name=name,
                site=site,
                descriptor=self._namespaces[name],
                personalities=list(personalities),
                addresses={port.name: list(port.addresses) for port in ports},
            )

        nodes = [node(CENTRE, "", (self.plan.centre,))]
        for site in self.plan.sites:
            nodes.append(node(site.router, site.name, (site.wan, site.gateway)))
            nodes += [
                node(host.name, site.name, (host.oam, host.mgmt), host.personalities) for host in site.hosts
            ]
        return nodes

    async def _handle(self, request: Request) -> Reply:
        match request:
            case Status():
                return self.status()
            case Cut(site=site, direction=direction, manner=manner):
                await self.cut(site, direction, manner)
                told = f"{direction}, with resets" if manner == "reset" else direction
                return Done(text=f"the link of {site} is cut ({told})")
            case Slow(site=site, impairment=impairment):
                await self.slow(site, impairment)
                return Done(text=f"the link of {site} suffers {impairment}")
            case Mend(site=site, only=only):
                await self.mend(site, only)
                told = {"all": "whole", "cut": "no longer cut", "slow": "no longer slow"}[only]
                return Done(text=f"the link of {site} is {told}")
            case Kill(process=name):
                pid = self.supervisor.kill(name)
                return Done(text=f"{name}, process {pid}, is killed and will be started again")
            case Halt(process=name):
                pid = self.supervisor.halt(name)
                return Done(text=f"{name}, process {pid}, is killed and stays dead until it is resumed")
            case Pause(process=name):
                self.supervisor.pause(name)
                return Done(text=f"{name} stands still")
            case Resume(process=name):
                self.supervisor.resume(name)
                return Done(text=f"{name} goes on")
            case Execute(host=host, argv=argv, seconds=seconds):
                return await self.run(host, argv, within=min(seconds, MAXIMUM_COMMAND_SECONDS))
            case Stop():
                self.request_stop()
                return Done(text="the demo ends")
