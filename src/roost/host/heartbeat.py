"""Sends this host's heartbeats: a datagram each period on each platform network it shares with its cloud.

A thread sends and does nothing else, on a schedule that does not drift and does not catch up: what was
missed was missed. Each network has its socket, bound to the host's port on it where that is one, so that a
beat goes the way that it speaks of. A send that fails is a beat that is missed: the cloud sees it, this end
only counts.

The `Registrar` draws a fresh key each time the link comes up or the networks change, registers it through
the link and hands the plan to the sender. While the link is down beats go on with the last plan: that is what
they are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from roost.engine.heartbeat import PATH, Beat, Registered, Registration, new_secret, seal
from roost.engine.priority import raise_priority
from roost.link.exchange import Caller, Request, Response, Unreachable
from roost.model.configuration import HostConfiguration
from roost.model.heartbeat import HeartbeatConfiguration, HeartbeatNetwork
from roost.store.errors import Compacted, FutureRevision, Overloaded, Unavailable
from roost.store.store import Store

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 5.0
"""Pause before a registration that failed is tried again."""
NOT_SERVED_SECONDS = 600.0
"""Pause when the cloud takes no heartbeats: it is of an older version."""
OPEN_AGAIN = 0.5
LOOK_SECONDS = 30.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent: the registration's id and key, and the configuration it was made for."""

    id: bytes
    secret: bytes
    configuration: HeartbeatConfiguration

    def __repr__(self) -> str:
        return f"Plan({self.configuration!r})"


class _Way:
    """The way to the cloud on one network."""

    def __init__(self, network: HeartbeatNetwork, port: int) -> None:
        self.network, self._port = network, port
        self.sequence = 0
        self.missed = 0
        self._sockets: dict[str, socket.socket] = {}
        self._open_at: dict[str, float] = {}

    def send(self, plan: Plan, now: float) -> None:
        """Send one beat to each target; one that can't be sent is missed."""
        self.sequence += 1
        datagram = seal(Beat(plan.id, self.sequence, time.monotonic_ns(), self.network.network), plan.secret)
        sent = 0
        for target in self.network.targets:
            if target not in self._sockets and now < self._open_at.get(target, 0.0):
                continue
            try:
                self._socket(target).send(datagram)
                sent += 1
            except ConnectionRefusedError:
                # Told of an earlier beat: the cloud does not listen just now. The way is as good as it was.
                continue
            except OSError:
                # The port may be another by the same name: its socket is made anew, though not at each beat.
                self._close(target)
                # Each target by itself: to one of the other family a host may have no way at all.
                self._open_at[target] = now + OPEN_AGAIN
        if not sent:
            self.missed += 1

    def _socket(self, target: str) -> socket.socket:
        made = self._sockets.get(target)
        if made is None:
            made = self._sockets[target] = _connected(target, self._port, self.network.ports)
        return made

    def _close(self, target: str) -> None:
        made = self._sockets.pop(target, None)
        if made is not None:
            made.close()

    def close(self) -> None:
        for target in list(self._sockets):
            self._close(target)


def _connected(target: str, port: int, ports: list[str]) -> socket.socket:
    family = socket.AF_INET6 if ipaddress.ip_address(target).version == 6 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if len(ports) == 1:
            # Without it the kernel would take another way to the same address when this one is gone.
            with contextlib.suppress(PermissionError):
                made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, ports[0].encode())
        made.connect((target, port))
    except OSError:
        made.close()
        raise
    return made


class Sender:
    """The thread. `carry` gives it a plan; `stop` ends it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._plan: Plan | None = None
        self._ways: list[_Way] = []
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.priority = "not running"

    def carry(self, plan: Plan | None) -> None:
        """Send by this plan from now on; None: nothing. Sequences begin anew, as its key is fresh."""
        self._plan = plan
        if plan is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
            self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """End; waits for the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        self.priority = raise_priority()
        log.info("heartbeat.sender", priority=self.priority)
        plan: Plan | None = None
        due = self._monotonic()
        while not self._stopping:
            self._wake.clear()
            if self._plan is not plan:
                plan, due = self._plan, self._monotonic()
                self._replan(plan)
            if plan is None:
                self._wake.wait()
                continue
            now = self._monotonic()
            if now >= due:
                for way in self._ways:
                    way.send(plan, now)
                due = next_due(due, plan.configuration.period_milliseconds / 1000, now)
            self._wake.wait(max(0.0, due - self._monotonic()))
        self._replan(None)

    def _replan(self, plan: Plan | None) -> None:
        for way in self._ways:
            way.close()
        configuration = plan.configuration if plan is not None else None
        self._ways = [_Way(n, configuration.port) for n in configuration.networks] if configuration else []


