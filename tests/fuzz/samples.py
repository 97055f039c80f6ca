"""A valid object of each kind that people write: what requests are mutated from."""

from __future__ import annotations

from typing import Any

from roost.api.discovery import SERVED
from roost.model.meta import API_VERSION
from tests.fuzz.serving import CLOUD, SEALED

_RBAC = "rbac.authorization.k8s.io/v1"


def _object(api_version: str, kind: str, name: str = "fuzz", **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "labels": {"a": "b"}},
        **fields,
    }


_RULE = {"direction": "ingress", "action": "allow", "protocol": "tcp", "peers": ["10.0.0.0/8"]}
_REFERENCE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "roost:readers"}

SAMPLES: dict[str, dict[str, Any]] = {
    f"{sample['apiVersion']}/{sample['kind']}": sample
    for sample in (
        _object("v1", "ConfigMap", data={"a": "b", "c": "d"}),
        _object("v1", "Secret", type="Opaque", stringData={"a": SEALED}, data={"b": "AAAA"}),
        _object("v1", "ServiceAccount"),
        _object(
            "v1",
            "Event",
            involvedObject={"kind": "Host", "namespace": CLOUD, "name": "edge"},
            reason="Fuzzed",
            message="x",
            type="Normal",
        ),
        _object(
            "events.k8s.io/v1",
            "Event",
            regarding={"kind": "Host", "namespace": CLOUD, "name": "edge"},
            reason="Fuzzed",
            action="Fuzz",
            note="x",
            type="Normal",
            eventTime="2026-11-23T04:00:00.000000Z",
            reportingController="example.org/fuzz",
            reportingInstance="one",
        ),
        _object("coordination.k8s.io/v1", "Lease", spec={"holderIdentity": "a", "leaseDurationSeconds": 15}),
        _object(_RBAC, "Role", rules=[{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]),
        _object(_RBAC, "ClusterRole", rules=[{"nonResourceURLs": ["/audit"], "verbs": ["get"]}]),
        _object(_RBAC, "RoleBinding", roleRef=_REFERENCE, subjects=[{"kind": "User", "name": "x"}]),
        _object(_RBAC, "ClusterRoleBinding", roleRef=_REFERENCE, subjects=[{"kind": "Group", "name": "x"}]),
        _object(
            API_VERSION, "FirewallPolicy", spec={"networks": ["oam"], "rules": [{**_RULE, "ports": ["22"]}]}
        ),
        _object(
            "roost.edge/v2alpha1",
            "FirewallPolicy",
            spec={"networks": ["oam"], "rules": [{**_RULE, "ports": [{"from": 22}]}]},
        ),
        _object(API_VERSION, "Host", "box", spec={"personalities": ["worker"], "location": "attic"}),
        _object(API_VERSION, "PlatformNetwork", "oam", spec={"type": "oam", "subnets": ["192.0.2.0/24"]}),
        _object(API_VERSION, "Subcloud", "pier", spec={}),
        _object(API_VERSION, "Operation", spec={"action": "reboot", "host": "edge"}),
        _object(API_VERSION, "SubcloudOperation", spec={"action": "label", "labels": {"a": "b"}}),
        _object(API_VERSION, "User", "eve", spec={"role": "reader"}),
    )
}

NAMES: dict[str, tuple[str, ...]] = {
    info.kind: (*{s["metadata"]["name"] for s in SAMPLES.values() if s["kind"] == info.kind}, CLOUD)
    for kinds in SERVED.values()
    for info in kinds.values()
}
