"""Other versions of kinds: nothing is lost between them, whatever is in an object."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.model.codec import Raw, check, unknown_fields
from roost.model.event import EVENT, EVENT_V1, of_log_entry, subject
from roost.model.firewall import FIREWALL_POLICY
from roost.model.firewall_v2alpha1 import AS_WRITTEN, FIREWALL_POLICY_V2ALPHA1, from_stored, to_stored
from roost.model.kind import Conversion
from roost.model.registry import BY_KIND, VERSIONS

NUMBERS = st.integers(1, 65535)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Ports as v1 takes them, however oddly they are written."""
    first = draw(NUMBERS)
    width = draw(st.integers(0, 5))
    if draw(st.booleans()):
        return f"{first:0{width}}"
    last = draw(st.integers(first, 65535))
    return f"{first:0{width}}-{last:0{draw(st.integers(0, 5))}}"


@st.composite
def ranges(draw: st.DrawFn) -> Raw:
    """Ports as v2alpha1 takes them."""
    first = draw(NUMBERS)
    return {"from": first, **({"to": draw(st.integers(first, 65535))} if draw(st.booleans()) else {})}


def policies(ports: st.SearchStrategy[Any], api_version: str) -> st.SearchStrategy[Raw]:
    """Whole policies, also with fields that no version knows yet."""
    words = st.text("abc", min_size=1, max_size=4)
    rule = st.fixed_dictionaries(
        {"action": st.sampled_from(["allow", "deny"]), "protocol": st.just("tcp")},
        optional={"ports": st.lists(ports, max_size=4), "yetUnknown": words},
    )
    spec = st.fixed_dictionaries(
        {"networks": st.just(["oam"])}, optional={"rules": st.lists(rule, max_size=4), "novel": words}
    )
    metadata = st.fixed_dictionaries(
        {"name": st.just("p")},
        optional={"annotations": st.dictionaries(words, words, min_size=1, max_size=2)},
    )
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just(api_version),
            "kind": st.just("FirewallPolicy"),
            "metadata": metadata,
            "spec": spec,
        },
        optional={"status": st.fixed_dictionaries({"hosts": st.integers(0, 9)})},
    )


@given(policies(texts(), "roost.edge/v1"))
def test_from_v1_and_back_nothing_is_lost(policy: Raw) -> None:
    before = copy.deepcopy(policy)
    shown = from_stored(policy)
    assert to_stored(shown) == policy == before
    found, problems = check(FIREWALL_POLICY_V2ALPHA1, shown)
    assert found is not None, problems


@given(policies(ranges(), "roost.edge/v2alpha1"))
def test_from_v2alpha1_and_back_nothing_is_lost(policy: Raw) -> None:
    before = copy.deepcopy(policy)
    stored = to_stored(policy)
    assert from_stored(stored) == policy == before
    found, problems = check(FIREWALL_POLICY, stored)
    assert found is not None, problems


def test_ports_are_numbers() -> None:
    policy = {
        "apiVersion": "roost.edge/v1",
        "kind": "FirewallPolicy",
        "metadata": {"name": "p"},
        "spec": {"networks": ["oam"], "rules": [{"action": "allow", "ports": ["443", "8000-8010", "080"]}]},
    }
    shown = from_stored(policy)
    assert shown["apiVersion"] == "roost.edge/v2alpha1"
    (rule,) = shown["spec"]["rules"]
    assert rule["ports"] == [{"from": 443}, {"from": 8000, "to": 8010}, {"from": 80}]
    assert shown["metadata"]["annotations"] == {AS_WRITTEN: '{"0.2":"080"}'}
    rule["ports"][2] = {"from": 81}
    assert to_stored(shown)["spec"]["rules"][0]["ports"] == ["443", "8000-8010", "81"]
    assert "annotations" not in to_stored(shown)["metadata"]


@pytest.mark.parametrize("spoilt", ["", "no JSON", "[]", '{"0.0": 1}', '{"0.0": "x"}'])
def test_a_spoilt_annotation_changes_no_port(spoilt: str) -> None:
    shown = {
        "apiVersion": "roost.edge/v2alpha1",
        "kind": "FirewallPolicy",
        "metadata": {"name": "p", "annotations": {AS_WRITTEN: spoilt}},
        "spec": {"networks": ["oam"], "rules": [{"action": "allow", "ports": [{"from": 80}]}]},
    }
    assert to_stored(shown)["spec"]["rules"][0]["ports"] == ["80"]


