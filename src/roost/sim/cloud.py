"""A simulated cloud: everything of a cloud but its process and its API's socket.

Real store, real controllers, real link ends on both sides, and the API as an application, so that calls
through the link are answered. What `roost up` does beside that (files of its home, sockets, the real
machine) is left out. The same class is the central cloud, which listens for TLS links, and a
subcloud, to which hosts are attached over memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from roost import __version__
from roost.api import through
from roost.api.access import ADMINISTRATORS
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.cloud import admission as cloud_admission
from roost.cloud.configuration import PlatformPorts
from roost.cloud.controllers import controllers as cloud_controllers
from roost.cloud.restored import after_restore
from roost.engine.controller import Controller, Runner
from roost.engine.presence import PresenceBook
from roost.fleet import admission as fleet_admission
from roost.fleet.controllers import controllers as fleet_controllers
from roost.link.conduct import ConductController
from roost.link.exchange import Caller, Request, Response
from roost.link.lower import Backoff, Dialer, LowerLink, State
from roost.link.node import Node
from roost.link.node import subcloud as subcloud_node
from roost.link.pki import Authority
from roost.link.presence import Presence
from roost.link.session import Timing
from roost.link.upper import Settings, UpperLink
from roost.model import chance, time
from roost.model.cloud import CLOUD, SUBCLOUD, Cloud, CloudSpec
from roost.model.host import HOST
from roost.model.meta import Metadata
from roost.store.database import sqlite_url
from roost.store.errors import Overloaded, Unavailable
from roost.store.store import Store
from roost.store.transaction import Transaction

T = TypeVar("T")
ADMINISTRATOR = Caller("admin", [ADMINISTRATORS])


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What all clouds of a simulation share. `authority` and its directory stand for each cloud's own:
    making hundreds would only take time."""

    directory: Path
    authority: Authority
    clock: Callable[[], datetime]
    timing: Timing
    backoff: Backoff = Backoff(first=0.1, cap=2.0)


