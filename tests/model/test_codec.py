"""The codec: strict with users, tolerant between versions."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import given, settings

from roost.model.codec import Raw, check, decode, encode, overlay, unknown_fields
from roost.model.configuration import HostConfiguration
from roost.model.firewall import FIREWALL_POLICY, FirewallPolicy
from roost.model.host import HOST, Host
from roost.model.registry import KINDS
from tests.model.test_kinds import LEAST

FULL: Raw = {
    "apiVersion": "roost.edge/v1",
    "kind": "Host",
    "metadata": {
        "name": "h",
        "namespace": "harbor",
        "labels": {"rack": "1"},
        "ownerReferences": [{"kind": "Host", "name": "x", "uid": "u"}],
    },
    "spec": {
        "administrativeState": "locked",
        "personalities": ["controller"],
        "interfaces": [{"port": "eth0", "networks": ["oam"]}, {"port": "eth1", "networks": ["mgmt"]}],
        "thresholds": {"memory": {"major": 70, "critical": 80}},
    },
    "status": {
        "administrative": "locked",
        "conditions": [{"type": "Settled", "status": "True", "reason": "AsWanted"}],
        "inventory": {
            "memory": {"total": 1000, "nodes": [{"numaNode": 0, "hugePages": [{"size": 2048}]}]},
            "ports": [{"name": "eth0", "sriov": {"totalFunctions": 4}}],
        },
    },
}


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every struct-shaped dictionary in an object; labels are free words."""
    if isinstance(value, list):
        return [p for n, item in enumerate(value) for p in places(item, (*at, n))]
    if not isinstance(value, dict) or (at and at[-1] == "labels"):
        return []
    return [at, *(p for key, item in value.items() for p in places(item, (*at, key)))]


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        value = value[step]
    return value


def dotted(place: tuple[Any, ...], key: str) -> str:
    text = ""
    for step in (*place, key):
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


@settings(max_examples=150, deadline=None)
@given(chosen=st.sets(st.sampled_from(places(FULL)), max_size=6))
def test_overlay_keeps_unknown_fields_at_every_depth(chosen: set[tuple[Any, ...]]) -> None:
    base = copy.deepcopy(FULL)
    for place in chosen:
        at(base, place)["newerField"] = {"deep": [1, {"x": None}]}
    host = decode(Host, base)
    spec = msgspec.structs.replace(host.spec, location="attic")
    changed = overlay(base, msgspec.structs.replace(host, spec=spec))
    assert changed["spec"]["location"] == "attic"
    for place in chosen:
        assert at(changed, place)["newerField"] == {"deep": [1, {"x": None}]}, place
    wanted = decode(Host, {**base, "spec": {**base["spec"], "location": "attic"}})
    assert decode(Host, changed) == wanted
    tolerant_paths = sorted(dotted(p, "newerField") for p in chosen)
    assert sorted(unknown_fields(HOST, base)) == tolerant_paths


def test_items_keep_their_unknown_fields_when_others_come_go_and_move() -> None:
    rules = [
        {"action": "allow", "protocol": "tcp", "ports": ["22"], "log": "all"},
        {"action": "deny", "protocol": "udp", "log": "none"},
        {"action": "deny", "protocol": "udp", "log": "some"},
    ]
    base = {
        "kind": "FirewallPolicy",
        "metadata": {"name": "p"},
        "spec": {"networks": ["oam"], "rules": rules},
    }
    policy = decode(FirewallPolicy, base)
    first, second, third = policy.spec.rules
    fresh = msgspec.structs.replace(first, ports=["23"])
    spec = msgspec.structs.replace(policy.spec, rules=[third, fresh, second, first])
    changed = overlay(base, msgspec.structs.replace(policy, spec=spec))["spec"]["rules"]
    assert [r.get("log") for r in changed] == ["none", None, "some", "all"]


def test_what_is_taken_away_stays_away() -> None:
    base = {
        "kind": "HostConfiguration",
        "metadata": {"name": "h", "annotations": {"a": "1"}},
        "spec": {"firewall": {"networks": [], "newerField": 1}, "rebootFrom": "x"},
    }
    configuration = decode(HostConfiguration, base)
    spec = msgspec.structs.replace(configuration.spec, firewall=None, reboot_from="")
    metadata = msgspec.structs.replace(configuration.metadata, annotations={})
    changed = overlay(base, msgspec.structs.replace(configuration, spec=spec, metadata=metadata))
    assert "firewall" not in changed["spec"]
    assert changed["spec"]["rebootFrom"] == ""
    assert "annotations" not in changed["metadata"]


def test_overlay_of_the_same_is_the_same() -> None:
    for info in KINDS:
        given = {"metadata": {"name": "x"}, **LEAST.get(info.kind, {})}
        full = encode(decode(info.type, given))
        assert overlay(full, decode(info.type, full)) == full


def test_check_names_the_place_of_what_does_not_fit() -> None:
    wrong = copy.deepcopy(FULL)
    wrong["spec"]["interfaces"][1]["port"] = 7
    resource, (problem,) = check(HOST, wrong)
    assert resource is None
    assert problem.field == "spec.interfaces[1].port"
    assert "str" in problem.reason and problem.remedy


def test_unknown_fields_are_listed_and_the_clients_own_pass() -> None:
    given = copy.deepcopy(FULL)
    given["metadata"] |= {"managedFields": [], "selfLink": "", "color": 1}
    given["spec"]["interfaces"][1]["speeed"] = 1
    given["colour"] = 1
    assert sorted(unknown_fields(HOST, given)) == ["colour", "metadata.color", "spec.interfaces[1].speeed"]


def test_a_wrong_word_is_told_with_those_there_are_and_a_wrong_type_with_where_it_is_explained() -> None:
    meta = {"name": "a", "namespace": "c"}

    def remedies(**spec: Any) -> list[tuple[str, str]]:
        _, problems = check(FIREWALL_POLICY, {"metadata": meta, "spec": {"networks": ["oam"], **spec}})
        return [(p.field, p.remedy) for p in problems]

    assert remedies(rules=[{"action": "alow"}]) == [("spec.rules[0].action", "one of: allow, deny")]
    [(field, remedy)] = remedies(networks=["moon"])
    assert field == "spec.networks[0]" and remedy.startswith("one of: oam, mgmt")
    [(field, remedy)] = remedies(order="first")
    assert field == "spec.order" and "kubectl explain firewallpolicy.spec.order" in remedy
