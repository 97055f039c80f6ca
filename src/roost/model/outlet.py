"""AlarmOutlet: a receiver outside that is told of alarms and of the log, and how far that has come.

An outlet keeps nothing of what it sends: its position is a revision of the store, and what is to be sent is
made from the changes after it. What it needs to prove itself stands in a Secret of type `SECRET_TYPE` in
the same namespace, by keys (`SECRET_KEYS`); nothing secret is ever part of the outlet.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from roost.model.fault import LogSeverity
from roost.model.kind import Column, KindInfo, Problem
from roost.model.meta import Condition, Part, Resource, doc
from roost.model.selector import SelectorError, parse_labels

OutletType = Literal["webhook", "syslog", "snmp", "alertmanager"]
OutletState = Literal["unknown", "delivering", "resyncing", "retrying", "halted", "suspended"]
Sent = Literal["alarms", "log"]

SECRET_TYPE = "roost.edge/outlet"  # noqa: S105 - the type of a Secret
"""Only Secrets of this type are sent anywhere: who may make outlets learns no other's values by one."""

SECRET_KEYS: dict[str, frozenset[str]] = {
    "webhook": frozenset({"hmac-key", "token", "tls.crt", "tls.key"}),
    "alertmanager": frozenset({"token", "username", "password", "tls.crt", "tls.key"}),
    "syslog": frozenset({"tls.crt", "tls.key"}),
    "snmp": frozenset({"community", "authentication", "privacy"}),
}
"""Keys that a type of outlet reads in its Secret."""

SCHEMES: dict[str, tuple[str, ...]] = {
    "webhook": ("https", "http"),
    "alertmanager": ("https", "http"),
    "syslog": ("tls",),
    "snmp": ("udp",),
}
DEFAULT_PORTS = {"https": 443, "http": 80, "tls": 6514, "udp": 162}
_SECRET_WORD = re.compile(
    r"token|secret|passw|api[-_]?key|apikey|signature|\bsig\b|auth|credential", re.IGNORECASE
)
_PATTERN = re.compile(r"[-A-Za-z0-9.*?=/_: ]{1,253}")
_Pattern = Annotated[str, doc("A pattern with * and ?.", max_length=253)]


class OutletFilter(Part, frozen=True, kw_only=True):
    """What is sent. All that is named must hold; what is empty holds for everything."""

    severities: Annotated[list[LogSeverity], doc("These severities.", list_type="set", max_length=5)] = []
    alarm_ids: Annotated[
        list[_Pattern], doc("Ids of alarms, as 200.*.", list_type="set", max_length=100)
    ] = []
    entities: Annotated[
        list[_Pattern], doc("Entity instances, as host=worker-*.", list_type="set", max_length=100)
    ] = []
    clouds: Annotated[
        list[_Pattern], doc("Clouds whose alarms these are, as store-1*.", list_type="set", max_length=100)
    ] = []
    subcloud_selector: Annotated[
        str,
        doc("Labels of the Subcloud, as region=north; this cloud's own are not selected.", max_length=1024),
    ] = ""


class OutletLimits(Part, frozen=True, kw_only=True):
    """Bounds of what is sent and how long is waited."""

    per_second: Annotated[
        int, doc("Messages of one cause (id, and set or clear) that go singly.", unit="1/s", ge=1, le=1000)
    ] = 50
    burst: Annotated[int, doc("How many of one cause may go at once before that bound.", ge=1, le=10_000)] = (
        200
    )
    batch: Annotated[int, doc("Messages in one request, where a type can send several.", ge=1, le=500)] = 100
    timeout_seconds: Annotated[int, doc("How long an answer is awaited.", unit="s", ge=1, le=60)] = 10
    longest_pause_seconds: Annotated[
        int, doc("Longest pause between two attempts.", unit="s", ge=1, le=3600)
    ] = 120


class SnmpSettings(Part, frozen=True, kw_only=True):
    """How an SNMP manager is spoken to."""

    version: Annotated[Literal["2c", "3"], doc("Version of SNMP.")] = "3"
    user: Annotated[str, doc("User of version 3 (USM).", max_length=32)] = ""
    authentication: Annotated[Literal["SHA", "SHA-256"], doc("Authentication of version 3.")] = "SHA-256"
    privacy: Annotated[Literal["AES", "none"], doc("Privacy of version 3: AES-128, or none.")] = "AES"
    notification: Annotated[
        Literal["inform", "trap"], doc("Informs are acknowledged and repeated; traps are sent and forgotten.")
    ] = "inform"


class AlarmOutletSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the operator wants."""

    type: Annotated[OutletType, doc("What the receiver understands.")]
    endpoint: Annotated[
        str,
        doc(
            "Where: https://HOST/PATH for webhook and alertmanager, tls://HOST:6514 for syslog, "
            "udp://HOST:162 for snmp.",
            min_length=1,
            max_length=1024,
        ),
    ]
    suspended: Annotated[bool, doc("Nothing is sent; what happens meanwhile is sent later.")] = False
    sends: Annotated[
        list[Sent], doc("Alarms, entries of the log, or both.", list_type="set", max_length=2)
    ] = msgspec.field(default_factory=lambda: ["alarms"])
    filter: Annotated[OutletFilter, doc("What is sent of these.")] = OutletFilter()
    secret: Annotated[
        str,
        doc(f"Name of a Secret of type {SECRET_TYPE} in this namespace with what proves us.", max_length=253),
    ] = ""
    ca_bundle: Annotated[
        str,
        doc("Authorities of the receiver's certificate, PEM; empty: the machine's.", max_length=65_536),
    ] = ""
    facility: Annotated[int, doc("Syslog facility; 16 is local0.", ge=0, le=23)] = 16
    resend_seconds: Annotated[
        int, doc("How often Alertmanager is told again of what stands.", unit="s", ge=5, le=3600)
    ] = 60
    snmp: Annotated[SnmpSettings, doc("How an SNMP manager is spoken to.")] = SnmpSettings()
    limits: Annotated[OutletLimits, doc("Bounds of what is sent and how long is waited.")] = OutletLimits()


class Missed(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What could not be sent any more, for history was dropped before the receiver came back."""

    at: Annotated[str, doc("When that was found.", format="date-time")] = ""
    revisions: Annotated[int, doc("Changes of any kind that are gone unread.")] = 0
    since: Annotated[str, doc("Time of the first that is known.", format="date-time")] = ""
    until: Annotated[str, doc("Time of the last that is known.", format="date-time")] = ""
    number: Annotated[int, doc("Alarms set and cleared among them, as far as the log still tells.")] = 0
    critical: Annotated[int, doc("Critical ones set among them.")] = 0
    major: Annotated[int, doc("Major ones.")] = 0
    minor: Annotated[int, doc("Minor ones.")] = 0
    warning: Annotated[int, doc("Warnings.")] = 0
    cleared: Annotated[int, doc("Clears.")] = 0


class AlarmOutletStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """How far it is."""

    observed_generation: Annotated[int, doc("Generation of spec this speaks of.")] = 0
    state: Annotated[OutletState, doc("What it does now.")] = "unknown"
    position: Annotated[int, doc("Revision of the store up to which everything was sent.")] = 0
    waiting: Annotated[int, doc("Changes of alarms and log after it, before filters; at least.")] = 0
    delivered: Annotated[int, doc("Messages that were acknowledged.")] = 0
    last_delivery_at: Annotated[str, doc("When the last was.", format="date-time")] = ""
    retries: Annotated[int, doc("Attempts that failed.")] = 0
    refused: Annotated[int, doc("Messages that the receiver would not have, passed over.")] = 0
    merged: Annotated[int, doc("Messages that went as part of a counted summary.")] = 0
    shed: Annotated[int, doc("Alarms set and cleared that were never sent, as far as is known.")] = 0
    snapshots: Annotated[int, doc("How often all present alarms were sent anew.")] = 0
    missed: Annotated[Missed | None, doc("What was shed last.")] = None
    last_error: Annotated[str, doc("What went wrong last, and the next step.", max_length=1024)] = ""
    last_error_at: Annotated[str, doc("When.", format="date-time")] = ""
    next_attempt_at: Annotated[str, doc("When it is tried again.", format="date-time")] = ""
    conditions: Annotated[
        list[Condition],
        doc("Aspects of its state.", list_type="map", list_keys=("type",), max_length=16),
    ] = []


class AlarmOutlet(Resource, frozen=True, kw_only=True):
    """A receiver outside that is told of alarms."""

    spec: Annotated[AlarmOutletSpec, doc("What the operator wants.")]
    status: Annotated[AlarmOutletStatus, doc("How far it is.")] = AlarmOutletStatus()


def address_of(endpoint: str) -> tuple[str, str, int]:
    """Scheme, host and port of an endpoint; raises ValueError when it has none."""
    parts = urlsplit(endpoint)
    if not parts.hostname:
        raise ValueError("it names no host")
    port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    return parts.scheme, parts.hostname, port


