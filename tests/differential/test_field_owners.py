"""The owners of fields are those that a real Kubernetes API server gives, entry by entry.

Not compared: times; and what Kubernetes makes of a map or list that is owned when nothing in it is: it takes
that for a field that was atomic before, and at the next request gives its owner all that is in it then.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.differential.servers import Answer, Pair, Step, policy

pytestmark = pytest.mark.timeout(600)


def apply(manager: str, query: str = "", labels: Any = None, **spec: Any) -> Step:
    """Apply a policy of this name."""
    body = {**policy("web", labels=labels), "spec": spec} if labels else {**policy("web"), "spec": spec}
    path = f"/web?fieldManager={manager}{query}"
    return Step(method="PATCH", path=path, body=body, content="application/apply-patch+yaml")


def merge(manager: str, patch: Any) -> Step:
    """Change the policy by a merge patch."""
    content = "application/merge-patch+json"
    return Step(method="PATCH", path=f"/web?fieldManager={manager}", body=patch, content=content)


def made(manager: str, **parts: Any) -> Step:
    """Create the policy."""
    return Step(method="POST", path=f"?fieldManager={manager}", body=policy("web", **parts))


_RULE = {"action": "allow", "protocol": "tcp", "ports": ["1"]}
_METADATA = {"labels": {"a": "b"}, "annotations": {"x": "y"}, "finalizers": ["roost.edge/test"]}
SEQUENCES: dict[str, list[Step]] = {
    "conflict, force, sharing, removal": [
        apply("one", networks=["oam"], order=5),
        apply("one", networks=["oam"], order=5),
        apply("two", order=6),
        apply("two", "&force=true", order=6),
        apply("one", networks=["oam"], order=5),
        apply("one", networks=["oam"]),
        apply("two", networks=["oam"]),
        apply("one", networks=["mgmt"]),
        apply("one", "&dryRun=All", networks=["mgmt"], order=3),
    ],
    "labels": [
        apply("one", labels={"app": "web", "tier": "front"}, networks=["oam"]),
        apply("two", labels={"site": "harbor"}, networks=["oam"]),
        apply("one", labels={"app": "web"}, networks=["oam"]),
        apply("two", labels={"app": "db"}, networks=["oam"]),
        apply("two", labels={"app": "web"}, networks=["oam"]),
        apply("one", networks=["oam"]),
    ],
    "plain writes take what they change": [
        made("maker"),
        merge("editor", {"spec": {"rules": [_RULE]}}),
        merge("editor", {"spec": {"networks": ["mgmt", "oam"]}}),
        merge("labeller", {"metadata": _METADATA}),
        merge("labeller", {"metadata": {"labels": {"a": "c", "d": "e"}}}),
        apply("one", networks=["oam"]),
        apply("two", "&force=true", networks=["oam"], rules=[{"action": "deny"}]),
        merge("labeller", {"metadata": {"labels": None, "finalizers": None}}),
        merge("editor", {"spec": {"networks": ["mgmt"]}}),
    ],
    "parts come and go": [
        apply("one", networks=["oam"], subclouds={"names": ["a", "b"], "labels": {"x": "y"}}),
        apply("two", networks=["oam"], subclouds={"names": ["b"]}),
        apply("one", networks=["oam"], subclouds={"names": ["c"]}),
        apply("two", networks=["oam"]),
        apply("one", networks=["mgmt"]),
    ],
    "what was there before": [
        made("maker", labels={"a": "b"}),
        merge("editor", {"metadata": {"managedFields": [{}]}}),
        merge("editor", {"spec": {"order": 7}}),
    ],
}


def entries(answer: Answer) -> Any:
    """Who owns what, without times."""
    if not isinstance(answer.body, dict) or "metadata" not in answer.body:
        return None
    found = answer.body["metadata"].get("managedFields", [])
    keys = ("manager", "operation", "apiVersion", "fieldsType", "fieldsV1")
    return sorted(([e.get(k) for k in keys] for e in found), key=lambda e: (e[0], e[1]))


@pytest.mark.parametrize("name", SEQUENCES)
def test_owners_are_those_of_kubernetes(name: str, servers: Pair) -> None:
    servers.empty()
    for step in SEQUENCES[name]:
        ours, theirs = servers.ours.ask(step), servers.theirs.ask(step)
        assert (ours.code, entries(ours)) == (theirs.code, entries(theirs)), step
