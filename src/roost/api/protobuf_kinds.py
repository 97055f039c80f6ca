"""Objects of Kubernetes' own kinds in protobuf, which kubectl and client-go send for these alone.

What is read here becomes the raw object that JSON would have been. The shapes are those of Kubernetes'
published .proto files: field number, name on the wire, what it is. Numbers that are not listed are
skipped, as protobuf asks; empty text is left out, for these clients write it where they mean nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from roost.api import protobuf
from roost.api.protobuf import Malformed
from roost.model.codec import Raw

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
DEEPEST = 16


class Text(msgspec.Struct, frozen=True):
    """UTF-8."""


class Bytes(msgspec.Struct, frozen=True):
    """Base64 in JSON."""


class Number(msgspec.Struct, frozen=True):
    """A whole number, perhaps negative."""


class Truth(msgspec.Struct, frozen=True):
    """A boolean."""


class Time(msgspec.Struct, frozen=True):
    """Seconds (1) and nanoseconds (2); `micro` shows the fraction."""

    micro: bool = False


class Several(msgspec.Struct, frozen=True):
    """A repeated field."""

    of: Shape


class Words(msgspec.Struct, frozen=True):
    """A map from text."""

    to: Shape


Message = Mapping[int, tuple[str, Any]]
Shape = Text | Bytes | Number | Truth | Time | Several | Words | Message

TEXT, BYTES, NUMBER, TRUTH, TIME = Text(), Bytes(), Number(), Truth(), Time()
TEXTS, LABELS, MICRO_TIME = Several(TEXT), Words(TEXT), Time(micro=True)

OWNER: Message = {
    1: ("kind", TEXT),
    3: ("name", TEXT),
    4: ("uid", TEXT),
    5: ("apiVersion", TEXT),
    6: ("controller", TRUTH),
    7: ("blockOwnerDeletion", TRUTH),
}
METADATA: Message = {
    1: ("name", TEXT),
    2: ("generateName", TEXT),
    3: ("namespace", TEXT),
    5: ("uid", TEXT),
    6: ("resourceVersion", TEXT),
    7: ("generation", NUMBER),
    8: ("creationTimestamp", TIME),
    9: ("deletionTimestamp", TIME),
    11: ("labels", LABELS),
    12: ("annotations", LABELS),
    13: ("ownerReferences", Several(OWNER)),
    14: ("finalizers", TEXTS),
}
RULE: Message = {
    1: ("verbs", TEXTS),
    2: ("apiGroups", TEXTS),
    3: ("resources", TEXTS),
    4: ("resourceNames", TEXTS),
    5: ("nonResourceURLs", TEXTS),
}
EXPRESSION: Message = {1: ("key", TEXT), 2: ("operator", TEXT), 3: ("values", TEXTS)}
SELECTOR: Message = {1: ("matchLabels", LABELS), 2: ("matchExpressions", Several(EXPRESSION))}
SUBJECT: Message = {1: ("kind", TEXT), 2: ("apiGroup", TEXT), 3: ("name", TEXT), 4: ("namespace", TEXT)}
ROLE_REF: Message = {1: ("apiGroup", TEXT), 2: ("kind", TEXT), 3: ("name", TEXT)}
BINDING: Message = {1: ("metadata", METADATA), 2: ("subjects", Several(SUBJECT)), 3: ("roleRef", ROLE_REF)}
RESOURCE_ATTRIBUTES: Message = {
    1: ("namespace", TEXT),
    2: ("verb", TEXT),
    3: ("group", TEXT),
    4: ("version", TEXT),
    5: ("resource", TEXT),
    6: ("subresource", TEXT),
    7: ("name", TEXT),
}
PATH_ATTRIBUTES: Message = {1: ("path", TEXT), 2: ("verb", TEXT)}
OWN_ACCESS: Message = {
    1: ("resourceAttributes", RESOURCE_ATTRIBUTES),
    2: ("nonResourceAttributes", PATH_ATTRIBUTES),
}
ACCESS: Message = {**OWN_ACCESS, 3: ("user", TEXT), 4: ("groups", TEXTS), 6: ("uid", TEXT)}
TOKEN_REQUEST: Message = {
    1: ("audiences", TEXTS),
    3: (
        "boundObjectRef",
        {1: ("kind", TEXT), 2: ("apiVersion", TEXT), 3: ("name", TEXT), 4: ("uid", TEXT)},
    ),
    4: ("expirationSeconds", NUMBER),
}
LEASE: Message = {
    1: ("holderIdentity", TEXT),
    2: ("leaseDurationSeconds", NUMBER),
    3: ("acquireTime", MICRO_TIME),
    4: ("renewTime", MICRO_TIME),
    5: ("leaseTransitions", NUMBER),
    6: ("strategy", TEXT),
    7: ("preferredHolder", TEXT),
}


def _specified(spec: Message) -> Message:
    return {1: ("metadata", METADATA), 2: ("spec", spec)}


KINDS: dict[str, Message] = {
    "Role": {1: ("metadata", METADATA), 2: ("rules", Several(RULE))},
    "ClusterRole": {
        1: ("metadata", METADATA),
        2: ("rules", Several(RULE)),
        3: ("aggregationRule", {1: ("clusterRoleSelectors", Several(SELECTOR))}),
    },
    "RoleBinding": BINDING,
    "ClusterRoleBinding": BINDING,
    "ServiceAccount": {
        1: ("metadata", METADATA),
        2: ("secrets", Several({3: ("name", TEXT)})),
        3: ("imagePullSecrets", Several({1: ("name", TEXT)})),
        4: ("automountServiceAccountToken", TRUTH),
    },
    "ConfigMap": {
        1: ("metadata", METADATA),
        2: ("data", LABELS),
        3: ("binaryData", Words(BYTES)),
        4: ("immutable", TRUTH),
    },
    "Secret": {
        1: ("metadata", METADATA),
        2: ("data", Words(BYTES)),
        3: ("type", TEXT),
        4: ("stringData", LABELS),
        5: ("immutable", TRUTH),
    },
    "Lease": _specified(LEASE),
    "SelfSubjectAccessReview": _specified(OWN_ACCESS),
    "SelfSubjectRulesReview": _specified({1: ("namespace", TEXT)}),
    "SubjectAccessReview": _specified(ACCESS),
    "LocalSubjectAccessReview": _specified(ACCESS),
    "SelfSubjectReview": {1: ("metadata", METADATA)},
    "TokenReview": _specified({1: ("token", TEXT), 2: ("audiences", TEXTS)}),
    "TokenRequest": _specified(TOKEN_REQUEST),
    "DeleteOptions": {
        1: ("gracePeriodSeconds", NUMBER),
        2: ("preconditions", {1: ("uid", TEXT), 2: ("resourceVersion", TEXT)}),
        4: ("propagationPolicy", TEXT),
        5: ("dryRun", TEXTS),
    },
}


class UnknownKind(Malformed):
    """A kind that is not read in protobuf."""


def decode(body: bytes) -> Raw:
    """The object in Kubernetes' envelope: magic, then Unknown with its type (1) and the message (2).

    Raises Malformed; UnknownKind for kinds that have no shape here.
    """
    if not body.startswith(MAGIC):
        raise Malformed("it does not begin with the magic of Kubernetes")
    unknown = protobuf.fields(body[len(MAGIC) :])
    about = protobuf.fields(unknown.get(1, b""))
    version, kind = _text(about.get(1, b"")), _text(about.get(2, b""))
    if kind not in KINDS:
        raise UnknownKind(f"{kind[:63] or 'this kind'} is not read in protobuf; send application/json")
    return {"apiVersion": version, "kind": kind, **_message(unknown.get(2, b""), KINDS[kind], DEEPEST)}


def _message(message: bytes, shape: Message, deepest: int) -> Raw:
    if deepest == 0:
        raise Malformed("it is nested too deeply")
    found: Raw = {}
    numbers, parts = protobuf.numbers(message), protobuf.repeated(message)
    for number, (name, what) in shape.items():
        if isinstance(what, Number | Truth):
            if number in numbers:
                value = numbers[number]
                signed = value - (1 << 64) if value >= 1 << 63 else value
                found[name] = bool(value) if isinstance(what, Truth) else signed
        elif number in parts:
            value = _value(parts[number], what, deepest - 1)
            if value not in ("", None):
                found[name] = value
    return found


def _value(given: list[bytes], what: Shape, deepest: int) -> Any:
    match what:
        case Several(of=of):
            return [_value([item], of, deepest) for item in given]
        case Words(to=to):
            pairs = [protobuf.fields(item) for item in given]
            return {_text(pair.get(1, b"")): _value([pair.get(2, b"")], to, deepest) for pair in pairs}
        case Text():
            return _text(given[-1])
        case Bytes():
            return base64.b64encode(given[-1]).decode()
        case Time(micro=micro):
            return _time(given[-1], "microseconds" if micro else "seconds")
        case Mapping():
            return _message(given[-1], what, deepest)
    raise AssertionError(what)


def _time(message: bytes, precision: str) -> str | None:
    numbers = protobuf.numbers(message)
    if not numbers.get(1):
        return None
    try:
        moment = datetime.fromtimestamp(numbers[1], UTC).replace(microsecond=numbers.get(2, 0) // 1000)
    except (OverflowError, ValueError, OSError) as error:
        raise Malformed("a time is out of range") from error
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Malformed("a text is not UTF-8") from error
