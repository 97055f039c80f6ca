"""Which alarms a host should have, from what is known of it now. Pure.

"No alarm" and "could not look" are different: readings of a host that does not answer, readings at
level `unknown`, and what a host that does not answer has in force, neither raise nor clear
(`unobservable`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from roost.cloud.contact import Contact
from roost.engine.certificates import RENEWAL_GRACE, certificate_faults
from roost.model import time
from roost.model.alarms import ALARMS, PORT_ALARM, Fault
from roost.model.configuration import HostConfiguration, is_in_force
from roost.model.fault import AlarmStatus, Severity
from roost.model.host import Host, Reading

CONFIGURATION_GRACE = 30.0
"""Seconds a host that answers has to put a new configuration in force before that is an alarm."""

_MONITOR_ALARM = {"processor": "100.101", "memory": "100.103", "filesystem": "100.104"}
_TOLD_BY_HOST = frozenset(("250.001", *_MONITOR_ALARM.values(), *PORT_ALARM.values()))


def host_faults(
    host: Host,
    configuration: HostConfiguration | None,
    contact: Contact,
    networks_of_port: Mapping[str, str],
    now: datetime,
) -> list[Fault]:
    """The alarms this host should have. `networks_of_port` maps a port to the type of its network."""
    faults = _life(host, contact)
    if contact == "present":
        for reading in host.status.readings:
            faults += _reading(host.metadata.name, reading, networks_of_port)
    if configuration is not None and contact == "present":
        faults += _configuration(host, configuration, now)
    faults += certificate_faults(
        f"host={host.metadata.name}", host.status.agent.certificate_expires_at, now, grace=RENEWAL_GRACE
    )
    return faults


def unobservable(host: Host, contact: Contact) -> Callable[[AlarmStatus], bool]:
    """Whether the state behind an alarm can't be seen now."""
    unknown = {
        (alarm_id, _entity(host.metadata.name, reading))
        for reading in host.status.readings
        if reading.level == "unknown"
        for alarm_id in _alarm_ids(reading)
    }

    def hidden(alarm: AlarmStatus) -> bool:
        if contact != "present":
            return alarm.alarm_id in _TOLD_BY_HOST
        return (alarm.alarm_id, alarm.entity) in unknown

    return hidden


def _alarm_ids(reading: Reading) -> tuple[str, ...]:
    """The alarms that a monitor can raise."""
    return tuple(PORT_ALARM.values()) if reading.monitor == "port" else (_MONITOR_ALARM[reading.monitor],)


def configuration_due(
    host: Host, configuration: HostConfiguration | None, contact: Contact, now: datetime
) -> float | None:
    """Seconds until a configuration that is not in force becomes an alarm; None when it does not."""
    if configuration is None or contact != "present" or is_in_force(configuration):
        return None
    left = CONFIGURATION_GRACE - (now - _pending_since(host, configuration, now)).total_seconds()
    return left + 0.01 if left > 0 else None


def _pending_since(host: Host, configuration: HostConfiguration, now: datetime) -> datetime:
    """Since when the host could have put its configuration in force: it changed, and the host was there."""
    if not host.status.connected:
        return now
    stamps = (configuration.metadata.annotations.get(CHANGED_AT, ""), host.status.connection_changed_at)
    moments = [time.parse(s) for s in stamps if s]
    return max((m for m in moments if m <= now), default=now)


def _life(host: Host, contact: Contact) -> list[Fault]:
    name = host.metadata.name
    entity = f"host={name}"
    if host.status.administrative == "locked":
        reason = f"{name} was administratively locked to take it out of service."
        return [Fault(alarm_id="200.001", severity="warning", entity=entity, reason=reason)]
    if contact == "late":
        reason = f"{name} misses heartbeats on its link."
        return [Fault(alarm_id="200.005", severity="major", entity=entity, reason=reason)]
    if contact == "lost":
        lost = f"{name} has lost its heartbeat; its controller can't see it."
        failed = f"{name} is unlocked and does not serve; it returns by itself once it answers."
        return [
            Fault(alarm_id="200.005", severity="critical", entity=entity, reason=lost),
            Fault(alarm_id="200.004", severity="critical", entity=entity, reason=failed),
        ]
    return []


def _entity(host: str, reading: Reading) -> str:
    if reading.monitor in ("processor", "memory"):
        return f"host={host}"
    return f"host={host}.{reading.monitor}={reading.instance}"


def _reading(host: str, reading: Reading, networks_of_port: Mapping[str, str]) -> list[Fault]:
    if reading.level in ("normal", "unknown"):
        return []
    severity: Severity = reading.level  # type: ignore[assignment]
    if reading.monitor == "port":
        alarm_id = PORT_ALARM.get(networks_of_port.get(reading.instance, ""), "")
    else:
        alarm_id = _MONITOR_ALARM[reading.monitor]
    if not alarm_id or severity not in ALARMS[alarm_id].severities:
        return []
    entity = _entity(host, reading)
    return [
        Fault(
            alarm_id=alarm_id,
            severity=severity,
            entity=entity,
            reason=reading.message or f"{reading.monitor} is at level {severity}.",
            instance=reading.instance,
        )
    ]


def _configuration(host: Host, configuration: HostConfiguration, now: datetime) -> list[Fault]:
    if is_in_force(configuration):
        return []
    failed = [a for a in configuration.status.aspects if a.state in ("failed", "rolled-back")]
    waited = (now - _pending_since(host, configuration, now)).total_seconds()
    if not failed and waited < CONFIGURATION_GRACE:
        return []
    name = host.metadata.name
    reason = (
        "; ".join(f"{a.aspect} {a.state}: {a.message}" for a in failed)
        or f"{name} has not put configuration {configuration.metadata.generation} in force."
    )
    return [Fault(alarm_id="250.001", severity="major", entity=f"host={name}", reason=reason[:1000])]


CHANGED_AT = "roost.edge/changed-at"
"""Annotation of a HostConfiguration: when its spec last changed."""
