"""What the API answers, as far as commands read it.

Deliberately laxer than `roost.model`: states are plain words, everything has a default, unknown fields
are ignored. A cloud two releases ahead or behind can still be looked at.
"""

from __future__ import annotations

from typing import Any

import msgspec

from roost.model.configuration import HostConfigurationSpec
from roost.model.host import Inventory


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of everything answered."""


class Meta(Answer, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}


class Item(Answer, frozen=True, kw_only=True):
    """What every object has."""

    metadata: Meta = Meta()


class Condition(Answer, frozen=True, kw_only=True):
    type: str = ""
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class HostSpec(Answer, frozen=True, kw_only=True):
    administrative_state: str = ""
    recovery_round: int = 0
    drain_seconds: int = 300
    personalities: list[str] = []
    location: str = ""


class HostStatus(Answer, frozen=True, kw_only=True):
    administrative: str = ""
    operational: str = ""
    availability: str = ""
    task: str = ""
    connected: bool = False
    connection_changed_at: str = ""
    observed_generation: int = 0
    conditions: list[Condition] = []
    inventory_observed_at: str = ""


class Host(Item, frozen=True, kw_only=True):
    """A host without its inventory, which is large."""

    spec: HostSpec = HostSpec()
    status: HostStatus = HostStatus()


class Reading(Answer, frozen=True, kw_only=True):
    monitor: str = ""
    instance: str = ""
    level: str = ""
    value: float = 0.0
    message: str = ""


class Check(Answer, frozen=True, kw_only=True):
    name: str = ""
    state: str = ""
    message: str = ""
    seconds: float = 0.0


class CheckReport(Answer, frozen=True, kw_only=True):
    request: str = ""
    state: str = "idle"
    finished_at: str = ""
    checks: list[Check] = []


class DegradedReason(Answer, frozen=True, kw_only=True):
    reason: str = ""
    alarm: str = ""
    message: str = ""


class RecoveryCount(Answer, frozen=True, kw_only=True):
    cause: str = ""
    tries: int = 0
    limit: int = 0
    restarts: int = 0
    next_at: str = ""
    off: bool = False
    message: str = ""


class Recovery(Answer, frozen=True, kw_only=True):
    counts: list[RecoveryCount] = []


class HostDetails(HostStatus, frozen=True, kw_only=True):
    inventory: Inventory | None = None
    readings: list[Reading] = []
    health: CheckReport | None = None
    drain: CheckReport | None = None
    degraded: list[DegradedReason] = []
    recovery: Recovery = Recovery()
    agent: dict[str, Any] = {}


class DetailedHost(Item, frozen=True, kw_only=True):
    """A host with everything."""

    spec: HostSpec = HostSpec()
    status: HostDetails = HostDetails()


class Step(Answer, frozen=True, kw_only=True):
    name: str = ""
    state: str = "pending"
    attempt: int = 0
    started_at: str = ""
    finished_at: str = ""
    deadline: str = ""
    message: str = ""


class OperationSpec(Answer, frozen=True, kw_only=True):
    action: str = ""
    host: str = ""
    paused: bool = False
    aborted: bool = False


class OperationStatus(Answer, frozen=True, kw_only=True):
    state: str = "pending"
    message: str = ""
    steps_done: int = 0
    steps_total: int = 0
    started_at: str = ""
    finished_at: str = ""
    steps: list[Step] = []


class Operation(Item, frozen=True, kw_only=True):
    """Long work."""

    spec: OperationSpec = OperationSpec()
    status: OperationStatus = OperationStatus()


class AlarmSpec(Answer, frozen=True, kw_only=True):
    acknowledged_by: str = ""
    comment: str = ""


class Acknowledgement(Answer, frozen=True, kw_only=True):
    by: str = ""
    at: str = ""
    comment: str = ""
    severity: str = ""


class SuppressedBy(Answer, frozen=True, kw_only=True):
    name: str = ""
    by: str = ""
    reason: str = ""
    until: str = ""


class AlarmStatus(Answer, frozen=True, kw_only=True):
    alarm_id: str = ""
    entity: str = ""
    severity: str = ""
    reason: str = ""
    repair: str = ""
    type: str = ""
    cause: str = ""
    service_affecting: bool = False
    suppressible: bool = False
    degrades_host: bool = False
    blocks_updates: bool = False
    suppressed: bool = False
    suppression: SuppressedBy | None = None
    acknowledged: bool = False
    acknowledgement: Acknowledgement | None = None
    raised_at: str = ""
    stale_since: str = ""


class Alarm(Item, frozen=True, kw_only=True):
    """Something is wrong now."""

    spec: AlarmSpec = AlarmSpec()
    status: AlarmStatus = AlarmStatus()


class SuppressionSpec(Answer, frozen=True, kw_only=True):
    alarm_ids: list[str] = []
    entity: str = ""
    reason: str = ""
    until: str = ""
    by: str = ""


class SuppressionStatus(Answer, frozen=True, kw_only=True):
    state: str = ""
    alarms: int = 0
    message: str = ""


class AlarmSuppression(Item, frozen=True, kw_only=True):
    """Some alarms do not count for a while."""

    spec: SuppressionSpec = SuppressionSpec()
    status: SuppressionStatus = SuppressionStatus()


class LogStatus(Answer, frozen=True, kw_only=True):
    time: str = ""
    source: str = ""
    sequence: int = 0
    severity: str = ""
    event: str = ""
    alarm_id: str = ""
    entity: str = ""
    text: str = ""


class LogEntry(Item, frozen=True, kw_only=True):
    """Something has happened."""

    status: LogStatus = LogStatus()


class SubcloudSpec(Answer, frozen=True, kw_only=True):
    management_state: str = ""
    description: str = ""
    location: str = ""
    latitude: float | None = None
    longitude: float | None = None
    uplink: str = ""
    group: str = ""


class SubcloudStatus(Answer, frozen=True, kw_only=True):
    enrolled: bool = False
    availability: str = "unknown"
    availability_changed_at: str = ""
    sync: str = "unknown"
    out_of_sync: list[str] = []
    version: str = ""
    certificate_expires_at: str = ""
    epoch: int = 0
    moved_to: str = ""
    conditions: list[Condition] = []


class Subcloud(Item, frozen=True, kw_only=True):
    """A cloud below."""

    spec: SubcloudSpec = SubcloudSpec()
    status: SubcloudStatus = SubcloudStatus()


class SubcloudGroupSpec(Answer, frozen=True, kw_only=True):
    description: str = ""
    apply_type: str = "parallel"
    max_parallel: int = 0
    failure_budget: str = ""


class SubcloudGroup(Item, frozen=True, kw_only=True):
    """Subclouds that are treated alike."""

    spec: SubcloudGroupSpec = SubcloudGroupSpec()


class IncidentStatus(Answer, frozen=True, kw_only=True):
    cause: str = ""
    name: str = ""
    certainty: str = ""
    severity: str = ""
    reason: str = ""
    chain: list[str] = []
    subclouds: int = 0
    alarms: int = 0
    concerned: list[str] = []
    since: str = ""


class Incident(Item, frozen=True, kw_only=True):
    """Alarms of one cause."""

    status: IncidentStatus = IncidentStatus()


class Severities(Answer, frozen=True, kw_only=True):
    critical: int = 0
    major: int = 0
    minor: int = 0
    warning: int = 0
    suppressed: int = 0
    acknowledged: int = 0
    blocking_updates: int = 0


class Fleet(Answer, frozen=True, kw_only=True):
    subclouds: int = 0
    clouds_with_critical: int = 0
    alarms: Severities = Severities()


class HostCounts(Answer, frozen=True, kw_only=True):
    total: int = 0
    available: int = 0
    degraded: int = 0
    locked: int = 0
    failed: int = 0


class CloudSpec(Answer, frozen=True, kw_only=True):
    system_mode: str = ""
    description: str = ""
    location: str = ""
    stands_alone: bool = False


class LogShed(Answer, frozen=True, kw_only=True):
    total: int = 0
    since: str = ""


class CloudProcess(Answer, frozen=True, kw_only=True):
    name: str = ""
    roles: list[str] = []
    active: bool = False
    links: int = 0
    address: str = ""
    since: str = ""
    version: str = ""


class CloudStatus(Answer, frozen=True, kw_only=True):
    version: str = ""
    upper: str = ""
    upper_connected: bool = False
    management_state: str = ""
    local_overrides: int = 0
    log_shed: LogShed = LogShed()
    hosts: HostCounts = HostCounts()
    alarms: Severities = Severities()
    fleet: Fleet | None = None
    processes: list[CloudProcess] = []
    conditions: list[Condition] = []


class Cloud(Item, frozen=True, kw_only=True):
    """A cloud as it sees itself."""

    spec: CloudSpec = CloudSpec()
    status: CloudStatus = CloudStatus()


class Aspect(Answer, frozen=True, kw_only=True):
    aspect: str = ""
    state: str = ""
    generation: int = 0
    message: str = ""
    plan: list[str] = []
    changed_at: str = ""


class ConfigurationStatus(Answer, frozen=True, kw_only=True):
    observed_generation: int = 0
    applied_generation: int = 0
    aspects: list[Aspect] = []


class HostConfiguration(Item, frozen=True, kw_only=True):
    """Intent for one host and how far it is in force."""

    spec: HostConfigurationSpec = HostConfigurationSpec()
    status: ConfigurationStatus = ConfigurationStatus()


class TokenStatus(Answer, frozen=True, kw_only=True):
    token: str = ""
    expiration_timestamp: str = ""


class Token(Answer, frozen=True, kw_only=True):
    """Answer of the subresources that make a secret."""

    status: TokenStatus = TokenStatus()


class TableColumn(Answer, frozen=True, kw_only=True):
    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


class RowObject(Answer, frozen=True, kw_only=True):
    metadata: Meta = Meta()


class TableRow(Answer, frozen=True, kw_only=True):
    cells: list[Any] = []
    object: RowObject = RowObject()


class ListMeta(Answer, frozen=True, kw_only=True):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Table(Answer, frozen=True, kw_only=True):
    """A list as the server prints it."""

    kind: str = ""
    metadata: ListMeta = ListMeta()
    column_definitions: list[TableColumn] = []
    rows: list[TableRow] = []


class Cause(Answer, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(Answer, frozen=True, kw_only=True):
    name: str = ""
    kind: str = ""
    causes: list[Cause] = []
    retry_after_seconds: int = 0


class Status(Answer, frozen=True, kw_only=True):
    """Why a request was not done."""

    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: StatusDetails | None = None


class ServedResource(Answer, frozen=True, kw_only=True):
    name: str
    singular_name: str = ""
    namespaced: bool = True
    kind: str = ""
    short_names: list[str] = []


class ResourceList(Answer, frozen=True, kw_only=True):
    """Discovery of one group version."""

    resources: list[ServedResource] = []


class Version(Answer, frozen=True, kw_only=True):
    git_version: str = ""
    platform: str = ""
