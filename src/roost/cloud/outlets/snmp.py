"""SNMP informs and traps, version 2c and 3 (USM), as ROOST-ALARM-MIB describes them.

An inform is acknowledged by the manager; a trap is not, and counts as sent when the kernel has taken it. A
manager tells doubled ones by roostMessageId. pysnmp (16 MB) is imported with the first outlet of this type.
Repeats are this cloud's own: the library sends once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roost.cloud.outlets.memory import ENTERPRISE
from roost.cloud.outlets.messages import Message
from roost.cloud.outlets.pausing import Failed
from roost.cloud.outlets.sink import Settings
from roost.model.outlet import address_of

BASE = f"1.3.6.1.4.1.{ENTERPRISE}.5"
NOTIFICATIONS = {
    "set": 1,
    "changed": 2,
    "clear": 3,
    "present": 4,
    "log": 5,
    "summary": 6,
    "missed": 7,
    "snapshot-begin": 8,
    "snapshot-end": 9,
    "test": 10,
}
"""Last numbers of the notifications in the MIB."""
OBJECTS = {
    "id": 1,
    "time": 2,
    "cloud": 3,
    "again": 4,
    "alarm_id": 5,
    "name": 6,
    "entity": 7,
    "severity": 8,
    "reason": 9,
    "repair": 10,
    "raised_at": 11,
    "service_affecting": 12,
    "event": 13,
    "count": 14,
    "until": 15,
}
"""Last numbers of the objects."""
SEVERITIES = {"cleared": 1, "info": 2, "critical": 3, "major": 4, "minor": 5, "warning": 6}
"""Values of roostSeverity."""
LONGEST = 255
TRUE, FALSE = 1, 2

Binding = tuple[str, str | int]


def bindings(message: Message) -> list[Binding]:
    """What a notification carries: OIDs and values; texts are cut to LONGEST octets, as in the MIB."""
    values: dict[str, str | int] = {
        "id": message.id,
        "time": message.time,
        "cloud": message.cloud,
        "again": TRUE if message.again else FALSE,
    }
    alarm, log, told, lost = message.alarm, message.log, message.summary, message.missed
    if alarm is not None:
        severity = "cleared" if message.what == "clear" else alarm.severity
        values |= {
            "alarm_id": alarm.alarm_id,
            "name": alarm.name,
            "entity": alarm.entity,
            "severity": SEVERITIES.get(severity, 2),
            "reason": alarm.reason,
            "repair": alarm.repair,
            "raised_at": alarm.raised_at,
            "service_affecting": TRUE if alarm.service_affecting else FALSE,
        }
    elif log is not None:
        values |= {"event": log.event, "entity": log.entity, "severity": SEVERITIES.get(log.severity, 2)}
        values["reason"] = log.text
    elif told is not None:
        values |= {"alarm_id": told.alarm_id, "event": told.event or told.of, "count": told.count}
        values |= {"severity": SEVERITIES.get(told.severity, 2), "reason": _clouds(message)}
    elif lost is not None:
        values |= {"count": lost.number, "raised_at": lost.since, "until": lost.until}
    elif message.snapshot is not None:
        values |= {"count": message.snapshot.count, "reason": message.snapshot.why}
    return [(f"{BASE}.1.{OBJECTS[name]}.0", _cut(value)) for name, value in values.items()]


def notification(message: Message) -> str:
    """The OID of a message's notification."""
    return f"{BASE}.0.{NOTIFICATIONS[message.what]}"


def _clouds(message: Message) -> str:
    return " ".join(f"{c}:{n}" for c, n in message.summary.clouds.items()) if message.summary else ""


def _cut(value: str | int) -> str | int:
    if isinstance(value, int):
        return value
    return value.encode()[:LONGEST].decode(errors="ignore")


