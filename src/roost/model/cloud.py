"""Cloud: one cloud as it sees itself, and Subcloud: a cloud below, as this one sees it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from roost.model.heartbeat import Heartbeat, heartbeat_problems
from roost.model.kind import Column, Flow, KindInfo, Problem
from roost.model.meta import DNS_LABEL, Condition, Owner, Part, Resource, doc

SystemMode = Literal["simplex", "duplex", "standard"]
SubcloudAvailability = Literal["unknown", "online", "offline"]
SyncState = Literal["unknown", "in-sync", "out-of-sync"]


class CloudSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the operator wants."""

    system_mode: Annotated[
        SystemMode, doc("One controller, two controllers, or controllers and workers.")
    ] = "simplex"
    description: Annotated[str, doc("For people.", max_length=255)] = ""
    location: Annotated[str, doc("Where it is.", max_length=255)] = ""
    contact: Annotated[str, doc("Whom to ask.", max_length=255)] = ""
    heartbeat: Annotated[Heartbeat, doc("How hosts are watched.")] = Heartbeat()
    stands_alone: Annotated[
        bool,
        doc("True: it leaves its central cloud. The link is given up, what came from there becomes its own."),
    ] = False


class HostCounts(Part, frozen=True, kw_only=True):
    """Hosts by state."""

    total: Annotated[int, doc("All hosts.")] = 0
    available: Annotated[int, doc("Unlocked, enabled, available.")] = 0
    degraded: Annotated[int, doc("Unlocked, enabled, degraded.")] = 0
    locked: Annotated[int, doc("Locked.")] = 0
    failed: Annotated[int, doc("Failed or offline while unlocked.")] = 0


class AlarmCounts(Part, frozen=True, kw_only=True):
    """Alarms by severity. Suppressed ones are counted apart and nowhere else."""

    critical: Annotated[int, doc("Critical alarms.")] = 0
    major: Annotated[int, doc("Major alarms.")] = 0
    minor: Annotated[int, doc("Minor alarms.")] = 0
    warning: Annotated[int, doc("Warnings.")] = 0
    suppressed: Annotated[int, doc("Alarms that are suppressed.")] = 0
    acknowledged: Annotated[int, doc("Of those that count, how many somebody has in hand.")] = 0
    blocking_updates: Annotated[int, doc("Of those that count, how many software updates wait for.")] = 0


class FleetCounts(Part, frozen=True, kw_only=True):
    """The clouds below a cloud, added up; of one that is offline, what was last known."""

    subclouds: Annotated[int, doc("Subclouds of its own.")] = 0
    clouds: Annotated[int, doc("Clouds below it on all levels: its subclouds, theirs, and so on.")] = 0
    clouds_with_critical: Annotated[int, doc("Of these, those with a critical alarm of their own.")] = 0
    alarms: Annotated[AlarmCounts, doc("The alarms of all of them.")] = AlarmCounts()


class LogShed(Part, frozen=True, kw_only=True):
    """Log entries that were shed for want of room, by severity."""

    total: Annotated[int, doc("All of them.")] = 0
    critical: Annotated[int, doc("Critical ones.")] = 0
    major: Annotated[int, doc("Major ones.")] = 0
    minor: Annotated[int, doc("Minor ones.")] = 0
    warning: Annotated[int, doc("Warnings.")] = 0
    info: Annotated[int, doc("All else.")] = 0
    since: Annotated[str, doc("When the first of them went.", format="date-time")] = ""
    last_at: Annotated[str, doc("When the last of them went.", format="date-time")] = ""


class CloudProcess(Part, frozen=True, kw_only=True, omit_defaults=False):
    """A process of a cloud that has several on one database."""

    name: Annotated[str, doc("Tells it from the others: its machine, and an identifier of its start.")] = ""
    roles: Annotated[list[str], doc("What it does: api, links, control.", max_length=8)] = []
    active: Annotated[bool, doc("Whether it runs the controllers, and has the links of hosts.")] = False
    links: Annotated[int, doc("Links of subclouds that it has.")] = 0
    address: Annotated[str, doc("Where it takes links, as the others reach it; empty: nowhere.")] = ""
    since: Annotated[str, doc("Since when it is there.", format="date-time")] = ""
    version: Annotated[str, doc("Version of Roost that it runs.")] = ""


class CloudStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is."""

    version: Annotated[str, doc("Version of Roost that runs.")] = ""
    store_id: Annotated[str, doc("Identity of its store; changes when it is made anew.")] = ""
    upper: Annotated[str, doc("Name of the central cloud, once enrolled.")] = ""
    upper_connected: Annotated[bool, doc("Whether the link to the central cloud is up.")] = False
    hosts: Annotated[HostCounts, doc("Hosts by state.")] = HostCounts()
    alarms: Annotated[AlarmCounts, doc("Alarms by severity.")] = AlarmCounts()
    fleet: Annotated[
        FleetCounts | None, doc("Its subclouds added up; absent: it has none.", owner=Owner.FLEET)
    ] = None
    log_shed: Annotated[LogShed | None, doc("What is missing in its log; absent when nothing is.")] = None
    management_state: Annotated[
        Literal["", "managed", "unmanaged"], doc("What the central cloud last said of it.")
    ] = ""
    local_overrides: Annotated[int, doc("What is otherwise here than the central cloud wants.")] = 0
    processes: Annotated[
        list[CloudProcess],
        doc(
            "Its processes, where several share a database; none: it is one.",
            list_type="map",
            list_keys=("name",),
            max_length=64,
        ),
    ] = []
    conditions: Annotated[
        list[Condition],
        doc("Aspects of its state.", list_type="map", list_keys=("type",), max_length=16),
    ] = []


class Cloud(Resource, frozen=True, kw_only=True):
    """A cloud as it sees itself."""

    spec: Annotated[CloudSpec, doc("What the operator wants.")] = CloudSpec()
    status: Annotated[CloudStatus, doc("What is.")] = CloudStatus()


def _invariants(cloud: Cloud) -> list[Problem]:
    return list(heartbeat_problems(cloud.spec.heartbeat))


CLOUD = KindInfo(
    kind="Cloud",
    plural="clouds",
    singular="cloud",
    short_names=("cl",),
    categories=("roost",),
    type=Cloud,
    namespaced=False,
    description="A cloud as it sees itself: its mode, version and health.",
    flow=Flow.UP,
    invariants=_invariants,
    columns=(
        Column("Mode", "spec.systemMode", "Simplex, duplex or standard."),
        Column("Version", "status.version", "Version that runs."),
        Column("Hosts", "status.hosts.total", "Hosts.", "integer"),
        Column("Available", "status.hosts.available", "Hosts that are available.", "integer"),
        Column("Critical", "status.alarms.critical", "Critical alarms.", "integer"),
        Column("Major", "status.alarms.major", "Major alarms.", "integer"),
        Column("Upper", "status.upper", "Central cloud.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)


_Latitude = Annotated[float, msgspec.Meta(ge=-90, le=90)]
_Longitude = Annotated[float, msgspec.Meta(ge=-180, le=180)]


GROUP_NAME = rf"{DNS_LABEL}|^$"


class SubcloudSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the operator wants."""

    management_state: Annotated[
        Literal["managed", "unmanaged"], doc("Managed: shared intent flows down to it.")
    ] = "unmanaged"
    description: Annotated[str, doc("For people.", max_length=255)] = ""
    location: Annotated[str, doc("Where it is.", max_length=255)] = ""
    latitude: Annotated[_Latitude | None, doc("North positive.", unit="degrees")] = None
    longitude: Annotated[_Longitude | None, doc("East positive.", unit="degrees")] = None
    uplink: Annotated[
        str, doc("Name of the Uplink through which it is reached; empty: not known.", pattern=GROUP_NAME)
    ] = ""
    group: Annotated[str, doc("Name of the SubcloudGroup it is in; empty: none.", pattern=GROUP_NAME)] = ""


class SubcloudStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is."""

    enrolled: Annotated[bool, doc("Whether it has enrolled.")] = False
    availability: Annotated[SubcloudAvailability, doc("Whether its link is up.")] = "unknown"
    availability_changed_at: Annotated[str, doc("When that last changed.", format="date-time")] = ""
    sync: Annotated[SyncState, doc("Whether shared intent is in force there.")] = "unknown"
    out_of_sync: Annotated[list[str], doc("What is not in force, by kind and name.", max_length=100)] = []
    version: Annotated[str, doc("Version of Roost that runs there.")] = ""
    alarms: Annotated[AlarmCounts, doc("Its own alarms, as it last told.")] = AlarmCounts()
    certificate_expires_at: Annotated[str, doc("End of its link's certificate.", format="date-time")] = ""
    epoch: Annotated[
        int,
        doc("Under which it is owned, as its link tells; rises with each owner. 0: none is known.", ge=0),
    ] = 0
    moved_to: Annotated[
        str,
        doc("Central cloud that owns it now, as it said itself; empty while this one does.", max_length=253),
    ] = ""
    conditions: Annotated[
        list[Condition],
        doc("Aspects of its state.", list_type="map", list_keys=("type",), max_length=16),
    ] = []


class Subcloud(Resource, frozen=True, kw_only=True):
    """A cloud below this one."""

    spec: Annotated[SubcloudSpec, doc("What the operator wants.")] = SubcloudSpec()
    status: Annotated[SubcloudStatus, doc("What is.")] = SubcloudStatus()


SUBCLOUD = KindInfo(
    kind="Subcloud",
    operating=("managementState",),
    plural="subclouds",
    singular="subcloud",
    short_names=("sc",),
    categories=("roost",),
    type=Subcloud,
    namespaced=False,
    description="A cloud below this one: declared, enrolled, managed, observed.",
    flow=Flow.LOCAL,
    status_owner=Owner.FLEET,
    selectable=(
        "spec.managementState",
        "spec.group",
        "spec.uplink",
        "status.availability",
        "status.sync",
        "status.movedTo",
    ),
    columns=(
        Column("Management", "spec.managementState", "Managed or unmanaged."),
        Column("Availability", "status.availability", "Whether its link is up."),
        Column("Sync", "status.sync", "Whether shared intent is in force."),
        Column("Group", "spec.group", "Group it is in.", "string", 1),
        Column("Version", "status.version", "Version that runs there.", "string", 1),
        Column("Moved to", "status.movedTo", "Central cloud that owns it now.", "string", 1),
        Column("Location", "spec.location", "Where it is.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
