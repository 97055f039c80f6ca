"""What speaks a protocol to one receiver, and what it is made of. `make` imports only what a type needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from roost.cloud.outlets.messages import Message
from roost.model.outlet import AlarmOutletSpec

Note = Callable[[str], None]
"""Told of each step of an attempt, in words: for a test by hand."""


class SnmpEngine(msgspec.Struct, frozen=True):
    """This cloud's SNMP engine: its identity, and how often it has started (RFC 3414, 2.2)."""

    id: bytes
    boots: int


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One outlet as its worker is started with it. `credentials` are the values of its Secret by key."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: AlarmOutletSpec
    credentials: dict[str, bytes]
    engine: SnmpEngine = SnmpEngine(b"", 0)

    def __repr__(self) -> str:
        return f"Settings({self.namespace}/{self.name}, generation {self.generation})"


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """How a type is sent to. `most` messages go at once; `level`: it is told of what stands, again and again,
    instead of what happened; `singly`: each message costs its receiver as much as a request."""

    most: int
    level: bool = False
    singly: bool = False


def traits_of(spec: AlarmOutletSpec) -> Traits:
    """How the type of an outlet is sent to."""
    match spec.type:
        case "alertmanager":
            return Traits(most=spec.limits.batch, level=True)
        case "syslog":
            return Traits(most=spec.limits.batch, singly=True)
        case "snmp":
            return Traits(most=1, singly=True)
        case _:
            return Traits(most=spec.limits.batch)


class Sink(Protocol):
    """Sends messages to one receiver; one call at a time."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Return once the receiver has acknowledged, as far as its protocol knows such a thing.

        Raises pausing.Failed, pausing.Unwanted. The caller sets the deadline.
        """
        ...

    async def close(self) -> None:
        """Give up connections. Closing twice does nothing more."""
        ...


def make(settings: Settings, clock: Callable[[], datetime]) -> Sink:
    """The sink of an outlet. Raises pausing.Failed when its settings can't be used."""
    match settings.spec.type:
        case "webhook":
            from roost.cloud.outlets.webhook import Webhook

            return Webhook(settings, clock)
        case "alertmanager":
            from roost.cloud.outlets.alertmanager import Alertmanager

            return Alertmanager(settings, clock)
        case "syslog":
            from roost.cloud.outlets.syslog import Syslog

            return Syslog(settings)
        case "snmp":
            from roost.cloud.outlets.snmp import Snmp

            return Snmp(settings)
