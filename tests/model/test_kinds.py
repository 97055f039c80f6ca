"""Every kind, by walking its declaration: names, columns, documentation, invariants."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from roost.model.codec import check, decode, encode, unknown_fields
from roost.model.kind import Column, KindInfo
from roost.model.meta import DNS_LABEL, DNS_NAME, Condition, Resource
from roost.model.rbac import ROLE_NAME
from roost.model.registry import BY_KIND, BY_TYPE, KINDS

ANY_KIND = pytest.mark.parametrize("info", KINDS, ids=lambda k: k.kind)


def structs_of(info: KindInfo) -> list[type[msgspec.Struct]]:
    """Every struct within a kind."""
    found: list[type[msgspec.Struct]] = []

    def walk(hint: Any) -> None:
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and hint not in found:
            found.append(hint)
            for inner in get_type_hints(hint).values():
                walk(inner)
        for argument in get_args(hint):
            walk(argument)

    walk(info.type)
    return found


def field_hint(struct: type[msgspec.Struct], wire: str) -> Any:
    hints = get_type_hints(struct)
    names = dict(zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True))
    assert wire in names, f"{struct.__name__} has no field {wire}"
    return hints[names[wire]]


def unwrapped(hint: Any) -> Any:
    """The type inside an Optional."""
    inside = [a for a in get_args(hint) if a is not type(None)]
    optional = type(None) in get_args(hint)
    return inside[0] if optional and len(inside) == 1 else hint


def resolve(struct: Any, path: str) -> Any:
    """The type at a column's path, by its grammar; fails where there is no such field."""
    hint: Any = struct
    plain, _, function = path.partition("|")
    assert function in ("", "count")
    for part in plain.split("."):
        match = re.fullmatch(r"(\w+)(?:\[(\*|\w+)\])?", part)
        assert match, f"{part} is not part of a path"
        hint = unwrapped(field_hint(unwrapped(hint), match[1]))
        if match[2]:
            assert get_origin(hint) is list, f"{part} is no list"
            hint = get_args(hint)[0]
            assert match[2] == "*" or hint is Condition
    if function == "count":
        assert get_origin(hint) in (list, dict)
        return int
    return hint


@ANY_KIND
def test_a_kind_describes_itself(info: KindInfo) -> None:
    assert info.description.endswith(".")
    assert info.plural == info.plural.lower() and info.singular == info.kind.lower()
    assert info.name_pattern in (DNS_LABEL, DNS_NAME, ROLE_NAME)
    assert issubclass(info.type, Resource)
    assert (BY_KIND[info.kind], BY_TYPE[info.type]) == (info, info)
    assert info.columns or not info.served


def test_names_of_kinds_are_unique() -> None:
    names = [n for k in KINDS for n in {k.plural, k.singular, *k.short_names}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("info", "column"),
    [(k, c) for k in KINDS for c in k.columns],
    ids=lambda v: getattr(v, "kind", None) or v.name,
)
def test_a_column_shows_a_field(info: KindInfo, column: Column) -> None:
    hint, *others = [resolve(info.type, path) for path in column.path.split(",")]
    assert all(unwrapped(other) is unwrapped(hint) for other in others)
    assert column.description.endswith(".")
    if column.type == "integer":
        assert hint is int
    if column.type == "boolean":
        assert hint is bool
    if column.type == "date":
        assert unwrapped(hint) is str


@ANY_KIND
def test_field_selectors_name_fields(info: KindInfo) -> None:
    for path in info.selectable:
        assert not isinstance(resolve(info.type, path), dict)


@ANY_KIND
def test_every_field_has_a_description(info: KindInfo) -> None:
    for struct in structs_of(info):
        for name, hint in get_type_hints(struct, include_extras=True).items():
            where = f"{struct.__name__}.{name}"
            assert get_origin(hint) is Annotated, f"{where} has no doc()"
            (note,) = [n for n in get_args(hint)[1:] if isinstance(n, msgspec.Meta)]
            assert note.description and note.description.endswith("."), where
            assert struct.__doc__, struct.__name__


