"""May this write be done at all, and is what it would leave right? Checks without I/O.

Order: whose namespace and home it is, who owns the kind, the user's object itself (metadata, types,
invariants). The rules of the kind's domain come after, in the transaction of the write.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from roost.api.access import verbs
from roost.api.apply.comparing import duplicates
from roost.api.apply.shapes import shape_of
from roost.api.context import ApiContext
from roost.api.status import ApiError, bad_request, forbidden, invalid
from roost.engine.overrides import OVERRIDABLE
from roost.model import codec
from roost.model.codec import Raw
from roost.model.event import EVENT
from roost.model.kind import Flow, KindInfo, Problem
from roost.model.meta import GROUP, Owner, Resource
from roost.model.rbac import RBAC
from roost.model.selector import LABEL_KEY, LABEL_VALUE
from roost.store.transaction import Stored

ANNOTATIONS = 256 * 1024
MOST_OWNERS = 64
IMMUTABLE = ("uid", "deletionTimestamp")
OWNERS = {
    Owner.OPERATOR: "operators",
    Owner.CLOUD: "the cloud's controllers",
    Owner.HOST: "the host's agent",
    Owner.FLEET: "the fleet's controllers",
}


def own_namespace(context: ApiContext, info: KindInfo, namespace: str, name: str) -> None:
    """Namespaced resources are written in this cloud's namespace only; raises ApiError 403.

    Who may do what in the namespace of a subcloud, here, is this cloud's own affair; so is what this cloud
    decides for that subcloud. Events about resources that have no namespace are written to `default` by every
    client.
    """
    if (info.kind, namespace) == (EVENT.kind, "default") or info.flow is Flow.DOWN:
        return
    if info.namespaced and info.group != RBAC and namespace != context.cloud:
        raise forbidden(
            info,
            name,
            f"namespace {namespace} belongs to subcloud {namespace}, this is the API of {context.cloud}",
            f"use --context {namespace} (roost login URL/clouds/{namespace} makes it), "
            f"or -n {context.cloud} for this cloud",
        )


def own_home(info: KindInfo, stored: Stored) -> None:
    """Copies are written at their home only; raises ApiError 403."""
    if stored.origin == "up":
        remedy = "change it there"
        if info.flow is Flow.DOWN:
            remedy = f"change it at the central cloud, with -n {stored.namespace}"
        if stored.kind in OVERRIDABLE:
            remedy = (
                "change it there, or override it here: "
                f"roost override set {stored.kind}/{stored.name} --patch '...' --reason '...'"
            )
        raise forbidden(info, stored.name, "its home is the central cloud, here is a copy", remedy)
    if stored.origin:
        # `down:subcloud/NAME` or `down:host/CLOUD/NAME`: see roost.link.node.
        node = stored.origin.removeprefix("down:")
        name = node.rpartition("/")[2]
        if node.startswith("host/"):
            raise forbidden(
                info, stored.name, f"its home is host {name}, here is a copy", "leave it to the host"
            )
        raise forbidden(
            info,
            stored.name,
            f"its home is subcloud {name}, here is a copy",
            f"use its context: kubectl --context {name} (roost login URL/clouds/{name} makes it), "
            f"or roost --cloud {name}",
        )


def writable(info: KindInfo, verb: str, name: str) -> None:
    """Raise ApiError 403 when people don't write this kind, or not with this verb."""
    known = verbs(info)
    if verb in known:
        return
    if "update" not in known:
        raise forbidden(
            info,
            name,
            f"resources of this kind are written by {OWNERS[info.spec_owner]} alone",
            "change the resources they follow from",
        )
    done = {"create": "created", "delete": "deleted", "deletecollection": "deleted"}.get(verb, verb)
    remedy = {
        "Alarm": "remove its cause; spec can be changed to acknowledge it",
        "Cloud": "it comes and goes with its site; spec can be changed",
    }
    raise forbidden(
        info,
        name,
        f"resources of this kind are {done} by {OWNERS[info.status_owner]} alone",
        remedy.get(info.kind, "change it instead"),
    )


def status_refused(info: KindInfo, name: str) -> ApiError:
    """Status is observation: people don't write it."""
    return forbidden(
        info,
        name,
        f"status is written by {OWNERS[info.status_owner]} alone",
        "change spec, and status will follow",
    )