def _endpoint_problems(spec: AlarmOutletSpec) -> list[Problem]:
    field, schemes = "spec.endpoint", SCHEMES[spec.type]
    like = f"{schemes[0]}://HOST" + ("/PATH" if schemes[0] == "https" else f":{DEFAULT_PORTS[schemes[0]]}")
    if any(c.isspace() or not c.isprintable() for c in spec.endpoint):
        return [Problem(field, "it has blanks or characters that can't be printed", f"write {like}")]
    try:
        parts = urlsplit(spec.endpoint)
        address_of(spec.endpoint)
        named = [key for key, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError as error:
        return [Problem(field, f"it is no URL with a host: {error}", f"write {like}")]
    if parts.scheme not in schemes:
        reason = f"an outlet of type {spec.type} can't speak {parts.scheme or 'without a scheme'}"
        return [Problem(field, reason, f"write {like}")]
    found = []
    if parts.username is not None or parts.password is not None:
        reason = "it holds a user or a password, which everybody who may look would see"
        found.append(Problem(field, reason, "put them into the Secret that spec.secret names"))
    if any(_SECRET_WORD.search(key) for key in named):
        reason = "its query seems to hold a credential, which everybody who may look would see"
        found.append(Problem(field, reason, "put it into the Secret that spec.secret names, as token"))
    if parts.fragment:
        found.append(Problem(field, "a fragment is never sent", "leave out what follows #"))
    if schemes[0] not in ("https",) and (parts.path not in ("", "/") or parts.query):
        found.append(Problem(field, "there is nothing behind host and port there", f"write {like}"))
    return found


def _problems(outlet: AlarmOutlet) -> list[Problem]:
    spec = outlet.spec
    found = _endpoint_problems(spec)
    if not spec.sends:
        found.append(Problem("spec.sends", "nothing would be sent", "write alarms, log or both"))
    if spec.type == "alertmanager" and "log" in spec.sends:
        reason = "Alertmanager knows what stands, not what has happened"
        found.append(Problem("spec.sends", reason, "leave out log, or use another type for it"))
    found += _filter_problems(spec.filter)
    if spec.type == "snmp":
        found += _snmp_problems(spec)
    if spec.ca_bundle and "-----BEGIN CERTIFICATE-----" not in spec.ca_bundle:
        found.append(Problem("spec.caBundle", "there is no certificate in it", "write PEM"))
    if "PRIVATE KEY" in spec.ca_bundle:
        found.append(Problem("spec.caBundle", "a private key is in it", "leave it out, and renew that key"))
    return found


def _filter_problems(wanted: OutletFilter) -> list[Problem]:
    found = [
        Problem(
            f"spec.filter.{field}[{n}]", f"{text!r} is no pattern", "use *, ? and the characters of names"
        )
        for field, texts in (
            ("alarmIds", wanted.alarm_ids),
            ("entities", wanted.entities),
            ("clouds", wanted.clouds),
        )
        for n, text in enumerate(texts)
        if not _PATTERN.fullmatch(text)
    ]
    try:
        parse_labels(wanted.subcloud_selector)
    except SelectorError as error:
        found.append(Problem("spec.filter.subcloudSelector", str(error), "write it as for kubectl -l"))
    return found


def _snmp_problems(spec: AlarmOutletSpec) -> list[Problem]:
    found = []
    if not spec.secret:
        keys = "community" if spec.snmp.version == "2c" else "authentication (and privacy)"
        found.append(Problem("spec.secret", "SNMP needs one", f"name a Secret with the key {keys}"))
    if spec.snmp.version == "3" and not spec.snmp.user:
        found.append(Problem("spec.snmp.user", "version 3 needs one", "name the user that the manager knows"))
    return found


ALARM_OUTLET = KindInfo(
    kind="AlarmOutlet",
    plural="alarmoutlets",
    singular="alarmoutlet",
    short_names=("outlet",),
    categories=("roost",),
    type=AlarmOutlet,
    description="A receiver outside that is told of alarms and of the log.",
    invariants=_problems,
    operating=("suspended",),
    selectable=("spec.type", "status.state"),
    columns=(
        Column("Type", "spec.type", "What the receiver understands."),
        Column("State", "status.state", "What it does now."),
        Column("Waiting", "status.waiting", "Changes that are not sent yet.", "integer"),
        Column("Delivered", "status.delivered", "Messages that were acknowledged.", "integer"),
        Column("Shed", "status.shed", "What was never sent.", "integer"),
        Column("Last", "status.lastDeliveryAt", "Time since the last delivery.", "date"),
        Column("Endpoint", "spec.endpoint", "Where.", "string", 1),
        Column("Error", "status.lastError", "What went wrong last.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
