"""What is served, as clients ask for it: versions, groups, resources, verbs.

The plain documents (/api, /apis, /apis/GROUP/VERSION) and the aggregated ones, chosen by the Accept
header, come from the same list.
"""

from __future__ import annotations

from collections.abc import Sequence

from roost.api import namespaces
from roost.api.access import verbs
from roost.api.context import ApiContext
from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.meta import GROUP
from roost.model.registry import KINDS

SERVED = {info.plural: info for info in KINDS if info.served}
AUTHORIZATION = "authorization.k8s.io"
AUTHENTICATION = "authentication.k8s.io"
REVIEWS = {
    AUTHORIZATION: ("SelfSubjectAccessReview", "SelfSubjectRulesReview"),
    AUTHENTICATION: ("SelfSubjectReview",),
}
KUBERNETES = "1.33.0"
"""Version of the API conventions followed; clients choose their ways by it."""


def version(context: ApiContext) -> Raw:
    """/version"""
    major, minor, _ = KUBERNETES.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{KUBERNETES}-roost+{context.version}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux",
    }


def core_versions() -> Raw:
    """/api"""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups() -> Raw:
    """/apis"""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(name) for name in _GROUPS]}


def group(name: str) -> Raw:
    """/apis/GROUP"""
    offered = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": [offered],
        "preferredVersion": offered,
    }


def resources(context: ApiContext, group: str) -> Raw:
    """/api/v1 (group is empty) and /apis/GROUP/VERSION"""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/v1" if group else "v1",
        "resources": _resources(context, group),
    }


def aggregated(context: ApiContext, names: Sequence[str], version: str) -> Raw:
    """All groups with their resources in one document."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [_aggregated_group(context, name) for name in names],
    }


_GROUPS = (GROUP, AUTHORIZATION, AUTHENTICATION)
GROUPS = frozenset(_GROUPS)
ALL_GROUPS = _GROUPS


def _resources(context: ApiContext, group: str) -> list[Raw]:
    if group == GROUP:
        return [entry for info in SERVED.values() for entry in _entries(context, info)]
    if group in REVIEWS:
        return [
            {
                "name": f"{kind.lower()}s",
                "singularName": kind.lower(),
                "namespaced": False,
                "kind": kind,
                "verbs": ["create"],
            }
            for kind in REVIEWS[group]
        ]
    return [
        _entry(namespaces.NAMESPACE, ["get", "list", "watch"]),
        {
            "name": "events",
            "singularName": "event",
            "namespaced": True,
            "kind": "Event",
            "shortNames": ["ev"],
            "verbs": ["get", "list", "watch"],
        },
    ]


def _entries(context: ApiContext, info: KindInfo) -> list[Raw]:
    entries = [_entry(info, verbs(info))]
    if "status" in info.type.__struct_fields__:
        entries.append(
            {
                "name": f"{info.plural}/status",
                "singularName": "",
                "namespaced": info.namespaced,
                "kind": info.kind,
                "verbs": ["get"],
            }
        )
    for plural, subresource in sorted(context.subresources):
        if plural == info.plural:
            entries.append(
                {
                    "name": f"{plural}/{subresource}",
                    "singularName": "",
                    "namespaced": info.namespaced,
                    "kind": f"{subresource.capitalize()}Request",
                    "verbs": ["create"],
                }
            )
    return entries


def _entry(info: KindInfo, allowed: list[str]) -> Raw:
    entry: Raw = {
        "name": info.plural,
        "singularName": info.singular,
        "namespaced": info.namespaced,
        "kind": info.kind,
        "verbs": allowed,
    }
    if info.short_names:
        entry["shortNames"] = list(info.short_names)
    if info.categories:
        entry["categories"] = list(info.categories)
    return entry


def _aggregated_group(context: ApiContext, name: str) -> Raw:
    found: dict[str, Raw] = {}
    for entry in _resources(context, name):
        kind = {"group": name, "version": "v1", "kind": entry["kind"]}
        plural, _, subresource = entry["name"].partition("/")
        if subresource:
            sub = {"subresource": subresource, "responseKind": kind, "verbs": entry["verbs"]}
            found[plural].setdefault("subresources", []).append(sub)
            continue
        found[plural] = {
            "resource": plural,
            "responseKind": kind,
            "scope": "Namespaced" if entry["namespaced"] else "Cluster",
            "singularResource": entry["singularName"],
            "verbs": entry["verbs"],
        }
        for key in ("shortNames", "categories"):
            if key in entry:
                found[plural][key] = entry[key]
    metadata = {"name": name} if name else {}
    version: Raw = {"version": "v1", "resources": list(found.values()), "freshness": "Current"}
    return {"metadata": metadata, "versions": [version]}
