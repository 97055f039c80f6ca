"""The dictionary of alarms that exist so far, with the field's ids, entities and severities.

An entry says what an alarm of that id always has; a `Fault` is one that should be raised now.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from roost.model.fault import Severity


class AlarmDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What all alarms of one id share."""

    alarm_id: str
    title: str
    entity: str
    severities: tuple[Severity, ...]
    type: str
    cause: str
    repair: str
    service_affecting: bool = False
    suppressible: bool = False
    degrades_from: Severity | None = None
    """Severity from which on the alarm makes its host degraded."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm that should be raised. `instance` tells several of one id in one scope apart."""

    alarm_id: str
    severity: Severity
    entity: str
    reason: str
    instance: str = ""


_THRESHOLD = "threshold-crossed"
_PORT_REPAIR = "Check the cable and the port of the switch; replace the transceiver if it goes on."


def _port(alarm_id: str, network: str) -> AlarmDefinition:
    return AlarmDefinition(
        alarm_id=alarm_id,
        title=f"{network} port down",
        entity="host=<hostname>.port=<port-name>",
        severities=("major",),
        type="operational-violation",
        cause="unknown",
        repair=_PORT_REPAIR,
        service_affecting=True,
        suppressible=True,
        degrades_from="major",
    )


ALARMS: dict[str, AlarmDefinition] = {
    a.alarm_id: a
    for a in (
        AlarmDefinition(
            alarm_id="100.101",
            title="Processor use",
            entity="host=<hostname>",
            severities=("critical", "major"),
            type="operational-violation",
            cause=_THRESHOLD,
            repair="Find what uses the platform's processors; move or end it, or give the platform more.",
            suppressible=True,
            degrades_from="critical",
        ),
        AlarmDefinition(
            alarm_id="100.103",
            title="Memory use",
            entity="host=<hostname>",
            severities=("critical", "major"),
            type="operational-violation",
            cause=_THRESHOLD,
            repair="Find what uses memory; end it or add memory. Lock and unlock the host if it goes on.",
            suppressible=True,
            degrades_from="critical",
        ),
        AlarmDefinition(
            alarm_id="100.104",
            title="File system use",
            entity="host=<hostname>.filesystem=<mount-dir>",
            severities=("critical", "major"),
            type="operational-violation",
            cause=_THRESHOLD,
            repair="Remove what is not needed from the file system, or make it larger.",
            suppressible=True,
            degrades_from="critical",
        ),
        _port("100.106", "OAM"),
        _port("100.108", "Management"),
        _port("100.110", "Cluster-host"),
        AlarmDefinition(
            alarm_id="200.001",
            title="Host locked",
            entity="host=<hostname>",
            severities=("warning",),
            type="operational-violation",
            cause="out-of-service",
            repair="Unlock the host when the work on it is done.",
            service_affecting=True,
        ),
        AlarmDefinition(
            alarm_id="200.004",
            title="Host failed",
            entity="host=<hostname>",
            severities=("critical",),
            type="operational-violation",
            cause="application-subsystem-failure",
            repair="It returns by itself once it answers and its checks pass: see `roost host show NAME`.",
            service_affecting=True,
            suppressible=True,
        ),
        AlarmDefinition(
            alarm_id="200.005",
            title="Heartbeat lost",
            entity="host=<hostname>",
            severities=("critical", "major"),
            type="communication",
            cause="unknown",
            repair="Check the management network between the host and its controller.",
            service_affecting=True,
            suppressible=True,
        ),
        AlarmDefinition(
            alarm_id="200.009",
            title="Cluster-host heartbeat lost",
            entity="host=<hostname>",
            severities=("critical", "major"),
            type="communication",
            cause="unknown",
            repair="Check the cluster-host network between the host and its controller.",
            service_affecting=True,
            suppressible=True,
        ),
        AlarmDefinition(
            # The field watches two networks by heartbeat; this is for all others.
            alarm_id="200.202",
            title="Network heartbeat lost",
            entity="host=<hostname>.network=<network>",
            severities=("critical", "major"),
            type="communication",
            cause="unknown",
            repair="Check the network that it names between the host and its controller.",
            service_affecting=True,
            suppressible=True,
            degrades_from="major",
        ),
        AlarmDefinition(
            # The field writes a log entry when it avoids failures; who looks at alarms must see it too.
            alarm_id="200.203",
            title="Multi-node failure avoidance",
            entity="cloud=<cloud>",
            severities=("critical",),
            type="communication",
            cause="unknown",
            repair="Check the network and the power that the hosts share: see conditions of the Cloud.",
            service_affecting=True,
        ),
        AlarmDefinition(
            alarm_id="200.011",
            title="Host configuration failed",
            entity="host=<hostname>",
            severities=("critical",),
            type="operational-violation",
            cause="configuration-or-customization-error",
            repair="Mend what the host says of its configuration, then `roost host recover NAME`.",
            service_affecting=True,
            suppressible=True,
        ),
        AlarmDefinition(
            # The field has no alarm of its own for this: it fails the host, or says nothing.
            alarm_id="200.201",
            title="Health check failing",
            entity="host=<hostname>.check=<check>",
            severities=("major",),
            type="operational-violation",
            cause="application-subsystem-failure",
            repair="Mend what the check names; `roost host recover NAME` has it run again at once.",
            service_affecting=True,
            suppressible=True,
            degrades_from="major",
        ),
        AlarmDefinition(
            alarm_id="250.001",
            title="Configuration out of date",
            entity="host=<hostname>",
            severities=("major",),
            type="operational-violation",
            cause="unspecified-reason",
            repair="See `roost firewall plan` for what the host says; mend the policy it names.",
            service_affecting=True,
        ),
        AlarmDefinition(
            alarm_id="280.001",
            title="Subcloud offline",
            entity="subcloud=<subcloud>",
            severities=("critical",),
            type="communication",
            cause="loss-of-signal",
            repair="Check the network to the site and the site's power; what runs there goes on alone.",
        ),
        AlarmDefinition(
            alarm_id="280.002",
            title="Subcloud out of sync",
            entity="subcloud=<subcloud>.resource=<resource>",
            # The field knows major; what a site has overridden on purpose, and told, is a warning.
            severities=("major", "warning"),
            type="other",
            cause="application-subsystem-failure",
            repair="See `roost override list -n <subcloud>`; adopt or revert each of them.",
        ),
        AlarmDefinition(
            # Ours: the field has no alarm for a node that turns against its own link.
            alarm_id="280.201",
            title="Link misused",
            entity="host=<hostname> or subcloud=<subcloud>",
            severities=("major",),
            type="operational-violation",
            cause="protocol-error",
            repair="Look at the node: its program may be broken or not ours. Delete it here to shut it out.",
        ),
        AlarmDefinition(
            alarm_id="500.200",
            title="Certificate expiring",
            entity="system.certificate.mode=<mode>.uuid=<uuid>",
            severities=("major",),
            type="operational-violation",
            cause="certificate-expiration",
            repair="Certificates renew by themselves over the link; check the entity's clock and link.",
        ),
        AlarmDefinition(
            alarm_id="500.210",
            title="Certificate expired",
            entity="system.certificate.mode=<mode>.uuid=<uuid>",
            severities=("critical",),
            type="operational-violation",
            cause="certificate-expiration",
            repair="Enrol the entity again with a new token.",
        ),
    )
}

PORT_ALARM = {"oam": "100.106", "mgmt": "100.108", "cluster-host": "100.110"}
"""Alarm of a port that is down, by type of the platform network it carries."""

_RANK: dict[str, int] = {"warning": 0, "minor": 1, "major": 2, "critical": 3}


def degrades(fault_id: str, severity: Severity) -> bool:
    """Whether an alarm of this id and severity makes its host degraded."""
    limit = ALARMS[fault_id].degrades_from
    return limit is not None and _RANK[severity] >= _RANK[limit]


def alarm_name(scope: str, fault: Fault) -> str:
    """Name of the Alarm resource: `SCOPE.ID`, and for instances a readable, unambiguous suffix."""
    if not fault.instance:
        return f"{scope}.{fault.alarm_id}"
    readable = re.sub(r"[^a-z0-9]+", "-", fault.instance.lower()).strip("-")[:40]
    digest = hashlib.sha256(fault.instance.encode()).hexdigest()[:12]
    return f"{scope}.{fault.alarm_id}.{readable + '-' if readable else ''}{digest}"