class SimulatedCloud:
    """One cloud: `open`, `start`, and `close` in the end.

    `addresses` are where it takes TLS links; none for a cloud that only has hosts in this process.
    `inline` runs its store in the event loop's thread, for a fake clock or for many clouds at once; `writing`
    does the writes of its store in place of that.
    """

    def __init__(
        self,
        world: World,
        name: str,
        *,
        addresses: Sequence[tuple[str, int]] = (),
        inline: bool = True,
        writing: Executor | None = None,
    ) -> None:
        self.name, self._world, self._addresses = name, world, addresses
        self._inline, self._writing = inline, writing
        self.uplink: LowerLink | None = None
        self._told_uplink: tuple[str, bool] | None = ("", False)
        self.controllers: list[Controller] = []
        self._runners: dict[str, Runner] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[None]] = set()
        self.store: Store
        self.upper: UpperLink
        self.hosts: PresenceBook
        self.subclouds: PresenceBook

    # -- life

    async def open(self) -> None:
        """Open the store and take links."""
        world, monotonic = self._world, asyncio.get_running_loop().time
        self.hosts, self.subclouds = PresenceBook(monotonic), PresenceBook(monotonic)
        url = sqlite_url(world.directory / f"{self.name}.db", synced=False)
        self.store = await Store.open(url, clock=world.clock, inline=self._inline, writing=self._writing)
        await self.store.transact(self._declare)
        self.upper = UpperLink(
            self.store,
            world.authority,
            name=self.name,
            directory=world.directory / "pki",
            clock=world.clock,
            settings=Settings(addresses=self._addresses),
            timing=world.timing,
            admit=self._admit,
        )
        self.upper.listen(self._presence_changed)
        await self.upper.start()
        self.api = Api(self._context())

    def join(self, dialer: Dialer, node: Node) -> None:
        """Be the subcloud `node` of the cloud that `dialer` dials; before `start`."""
        self.uplink = LowerLink(
            self.store,
            dialer,
            node=node,
            clock=self._world.clock,
            handler=through.handler(self.api),
            timing=self._world.timing,
            backoff=self._world.backoff,
        )
        self.uplink.listen(self._uplink_changed)

    def start(self) -> None:
        """Set the controllers to work, and dial when there is somebody to dial."""
        ports = tuple(port for _, port in self._addresses if port)
        platform, holder = PlatformPorts(links=ports), f"simulated/{chance.uuid()}"
        made = cloud_controllers(
            self.name, __version__, self.hosts, platform, holder, cloud_admission.rules(self.name, "")
        )
        made |= fleet_controllers(self.name, self.subclouds, self._disconnect)
        conduct = ConductController(self.name, self.upper.conduct)
        made[conduct.name] = conduct
        self.upper.conduct.listen(lambda node: self._runners[conduct.name].wake(conduct.key(node)))
        self.controllers = list(made.values())
        self._runners = {name: Runner(self.store, controller) for name, controller in made.items()}
        self._tasks = [asyncio.create_task(r.run(), name=n) for n, r in self._runners.items()]
        if self.uplink is not None:
            self.uplink.start()

    async def close(self) -> None:
        """End everything; the store is closed last."""
        if self.uplink is not None:
            await self.uplink.stop()
        with contextlib.suppress(AttributeError):
            await self.upper.stop()
        tasks = [*self._tasks, *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.store.close()

    # -- for tests

    async def ask(self, subcloud: str, path: str, method: str = "GET") -> tuple[int, bytes]:
        """Ask a subcloud's API through its link, as an administrator; status and body."""
        request = Request(method=method, path=path, headers=[], body=b"", caller=ADMINISTRATOR)
        response = await self.upper.call(subcloud_node(subcloud), request)
        return response.status, b"".join([part async for part in response.body])

    # -- inside

    def _declare(self, tx: Transaction) -> None:
        if tx.find(CLOUD.kind, "", self.name) is None:
            tx.save(Cloud(metadata=Metadata(name=self.name), spec=CloudSpec(system_mode="standard")))
        after_restore(tx, self.name)

    async def _admit(self, node: Node) -> None:
        if node.kind == "host":
            await self.store.get(HOST.kind, node.cloud, node.name)
        else:
            await self.store.get(SUBCLOUD.kind, "", node.name)

    def _context(self) -> ApiContext:
        async def call_cloud(cloud: str, request: Request) -> Response:
            return await self.upper.call(subcloud_node(cloud), request)

        rules = {**cloud_admission.rules(self.name, ""), **fleet_admission.rules(self.name)}
        return ApiContext(
            store=self.store, cloud=self.name, clock=self._world.clock, rules=rules, call_cloud=call_cloud
        )

    def _presence_changed(self, node: Node, presence: Presence) -> None:
        book = self.hosts if node.kind == "host" else self.subclouds
        if presence.connected:
            end = presence.certificate_expires_at
            ends = time.seconds(end) if end else ""
            book.up(node.name, version=presence.version, certificate_expires_at=ends)
        else:
            book.down(node.name)
        which, key = (
            ("hosts", (node.cloud, node.name)) if node.kind == "host" else ("subclouds", ("", node.name))
        )
        if which in self._runners:
            self._runners[which].wake(key)

    def _disconnect(self, name: str) -> None:
        async def work() -> None:
            node = subcloud_node(name)
            await self.upper.disconnect(node, "it was deleted here")
            self.upper.forget(node)
            self.subclouds.forget(name)

        self._do(work())

    def _uplink_changed(self, state: State) -> None:
        told = (state.upper, state.connected)
        if told != self._told_uplink:
            self._told_uplink = told
            self._do(self._write(state))

    async def _write(self, state: State) -> None:
        """What could not be written is written at the next word of the link."""
        try:
            await self.store.transact(lambda tx: self._tell(tx, state))
        except (Unavailable, Overloaded):
            self._told_uplink = None

    def _tell(self, tx: Transaction, state: State) -> None:
        cloud = tx.load(Cloud, "", self.name)
        upper = state.upper or cloud.status.upper
        status = msgspec.structs.replace(cloud.status, upper=upper, upper_connected=state.connected)
        if status != cloud.status:
            tx.report(msgspec.structs.replace(cloud, status=status))

    def _do(self, work: Awaitable[None]) -> None:
        async def done() -> None:
            await work

        task = asyncio.create_task(done())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
