"""What is served, as clients ask for it: versions, groups, resources, verbs.

The plain documents (/api, /apis, /apis/GROUP/VERSION) and the aggregated ones, chosen by the Accept
header, come from the same list.
"""

from __future__ import annotations

from collections.abc import Sequence

from roost.api import namespaces, services, steps
from roost.api.access import verbs
from roost.api.context import ApiContext
from roost.model import registry
from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.meta import GROUP

CORE = ("", "v1")
SERVED: dict[tuple[str, str], dict[str, KindInfo]] = {
    CORE: {"namespaces": namespaces.NAMESPACE, "services": services.SERVICE}
}
"""Kinds by group and version, then by plural."""
for _info in registry.SERVED:
    SERVED.setdefault((_info.group, _info.version), {})[_info.plural] = _info
AUTHORIZATION = "authorization.k8s.io"
AUTHENTICATION = "authentication.k8s.io"
REVIEWS = {
    AUTHORIZATION: (
        "SelfSubjectAccessReview",
        "SelfSubjectRulesReview",
        "SubjectAccessReview",
        "LocalSubjectAccessReview",
    ),
    AUTHENTICATION: ("SelfSubjectReview", "TokenReview"),
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
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(name) for name in ALL_GROUPS]}


def group(name: str) -> Raw:
    """/apis/GROUP"""
    offered = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions_of(name)]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": offered,
        "preferredVersion": offered[0],
    }


def versions_of(group: str) -> list[str]:
    """Versions of a group that are served, the preferred one first."""
    return [v for g, v in SERVED if g == group] or ["v1"]


def resources(context: ApiContext, group: str, version: str) -> Raw:
    """/api/v1 (group is empty) and /apis/GROUP/VERSION"""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": _resources(context, group, version),
    }


def aggregated(context: ApiContext, names: Sequence[str], version: str) -> Raw:
    """All groups with their resources in one document."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [_aggregated_group(context, name) for name in names],
    }


ALL_GROUPS = tuple(dict.fromkeys([GROUP, *(g for g, _ in SERVED if g), *REVIEWS]))


def paths() -> list[str]:
    """What is served, for who asks at the root."""
    groups = [f"/apis/{g}" for g in ALL_GROUPS]
    versions = [f"/apis/{g}/{v}" for g in ALL_GROUPS for v in versions_of(g)]
    documents = ["/healthz", "/livez", "/metrics", "/readyz", "/openapi/v2", "/openapi/v3", "/version"]
    return ["/api", "/api/v1", "/apis", *sorted(groups + versions), *documents]


def serves(group: str, version: str) -> bool:
    """Whether a group has this version."""
    return (group, version) in SERVED or (group in REVIEWS and version == "v1")


def _resources(context: ApiContext, group: str, version: str) -> list[Raw]:
    found = [entry for info in SERVED.get((group, version), {}).values() for entry in _entries(context, info)]
    if group in REVIEWS:
        found += [
            {
                "name": f"{kind.lower()}s",
                "singularName": kind.lower(),
                "namespaced": kind.startswith("Local"),
                "kind": kind,
                "verbs": ["create"],
            }
            for kind in REVIEWS[group]
        ]
    return found


def _entries(context: ApiContext, info: KindInfo) -> list[Raw]:
    entries = [_entry(info, verbs(info))]
    if "status" in info.type.__struct_fields__ and info.kind != "Namespace":
        entries.append(
            {
                "name": f"{info.plural}/status",
                "singularName": "",
                "namespaced": info.namespaced,
                "kind": info.kind,
                "verbs": ["get"],
            }
        )
    if info.kind != "Namespace":
        entries.append(
            {
                "name": f"{info.plural}/history",
                "singularName": "",
                "namespaced": info.namespaced,
                "kind": "ChangeList",
                "verbs": ["get"],
            }
        )
    if steps.has_steps(info):
        entries.append(
            {
                "name": f"{info.plural}/{steps.SUBRESOURCE}",
                "singularName": "",
                "namespaced": info.namespaced,
                "kind": "StepList",
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
    metadata = {"name": name} if name else {}
    return {
        "metadata": metadata,
        "versions": [_aggregated_version(context, name, v) for v in versions_of(name)],
    }


def _aggregated_version(context: ApiContext, group: str, version: str) -> Raw:
    found: dict[str, Raw] = {}
    for entry in _resources(context, group, version):
        kind = {"group": group, "version": version, "kind": entry["kind"]}
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
    return {"version": version, "resources": list(found.values()), "freshness": "Current"}
