"""Uplink: what subclouds are reached through; Incident: alarms that have one cause, shown as one.

Uplinks are declared: a router, a line, a region's exchange. One may lie behind another, so they are trees,
and a subcloud's `spec.uplink` names the nearest. Incidents are made by the fleet's controllers from what is
in alarm now and from where it lies, and are gone when it is over; the log keeps their beginning and end.
"""

from __future__ import annotations

from typing import Annotated, Literal

from roost.model.fault import Severity
from roost.model.kind import Column, KindInfo
from roost.model.meta import DNS_LABEL, Owner, Part, Resource, doc

CauseKind = Literal["Uplink", "Subcloud", "Host", "Certificate"]
Certainty = Literal["certain", "likely"]
UPLINK_NAME = rf"{DNS_LABEL}|^$"


class UplinkSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the operator says."""

    description: Annotated[str, doc("For people: what and where it is, whom to call.", max_length=255)] = ""
    behind: Annotated[
        str, doc("Name of the uplink through which it is reached; empty: none.", pattern=UPLINK_NAME)
    ] = ""


class UplinkStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is."""

    subclouds: Annotated[int, doc("Enrolled subclouds that are reached through it.")] = 0
    offline: Annotated[int, doc("Of these, ones whose link is down.")] = 0


class Uplink(Resource, frozen=True, kw_only=True):
    """What subclouds are reached through."""

    spec: Annotated[UplinkSpec, doc("What the operator says.")] = UplinkSpec()
    status: Annotated[UplinkStatus, doc("What is.")] = UplinkStatus()


UPLINK = KindInfo(
    kind="Uplink",
    plural="uplinks",
    singular="uplink",
    short_names=("ul",),
    categories=("roost",),
    type=Uplink,
    namespaced=False,
    description="What subclouds are reached through: a router, a line, a region's exchange.",
    status_owner=Owner.FLEET,
    columns=(
        Column("Behind", "spec.behind", "Through which it is reached."),
        Column("Subclouds", "status.subclouds", "Enrolled subclouds reached through it.", "integer"),
        Column("Offline", "status.offline", "Of these, offline.", "integer"),
        Column("Description", "spec.description", "For people.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)


class IncidentStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What has happened."""

    cause: Annotated[CauseKind, doc("What kind of thing the cause is.")] = "Subcloud"
    name: Annotated[str, doc("Name of the cause; of a host SUBCLOUD/HOST.", max_length=128)] = ""
    certainty: Annotated[
        Certainty, doc("Likely: some that would be lost with it are not; they may have another way.")
    ] = "certain"
    severity: Annotated[Severity, doc("The worst of its alarms.")] = "major"
    reason: Annotated[str, doc("What has happened, in words.", max_length=1024)] = ""
    chain: Annotated[
        list[str],
        doc("From the cause to what people notice, each step because of the one before.", max_length=8),
    ] = []
    subclouds: Annotated[int, doc("Subclouds that it concerns.")] = 0
    most: Annotated[int, doc("Subclouds that it concerned at its height.")] = 0
    alarms: Annotated[int, doc("Alarms that it explains.")] = 0
    concerned: Annotated[list[str], doc("The first of these subclouds.", max_length=100)] = []
    since: Annotated[str, doc("When it began.", format="date-time")] = ""


class Incident(Resource, frozen=True, kw_only=True):
    """Alarms that have one cause, as one."""

    status: Annotated[IncidentStatus, doc("What has happened.")] = IncidentStatus()


INCIDENT = KindInfo(
    kind="Incident",
    plural="incidents",
    singular="incident",
    short_names=("inc",),
    categories=("roost",),
    type=Incident,
    namespaced=False,
    description="Alarms of the fleet that have one cause, shown as one.",
    spec_owner=Owner.FLEET,
    status_owner=Owner.FLEET,
    name_pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$",
    selectable=("status.cause", "status.severity"),
    columns=(
        Column("Cause", "status.cause", "What kind of thing the cause is."),
        Column("Where", "status.name", "Which one."),
        Column("Severity", "status.severity", "The worst of its alarms."),
        Column("Subclouds", "status.subclouds", "Subclouds it concerns.", "integer"),
        Column("Alarms", "status.alarms", "Alarms it explains.", "integer"),
        Column("Reason", "status.reason", "What has happened."),
        Column("Certainty", "status.certainty", "How sure that is.", "string", 1),
        Column("Since", "status.since", "When it began.", "date"),
    ),
)