def envelope(info: KindInfo, body: Raw, namespace: str, name: str) -> None:
    """The body's apiVersion, kind, name and namespace fit the request; raises ApiError 400."""
    for key, expected in (("apiVersion", info.api_version), ("kind", info.kind)):
        given = body.get(key)
        if given not in (None, expected):
            raise bad_request(f"{key} is {str(given)[:100]!r}, this path takes {expected!r}")
    meta = body.get("metadata", {})
    if not isinstance(meta, dict):
        raise bad_request("metadata must be an object")
    given = meta.get("namespace") or ""
    if given and given != namespace:
        raise bad_request(
            f"the namespace of the provided object ({str(given)[:63]}) does not match "
            f"the namespace sent on the request ({namespace or 'none: the kind has no namespaces'})"
        )
    given = meta.get("name") or ""
    if name and given and given != name:
        raise bad_request(
            f"the name of the object ({str(given)[:253]}) does not match the name on the URL ({name})"
        )


def unknown(info: KindInfo, body: Raw, stored: Raw | None) -> list[str]:
    """Fields of the body that neither this version nor the stored resource knows."""
    found = codec.unknown_fields(info, body)
    if not found or not stored:
        return found
    known = set(codec.unknown_fields(info, stored))
    return [p for p in found if p not in known]


def decode(info: KindInfo, body: Raw, name: str) -> Resource:
    """The user's object as a struct, with defaults and invariants; raises ApiError 422."""
    resource, problems = codec.check(info, body)
    known = tuple(p.field for p in problems)
    twice = duplicates(body, shape_of(info.type))
    problems += [p for p in twice if not known or not p.field.partition("[")[0].startswith(_lists(known))]
    if resource is None or problems:
        raise invalid(info, name, problems)
    problems = metadata_problems(info, resource)
    if problems:
        raise invalid(info, name, problems)
    return resource


def _lists(paths: tuple[str, ...]) -> tuple[str, ...]:
    """The lists that paths lead into: what the kind's own invariants say of them is said once."""
    return tuple(path.partition("[")[0] for path in paths)


def update_problems(stored: Raw, given: Raw) -> list[Problem]:
    """What is wrong with changed metadata, beside the stored one. A creationTimestamp that is given is not
    looked at: the stored one stays (Kubernetes: rest.BeforeUpdate)."""
    problems = [
        Problem(
            f"metadata.{key}",
            f"Invalid value: {str(given[key])[:100]!r}: field is immutable",
            "leave it as it is stored",
        )
        for key in IMMUTABLE
        if given.get(key) and given[key] != stored.get(key)
    ]
    finalizers = given.get("finalizers")
    if stored.get("deletionTimestamp") and isinstance(finalizers, list):
        fresh = [str(f)[:100] for f in finalizers if f not in stored.get("finalizers", [])]
        if fresh:
            reason = (
                "Forbidden: no new finalizers can be added if the object is being deleted, "
                f"found new finalizers {fresh}"
            )
            problems.append(Problem("metadata.finalizers", reason, "let the deletion go its way"))
    return problems


def metadata_problems(info: KindInfo, resource: Resource) -> list[Problem]:
    """What is wrong with the name, labels, annotations, finalizers and owners."""
    meta = resource.metadata
    problems = []
    if not re.fullmatch(info.name_pattern, meta.name):
        problems.append(
            Problem(
                "metadata.name",
                f"Invalid value: {meta.name[:100]!r} does not fit {info.name_pattern}",
                "use lower-case letters, digits and '-', a letter or digit first and last",
            )
        )
    for key, value in meta.labels.items():
        if not LABEL_KEY.match(key):
            problems.append(
                Problem("metadata.labels", f"{key[:100]!r} is not a label key", "as [PREFIX/]NAME")
            )
        if not LABEL_VALUE.match(value):
            reason = f"{value[:100]!r} is not a label value"
            problems.append(Problem(f"metadata.labels.{key}", reason, "letters, digits, '-_.', 63 at most"))
    problems += _annotation_problems(meta.annotations)
    problems += [
        Problem("metadata.finalizers", f"{f[:100]!r} is not a qualified name", f"as {GROUP}/drain")
        for f in meta.finalizers
        if not LABEL_KEY.match(f)
    ]
    owners = len(meta.owner_references)
    if owners > MOST_OWNERS:
        # Each is looked up when the resource is written and when one of them goes.
        reason = f"there are {owners} owners, {MOST_OWNERS} are allowed"
        problems.append(Problem("metadata.ownerReferences", reason, "name fewer owners"))
    return problems


def _annotation_problems(annotations: dict[str, str]) -> Sequence[Problem]:
    problems = [
        Problem("metadata.annotations", f"{key[:100]!r} is not an annotation key", "as [PREFIX/]NAME")
        for key in annotations
        if not LABEL_KEY.match(key.lower())
    ]
    size = sum(len(k) + len(v.encode(errors="replace")) for k, v in annotations.items())
    if size > ANNOTATIONS:
        reason = f"annotations have {size} bytes, {ANNOTATIONS} are allowed"
        problems.append(Problem("metadata.annotations", reason, "keep large data elsewhere"))
    return problems