@pytest.mark.parametrize(
    ("rule", "field", "reason"),
    [
        ({"protocol": "tcp", "ports": [{"from": 2, "to": 1}]}, "spec.rules[0].ports[0].to", "less than from"),
        ({"protocol": "icmp", "ports": [{"from": 2}]}, "spec.rules[0].ports", "protocol icmp has no ports"),
        ({"protocol": "tcp", "ports": [{"from": 0}]}, "spec.rules[0].ports[0].from", ">= 1"),
        ({"protocol": "tcp", "ports": [{"to": 5}]}, "spec.rules[0].ports[0]", "`from`"),
        ({"protocol": "tcp", "ports": ["80"]}, "spec.rules[0].ports[0]", "Expected `object`"),
        ({"peers": ["x"]}, "spec.rules[0].peers[0]", "does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_what_v2alpha1_does_not_take(rule: Raw, field: str, reason: str) -> None:
    body = {"metadata": {"name": "p"}, "spec": {"networks": ["oam"], "rules": [{"action": "allow", **rule}]}}
    found, problems = check(FIREWALL_POLICY_V2ALPHA1, body)
    assert found is None
    assert problems[0].field == field and reason in problems[0].reason, problems


EVENT_FIELDS: Raw = {
    "apiVersion": "v1",
    "kind": "Event",
    "metadata": {"name": "e", "namespace": "central"},
    "involvedObject": {"kind": "Host", "name": "h1"},
    "type": "Warning",
    "reason": "Odd",
    "message": "it is odd",
    "count": 3,
    "firstTimestamp": "2026-01-01T00:00:00Z",
    "lastTimestamp": "2026-01-01T00:00:05Z",
    "source": {"component": "test"},
    "eventTime": "2026-01-01T00:00:00.123456Z",
    "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.123456Z"},
    "action": "Look",
    "related": {"kind": "Host", "name": "h2"},
    "reportingComponent": "example.org/test",
    "reportingInstance": "test-1",
}


def test_events_of_both_groups_say_the_same() -> None:
    assert EVENT_V1.conversion is not None
    shown = EVENT_V1.conversion.from_stored(EVENT_FIELDS)
    assert EVENT_V1.conversion.to_stored(shown) == EVENT_FIELDS
    assert unknown_fields(EVENT_V1, shown) == unknown_fields(EVENT, EVENT_FIELDS) == []
    assert check(EVENT, EVENT_FIELDS)[0] is not None and check(EVENT_V1, shown)[0] is not None
    assert shown["apiVersion"] == "events.k8s.io/v1"
    assert (shown["note"], shown["regarding"]["name"]) == ("it is odd", "h1")
    assert (shown["deprecatedCount"], shown["reportingController"]) == (3, "example.org/test")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"lastTimestamp": "yesterday"}, "lastTimestamp"),
        ({"type": "Bad"}, "type"),
        ({"metadata": {"name": "log.0000000001"}}, "metadata.name"),
        ({"metadata": {"name": "controller-0-0000000001"}}, "metadata.name"),
    ],
)
def test_what_events_do_not_take(change: Raw, field: str) -> None:
    _, problems = check(EVENT, {**EVENT_FIELDS, **change})
    assert [p.field for p in problems] == [field]


def test_a_lease_has_times_and_a_duration() -> None:
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000001Z"}
    assert check(BY_KIND["Lease"], {"metadata": {"name": "l"}, "spec": spec})[0] is not None
    wrong = {"leaseDurationSeconds": 0, "leaseTransitions": -1, "renewTime": "soon"}
    _, problems = check(BY_KIND["Lease"], {"metadata": {"name": "l"}, "spec": wrong})
    assert [p.field for p in problems] == [
        "spec.renewTime",
        "spec.leaseDurationSeconds",
        "spec.leaseTransitions",
    ]


@pytest.mark.parametrize(
    ("entity", "found"),
    [
        ("host=h1", ("Host", "h1")),
        ("host=h1.filesystem=/var", ("Host", "h1")),
        ("subcloud=x", ("Subcloud", "x")),
        ("cloud=central.server", ("Cloud", "central")),
        ("port=eth0", ("", "")),
        ("", ("", "")),
    ],
)
def test_what_an_entity_lies_in(entity: str, found: tuple[str, str]) -> None:
    assert subject(entity) == found


def test_an_entry_of_the_log_is_shown_as_an_event() -> None:
    entry = {
        "apiVersion": "roost.edge/v1",
        "kind": "LogEntry",
        "metadata": {"name": "log.0000000001", "namespace": "central", "uid": "u-1", "resourceVersion": "7"},
        "status": {
            "time": "2026-01-01T00:00:00.123Z",
            "source": "central/h1",
            "severity": "major",
            "event": "alarm-set",
            "alarmId": "100.104",
            "entity": "host=h1.filesystem=/var",
            "entityUid": "u-2",
            "text": "/var is full",
        },
    }
    shown = of_log_entry(entry)
    assert unknown_fields(EVENT, shown) == []
    about = shown["involvedObject"]
    assert (about["kind"], about["namespace"], about["name"], about["uid"]) == (
        "Host",
        "central",
        "h1",
        "u-2",
    )
    assert about["fieldPath"] == "filesystem=/var"
    assert (shown["type"], shown["reason"], shown["message"]) == (
        "Warning",
        "AlarmSet",
        "100.104: /var is full",
    )
    assert shown["source"] == {"component": "roost", "host": "h1"}
    cleared = {**entry, "status": {**entry["status"], "event": "alarm-clear"}}  # type: ignore[dict-item]
    assert (of_log_entry(cleared)["type"], of_log_entry(cleared)["reason"]) == ("Normal", "AlarmCleared")
    other = {**entry, "status": {"event": "host-unlocked", "entity": "subcloud=x", "severity": "info"}}
    assert of_log_entry(other)["reason"] == "HostUnlocked"
    assert "namespace" not in of_log_entry(other)["involvedObject"]


@pytest.mark.parametrize("info", VERSIONS, ids=lambda k: k.api_version)
def test_a_version_belongs_to_a_kind_that_is_stored(info: Any) -> None:
    assert isinstance(info.conversion, Conversion)
    stored = BY_KIND[info.kind]
    assert stored.conversion is None and stored.api_version != info.api_version
    assert (info.plural, info.namespaced, info.flow) == (stored.plural, stored.namespaced, stored.flow)
