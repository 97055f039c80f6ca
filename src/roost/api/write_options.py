"""What a write asks for besides its body: dry run, strictness, the name of the manager; how to delete.

Rules and words are those of Kubernetes (its validation of CreateOptions, PatchOptions, DeleteOptions and so
on): what is not an option's value is answered with 422.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request

from roost.api import bodies
from roost.api.status import ApiError, bad_request
from roost.api.target import truth
from roost.model.codec import Raw

LONGEST_MANAGER = 128
VALIDATIONS = ("Ignore", "Strict", "Warn")
POLICIES = ("Foreground", "Background", "Orphan")
APPLY_PATCH = "application/apply-patch+yaml"
DRY_RUN = "roost.dry_run"
"""Key of an ASGI scope under which the audit finds whether a write is a dry run, once that is known."""


class WriteOptions(msgspec.Struct, frozen=True):
    """Of every write. `manager` is who owns the fields that it sets."""

    dry_run: bool
    validation: str
    manager: str = ""
    force: bool = False


class DeleteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to delete. `orphan` is the deprecated orphanDependents; empty policy: as the object says."""

    policy: str = ""
    orphan: bool | None = None
    uid: str = ""
    resource_version: str = ""


def of_create(request: Request) -> WriteOptions:
    """Of a create; raises ApiError 422."""
    return _common(request, "CreateOptions")


def of_update(request: Request) -> WriteOptions:
    """Of an update; raises ApiError 422."""
    return _common(request, "UpdateOptions")


def of_patch(request: Request, kind: str) -> WriteOptions:
    """Of a patch of this media type; raises ApiError 422."""
    options, query = _common(request, "PatchOptions"), request.query_params
    if kind != APPLY_PATCH:
        if query.get("force"):
            raise invalid("PatchOptions", "force", "Forbidden: may not be specified for non-apply patch")
        return options
    if not query.get("fieldManager"):
        raise invalid("PatchOptions", "fieldManager", "Required value: is required for apply patch")
    return msgspec.structs.replace(options, force=truth(query, "force"))


async def of_delete(request: Request) -> tuple[WriteOptions, DeleteOptions]:
    """Of a delete, from the body or, without one, from the query; raises ApiError 400 and 422."""
    given = await bodies.json_object(request, required=False)
    query = request.query_params
    if given.get("kind") not in (None, "DeleteOptions"):
        raise bad_request(f"the body is {str(given['kind'])[:100]!r}, a delete takes DeleteOptions")
    source: Raw = given or _deletion_in(query)
    dry = source.get("dryRun") or []
    if dry not in ([], ["All"]) or query.get("dryRun", "") not in ("", "All"):
        raise _no_dry_run("DeleteOptions", dry)
    grace = source.get("gracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise bad_request("gracePeriodSeconds must be a whole number")
    common = WriteOptions(bool(dry) or query.get("dryRun") == "All", "Ignore")
    request.scope[DRY_RUN] = common.dry_run
    return common, _deletion(source)


def manager_of(query: Mapping[str, str], agent: str) -> str:
    """`fieldManager`, or the first part of the User-Agent, printable and of the length allowed."""
    given = query.get("fieldManager", "")
    if given:
        return given
    made = "".join(c for c in agent.split("/", 1)[0] if c.isprintable())
    while len(made.encode(errors="replace")) > LONGEST_MANAGER:
        made = made[:-1]
    return made or "unknown"


def invalid(options: str, field: str, reason: str) -> ApiError:
    """422 about one option."""
    kind = "FieldValueRequired" if reason.startswith("Required") else "FieldValueInvalid"
    return ApiError(
        422,
        f'{options}.meta.k8s.io "" is invalid: {field}: {reason}',
        details={"group": "meta.k8s.io", "kind": options},
        causes=[{"reason": kind, "message": reason, "field": field}],
    )


def _common(request: Request, kind: str) -> WriteOptions:
    query = request.query_params
    dry = query.get("dryRun", "")
    if dry not in ("", "All"):
        raise _no_dry_run(kind, [dry])
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in VALIDATIONS:
        known = ", ".join(f'"{v}"' for v in ("", *VALIDATIONS))
        reason = f'Unsupported value: "{validation[:32]}": supported values: {known}'
        raise invalid(kind, "fieldValidation", reason)
    manager = query.get("fieldManager", "")
    if len(manager.encode(errors="replace")) > LONGEST_MANAGER:
        raise invalid(kind, "fieldManager", f"Too long: may not be more than {LONGEST_MANAGER} bytes")
    if not manager.isprintable():
        raise invalid(kind, "fieldManager", "Invalid value: should only contain printable characters")
    return WriteOptions(dry == "All", validation, manager_of(query, request.headers.get("user-agent", "")))


def _no_dry_run(kind: str, given: Any) -> ApiError:
    return invalid(kind, "dryRun", f'Unsupported value: {str(given)[:64]}: supported values: "All"')


def _deletion_in(query: Mapping[str, str]) -> Raw:
    found: Raw = {}
    if query.get("propagationPolicy"):
        found["propagationPolicy"] = query["propagationPolicy"]
    if query.get("orphanDependents"):
        found["orphanDependents"] = truth(query, "orphanDependents")
    grace = query.get("gracePeriodSeconds", "")
    if grace:
        if not grace.removeprefix("-").isdecimal() or len(grace) > 18:
            raise bad_request(f"gracePeriodSeconds: {grace[:64]!r} is not a whole number")
        found["gracePeriodSeconds"] = int(grace)
    return found


def _deletion(source: Raw) -> DeleteOptions:
    policy, orphan = source.get("propagationPolicy") or "", source.get("orphanDependents")
    if orphan is not None and not isinstance(orphan, bool):
        raise bad_request("orphanDependents must be true or false")
    if policy and orphan is not None:
        reason = (
            f'Invalid value: "{policy!s:.32}": orphanDependents and deletionPropagation cannot be both set'
        )
        raise invalid("DeleteOptions", "propagationPolicy", reason)
    if policy and policy not in POLICIES:
        known = ", ".join(f'"{p}"' for p in POLICIES)
        reason = f'Unsupported value: "{policy!s:.32}": supported values: {known}'
        raise invalid("DeleteOptions", "propagationPolicy", reason)
    preconditions = source.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise bad_request("preconditions must be an object")
    for field in ("uid", "resourceVersion"):
        if not isinstance(preconditions.get(field, ""), str | None):
            raise bad_request(f"preconditions.{field} must be text")
    return DeleteOptions(
        policy=policy,
        orphan=orphan,
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
    )
