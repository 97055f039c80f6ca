"""The nodes of a simulated tree: all real code, each on a clock, disk and machine of its own.

A node is what stays (disk, clock, machine), and now and then a process of it. `crash` kills the process where
it stands; `stop` ends it in good order; `start` begins another on what the disk holds. A process that can't
open its store ends, and is begun again after a while, as a service manager does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from roost.link.lower import LowerLink
from roost.link.node import host as host_node
from roost.link.node import subcloud as subcloud_node
from roost.model.cloud import Subcloud, SubcloudSpec
from roost.model.meta import Metadata
from roost.sim.cloud import SimulatedCloud
from roost.sim.deterministic.clock import START, NodeClock
from roost.sim.deterministic.disk import Rows, SimulatedDisk
from roost.sim.deterministic.loop import Process, ProcessEnded
from roost.sim.deterministic.network import Link, NetworkDialer, Station
from roost.sim.host import SimulatedHost
from roost.sim.machine import SimulatedMachine
from roost.sim.subcloud import declare_site, host_name, machine_of, site_name
from roost.store.errors import StoreError
from roost.store.store import Store
from roost.store.transaction import Transaction

if TYPE_CHECKING:
    from roost.sim.deterministic.tree import Tree

T = TypeVar("T")

BEGUN_AGAIN = 5.0
"""Seconds after which a service manager begins a process again that ended by itself."""
BOOTING = (10.0, 40.0)
STOPPED_WITHIN = 60.0
MACHINES = "simulated"
"""Seed of all machines: trees of one form have the same."""
BEFORE = START - timedelta(hours=1)
"""When trees begin whose databases are new."""


class Node:
    """One node of the tree; its kinds say what runs in its process."""

    def __init__(self, tree: Tree, name: str, above: Node | None) -> None:
        self.tree, self.name, self.above = tree, name, above
        content = tree.settled.get(name, b"")
        self.clock = NodeClock(tree.loop.time, START if content else BEFORE)
        self.disk = SimulatedDisk(tree.directory / f"{name}.db", tree.disk_chance, content)
        self.station = Station(name)
        self.process: Process | None = None
        self.link: Link | None = None
        """The link to the node above it."""
        self._opened, self._declared = False, bool(content)
        self._starting: asyncio.TimerHandle | None = None

    # -- what it is now

    @property
    def alive(self) -> bool:
        """Whether its process runs and has opened its store."""
        return self._opened and self.process is not None and self.process.alive

    @property
    def running(self) -> bool:
        """Whether there is a process, or one is about to begin."""
        return self._starting is not None or (self.process is not None and self.process.alive)

    @property
    def store(self) -> Store:
        """Its store, while it is alive."""
        raise NotImplementedError

    @property
    def cloud(self) -> SimulatedCloud:
        """Of a centre or a site, while it is alive."""
        raise AttributeError(f"{self.name} is no cloud")

    @property
    def host(self) -> SimulatedHost:
        """Of a host, while it is alive."""
        raise AttributeError(f"{self.name} is no host")

    @property
    def machine(self) -> SimulatedMachine:
        """Of a host; stays while its process is down."""
        raise AttributeError(f"{self.name} is no host")

    @property
    def uplink(self) -> LowerLink | None:
        """The lower end of its link, while it is alive and has one."""
        raise NotImplementedError

    def rows(self) -> Rows:
        """Everything in its store by table, in the order of keys; read from disk."""
        return self.disk.rows()

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """What is committed in its store, alive or not, asked for in SQL that only reads."""
        return self.disk.query(sql, *values)

    async def within(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something within its process, as who asks it over a socket; raises ProcessEnded when it dies."""
        if self.process is None:
            work.close()
            raise ProcessEnded(self.name)
        return await self.process.within(work)

    # -- life

    def start(self) -> None:
        """Begin its process, with its machine if that is off; nothing happens while it runs."""
        self._forget_start()
        if self.process is not None and self.process.alive:
            return
        if not self.station.powered:
            self._boot()
            self.tree.network.powered(self.station)
        self.tree.say(f"start {self.name}")
        self.process = self.station.process = Process(self.name)
        self.process.begin(self._run(), f"process of {self.name}")

    def start_later(self, seconds: float) -> None:
        """Begin its process after a while, unless it is stopped or begun before."""
        self._forget_start()
        self._starting = self.tree.at(self.tree.loop.time() + seconds, self.start)

    def _forget_start(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None

    def crash(self, *, silent: bool = False) -> None:
        """Kill its process where it stands; `silent`: its machine goes off with it."""
        self._forget_start()
        self.tree.say(f"crash {self.name}{' silently' if silent else ''}")
        self._end(silent=silent)

    def lose_power(self) -> None:
        """Let power go in the midst of its next commit, and at once in nothing else."""
        self.disk.cut_power = lambda: self.tree.at_once(functools.partial(self.crash, silent=True))

    async def stop(self) -> None:
        """End its process in good order; at the latest after a minute it is killed."""
        self._forget_start()
        process = self.process
        if process is None or not process.alive:
            return
        self.tree.say(f"stop {self.name}")
        self.station.accept = None
        with contextlib.suppress(ProcessEnded, TimeoutError):
            async with asyncio.timeout(STOPPED_WITHIN):
                await process.within(self._close())
        if self.process is process and process.alive:
            self._end(silent=False)
            self.tree.say(f"stopped {self.name}")

    def _end(self, *, silent: bool) -> None:
        process, self.station.accept = self.process, None
        if process is None:
            return
        process.kill()
        self.tree.network.died(self.station, process, silent=silent)
        self._let_go()
        self.disk.let_go()
        self._opened = False

    async def _run(self) -> None:
        """The process: open, serve, for ever."""
        try:
            await self._open()
        except (StoreError, OSError) as error:
            self.tree.say(f"{self.name} could not start: {error}")
            self.tree.outside(self._ended_by_itself)
            await asyncio.Event().wait()
        self._opened = True
        self.tree.say(f"started {self.name}")

    def _ended_by_itself(self) -> None:
        self._end(silent=False)
        self.start_later(BEGUN_AGAIN)

    async def _declare(self, store: Store, work: Callable[[Transaction], None]) -> None:
        """Declare what is there from the beginning, once in the life of the node."""
        if not self._declared:
            await store.transact(work)
            self._declared = True

    def dispose(self) -> None:
        """After the run: close its files."""
        if self.process is not None:
            self.process.alive = False
        # The last to close brings the log into the file, which a reader may not.
        self.disk.close()
        self._let_go()
        self.disk.let_go()

    # -- what differs

    async def _open(self) -> None:
        """Open the store and set everything to work."""
        raise NotImplementedError

    async def _close(self) -> None:
        """End everything in good order."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """The process is dead: give its files up and keep the rest to the end of the run."""
        raise NotImplementedError

    def _boot(self) -> None:
        """The machine goes on."""


class CloudNode(Node):
    """The centre or a site."""

    def __init__(self, tree: Tree, name: str, above: Node | None, number: int) -> None:
        super().__init__(tree, name, above)
        self._number = number
        self._cloud: SimulatedCloud | None = None
        if above is not None:
            self.link = tree.network.join(name, subcloud_node(name), self.station, above.station)

    @property
    def cloud(self) -> SimulatedCloud:
        if self._cloud is None:
            raise ProcessEnded(self.name)
        return self._cloud

    @property
    def store(self) -> Store:
        return self.cloud.store

    @property
    def uplink(self) -> LowerLink | None:
        return self.cloud.uplink

    async def _open(self) -> None:
        process = self.process
        assert process is not None  # noqa: S101 - this runs in it
        cloud = SimulatedCloud(self.tree.world(self), self.name, writing=self.disk.of(process))
        self._cloud = cloud
        await cloud.open()
        await self._declare(cloud.store, self._what_is_there)
        if self.link is not None:
            cloud.join(NetworkDialer(self.link), self.link.node)
        cloud.start()
        self.station.accept = cloud.upper.attach_local

    def _what_is_there(self, tx: Transaction) -> None:
        if self.above is not None:
            declare_site(tx, self.name, self._number, self.tree.plan.hosts)
            return
        for number in range(self.tree.plan.sites):
            spec = SubcloudSpec(management_state="managed")
            tx.save(Subcloud(metadata=Metadata(name=site_name(number)), spec=spec))

    async def _close(self) -> None:
        await self.cloud.close()

    def _let_go(self) -> None:
        cloud, self._cloud = self._cloud, None
        if cloud is not None:
            self.tree.keep(cloud)
            with contextlib.suppress(AttributeError):
                cloud.store.abandon()


class HostNode(Node):
    """A host of a site."""

    def __init__(self, tree: Tree, site: str, number: int, above: CloudNode, site_number: int) -> None:
        name = host_name(number)
        super().__init__(tree, f"{site}/{name}", above)
        self._site, self._host_name = site, name
        self._machine = machine_of(MACHINES, site_number, number)
        self._host: SimulatedHost | None = None
        self.link = tree.network.join(self.name, host_node(site, name), self.station, above.station)

    @property
    def host(self) -> SimulatedHost:
        if self._host is None:
            raise ProcessEnded(self.name)
        return self._host

    @property
    def machine(self) -> SimulatedMachine:
        return self._machine

    @property
    def store(self) -> Store:
        return self.host.store

    @property
    def uplink(self) -> LowerLink | None:
        return self.host.link

    async def _open(self) -> None:
        process, link = self.process, self.link
        assert process is not None and link is not None  # noqa: S101 - this runs in it
        dialer = NetworkDialer(link)
        host = SimulatedHost(
            self._site,
            self._host_name,
            self._machine,
            dialer,
            self.disk.path.parent,
            clock=self.clock,
            timing=self.tree.timing,
            probe=dialer.probe,
            backoff=self.tree.backoff,
            writing=self.disk.of(process),
        )
        self._host = host
        await host.open()
        self._machine.when_restarted(functools.partial(self.tree.outside, self._reboot))
        host.start()

    async def _close(self) -> None:
        await self.host.close()

    def _let_go(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            self.tree.keep(host)
            with contextlib.suppress(AttributeError):
                host.store.abandon()

    def _boot(self) -> None:
        self._machine.boot()

    def _reboot(self) -> None:
        """Its machine goes down, and comes back after a while."""
        if self.process is None or not self.process.alive:
            return
        self.tree.say(f"reboot {self.name}")
        self._end(silent=True)
        self.start_later(self.tree.chance.uniform(*BOOTING))
