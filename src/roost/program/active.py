"""The active part of a cloud: its controllers, the links of hosts, the link upwards.

One process of a cloud does this at a time. Whether a host is there is a fact of the process that has its
link, and the controllers go by it: so they are always together. Links of subclouds may be at any process
(`gateway`); where they are is read from the store. Each term is begun with a fresh `Active`, which has met
nobody yet and gives nodes their time to come.
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
from roost.link import pki
from roost.link.conduct import ConductController
from roost.link.errors import ConnectionLost, LinkError
from roost.link.exchange import Handler, Unreachable
from roost.link.identity import FACTS_FILE
from roost.link.local import LocalDialer
from roost.link.lower import Backoff, LowerLink, State, TlsDialer
from roost.link.node import Node
from roost.link.node import host as host_node
from roost.link.node import subcloud as subcloud_node
from roost.link.presence import Presence as LinkPresence
from roost.link.roster import Roster
from roost.link.wire import MemoryConnection
from roost.model import time
from roost.program import processes
from roost.program.beats import Registry
from roost.program.gateway import Gateway, Led
from roost.program.home import Home, Settings
from roost.program.leaving import keep_link
from roost.program.rehoming import Rehomer, finish_interrupted
from roost.program.start import facts
from roost.program.timing import TIMING
from roost.program.troubles import prove_writing
from roost.program.uplink import UplinkTeller
from roost.store.links import Link
from roost.store.store import Store


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a term is made of: what its process keeps over all terms."""

    home: Home
    settings: Settings
    store: Store
    gateway: Gateway
    clock: Callable[[], datetime]
    authority: pki.Authority
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
        self.upper = parts.gateway.upper
        self.roster = Roster(parts.store, self._link_changed)
        self.uplink = self._make_uplink()
        self._uplink_ends = self.uplink.state.certificate_expires_at if self.uplink else None
        self.rehomer = Rehomer(
            parts.store, self._name, parts.home.path, self.uplink, clock=parts.clock, facts=facts()
        )
        self._runners = self._make_runners()

    async def run(self, listening: asyncio.Event) -> None:
        """Take hosts, and run the controllers. `listening` is set once hosts can come."""
        try:
            self._observer.start()
            async with self._parts.gateway.led(self._led()), asyncio.TaskGroup() as group:
                listening.set()
                group.create_task(self.roster.run())
                group.create_task(
                    processes.tell(self._parts.store, self._name, self.roster, self._parts.holder)
                )
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

    # -- making

    def _led(self) -> Led:
        conduct = self._runners["conduct"]
        return Led(
            presence_changed=self._presence_changed,
            complained=lambda node: conduct.wake(self._conduct.key(node)),
            handler=Registry(self._observer, here=self._parts.settings.host),
        )

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
        self._conduct = ConductController(self._name, self.upper.conduct)
        made[self._conduct.name] = self._conduct
        aggregation = AggregationController()
        made[aggregation.name] = aggregation
        runners = {name: Runner(parts.store, one) for name, one in made.items()}
        # Each waits for a board controller's answer.
        runners[power.name] = Runner(parts.store, power, workers=BOARDS_AT_ONCE)
        return runners

    # -- facts

    def _presence_changed(self, node: Node, presence: LinkPresence) -> None:
        """Of a host, whose link is always at the active process."""
        if presence.connected:
            if node.name != self._parts.settings.host:
                self._observer.expect(node.name)
            end = presence.certificate_expires_at
            self._hosts.up(
                node.name,
                version=presence.version,
                certificate_expires_at=time.seconds(end) if end else "",
                trouble=presence.trouble,
            )
        else:
            self._hosts.down(node.name)
        self._wake_host(node.name)

    def _link_changed(self, link: Link, known: bool) -> None:  # noqa: FBT001 - a fact, not a switch
        """Of a subcloud, at any process. One that was away already when this term began has its time to come,
        and so has one whose process is gone: it was not seen to be lost."""
        name = link.node.removeprefix("subcloud/")
        if link.state == "up":
            self._subclouds.up(
                name,
                version=link.version,
                certificate_expires_at=link.certificate_expires_at,
                trouble=link.trouble,
            )
        elif known:
            return
        elif link.state == "orphan":
            self._subclouds.lost_sight(name)
        else:
            self._subclouds.down(name)
        self._runners["subclouds"].wake(("", name))

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
        # Its link ends where it is: each gateway sees that the subcloud is gone.
        self.roster.forget(str(subcloud_node(name)))
        self._disconnect(subcloud_node(name), self._subclouds)

    def _disconnect(self, node: Node, book: PresenceBook) -> None:
        """End the link of a node that is gone, and forget it."""
        task = self._loop.create_task(self._parts.gateway.drop(node, "it was deleted here"))
        self._background.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._background.discard(done)
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
