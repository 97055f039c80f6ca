"""The active part of a cloud: its controllers, the links of lower nodes, the link upwards.

One process of a cloud does this at a time. Whether a lower node is there is a fact of the process that has
its link, and the controllers go by it: so they are always together. Each term is begun with a fresh
`Active`, which has met nobody yet and gives nodes their time to come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime

import msgspec

from roost import __version__
from roost.api.identity.aggregation import AggregationController
from roost.cloud.certificates import CertificateController, Ends
from roost.cloud.configuration import PlatformPorts
from roost.cloud.controllers import controllers as cloud_controllers
from roost.cloud.heartbeat_observer import Observer
from roost.cloud.outlets.outlets import Outlets
from roost.cloud.power.boards import AT_ONCE as BOARDS_AT_ONCE
from roost.cloud.power.boards import Boards
from roost.cloud.power.control import PowerController
from roost.cloud.watching import Watch, machine_up
from roost.engine.admission import Rule
from roost.engine.attention import Attention
from roost.engine.controller import Runner
from roost.engine.presence import PresenceBook
from roost.engine.vault import Vault
from roost.fleet.controllers import controllers as fleet_controllers
from roost.link import pki, rehoming
from roost.link.conduct import ConductController
from roost.link.errors import ConnectionLost, LinkError, Refused
from roost.link.exchange import Handler, Unreachable
from roost.link.identity import FACTS_FILE
from roost.link.local import LocalDialer
from roost.link.lower import Backoff, LowerLink, State, TlsDialer
from roost.link.messages import Hello
from roost.link.node import Node
from roost.link.node import host as host_node
from roost.link.node import subcloud as subcloud_node
from roost.link.presence import Presence as LinkPresence
from roost.link.upper import Settings as LinkSettings
from roost.link.upper import UpperLink
from roost.link.wire import MemoryConnection
from roost.model import time
from roost.program.beats import Registry
from roost.program.enrolments import check_enrolment, remember_enrolment, tell_not_known
from roost.program.home import LINK_PORT, Home, Settings, split_address
from roost.program.leaving import keep_link
from roost.program.listeners import links_taken
from roost.program.rehoming import Rehomer, finish_interrupted
from roost.program.start import facts
from roost.program.timing import TIMING
from roost.program.troubles import prove_writing
from roost.program.uplink import UplinkTeller
from roost.store.store import Store

NOT_KNOWN_TOLD = 200
"""Nodes that were turned away of which the log tells, in one term; they dial again and again."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a term is made of: what its process keeps over all terms."""

    home: Home
    settings: Settings
    store: Store
    clock: Callable[[], datetime]
    authority: pki.Authority
    server_names: Sequence[str]
    server_end: Callable[[], str]
    """When the certificate of the API ends."""
    platform: PlatformPorts
    rules: Mapping[str, Sequence[Rule]]
    vault: Vault
    handler: Handler
    """Answers what the upper cloud asks through the link."""
    holder: str
    """Tells this process from others in leases of steps."""


