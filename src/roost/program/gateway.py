"""The gateway of a process: its door for links, from its start to its end, whether or not it is active.

It takes links of subclouds, unless its roles say otherwise, and links of hosts while this process is active:
these are for the controllers that are here, and go with them (`led`). Its register has the store know where
each subcloud's link is; what asks a subcloud and came to this process goes to where that is (`call`).
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import datetime

import msgspec
import structlog

from roost import __version__
from roost.link import between, pki, rehoming
from roost.link.between import Between
from roost.link.errors import Refused
from roost.link.exchange import Handler, Request, Response, Unreachable
from roost.link.messages import Hello
from roost.link.node import BadNode, Node, parse
from roost.link.node import host as host_node
from roost.link.node import subcloud as subcloud_node
from roost.link.presence import Presence
from roost.link.register import Register
from roost.link.upper import CONNECTIONS, UpperLink
from roost.link.upper import Settings as LinkSettings
from roost.link.wire import Connection
from roost.model.cloud import SUBCLOUD
from roost.program.enrolments import check_enrolment, remember_enrolment, tell_not_known
from roost.program.home import LINK_PORT, Home, Settings, split_address
from roost.program.listeners import links_taken
from roost.program.timing import TIMING
from roost.store import leases, links
from roost.store.errors import Compacted, FutureRevision, Unavailable
from roost.store.leases import Lease
from roost.store.links import Process
from roost.store.store import Store
from roost.store.transaction import Change

NOT_KNOWN_TOLD = 200
"""Nodes that were turned away of which the log tells; they dial again and again."""
OTHER_FILES = 500
"""Files that a process opens besides those of links."""
AGAIN = 5.0

_log = structlog.get_logger("roost.program")


class Led(msgspec.Struct, frozen=True):
    """What the active part of a process wants of its gateway."""

    presence_changed: Callable[[Node, Presence], None]
    """Told of hosts alone; of subclouds the roster tells, wherever their links are."""
    complained: Callable[[Node], None]
    handler: Handler
    """Answers what hosts ask."""


class Gateway:
    """`start`, then `run` until cancelled, and `stop`."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        store: Store,
        authority: pki.Authority,
        *,
        process: Process,
        server_names: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._settings, self._store, self._name = settings, store, settings.cloud
        self._led: Led | None = None
        self._term: Lease | None = None
        self._not_known: set[Node] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._register = Register(store, process, self._superseded)
        self._between = Between(authority, home.pki, clock)
        where = settings.link_address if settings.takes_links or settings.controls else ""
        self.upper = UpperLink(
            store,
            authority,
            name=self._name,
            directory=home.pki,
            clock=clock,
            settings=LinkSettings(
                addresses=[split_address(where, LINK_PORT)] if where else [],
                server_names=server_names,
                connections=room_for_links(),
            ),
            timing=TIMING,
            admit=self._admit,
            welcome=self._hear,
            on_enrolled=remember_enrolment,
            handler=self._answer,
            register=self._register,
            takes=self._elsewhere,
            scope=self._scope,
            answer_process=self._answer_process,
        )
        self.upper.listen(self._presence_changed)
        self.upper.conduct.listen(self._complained)

    # -- life

    async def start(self) -> None:
        """Be known to the other processes, and listen. Raises StartError, Unavailable, Overloaded."""
        await self._register.begin()
        try:
            await self.upper.start()
        except OSError as error:
            raise links_taken(self._settings.link_address, error) from error

    async def run(self) -> None:
        """Keep the register, and end links of subclouds that are deleted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._register.run())
            group.create_task(self._attend())

    async def stop(self) -> None:
        """Say goodbye to all. Their links are nobody's: they dial another process."""
        await self._register.end()
        await self._between.close()
        await self.upper.stop()

    @asynccontextmanager
    async def led(self, by: Led) -> AsyncIterator[None]:
        """Take links of hosts meanwhile; what they do in the store is under the lease that is acted under."""
        self._led, self._term = by, leases.current()
        try:
            yield
        finally:
            self._led = None
            hosts = [node for node in self.upper.nodes() if node.kind == "host"]
            await asyncio.gather(*(self.drop(node, "this process is active no more") for node in hosts))
            self._term = None

    async def drop(self, node: Node, reason: str) -> None:
        """End a node's link, and forget the node."""
        await self.upper.disconnect(node, reason)
        self.upper.forget(node)

    # -- who may come

    def _elsewhere(self, node: Node) -> str:
        """Why a node's link is not taken here; it dials the next of its endpoints then."""
        if node.kind == "host":
            return "" if self._led is not None else "another process of this cloud takes the links of hosts"
        return "" if self._settings.takes_links else "other processes of this cloud take links of subclouds"

    def _scope(self, node: Node) -> AbstractContextManager[object]:
        if node.kind == "host" and self._term is not None:
            return leases.under(self._term)
        return nullcontext()

    async def _admit(self, node: Node) -> None:
        """Let in nodes that enrolled for the declaration that stands. Raises Refused."""
        settings, store = self._settings, self._store
        if settings.host and node == host_node(self._name, settings.host):
            return
        try:
            await store.read(lambda tx: check_enrolment(tx, node, self._name))
        except Refused as refusal:
            said = refusal
            if node not in self._not_known and len(self._not_known) < NOT_KNOWN_TOLD:
                self._not_known.add(node)
                await store.transact(lambda tx: tell_not_known(tx, self._name, node, said))
            raise
        self._not_known.discard(node)

    async def _hear(self, node: Node, hello: Hello) -> int:
        """The epoch under which a node is owned here, once its hello was heard. Raises Refused."""
        return await rehoming.welcome(self._store, node, hello)

    async def _attend(self) -> None:
        """End the links of subclouds that are deleted. What was missed is found by admitting all anew."""
        at = self._store.revision
        while True:
            try:
                async for batch in self._store.watch(at, _deletes_subcloud):
                    at = batch.upto
                    for change in batch.changes:
                        await self.drop(subcloud_node(change.name), "it was deleted here")
                return
            except Unavailable:
                await asyncio.sleep(AGAIN)
            except (Compacted, FutureRevision):
                at = self._store.revision
                await self._admit_all()

    async def _admit_all(self) -> None:
        for node in [n for n, p in self.upper.nodes().items() if n.kind == "subcloud" and p.connected]:
            try:
                await self._admit(node)
            except Refused as refusal:
                await self.drop(node, str(refusal))

    # -- facts

    def _presence_changed(self, node: Node, presence: Presence) -> None:
        if node.kind == "host" and self._led is not None:
            self._led.presence_changed(node, presence)

    def _complained(self, node: Node) -> None:
        if self._led is not None:
            self._led.complained(node)

    def _superseded(self, name: str) -> None:
        try:
            node = parse(name)
        except BadNode:
            return
        task = asyncio.get_running_loop().create_task(
            self.upper.disconnect(node, "another process of this cloud has this link")
        )
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- calls

    async def _answer(self, request: Request) -> Response:
        if self._led is None:
            raise Unreachable(self._name, "another process of this cloud is active")
        return await self._led.handler(request)

    async def _answer_process(self, connection: Connection) -> None:
        await between.serve(connection, self.upper.call)

    async def call(self, node: Node, request: Request) -> Response:
        """Ask a node, wherever its link is. Raises Unreachable."""
        if self.upper.heard(node) is not None:
            return await self.upper.call(node, request)
        try:
            link, others = await self._store.read(lambda tx: (links.find(tx, str(node)), links.processes(tx)))
        except Unavailable as error:
            raise Unreachable(str(node), str(error)) from None
        if link is None or link.state != "up" or link.process == self._register.process.name:
            return await self.upper.call(node, request)
        where = next((other.links for other in others if other.name == link.process), "")
        if not where:
            raise Unreachable(
                str(node), f"its link is at {link.process} of this cloud, of which nothing is heard"
            )
        return await self._between.call(link.process, where, node, request)


def introduction(name: str, settings: Settings, links_at: str) -> Process:
    """What a process says of itself to the others of its cloud."""
    roles = ["api", *settings.roles]
    return Process(name=name, roles=roles, links=links_at, version=__version__)


def room_for_links() -> int:
    """Links that fit into the files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS
    return max(1, min(CONNECTIONS, soft - OTHER_FILES))


def _deletes_subcloud(change: Change) -> bool:
    return change.kind == SUBCLOUD.kind and change.type == "DELETED"