@ANY_KIND
def test_no_dictionary_holds_structs(info: KindInfo) -> None:
    """The codec takes dictionaries as free words; a struct inside one would not be walked."""
    for struct in structs_of(info):
        for hint in get_type_hints(struct).values():
            for candidate in (hint, *get_args(hint)):
                if get_origin(candidate) is dict:
                    assert not any(
                        isinstance(a, type) and issubclass(a, msgspec.Struct) for a in get_args(candidate)
                    )


LEAST: dict[str, dict[str, Any]] = {
    "AlarmOutlet": {"spec": {"type": "webhook", "endpoint": "https://noc.example/"}},
    "FirewallPolicy": {"spec": {"networks": ["oam"]}},
    "PlatformNetwork": {"spec": {"type": "oam", "subnets": ["192.0.2.0/24"]}},
    "LocalOverride": {"spec": {"target": {"kind": "FirewallPolicy", "name": "a.b"}, "patch": {"order": 1}}},
    "OverrideReview": {
        "spec": {"override": "firewallpolicy.a.b", "uid": "u", "generation": 1, "decision": "adopt"}
    },
    "SubcloudException": {"spec": {"kind": "FirewallPolicy", "name": "a", "patch": {"order": 1}}},
    "Operation": {"spec": {"action": "reboot", "host": "h"}},
    "SubcloudOperation": {"spec": {"action": "manage"}},
    "AlarmSuppression": {"spec": {"alarmIds": ["100.101"], "reason": "r", "until": "2026-01-01T00:00:00Z"}},
    "Credential": {
        "spec": {"purpose": "bearer", "subject": "s", "digest": "d", "expiresAt": "2026-01-01T00:00:00Z"}
    },
    "RoleBinding": {"roleRef": {"kind": "Role", "name": "r"}},
    "ClusterRoleBinding": {"roleRef": {"kind": "ClusterRole", "name": "r"}},
    "SigningKey": {
        "spec": {"privateKey": "k", "madeAt": "2026-01-01T00:00:00Z", "verifiesUntil": "2026-01-01T00:00:00Z"}
    },
    "Password": {"spec": {"hash": "h", "setAt": "2026-01-01T00:00:00Z"}},
}
"""What a kind needs besides a name."""


@ANY_KIND
def test_the_least_object_is_valid_and_survives_a_round_trip(info: KindInfo) -> None:
    given = {"metadata": {"name": "x"}, **LEAST.get(info.kind, {})}
    resource, problems = check(info, given)
    assert problems == [] and resource is not None
    wire = encode(resource)
    assert (wire["apiVersion"], wire["kind"]) == (info.api_version, info.kind)
    assert decode(info.type, wire) == resource
    assert unknown_fields(info, wire) == []