class Active:
    """One term. `run` until cancelled."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._name = parts, parts.settings.cloud
        monotonic = asyncio.get_running_loop().time
        self._attention = Attention(monotonic)
        self._hosts, self._subclouds = PresenceBook(self._attention), PresenceBook(self._attention)
        self._loop = asyncio.get_running_loop()
        self._observer = Observer(
            parts.platform.heartbeat,
            changed=self._heartbeat_changed,
            suspected=self._suspected,
            link_heard=lambda name: self.upper.heard(host_node(self._name, name)),
        )
        self._background: set[asyncio.Task[None]] = set()
        self._boards = Boards()
        self._not_known: set[Node] = set()
        self.upper = self._make_upper()
        self.uplink = self._make_uplink()
        self._uplink_ends = self.uplink.state.certificate_expires_at if self.uplink else None
        self.rehomer = Rehomer(
            parts.store, self._name, parts.home.path, self.uplink, clock=parts.clock, facts=facts()
        )
        self._runners = self._make_runners()

    async def run(self, listening: asyncio.Event) -> None:
        """Listen, then run the controllers. `listening` is set once lower nodes can come.

        Raises StartError when the link's address can't be had.
        """
        try:
            await self._listen()
            listening.set()
            self._observer.start()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._attention.run())
                group.create_task(prove_writing(self._parts.store))
                for runner in self._runners.values():
                    group.create_task(runner.run())
                outlets = Outlets(self._name, self._parts.vault, self._parts.clock)
                group.create_task(outlets.run(self._parts.store))
                if self.uplink is not None:
                    teller = UplinkTeller(self._parts.store, self._name)
                    teller.changed(self.uplink.state)
                    self.uplink.listen(teller.changed)
                    self.uplink.listen(self._uplink_changed)
                group.create_task(keep_link(self._parts.store, self._name, self.uplink))
                group.create_task(self.rehomer.run())
        finally:
            self._boards.close()
            await asyncio.to_thread(self._observer.stop)
            if self.uplink is not None:
                await self.uplink.stop()
            await self.upper.stop()

    async def _listen(self) -> None:
        try:
            await self.upper.start()
        except OSError as error:
            raise links_taken(self._parts.settings.link_address, error) from error

    # -- making

    def _make_upper(self) -> UpperLink:
        parts = self._parts
        where = parts.settings.link_address
        upper = UpperLink(
            parts.store,
            parts.authority,
            name=self._name,
            directory=parts.home.pki,
            clock=parts.clock,
            settings=LinkSettings(
                addresses=[split_address(where, LINK_PORT)] if where else [],
                server_names=parts.server_names,
            ),
            timing=TIMING,
            admit=self._admit,
            welcome=self._hear,
            on_enrolled=remember_enrolment,
            handler=Registry(self._observer, here=parts.settings.host),
        )
        upper.listen(self._presence_changed)
        return upper

    async def _admit(self, node: Node) -> None:
        """Let in nodes that enrolled for the declaration that stands. Raises Refused."""
        settings = self._parts.settings
        if settings.host and node == host_node(self._name, settings.host):
            return
        store = self._parts.store
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
        return await rehoming.welcome(self._parts.store, node, hello)

    def _make_uplink(self) -> LowerLink | None:
        parts = self._parts
        finish_interrupted(parts.home.path)
        if not (parts.home.uplink / FACTS_FILE).exists():
            return None
        dialer = TlsDialer(parts.home.uplink, clock=parts.clock)
        return LowerLink(
            parts.store,
            dialer,
            node=dialer.identity.who(),
            clock=parts.clock,
            handler=parts.handler,
            timing=TIMING,
            backoff=Backoff(cap=parts.settings.retry_seconds),
        )

    def _make_runners(self) -> dict[str, Runner]:
        parts = self._parts
        power = PowerController(self._name, self._boards, parts.vault)
        made = cloud_controllers(
            self._name,
            __version__,
            self._hosts,
            parts.platform,
            parts.holder,
            parts.rules,
            self._drop_host,
            Watch(
                self._name,
                self._hosts,
                self._observer,
                configure=self._observer.configure,
                monotonic=self._attention,
                uptime=machine_up,
            ),
            power,
        )
        made |= fleet_controllers(self._name, self._subclouds, self._drop_subcloud)
        certificates = CertificateController(self._name, self._certificate_ends)
        made[certificates.name] = certificates
        conduct = ConductController(self._name, self.upper.conduct)
        made[conduct.name] = conduct
        aggregation = AggregationController()
        made[aggregation.name] = aggregation
        runners = {name: Runner(parts.store, one) for name, one in made.items()}
        # Each waits for a board controller's answer.
        runners[power.name] = Runner(parts.store, power, workers=BOARDS_AT_ONCE)
        self.upper.conduct.listen(lambda node: runners[conduct.name].wake(conduct.key(node)))
        return runners

    # -- facts

    def _presence_changed(self, node: Node, presence: LinkPresence) -> None:
        book = self._hosts if node.kind == "host" else self._subclouds
        if presence.connected:
            if node.kind == "host" and node.name != self._parts.settings.host:
                self._observer.expect(node.name)
            end = presence.certificate_expires_at
            book.up(
                node.name,
                version=presence.version,
                certificate_expires_at=time.seconds(end) if end else "",
                trouble=presence.trouble,
            )
        else:
            book.down(node.name)
        if node.kind == "host":
            self._wake_host(node.name)
        else:
            self._runners["subclouds"].wake(("", node.name))

    def _wake_host(self, name: str) -> None:
        self._runners["hosts"].wake((self._name, name))
        self._runners["silence"].wake(("", self._name))

    def _heartbeat_changed(self, name: str) -> None:
        """In the observer's thread: a host's heartbeats came or went."""
        self._in_loop(lambda: self._wake_host(name))

    def _suspected(self, name: str) -> None:
        """In the observer's thread: all heartbeats of a host are missing; perhaps its link still answers."""
        self._in_loop(lambda: self._keep(self._probe(host_node(self._name, name))))

    def _in_loop(self, work: Callable[[], None]) -> None:
        # Once the loop is closed there is nobody left to be told.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)

    async def _probe(self, node: Node) -> None:
        with contextlib.suppress(LinkError, Unreachable):
            await self.upper.probe(node)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _drop_host(self, name: str) -> None:
        self._observer.withdraw(name)
        self._disconnect(host_node(self._name, name), self._hosts)

    def _drop_subcloud(self, name: str) -> None:
        self._disconnect(subcloud_node(name), self._subclouds)

    def _disconnect(self, node: Node, book: PresenceBook) -> None:
        """End the link of a node that is gone, and forget it."""
        task = asyncio.get_running_loop().create_task(self.upper.disconnect(node, "it was deleted here"))
        self._background.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._background.discard(done)
            self.upper.forget(node)
            book.forget(node.name)

        task.add_done_callback(ended)

    def _certificate_ends(self) -> Ends:
        link = self.uplink.state.certificate_expires_at if self.uplink is not None else None
        return Ends(
            server=self._parts.server_end(),
            authority=time.seconds(self._parts.authority.ends),
            link=time.seconds(link) if link else "",
        )

    def _uplink_changed(self, state: State) -> None:
        """The link upwards has said something; a certificate that was renewed ends an alarm."""
        if state.certificate_expires_at != self._uplink_ends:
            self._uplink_ends = state.certificate_expires_at
            self._runners["certificates"].wake(("", self._name))


class ActiveDialer(LocalDialer):
    """Dials the active part in this process, whichever term it is, for the host that lives with its cloud."""

    def __init__(self, active: Callable[[], Active | None], node: Node) -> None:
        self._active, self._node = active, node

    async def dial(self) -> MemoryConnection:
        active = self._active()
        if active is None:
            raise ConnectionLost("the links of this cloud are at another of its processes")
        return await LocalDialer(active.upper, self._node).dial()
