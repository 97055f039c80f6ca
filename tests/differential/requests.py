"""Requests in short: what sequences are written with."""

from __future__ import annotations

from typing import Any

from tests.differential.servers import Step, policy

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
WEB = "labelSelector=app%3Dweb"


def create(name: str, **parts: Any) -> Step:
    """POST of a policy."""
    return Step(method="POST", body=policy(name, **parts))


def get(path: str = "", accept: str = "application/json") -> Step:
    return Step(method="GET", path=path, accept=accept)


def put(name: str, revision: str = "", **parts: Any) -> Step:
    body = policy(name, **parts)
    if revision:
        body["metadata"]["resourceVersion"] = revision
    return Step(method="PUT", path=f"/{name}", body=body)


def merge(path: str, patch: Any) -> Step:
    return Step(method="PATCH", path=path, body=patch, content=MERGE)


def apply(name: str, manager: str, query: str = "", **spec: Any) -> Step:
    """Server-side apply of spec alone."""
    body = {**policy(name), "spec": spec}
    if not spec:
        body.pop("spec")
    path = f"/{name}?fieldManager={manager}{query}" if manager else f"/{name}"
    return Step(method="PATCH", path=path, body=body, content=APPLY)


def apply_labels(manager: str, labels: dict[str, str]) -> Step:
    """Server-side apply of labels, and of what a policy must have."""
    body = policy("web", labels=labels)
    return Step(method="PATCH", path=f"/web?fieldManager={manager}", body=body, content=APPLY)


def steps_patch(path: str, *steps: Any) -> Step:
    return Step(method="PATCH", path=path, body=list(steps), content=JSON_PATCH)


def delete(path: str = "", body: Any = None) -> Step:
    return Step(method="DELETE", path=path, body=body)


def watch(query: str = "", accept: str = "application/json") -> Step:
    """Events after the last list."""
    return Step(method="WATCH", path=f"?watch=true&resourceVersion={{{{list}}}}{query}", accept=accept)


def post(body: Any, path: str = "", content: str = "application/json") -> Step:
    return Step(method="POST", path=path, body=body, content=content)


def with_metadata(body: Any, **metadata: Any) -> Any:
    """A body with more metadata."""
    return {**body, "metadata": {**body["metadata"], **metadata}}