TABLE: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
    ("Host", {"personalities": ["worker", "worker"]}, [("spec.personalities", "twice")]),
    ("Host", {"personalities": []}, [("spec.personalities", "length")]),
    (
        "Host",
        {"interfaces": [{"port": "a"}, {"port": "b"}, {"port": "a"}]},
        [("spec.interfaces[2].port", "assigned twice")],
    ),
    ("Host", {"thresholds": {"memory": {"major": 90, "critical": 80}}}, [("spec.thresholds.memory", "rise")]),
    (
        "Host",
        {"thresholds": {"processor": {"minor": 90, "major": 90}}},
        [("spec.thresholds.processor", "rise")],
    ),
    ("Host", {"thresholds": {"processor": {"minor": 0, "major": 0, "critical": 50}}}, []),
    ("Host", {"thresholds": {"filesystem": {"major": 101}}}, [("spec.thresholds.filesystem.major", "100")]),
    ("Host", {"administrativeState": "asleep"}, [("spec.administrativeState", "asleep")]),
    ("PlatformNetwork", {"type": "oam", "subnets": ["192.0.2.1/24"]}, [("spec.subnets[0]", "host bits")]),
    ("PlatformNetwork", {"type": "oam", "subnets": ["moon"]}, [("spec.subnets[0]", "moon")]),
    ("PlatformNetwork", {"type": "oam", "subnets": []}, [("spec.subnets", "length")]),
    (
        "PlatformNetwork",
        {"type": "oam", "subnets": ["192.0.2.0/24"], "gateway": ["198.51.100.1"]},
        [("spec.gateway[0]", "none of the subnets")],
    ),
    (
        "PlatformNetwork",
        {"type": "oam", "subnets": ["192.0.2.0/24"], "gateway": ["192.0.2.1", "192.0.2.2"]},
        [("spec.gateway[1]", "second gateway")],
    ),
    (
        "PlatformNetwork",
        {
            "type": "oam",
            "subnets": ["192.0.2.0/24", "2001:db8::/64"],
            "gateway": ["192.0.2.1", "2001:db8::1"],
        },
        [],
    ),
    (
        "PlatformNetwork",
        {"type": "oam", "subnets": ["192.0.2.0/24"], "gateway": ["x"]},
        [("spec.gateway[0]", "x")],
    ),
    ("PlatformNetwork", {"type": "oam", "subnets": ["192.0.2.0/24"], "mtu": 100}, [("spec.mtu", "576")]),
    ("FirewallPolicy", {"networks": []}, [("spec.networks", "length")]),
    (
        "FirewallPolicy",
        {"networks": ["oam"], "rules": [{"action": "allow"}, {"action": "allow", "ports": ["443"]}]},
        [("spec.rules[1].ports", "no ports")],
    ),
    (
        "FirewallPolicy",
        {
            "networks": ["oam"],
            "rules": [
                {
                    "action": "allow",
                    "protocol": "tcp",
                    "ports": ["443", "0", "9-8", "65536", "a", "8000-8010"],
                }
            ],
        },
        [(f"spec.rules[0].ports[{n}]", "") for n in (1, 2, 3, 4)],
    ),
    (
        "FirewallPolicy",
        {
            "networks": ["oam"],
            "rules": [
                {
                    "action": "deny",
                    "protocol": "icmp",
                    "peers": ["2001:db8::/32", "192.0.2.7", "192.0.2.7/24"],
                },
                {"action": "deny", "protocol": "icmpv6", "peers": ["192.0.2.0/24"]},
            ],
        },
        [
            ("spec.rules[0].peers[0]", "does not go with"),
            ("spec.rules[0].peers[2]", "host bits"),
            ("spec.rules[1].peers[0]", "does not go with"),
        ],
    ),
    ("Operation", {"action": "dance", "host": "h"}, [("spec.action", "dance")]),
    ("Operation", {"action": "reboot", "host": ""}, [("spec.host", "length")]),
    ("Operation", {"action": "reboot"}, [("spec", "host")]),
    ("Subcloud", {"latitude": 91.0}, [("spec.latitude", "90")]),
    ("Subcloud", {"managementState": "half"}, [("spec.managementState", "half")]),
    ("Cloud", {"systemMode": "triplex"}, [("spec.systemMode", "triplex")]),
    ("User", {"role": "king"}, [("spec.role", "king")]),
    ("Alarm", {"comment": "x" * 1025}, [("spec.comment", "1024")]),
    ("HostConfiguration", {"firewall": {"confirmSeconds": 0}}, [("spec.firewall.confirmSeconds", "1")]),
]


@pytest.mark.parametrize(("kind", "spec", "expected"), TABLE)
def test_what_is_wrong_is_told_with_place_and_reason(
    kind: str, spec: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    resource, problems = check(BY_KIND[kind], {"metadata": {"name": "x"}, "spec": spec})
    assert [p.field for p in problems] == [field for field, _ in expected]
    for problem, (_, reason) in zip(problems, expected, strict=True):
        assert reason in problem.reason
        assert problem.remedy
    assert (resource is None) == bool(expected)