def next_due(due: float, period: float, now: float) -> float:
    """When the next beat is due: on the schedule, never in the past. Pure."""
    late = now - due
    return due + period if late < period else due + period * (int(late / period) + 1)


class NotServed(Exception):
    """The cloud takes no heartbeats of this host."""


class Registrar:
    """Keeps this host registered while its link is up. `notice` it when the link comes or goes."""

    def __init__(
        self,
        store: Store,
        cloud: str,
        host: str,
        *,
        call: Callable[[Request], Awaitable[Response]],
        link_up: Callable[[], bool],
        sender: Sender | None = None,
    ) -> None:
        self._store, self._key = store, (cloud, host)
        self._call, self._link_up = call, link_up
        self.sender = sender or Sender()
        self._wake = asyncio.Event()
        self._fresh = True
        self._registered: HeartbeatConfiguration | None = None

    def notice(self) -> None:
        """The link came or went: with a new link comes a new key."""
        self._fresh = True
        self._wake.set()

    async def run(self) -> None:
        """Run until cancelled."""
        self._wake = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow())
                group.create_task(self._keep())
        finally:
            self.sender.stop()

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            wait = LOOK_SECONDS
            try:
                await self._bring_about()
            except NotServed as error:
                log.info("heartbeat.not-served", reason=str(error))
                wait = NOT_SERVED_SECONDS
            except (Unreachable, TimeoutError, msgspec.MsgspecError, Unavailable, Overloaded) as error:
                log.warning("heartbeat.not-registered", reason=str(error) or type(error).__name__)
                wait = AGAIN_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _bring_about(self) -> None:
        """Register what should be sent, if the link is up and it is not registered on it."""
        if not self._link_up():
            return
        configuration = await self._store.read(lambda tx: tx.seek(HostConfiguration, *self._key))
        wanted = configuration.spec.heartbeat if configuration is not None else None
        if wanted is not None and not wanted.networks:
            wanted = None
        if wanted == self._registered and not (self._fresh and wanted is not None):
            return
        self._fresh = False
        try:
            if wanted is not None:
                self.sender.carry(await self._register(wanted))
            else:
                self.sender.carry(None)
                await self._ask("DELETE", b"")
        except BaseException:
            self._fresh = True
            raise
        self._registered = wanted

    async def _register(self, wanted: HeartbeatConfiguration) -> Plan:
        secret = new_secret()
        registration = Registration(
            secret=secret,
            period_milliseconds=wanted.period_milliseconds,
            networks=[n.network for n in wanted.networks],
        )
        answer = await self._ask("POST", msgspec.msgpack.encode(registration))
        registered = msgspec.msgpack.decode(answer, type=Registered)
        return Plan(id=registered.id, secret=secret, configuration=wanted)

    async def _ask(self, method: str, body: bytes) -> bytes:
        request = Request(method=method, path=PATH, headers=[], body=body, caller=Caller("roost:node", []))
        async with asyncio.timeout(10):
            response = await self._call(request)
            said = b"".join([piece async for piece in response.body])
        if response.status != 200:
            raise NotServed(f"{response.status} {said[:200].decode(errors='replace').strip()}")
        return said

    async def _follow(self) -> None:
        """Look again when this host's configuration has changed."""
        while True:
            try:
                async for batch in self._store.watch(self._store.revision):
                    if any((c.namespace, c.name) == self._key for c in batch.changes):
                        self._wake.set()
            except (Compacted, FutureRevision, Unavailable, Overloaded) as error:
                log.info("heartbeat.follows-anew", reason=str(error))
            self._wake.set()
            await asyncio.sleep(1)
