"""Tries an outlet by hand: each step on the way to its receiver, and a test message at the end.

The way is gone with sockets of its own, so the worker is not held up and nothing is noted as delivered. The
first step that fails is the last; it says what to do. Answers of receivers are not shown, nor any secret.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import datetime

from roost.cloud.outlets.credentials import opened, sealed_of
from roost.cloud.outlets.messages import test_message
from roost.cloud.outlets.outlets import prepare
from roost.cloud.outlets.pausing import Failed, Unwanted
from roost.cloud.outlets.sink import Settings, make
from roost.cloud.outlets.tls import context_of, tls_failure
from roost.engine.vault import Vault
from roost.model import chance, time
from roost.model.meta import Part
from roost.model.outlet import AlarmOutlet, address_of
from roost.store.store import Store

WITHIN = 10.0
"""Seconds for each step."""


class Step(Part, frozen=True, kw_only=True, omit_defaults=False):
    """One step: whether it went well, what was found, how long it took (seconds), what to do if it failed."""

    name: str
    ok: bool
    message: str
    remedy: str = ""
    seconds: float = 0.0


class _Way:
    """The steps so far; a step that fails ends the way."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._begun = 0.0

    def begin(self) -> None:
        self._begun = asyncio.get_running_loop().time()

    def add(self, name: str, message: str) -> None:
        """A step went well."""
        self.steps.append(Step(name=name, ok=True, message=message, seconds=self._took()))

    def fail(self, name: str, message: str, remedy: str) -> None:
        """A step did not."""
        self.steps.append(Step(name=name, ok=False, message=message, remedy=remedy, seconds=self._took()))

    def _took(self) -> float:
        return round(asyncio.get_running_loop().time() - self._begun, 3)


async def attempt(
    store: Store, outlet: AlarmOutlet, vault: Vault, clock: Callable[[], datetime]
) -> list[Step]:
    """Go the whole way once. Never raises for what a receiver does."""
    way, name = _Way(), "credentials"
    way.begin()
    try:
        secret = await store.read(lambda tx: sealed_of(tx, outlet))
        opened(secret, outlet, vault)
        settings = (await prepare(store, outlet, secret, None, vault)).settings
        keys = ", ".join(sorted(settings.credentials))
        way.add(name, f"Secret {outlet.spec.secret} has {keys}" if keys else "none are needed")
        name = "resolve"
        addresses = await _resolve(way, settings)
        if outlet.spec.type != "snmp":
            name = "connect"
            await _connect(way, settings, addresses)
        name = "answer"
        way.begin()
        await _send(way, store, settings, clock)
    except Failed as failure:
        if failure.code in ("TlsFailed", "CertificateNotTrusted") and name == "connect":
            name = "tls"
        way.fail(name, failure.reason, failure.remedy)
    except Unwanted as refusal:
        way.fail(name, refusal.reason, "see its log for what it wants otherwise")
    except TimeoutError:
        way.fail(
            name, f"nothing happened within {WITHIN:.0f} seconds", "see whether the receiver is overloaded"
        )
    return way.steps


async def _resolve(way: _Way, settings: Settings) -> list[str]:
    way.begin()
    _, host, port = address_of(settings.spec.endpoint)
    try:
        async with asyncio.timeout(WITHIN):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Failed(f"{host} has no address: {error.strerror}", "check spec.endpoint and the DNS") from error
    addresses = list(dict.fromkeys(str(address[4][0]) for address in found))
    way.add("resolve", f"{host} is {', '.join(addresses[:5])}")
    return addresses


async def _connect(way: _Way, settings: Settings, addresses: list[str]) -> None:
    """Connect, and the handshake where there is one."""
    way.begin()
    scheme, host, port = address_of(settings.spec.endpoint)
    secured = scheme in ("https", "tls")
    try:
        async with asyncio.timeout(WITHIN):
            _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        raise Failed(
            f"port {port} of {addresses[0]} can't be reached: {error.strerror or type(error).__name__}",
            "check that it runs and that no firewall is between",
        ) from error
    try:
        way.add("connect", f"port {port} answers")
        if secured:
            way.begin()
            context = context_of(settings.spec.ca_bundle, settings.credentials)
            async with asyncio.timeout(WITHIN):
                await writer.start_tls(context, server_hostname=host)
            way.add("tls", _shown(writer))
    except ssl.SSLError as error:
        raise tls_failure(error, host) from error
    except OSError as error:
        raise Failed(
            "it ended the handshake", "check that it speaks TLS on this port", code="TlsFailed"
        ) from error
    finally:
        writer.transport.abort()


def _shown(writer: asyncio.StreamWriter) -> str:
    found: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    if found is None:
        return "it is secured"
    peer = found.getpeercert() or {}
    return f"{found.version()}, its certificate is good until {peer.get('notAfter', 'an unknown time')}"


async def _send(way: _Way, store: Store, settings: Settings, clock: Callable[[], datetime]) -> None:
    sink = make(settings, clock)
    message = test_message(store.identity, settings.namespace, time.stamp(clock()), chance.digits(6))
    try:
        async with asyncio.timeout(WITHIN):
            await sink.send([message])
    finally:
        await sink.close()
    meaning = {
        "syslog": "its kernel has taken the test message; syslog has no answer of its own",
        "snmp": "the manager has acknowledged the test notification",
    }.get(settings.spec.type, "it has accepted the test message")
    if settings.spec.type == "snmp" and settings.spec.snmp.notification == "trap":
        meaning = "the trap was sent; nobody acknowledges traps"
    way.add("answer", f"{meaning} ({message.id})")
