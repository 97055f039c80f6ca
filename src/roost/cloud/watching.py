"""What is known of hosts from outside the store: links, heartbeats, and whether many are silent at once.

One `Watch` is shared by the controllers of a process. It keeps in memory the one thing that does not follow
from facts of now alone: the event in which hosts are not failed (`avoidance`). After a restart of the
process nobody is met yet, and hosts have their time to return.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import msgspec

from roost.cloud.avoidance import Event, Silence, avoid
from roost.cloud.contact import LATE, RETURN, Contact, contact_due, contact_held, contact_of
from roost.cloud.heartbeat import Heartbeats, HostHeartbeat, not_watched
from roost.engine.presence import Presence, Presences
from roost.model.cloud import Cloud
from roost.model.heartbeat import Heartbeat
from roost.model.host import HOST, Host
from roost.store.transaction import Transaction

LOOK_AGAIN = 1.0
"""Seconds between two looks at a host that is held."""


class _State(msgspec.Struct, frozen=True):
    administrative: str = ""


class _States(msgspec.Struct, frozen=True):
    """Whether a host is in service. While one is silent all are looked at, whose inventories are large."""

    status: _State = _State()


_states = msgspec.json.Decoder(_States).decode

_REMEMBER_HOSTS = 1.0
_REMEMBER_EVENT = 0.05


def loop_time() -> float:
    """The running loop's clock, which tests drive; elsewhere the machine's, which is the same."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


def machine_up() -> float:
    """Seconds since this machine started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def long_up() -> float:
    """What a machine says whose start is of no account, as one that is simulated."""
    return float("inf")


class Sight(msgspec.Struct, frozen=True):
    """What is seen of one host now. `due`: seconds until that may be otherwise by the passing of time."""

    contact: Contact
    presence: Presence
    heartbeat: HostHeartbeat
    held: bool = False
    due: float | None = None


class Watch:
    """Looks at hosts; `look` and `event` are called in transactions."""

    def __init__(
        self,
        cloud: str,
        presence: Presences,
        heartbeats: Heartbeats = not_watched,
        *,
        configure: Callable[[Heartbeat], None] = lambda _: None,
        monotonic: Callable[[], float] = loop_time,
        uptime: Callable[[], float] = long_up,
    ) -> None:
        self._cloud, self._presence, self._heartbeats = cloud, presence, heartbeats
        self._configure, self._monotonic, self._uptime = configure, monotonic, uptime
        self._lock = threading.RLock()
        self._event: Event | None = None
        self._event_at = float("-inf")
        self._in_service: tuple[str, ...] = ()
        self._in_service_at = float("-inf")
        self._settings = Heartbeat()
        self._anyone_silent = False

    def look(self, tx: Transaction, host: Host) -> Sight:
        """What is seen of a host, and what that makes of its contact."""
        name = host.metadata.name
        presence, heartbeat = self._presence(name), self._heartbeats(name)
        contact = contact_of(presence, host.status, heartbeat)
        due = contact_due(presence, contact, heartbeat)
        if contact == "present":
            return Sight(contact, presence, heartbeat, due=due)
        event = self.event(tx)
        if event is None or name not in event.hosts:
            return Sight(contact, presence, heartbeat, due=due)
        held = contact_held(contact, host.status)
        return Sight(held, presence, heartbeat, held=held == "late", due=LOOK_AGAIN)

    def event(self, tx: Transaction) -> Event | None:
        """The event in which hosts are not failed, if there is one."""
        with self._lock:
            now = self._monotonic()
            if now - self._event_at >= _REMEMBER_EVENT:
                self._event = avoid(self._event, self._silence(tx, now), self.settings(tx).avoidance, now)
                self._event_at = now
            return self._event

    def settings(self, tx: Transaction) -> Heartbeat:
        """How hosts are to be watched, which the observer is told at each change."""
        cloud = tx.seek(Cloud, "", self._cloud)
        wanted = cloud.spec.heartbeat if cloud is not None else Heartbeat()
        with self._lock:
            if wanted != self._settings:
                self._settings = wanted
                self._configure(wanted)
        return wanted

    @property
    def anyone_silent(self) -> bool:
        """Whether hosts in service were silent, or not there yet, at the last look for an event."""
        return self._anyone_silent

    def left(self, event: Event) -> float:
        """Seconds until the deadline of an event."""
        return max(0.0, event.deadline - self._monotonic())

    def _silence(self, tx: Transaction, now: float) -> Silence:
        if now - self._in_service_at >= _REMEMBER_HOSTS:
            hosts = tx.select(HOST.kind, self._cloud)
            self._in_service = tuple(
                s.name for s in hosts if _states(s.data).status.administrative == "unlocked"
            )
            self._in_service_at = now
        silent, absent = {}, set()
        self._anyone_silent = False
        for name in self._in_service:
            presence = self._presence(name)
            seconds = silence_of(presence, self._heartbeats(name))
            if seconds is not None:
                silent[name] = seconds
            if seconds is not None or not presence.met:
                self._anyone_silent = True
            if not presence.met and presence.silent >= LATE:
                absent.add(name)
        return Silence(silent, frozenset(absent), self._uptime())


def silence_of(presence: Presence, heartbeat: HostHeartbeat) -> float | None:
    """For how many seconds a host is silent; None when it is not, or when that is not known yet."""
    if heartbeat.verdict == "alive":
        return None
    if heartbeat.verdict in ("suspect", "failed"):
        return heartbeat.silent
    if presence.connected:
        return None
    return presence.silent if presence.silent >= (LATE if presence.met else RETURN) else None
