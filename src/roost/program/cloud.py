"""A cloud in one process: store, controllers, links both ways, API, and mostly a host of its own.

Start: store, certificates, link end for lower nodes, API, controllers, host, link upwards. Stop: the
same backwards. The tasks run in one group: when one fails for good, the process ends and its
supervisor starts it anew, for everything is in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from roost import __version__
from roost.api import through
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.identity import shipped
from roost.api.identity.aggregation import AggregationController
from roost.api.server import serve
from roost.cloud import admission as cloud_admission
from roost.cloud.certificates import CertificateController
from roost.cloud.configuration import PlatformPorts
from roost.cloud.controllers import controllers as cloud_controllers
from roost.engine.admission import Rule
from roost.engine.controller import Runner
from roost.engine.presence import PresenceBook
from roost.engine.vault import BadKeys, Vault
from roost.fleet import admission as fleet_admission
from roost.fleet.controllers import controllers as fleet_controllers
from roost.link import exchange, pki
from roost.link.errors import LinkError
from roost.link.files import write_private
from roost.link.identity import FACTS_FILE
from roost.link.identity import load as load_identity
from roost.link.lower import Backoff, LowerLink, TlsDialer
from roost.link.node import Node
from roost.link.node import host as host_node
from roost.link.node import subcloud as subcloud_node
from roost.link.upper import LocalDialer, UpperLink
from roost.link.upper import Presence as LinkPresence
from roost.link.upper import Settings as LinkSettings
from roost.model import time
from roost.model.cloud import CLOUD, Cloud, CloudSpec
from roost.model.host import HOST, Host, HostSpec
from roost.model.meta import Metadata
from roost.program import notify
from roost.program.access import authenticators, enrolment_subresources, keep_kubeconfig
from roost.program.enrolments import check_enrolment, remember_enrolment
from roost.program.home import Home, Settings, StartError, split_address
from roost.program.local import HostRole, tell_of_connection
from roost.program.plans import plan_subresource
from roost.program.proof import probe
from roost.program.timing import TIMING
from roost.program.uplink import UplinkTeller
from roost.store.database import sqlite_url
from roost.store.store import Store
from roost.store.transaction import Transaction

LOOK_AT_CERTIFICATES = 3600.0
API_PORT, LINK_PORT = 7443, 7444
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound

_log = structlog.get_logger("roost.program")


class CloudRole:
    """One cloud. `run` until `stop` is set."""

    def __init__(
        self, home: Home, settings: Settings, stop: asyncio.Event, leave: Callable[[], None]
    ) -> None:
        self._home, self._settings, self._stop, self._leave = home, settings, stop, leave
        self._clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._name = settings.cloud
        self._runners: dict[str, Runner] = {}
        self._uplink: LowerLink | None = None
        self._server_end = ""
        self._names: list[str] = []
        self._background: set[asyncio.Task[None]] = set()
        self._hosts: PresenceBook
        self._subclouds: PresenceBook
        self._store: Store
        self._authority: pki.Authority
        self._upper: UpperLink
        self._host: HostRole | None = None
        self._api: Api | None = None

    async def run(self) -> None:
        """Start everything, tell the supervisor, run until told to stop."""
        monotonic = asyncio.get_running_loop().time
        self._hosts, self._subclouds = PresenceBook(monotonic), PresenceBook(monotonic)
        url = self._settings.database or sqlite_url(self._home.path / "cloud.db")
        self._store = await Store.open(url)
        try:
            await self._store.transact(self._declare)
            certificate = self._certificates()
            self._upper = self._make_upper()
            self._api = api = Api(self._context())
            self._make_uplink(api)
            self._make_runners()
            await self._listen()
            if self._settings.host:
                await self._open_host()
            await self._serve(api, certificate)
        finally:
            await self._close()

    # -- making

    def _declare(self, tx: Transaction) -> None:
        """The cloud's own resource and that of its host, at the first start."""
        if tx.find(CLOUD.kind, "", self._name) is None:
            spec = CloudSpec(system_mode=self._settings.mode)
            tx.save(Cloud(metadata=Metadata(name=self._name), spec=spec))
        shipped.declare(tx)
        host = self._settings.host
        if host and tx.find(HOST.kind, self._name, host) is None:
            tx.save(Host(metadata=Metadata(name=host, namespace=self._name), spec=HostSpec()))

    def _certificates(self) -> Path:
        """This cloud's CA, its server certificate, and the administrator's kubeconfig."""
        now = self._clock()
        self._authority = pki.Authority.open(self._home.pki, self._name, now)
        addresses = [self._settings.api_address, *self._settings.advertise]
        names = {split_address(a, LINK_PORT)[0] for a in addresses} - ANY_ADDRESS
        self._names = sorted(names)
        certificate = pki.server_file(self._authority, self._home.pki / "server.pem", self._names, now)
        self._server_end = time.seconds(pki.expires_at(certificate.read_bytes()))
        host, port = split_address(self._settings.api_address, API_PORT)
        address = _joined("127.0.0.1" if host in ANY_ADDRESS else host, port)
        keep_kubeconfig(self._home.path / "kubeconfig", self._name, address, self._authority, now)
        return certificate

    def _make_upper(self) -> UpperLink:
        addresses = (
            [split_address(self._settings.link_address, LINK_PORT)] if self._settings.link_address else []
        )
        upper = UpperLink(
            self._store,
            self._authority,
            name=self._name,
            directory=self._home.pki,
            clock=self._clock,
            settings=LinkSettings(addresses=addresses, server_names=self._names),
            timing=TIMING,
            admit=self._admit,
            on_enrolled=remember_enrolment,
        )
        upper.listen(self._presence_changed)
        return upper

    async def _admit(self, node: Node) -> None:
        """Let in nodes that enrolled for the declaration that stands. Raises Refused."""
        if self._settings.host and node == host_node(self._name, self._settings.host):
            return
        await self._store.read(lambda tx: check_enrolment(tx, node, self._name))

    def _context(self) -> ApiContext:
        return ApiContext(
            store=self._store,
            cloud=self._name,
            clock=self._clock,
            rules=self._rules(),
            call_cloud=self._call_cloud,
            authenticate=authenticators(self._settings),
            issuer=self._settings.issuer,
            vault=self._vault(),
            subresources={
                **enrolment_subresources(self._name, self._authority, self._endpoints),
                **plan_subresource(self._platform()),
            },
        )

    def _rules(self) -> dict[str, list[Rule]]:
        return {
            **cloud_admission.rules(self._name, self._settings.host),
            **fleet_admission.rules(self._name),
        }

    def _vault(self) -> Vault:
        """The keys of secret values. Bad ones are told now and at each use; other kinds go on."""
        path = Path(self._settings.keys) if self._settings.keys else self._home.path / "keys" / "secrets"
        try:
            return Vault.open(path, write_private, self._clock())
        except (BadKeys, OSError) as error:
            _log.error("secret values can't be sealed", reason=str(error))
            return Vault(path, write_private)

    def _endpoints(self) -> list[str]:
        if not self._settings.link_address:
            return []
        if self._settings.advertise:
            return self._settings.advertise
        host, port = split_address(self._settings.link_address, LINK_PORT)
        reached = own_address() if host in ANY_ADDRESS else host
        return [_joined(reached, port)]

    async def _call_cloud(self, cloud: str, request: exchange.Request) -> exchange.Response:
        return await self._upper.call(subcloud_node(cloud), request)

    def _make_uplink(self, api: Api) -> None:
        if not (self._home.uplink / FACTS_FILE).exists():
            return
        dialer = TlsDialer(self._home.uplink, clock=self._clock)
        self._uplink = LowerLink(
            self._store,
            dialer,
            node=dialer.identity.who(),
            clock=self._clock,
            handler=through.handler(api),
            timing=TIMING,
            backoff=Backoff(cap=self._settings.retry_seconds),
        )

    def _platform(self) -> PlatformPorts:
        """Ports that no policy may close."""
        ports = (
            [split_address(self._settings.link_address, LINK_PORT)[1]] if self._settings.link_address else []
        )
        dialled = []
        if (self._home.uplink / FACTS_FILE).exists():
            identity = load_identity(self._home.uplink)
            dialled = [split_address(e, LINK_PORT)[1] for e in identity.endpoints]
        return PlatformPorts(links=tuple(ports), dialled=tuple(dialled))

    def _make_runners(self) -> None:
        platform = self._platform()
        # On a database of its own one process follows another under the home's lock: what the former
        # had in hand is this one's at once. Processes that share a database must tell each other apart.
        shared = bool(self._settings.database)
        holder = f"{socket.gethostname()}/{uuid.uuid4()}" if shared else self._store.identity
        rules = self._rules()
        made = cloud_controllers(
            self._name, __version__, self._hosts, platform, holder, rules, self._drop_host
        )
        made |= fleet_controllers(self._name, self._subclouds, self._drop_subcloud)
        certificates = CertificateController(self._name, self._certificate_ends)
        made[certificates.name] = certificates
        aggregation = AggregationController()
        made[aggregation.name] = aggregation
        self._runners = {name: Runner(self._store, controller) for name, controller in made.items()}

    async def _open_host(self) -> None:
        node = host_node(self._name, self._settings.host)
        dialer = LocalDialer(self._upper, node)
        self._host = HostRole(
            self._home,
            self._settings,
            node,
            dialer,
            clock=self._clock,
            leave=self._leave,
            timing=TIMING,
        )
        await self._host.open(link_up=self._proving_link_up, probe=self._prove)
        if self._uplink is not None:
            tell_of_connection(self._uplink, self._host.agent.notice)

    # -- running

    async def _serve(self, api: Api, certificate: Path) -> None:
        ready: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            server: asyncio.Task[None] = group.create_task(self._answer(api, certificate, ready))
            both: list[asyncio.Future[Any]] = [server, ready]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            others = [group.create_task(runner.run()) for runner in self._runners.values()]
            others.append(group.create_task(self._keep_certificates()))
            if self._host is not None:
                others.append(group.create_task(self._host.run()))
            if self._uplink is not None:
                teller = UplinkTeller(self._store, self._name)
                teller.changed(self._uplink.state)
                self._uplink.listen(teller.changed)
                self._uplink.start()
            _log.info("cloud up", cloud=self._name, api=self._settings.api_address)
            notify.tell("READY=1")
            await server
            for task in others:
                task.cancel()

    async def _answer(
        self, api: Api, certificate: Path, ready: asyncio.Future[list[tuple[str, int]]]
    ) -> None:
        inherited = notify.inherited_sockets().get("api")
        host, port = split_address(self._settings.api_address, API_PORT)
        try:
            await serve(
                api,
                certificate=certificate,
                key=certificate,
                client_ca=self._home.pki / "ca.crt",
                stop=self._stop,
                sockets=[inherited] if inherited else (),
                host=host,
                port=port,
                ready=ready,
            )
        except OSError as error:
            if ready.done():
                raise
            raise StartError(
                f"the API can't listen at {self._settings.api_address}: {os.strerror(error.errno or 0)}",
                "end what uses that address, or choose another with --address",
            ) from error

    async def _listen(self) -> None:
        try:
            await self._upper.start()
        except OSError as error:
            raise StartError(
                f"links can't be taken at {self._settings.link_address}: {os.strerror(error.errno or 0)}",
                "end what uses that address, or choose another with --link-address",
            ) from error

    async def _keep_certificates(self) -> None:
        """Look now and then whether the server's certificate is due; the server reads it again itself."""
        while True:
            await asyncio.sleep(LOOK_AT_CERTIFICATES)
            try:
                self._certificates()
            except (OSError, LinkError) as error:
                # A full disk must not end a cloud whose certificate still holds.
                _log.error("certificates could not be kept; looked at again later", reason=str(error))

    async def _close(self) -> None:
        with contextlib.suppress(Exception):
            notify.tell("STOPPING=1")
        if self._uplink is not None:
            await self._uplink.stop()
        if hasattr(self, "_upper"):
            await self._upper.stop()
        if self._host is not None:
            await self._host.close()
        if self._api is not None:
            await self._api.close()
        await self._store.close()

    # -- facts

    def _presence_changed(self, node: Node, presence: LinkPresence) -> None:
        book = self._hosts if node.kind == "host" else self._subclouds
        if presence.connected:
            end = presence.certificate_expires_at
            book.up(
                node.name,
                version=presence.version,
                certificate_expires_at=time.seconds(end) if end else "",
            )
        else:
            book.down(node.name)
        if node.kind == "host":
            self._runners["hosts"].wake((node.cloud, node.name))
        else:
            self._runners["subclouds"].wake(("", node.name))

    def _drop_host(self, name: str) -> None:
        self._disconnect(host_node(self._name, name), self._hosts)

    def _drop_subcloud(self, name: str) -> None:
        self._disconnect(subcloud_node(name), self._subclouds)

    def _disconnect(self, node: Node, book: PresenceBook) -> None:
        """End the link of a node that is gone, and forget it."""
        task = asyncio.get_running_loop().create_task(self._upper.disconnect(node, "it was deleted here"))
        self._background.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._background.discard(done)
            self._upper.forget(node)
            book.forget(node.name)

        task.add_done_callback(ended)

    def _certificate_ends(self) -> dict[str, str]:
        ends = {f"cloud={self._name}.server": self._server_end}
        if self._uplink is not None and self._uplink.state.certificate_expires_at:
            ends[f"cloud={self._name}.link"] = time.seconds(self._uplink.state.certificate_expires_at)
        return ends

    def _proving_link_up(self) -> bool:
        return self._uplink is None or self._uplink.state.connected

    async def _prove(self) -> None:
        if self._uplink is not None:
            await probe(self._home.uplink)


def own_address() -> str:
    """The address by which this machine is seen on its default route; loopback when it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            # A datagram socket is only told its route here; nothing is sent.
            asking.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(asking.getsockname()[0])


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