class Snmp:
    """One manager."""

    def __init__(self, settings: Settings) -> None:
        from pysnmp.hlapi.v3arch import asyncio as snmp
        from pysnmp.proto.rfc1902 import OctetString

        self._snmp: Any = snmp
        self._settings = settings
        _, self._host, self._port = address_of(settings.spec.endpoint)
        self._inform = settings.spec.snmp.notification == "inform"
        self._identity = OctetString(settings.engine.id)
        self._auth = self._user()
        self._engine: Any = None
        self._target: Any = None

    def _started(self) -> Any:
        """The engine. After an inform that was not answered it is made anew: a manager that was installed
        again is another engine, which only discovery finds (RFC 3414, 4)."""
        if self._engine is None:
            self._engine = self._snmp.SnmpEngine(snmpEngineID=self._identity)
            builder = self._engine.get_mib_builder()
            (boots,) = builder.import_symbols("__SNMP-FRAMEWORK-MIB", "snmpEngineBoots")
            boots.syntax = boots.syntax.clone(self._settings.engine.boots)
        return self._engine

    def _user(self) -> Any:
        wanted, credentials, snmp = self._settings.spec.snmp, self._settings.credentials, self._snmp
        if wanted.version == "2c":
            return snmp.CommunityData(credentials["community"].decode("latin-1").strip(), mpModel=1)
        protocols = {"SHA": snmp.usmHMACSHAAuthProtocol, "SHA-256": snmp.usmHMAC192SHA256AuthProtocol}
        given = {
            "authKey": credentials["authentication"].decode("latin-1").strip(),
            "authProtocol": protocols[wanted.authentication],
        }
        if wanted.privacy == "AES":
            given |= {
                "privKey": credentials["privacy"].decode("latin-1").strip(),
                "privProtocol": snmp.usmAesCfb128Protocol,
            }
        if any(len(key) < 8 for name, key in given.items() if name.endswith("Key")):
            raise Failed(
                "a pass phrase of SNMP has at least 8 characters (RFC 3414, 11.2)",
                "write longer ones into its Secret, and tell them the manager",
                halted=True,
                code="BadCredentials",
            )
        return snmp.UsmUserData(wanted.user, **given)

    async def send(self, messages: Sequence[Message]) -> None:
        """Send each; an inform returns when the manager has answered."""
        for message in messages:
            await self._send(message)

    async def _send(self, message: Message) -> None:
        snmp = self._snmp
        if self._target is None:
            self._target = await self._reach()
        told = snmp.NotificationType(snmp.ObjectIdentity(notification(message)))
        told.add_varbinds(*((oid, _typed(value)) for oid, value in bindings(message)))
        kind = "inform" if self._inform else "trap"
        error, status, _, _ = await snmp.send_notification(
            self._started(), self._auth, self._target, snmp.ContextData(), kind, told
        )
        if error:
            await self.close()
            raise self._failure(str(error))
        if status:
            raise self._failure(f"it answered {status.prettyPrint()}")

    async def _reach(self) -> Any:
        snmp = self._snmp
        kind = snmp.Udp6TransportTarget if ":" in self._host else snmp.UdpTransportTarget
        timeout = float(self._settings.spec.limits.timeout_seconds)
        try:
            return await kind.create((self._host, self._port), timeout=timeout, retries=0)
        except Exception as error:
            raise Failed(
                f"{self._host}:{self._port} has no address: {type(error).__name__}", "check spec.endpoint"
            ) from error

    def _failure(self, reason: str) -> Failed:
        where = f"{self._host}:{self._port}"
        if "timeout" in reason.lower() or "no snmp response" in reason.lower():
            return Failed(
                f"{where} acknowledged no inform in time",
                "check that it takes informs of this version, user and keys: it is silent about wrong ones",
                doubtful=True,
                code="NoAnswer",
            )
        return Failed(f"{where}: {reason[:200]}", "check version, user and keys at both ends", code="Refused")

    async def close(self) -> None:
        """Close sockets."""
        engine, self._engine, self._target = self._engine, None, None
        if engine is not None:
            engine.close_dispatcher()


def _typed(value: str | int) -> Any:
    from pysnmp.proto.rfc1902 import Integer32, OctetString

    return Integer32(value) if isinstance(value, int) else OctetString(value.encode())
