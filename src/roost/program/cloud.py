"""A process of a cloud: store, API, mostly a host of its own, and the active part (`active`).

Start: store, certificates, API, active part, host. Stop: the same backwards. The tasks run in one group:
when one fails for good, the process ends and its supervisor starts it anew, for everything is in the store.

On SQLite a cloud is one process, which the home's lock sees to. On PostgreSQL it may be several: all serve
the API and take links of subclouds (`gateway`), and a lease in the database decides which of them is active.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from roost.api import through
from roost.api.app import Api
from roost.api.context import ApiContext
from roost.api.identity import shipped
from roost.api.server import serve
from roost.cloud import admission as cloud_admission
from roost.cloud.configuration import PlatformPorts
from roost.cloud.outlets import admission as outlet_admission
from roost.cloud.restored import after_restore
from roost.engine.admission import Refused, Rule
from roost.engine.clock import rest
from roost.engine.leadership import Leadership
from roost.engine.vault import BadKeys, Vault
from roost.fleet import admission as fleet_admission
from roost.link import exchange, pki
from roost.link.errors import LinkError
from roost.link.files import write_private
from roost.link.identity import FACTS_FILE
from roost.link.identity import load as load_identity
from roost.link.node import host as host_node
from roost.link.node import subcloud as subcloud_node
from roost.model import time
from roost.model.cloud import CLOUD, Cloud, CloudSpec
from roost.model.codec import Raw
from roost.model.host import HOST, Host, HostSpec
from roost.model.meta import Metadata
from roost.program import first_start, notify
from roost.program.access import authenticators, enrolment_subresources, keep_kubeconfig
from roost.program.active import Active, ActiveDialer, Parts
from roost.program.gateway import Gateway, introduction
from roost.program.home import API_PORT, LINK_PORT, Home, Settings, StartError, split_address
from roost.program.listeners import api_taken
from roost.program.local import HostRole, tell_of_connection
from roost.program.outlets import test_subresource
from roost.program.plans import plan_subresource
from roost.program.proof import probe
from roost.program.rehoming import asked as rehome_asked
from roost.program.room import nothing, when_possible
from roost.program.timing import TIMING
from roost.store.database import sqlite_url
from roost.store.store import Store
from roost.store.transaction import HERE, Transaction

LOOK_AT_CERTIFICATES = 3600.0
ACTIVE = "active"
"""The lease of the process that is active."""

AUTHORITY = "authority"
"""The property with the pin of the certificate authority that all processes on a database have."""

T = TypeVar("T")
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
        self._process = f"{socket.gethostname()}/{uuid.uuid4()}"
        self.has_served = False
        """Whether the start came to its end: everything listened and ran."""
        self._server_end = ""
        self._names: list[str] = []
        self._listening = asyncio.Event()
        self._active: Active | None = None
        self._leadership: Leadership | None = None
        self._store: Store
        self._gateway: Gateway
        self._authority: pki.Authority
        self._host: HostRole | None = None
        self._api: Api | None = None

    async def run(self) -> None:
        """Start everything, tell the supervisor, run until told to stop."""
        url = self._settings.database or sqlite_url(self._home.path / "cloud.db")
        role = self._host_role() if self._settings.host else None
        self._store = await self._opened(url, role.hold if role else nothing)
        try:
            certificate = self._certificates()
            self._gateway = self._make_gateway()
            if self._settings.database:
                await self._store.transact(self._join)
                self._leadership = Leadership(self._store, ACTIVE, self._process)
            self._api = api = Api(self._context())
            if role is not None:
                await self._patiently(lambda: self._open_host(role), role.hold)
            if self._stop.is_set():
                return
            first_start.complete(self._home)
            try:
                await self._serve(api, certificate)
            finally:
                await self._gateway.stop()
        finally:
            await self._close()

    # -- making

    async def _opened(self, url: str, meanwhile: Callable[[], Awaitable[None]]) -> Store:
        """The store, with what a cloud always has."""

        async def work() -> Store:
            store = await Store.open(url)
            try:
                await store.transact(self._declare)
            except BaseException:
                await store.close()
                raise
            return store

        return await self._patiently(work, meanwhile)

    async def _patiently(
        self, work: Callable[[], Awaitable[T]], meanwhile: Callable[[], Awaitable[None]]
    ) -> T:
        if first_start.under_way(self._home) is not None:
            return await work()
        return await when_possible(work, self._stop, meanwhile)

    def _declare(self, tx: Transaction) -> None:
        """The cloud's own resource and that of its host, at the first start. Raises StartError."""
        there = [found.name for found in tx.select(CLOUD.kind, origin=HERE)]
        if there and self._name not in there:
            raise StartError(
                f"the database holds cloud {there[0]}, not {self._name}",
                f"start with --name {there[0]}, or name another database",
            )
        if tx.find(CLOUD.kind, "", self._name) is None:
            spec = CloudSpec(system_mode=self._settings.mode)
            tx.save(Cloud(metadata=Metadata(name=self._name), spec=spec))
        after_restore(tx, self._name)
        shipped.declare(tx)
        host = self._settings.host
        if host and tx.find(HOST.kind, self._name, host) is None:
            tx.save(Host(metadata=Metadata(name=host, namespace=self._name), spec=HostSpec()))

    def _join(self, tx: Transaction) -> None:
        """One authority for all processes of this database: the first one's. Raises StartError."""
        known = tx.property(AUTHORITY)
        if known not in ("", self._authority.pin):
            raise StartError(
                f"the processes of cloud {self._name} on this database have another certificate authority",
                f"copy ca.crt and ca.key from pki/ in the home of one of them to {self._home.pki}",
            )
        if not known:
            tx.set_property(AUTHORITY, self._authority.pin)

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
        kubeconfig = self._home.path / "kubeconfig"
        try:
            keep_kubeconfig(kubeconfig, self._name, address, self._authority, now)
        except OSError as error:
            if not kubeconfig.exists():
                raise
            _log.error("the kubeconfig could not be kept; looked at again later", reason=str(error))
        return certificate

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
                **test_subresource(),
                ("clouds", "rehome"): self._rehome,
            },
        )

    def _rules(self) -> dict[str, list[Rule]]:
        return {
            **cloud_admission.rules(self._name, self._settings.host),
            **outlet_admission.rules(self._name),
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
        reached = own_address(host) if host in ANY_ADDRESS else host
        return [_joined(reached, port)]

    async def _call_cloud(self, cloud: str, request: exchange.Request) -> exchange.Response:
        return await self._gateway.call(subcloud_node(cloud), request)

    async def _rehome(
        self, context: ApiContext, caller: exchange.Caller, namespace: str, name: str, body: Raw
    ) -> Raw:
        """POST clouds/NAME/rehome: this cloud is to move to the central cloud of a token."""
        if name != self._name:
            raise Refused(f"this is the API of {self._name}", f"ask that of {name}: /clouds/{name}/...")
        if self._active is None:
            raise Refused(
                f"the link of {self._name} is at another of its processes", "say it to the API of that one"
            )
        text, within = rehome_asked(body)
        deadline = await self._active.rehomer.order(text, within, caller)
        return {
            "apiVersion": "roost.edge/v1",
            "kind": "RehomeRequest",
            "status": {"deadline": time.seconds(deadline)},
        }

    def _platform(self) -> PlatformPorts:
        """Ports that no policy may close."""
        ports = (
            [split_address(self._settings.link_address, LINK_PORT)[1]] if self._settings.link_address else []
        )
        dialled = []
        if (self._home.uplink / FACTS_FILE).exists():
            identity = load_identity(self._home.uplink)
            dialled = [split_address(e, LINK_PORT)[1] for e in identity.endpoints]
        return PlatformPorts(
            links=tuple(ports),
            dialled=tuple(dialled),
            # The same number as the links', of UDP.
            heartbeat=ports[0] if ports else 0,
            host=self._settings.host,
        )

    def _parts(self, api: Api) -> Parts:
        # On a database of its own one process follows another under the home's lock: what the former
        # had in hand is this one's at once. Processes that share a database must tell each other apart.
        return Parts(
            home=self._home,
            settings=self._settings,
            store=self._store,
            gateway=self._gateway,
            clock=self._clock,
            authority=self._authority,
            server_end=lambda: self._server_end,
            platform=self._platform(),
            rules=self._rules(),
            vault=self._vault(),
            handler=through.handler(api),
            holder=self._process if self._settings.database else self._store.identity,
        )

    def _make_gateway(self) -> Gateway:
        where = self._settings.link_address
        if where:
            host, port = split_address(where, LINK_PORT)
            where = _joined(own_address(host) if host in ANY_ADDRESS else host, port)
        name = self._process if self._settings.database else self._store.identity
        return Gateway(
            self._home,
            self._settings,
            self._store,
            self._authority,
            process=introduction(name, self._settings, where),
            server_names=self._names,
            clock=self._clock,
        )

    def _host_role(self) -> HostRole:
        node = host_node(self._name, self._settings.host)
        dialer = ActiveDialer(lambda: self._active, node)
        return HostRole(
            self._home,
            self._settings,
            node,
            dialer,
            clock=self._clock,
            leave=self._leave,
            timing=TIMING,
        )

    async def _open_host(self, role: HostRole) -> None:
        await role.open(link_up=self._proving_link_up, probe=self._prove)
        self._host = role

    # -- running

    async def _serve(self, api: Api, certificate: Path) -> None:
        ready: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            server: asyncio.Task[None] = group.create_task(self._answer(api, certificate, ready))
            both: list[asyncio.Future[Any]] = [server, ready]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            await self._gateway.start()
            gateway = group.create_task(self._gateway.run())
            others = [group.create_task(self._keep_certificates())]
            if self._settings.controls:
                others.append(group.create_task(self._lead(api)))
            if self._leadership is None:
                await self._listening.wait()
            if self._host is not None:
                others.append(group.create_task(self._host.run()))
            self.has_served = True
            self._tell_up()
            notify.tell("READY=1")
            await server
            _log.info("cloud stopping", cloud=self._name)
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            gateway.cancel()

    def _tell_up(self) -> None:
        """Where everything is, and at a terminal the next step."""
        links = self._settings.link_address or "none"
        kubeconfig = str(self._home.path.absolute() / "kubeconfig")
        api = self._settings.api_address
        _log.info("cloud up", cloud=self._name, api=api, links=links, kubeconfig=kubeconfig)
        if sys.stderr.isatty():
            print(next_step(kubeconfig), file=sys.stderr, flush=True)

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
            raise api_taken(self._settings.api_address, error) from error

    async def _lead(self, api: Api) -> None:
        """Be active: always, or whenever it is this process's turn."""
        if self._leadership is None:
            await self._act(api)
        else:
            await self._leadership.run(lambda: self._act(api))

    async def _act(self, api: Api) -> None:
        """Be the active process, until cancelled."""
        active = self._active = Active(self._parts(api))
        if active.uplink is not None and self._host is not None:
            tell_of_connection(active.uplink, self._host.agent.notice)
        try:
            await active.run(self._listening)
        finally:
            self._active = None

    async def _keep_certificates(self) -> None:
        """Look now and then whether the server's certificate is due; the server reads it again itself."""
        while True:
            await rest(LOOK_AT_CERTIFICATES, self._clock)
            try:
                self._certificates()
            except (OSError, LinkError) as error:
                # A full disk must not end a cloud whose certificate still holds.
                _log.error("certificates could not be kept; looked at again later", reason=str(error))

    async def _close(self) -> None:
        with contextlib.suppress(Exception):
            notify.tell("STOPPING=1")
        if self._host is not None:
            await self._host.close()
        if self._api is not None:
            await self._api.close()
        await self._store.close()
        if self.has_served:
            _log.info("cloud stopped", cloud=self._name)

    # -- facts

    def _proving_link_up(self) -> bool:
        uplink = self._active.uplink if self._active else None
        return uplink is None or uplink.state.connected

    async def _prove(self) -> None:
        if (self._home.uplink / FACTS_FILE).exists():
            await probe(self._home.uplink)


def next_step(kubeconfig: str) -> str:
    """What somebody at a terminal does once a cloud is up."""
    return (
        "\nThe cloud is up, until Ctrl-C. In another terminal, as the same user:\n"
        f"  export KUBECONFIG={shlex.quote(kubeconfig)}\n"
        "  roost status\n"
    )


def own_address(listening: str) -> str:
    """The address by which this machine is seen on its default route; loopback when it has none.

    It is of the family of `listening`, for at any other nobody would be heard.
    """
    sixth = ":" in listening
    with socket.socket(socket.AF_INET6 if sixth else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            # A datagram socket is only told its route here; nothing is sent.
            asking.connect(("2001:db8::1" if sixth else "192.0.2.1", 9))
        except OSError:
            return "::1" if sixth else "127.0.0.1"
        return str(asking.getsockname()[0])


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
