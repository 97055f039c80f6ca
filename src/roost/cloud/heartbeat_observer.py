"""Takes heartbeats from the network and judges them, in a thread of its own.

The thread wakes a few times a period, reads everything that has come, then judges. When a datagram arrived
is the kernel's word (SO_TIMESTAMPNS), so reading late is not arriving late. What the observer could not see
it does not judge: after a pause of its own, and when the kernel had to drop datagrams (SO_RXQ_OVFL), all
silence counts anew; and while there is more to read than one look takes, nothing is judged.

A host registers through its link (`register`) and is known from then on, until it registers anew or is
forgotten. Each datagram is looked at in the order of what it costs (`engine.heartbeat`); what is refused is
counted, never logged one by one. While something keeps it from judging, the log says so once in TELL_EVERY
seconds, with all counts. The sockets are opened with the first registration: a cloud of one host has none.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import structlog

from roost.cloud.heartbeat import (
    NOT_WATCHED,
    Arrivals,
    HostHeartbeat,
    Thresholds,
    judge_host,
    judge_network,
    thresholds_of,
)
from roost.engine.heartbeat import LONGEST, BadBeat, Registered, Registration, claimed_id, new_id, unseal
from roost.engine.priority import raise_priority
from roost.model.heartbeat import Heartbeat

log = structlog.get_logger(__name__)

LOOKS_PER_PERIOD = 4
SHORTEST_WAIT, LONGEST_WAIT = 0.02, 0.1
PAUSE = 0.5
"""A time without a look, in seconds, after which silence counts anew."""
AT_ONCE = 20_000
"""Datagrams read in one look at most."""
AWAITED = 30.0
"""Seconds after its link came up in which a host is expected to register."""
REGISTERED = 5_000
"""Hosts registered at most."""
OPEN_AGAIN = 5.0
TELL_EVERY = 60.0
BUFFER = 8 * 1024 * 1024

# Of <asm-generic/socket.h>; Python names neither.
_SO_TIMESTAMPNS, _SO_RCVBUFFORCE, _SO_RXQ_OVFL = 35, 33, 40
_ANCILLARY = socket.CMSG_SPACE(16) + socket.CMSG_SPACE(4)
_TIMESPEC, _COUNT = struct.Struct("@qq"), struct.Struct("@I")


class Counters(msgspec.Struct):
    """What came, and what was refused, since the start."""

    taken: int = 0
    malformed: int = 0
    unknown: int = 0
    forged: int = 0
    repeated: int = 0
    dropped: int = 0
    pauses: int = 0
    floods: int = 0
    longest_pause: float = 0.0


class _Host(msgspec.Struct):
    """A registered host. `probed` is when its link was asked in the present suspicion."""

    name: str
    secret: bytes
    period: float
    networks: dict[str, Arrivals]
    judged: HostHeartbeat = NOT_WATCHED
    probed: bool = False


class Refusal(Exception):
    """A registration that is not taken: why."""


class Observer:
    """`start` it, then `register`; called with a name it is the `Heartbeats` of the cloud's hosts.

    `changed` is called in the observer's thread with the name of a host whose states changed, `suspected`
    with that of one whose link should be asked; `link_heard` gives when a link last carried something, on
    the monotonic clock, None when it is down.
    """

    def __init__(
        self,
        port: int,
        *,
        changed: Callable[[str], None] = lambda _: None,
        suspected: Callable[[str], None] = lambda _: None,
        link_heard: Callable[[str], float | None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._port, self._monotonic = port, monotonic
        self._changed, self._suspected, self._link_heard = changed, suspected, link_heard
        self.counters = Counters()
        self.priority = "not running"
        self._thresholds = Thresholds()
        self._hosts: dict[str, _Host] = {}
        self._ids: dict[bytes, _Host] = {}
        self._awaited: dict[str, float] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._dropped: dict[int, int] = {}
        self._open_again_at = 0.0
        self._told_at = self._told_closed_at = -TELL_EVERY
        self._looking_since = self._looked = monotonic()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # -- from other threads

    def __call__(self, name: str) -> HostHeartbeat:
        host = self._hosts.get(name)
        if host is not None:
            return host.judged
        until = self._awaited.get(name)
        if until is not None and self._monotonic() < until:
            return HostHeartbeat(awaited=True)
        return NOT_WATCHED

    def configure(self, heartbeat: Heartbeat) -> None:
        """Judge by these thresholds from now on."""
        self._thresholds = thresholds_of(heartbeat)

    def expect(self, name: str) -> None:
        """The link of a host is up: it is about to register."""
        self._awaited[name] = self._monotonic() + AWAITED

    def register(self, name: str, registration: Registration) -> Registered:
        """Take a host's key and networks, in the place of former ones. Raises Refusal."""
        period = registration.period_milliseconds / 1000
        with self._lock:
            if name not in self._hosts and len(self._hosts) >= REGISTERED:
                raise Refusal(f"{REGISTERED} hosts are registered, which is as many as one cloud takes")
            now = self._monotonic()
            former = self._hosts.get(name)
            made = _Host(
                name,
                registration.secret,
                period,
                {n: Arrivals(n, period, now) for n in registration.networks},
                former.judged if former else HostHeartbeat(awaited=True),
            )
            id_ = new_id()
            self._drop_ids(name)
            self._hosts[name] = self._ids[id_] = made
            self._awaited.pop(name, None)
        self._wake.set()
        return Registered(id=id_)

    def withdraw(self, name: str) -> None:
        """A host is known no more, or sends nothing from now on."""
        with self._lock:
            self._drop_ids(name)
            self._hosts.pop(name, None)
            self._awaited.pop(name, None)
        self._changed(name)

    def _drop_ids(self, name: str) -> None:
        for id_ in [i for i, host in self._ids.items() if host.name == name]:
            del self._ids[id_]

    # -- life

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; waits for the thread, which takes no longer than a look."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5)
        self._close()

    def _close(self) -> None:
        for one in self._sockets.values():
            one.close()
        self._sockets.clear()
        self._dropped.clear()
        self._open_again_at = 0.0

    def _run(self) -> None:
        self.priority = raise_priority()
        log.info("heartbeat.observer", priority=self.priority, port=self._port)
        while not self._stopping:
            self._wake.clear()
            try:
                self.look()
            except Exception:
                # A thread that dies would leave every host unwatched for good.
                log.exception("heartbeat.observer-failed")
                time.sleep(1)
            if self._hosts:
                self._wake.wait(self._wait())
            elif not self._stopping:
                # With nobody to hear there is nothing to miss, and no port to leave open.
                self._close()
                self._wake.wait()
                self._looked = self._looking_since = self._monotonic()

    def _wait(self) -> float:
        shortest = min((h.period for h in list(self._hosts.values())), default=1.0)
        return max(SHORTEST_WAIT, min(LONGEST_WAIT, shortest / LOOKS_PER_PERIOD))

    # -- looking

    def look(self) -> None:
        """Read everything that came, then judge."""
        if not self._hosts:
            self._looked = self._monotonic()
            return
        self._open()
        began = self._monotonic()
        pause = began - self._looked
        self.counters.longest_pause = max(self.counters.longest_pause, pause)
        drained = self._drain()
        now = self._monotonic()
        if pause > PAUSE:
            self.counters.pauses += 1
            self._looking_since = now
            self._tell(now, "it did not look for a while")
        self._looked = began
        if not drained:
            self.counters.floods += 1
            self._tell(now, "more comes than can be read")
            return
        self._judge(now)

    def _tell(self, now: float, what: str) -> None:
        """Say what keeps hosts from being judged: no alarm of theirs will."""
        if now - self._told_at >= TELL_EVERY:
            self._told_at = now
            log.warning("heartbeat.not-judged", what=what, **msgspec.structs.asdict(self.counters))

    def _judge(self, now: float) -> None:
        thresholds, looking_since = self._thresholds, self._looking_since
        with self._lock:
            hosts = list(self._hosts.values())
        for host in hosts:
            networks = [judge_network(a, looking_since, thresholds, now) for a in host.networks.values()]
            judged = judge_host(networks, self._link_heard(host.name), thresholds.degraded * host.period, now)
            before, host.judged = host.judged, judged
            if judged.verdict in ("suspect", "failed"):
                if not host.probed:
                    host.probed = True
                    self._suspected(host.name)
            elif any(n.beats for n in networks):
                host.probed = False
            if _shown(before) != _shown(judged):
                self._changed(host.name)

    def _drain(self) -> bool:
        """Read until nothing is left; False when that took too many datagrams."""
        left = AT_ONCE
        for family, one in self._sockets.items():
            for datagram, ancillary in _received(one):
                self._take(datagram, self._arrival(ancillary, family))
                left -= 1
                if not left:
                    return False
        return True

    def _arrival(self, ancillary: list[tuple[int, int, bytes]], family: int) -> float:
        """When a datagram came, on the monotonic clock; notes what the kernel dropped before it."""
        now = self._monotonic()
        at = now
        for _, kind, data in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(data[:16])
                at = now - (time.time() - (seconds + nanoseconds / 1e9))
            elif kind == _SO_RXQ_OVFL:
                count = _COUNT.unpack(data[:4])[0]
                if count != self._dropped.get(family, 0):
                    self.counters.dropped += (count - self._dropped.get(family, 0)) & 0xFFFFFFFF
                    self._dropped[family] = count
                    self._looking_since = now
                    self._tell(now, "the kernel dropped some")
        # The clock of stamps can be set; a datagram came after the last look all the same.
        return min(now, max(at, self._looked))

    def _take(self, datagram: bytes, at: float) -> None:
        try:
            id_ = claimed_id(datagram)
        except BadBeat:
            self.counters.malformed += 1
            return
        host = self._ids.get(id_)
        if host is None:
            self.counters.unknown += 1
            return
        try:
            beat = unseal(datagram, host.secret)
        except BadBeat:
            self.counters.forged += 1
            return
        arrivals = host.networks.get(beat.network)
        if arrivals is None:
            self.counters.unknown += 1
        elif arrivals.take(at, beat.sequence, self._thresholds, self._looking_since):
            self.counters.taken += 1
        else:
            self.counters.repeated += 1

    # -- sockets

    def _open(self) -> None:
        """Have a socket for each family; what can't be had, as IPv6 on a kernel without, is tried again."""
        now = self._monotonic()
        if len(self._sockets) < 2 and now >= self._open_again_at and self._opened(now):
            # Nobody could be heard there until now. A try that opened nothing is no excuse for anybody.
            self._looking_since = now
        if not self._sockets:
            self._looking_since = now

    def _opened(self, now: float) -> bool:
        """Whether there is a socket now that there was not."""
        before = len(self._sockets)
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
            if family in self._sockets:
                continue
            try:
                self._sockets[family] = listen(family, address, self._port)
            except OSError as error:
                self._open_again_at = now + OPEN_AGAIN
                if now - self._told_closed_at >= TELL_EVERY:
                    self._told_closed_at = now
                    log.warning("heartbeat.not-listening", port=self._port, at=address, reason=str(error))
        return len(self._sockets) > before


def _shown(heartbeat: HostHeartbeat) -> tuple[object, ...]:
    """What of a host's heartbeats others go by."""
    return (heartbeat.verdict, *((n.network, n.state) for n in heartbeat.networks), heartbeat.awaited)


def _received(one: socket.socket) -> Iterator[tuple[bytes, list[tuple[int, int, bytes]]]]:
    receive: Any = one.recvmsg
    while True:
        try:
            datagram, ancillary, _, _ = receive(LONGEST + 1, _ANCILLARY)
        except OSError:
            # There is no more now, or an error that is told once; what is there is read at the next look.
            return
        yield datagram, ancillary


def listen(family: int, address: str, port: int) -> socket.socket:
    """A socket that tells when datagrams came and how many were dropped. Raises OSError."""
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        made.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        try:
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        except PermissionError:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made
