"""Questions about access (kubectl auth): who am I, may I, what may I, may he, whose token is this.

What a review says is what the gate would do: RBAC, and for the kinds that are served here also whether
they have the verb at all.
"""

from __future__ import annotations

from collections.abc import Callable

from roost.api.access import Gate, verbs
from roost.api.discovery import REVIEWS, SERVED
from roost.api.identity.rules import ALL, Attributes
from roost.api.status import ApiError, bad_request, no_such_path
from roost.link.exchange import Caller
from roost.model.codec import Raw
from roost.model.kind import KindInfo
from roost.model.rbac import PolicyRule

_USUAL = frozenset({"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"})


async def answer(gate: Gate, caller: Caller, path: list[str], body: Raw) -> Raw:
    """The review with its status; `path` is its group and plural, and the namespace of a local one.

    Raises ApiError 400, 403, and 404 for a review that is not served.
    """
    group, plural, namespace = path[0], path[-1], path[1] if len(path) == 3 else ""
    kind = next((k for k in REVIEWS.get(group, ()) if f"{k.lower()}s" == plural), "")
    if not kind or (kind == "LocalSubjectAccessReview") != bool(namespace):
        raise no_such_path()
    gate.require(caller, Attributes(verb="create", group=group, resource=plural, namespace=namespace))
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        raise bad_request("spec must be an object")
    if kind == "TokenReview":
        status = await _token(gate, spec)
        spec = {k: v for k, v in spec.items() if k != "token"}
    else:
        status = _ANSWERS[kind](gate, caller, spec, namespace)
    metadata = {"namespace": namespace} if namespace else {}
    return {"kind": kind, "apiVersion": f"{group}/v1", "metadata": metadata, "spec": spec, "status": status}


def _myself(gate: Gate, caller: Caller, spec: Raw, namespace: str) -> Raw:
    return {"userInfo": user_info(caller)}


def user_info(caller: Caller) -> Raw:
    """A caller as Kubernetes' UserInfo."""
    user: Raw = {"username": caller.name, "groups": list(caller.groups)}
    if caller.uid:
        user["uid"] = caller.uid
    if caller.extra:
        user["extra"] = {key: list(values) for key, values in caller.extra.items()}
    return user


def _other(gate: Gate, caller: Caller, spec: Raw, namespace: str) -> Raw:
    """Whether somebody else may: named by user, groups, uid, extra."""
    user, groups = spec.get("user") or "", spec.get("groups") or []
    if not isinstance(user, str) or not (user or groups):
        raise bad_request("spec.user or spec.groups is required")
    if not isinstance(groups, list) or not all(isinstance(g, str) for g in groups):
        raise bad_request("spec.groups must be a list of texts")
    known = [*groups, *(gate.role_groups(user) if user else [])]
    asked = _attributes(spec)
    if namespace and (asked.path or asked.namespace != namespace):
        raise bad_request(f"spec.resourceAttributes.namespace must be {namespace}")
    if user and gate.is_disabled(user):
        return {"allowed": False, "reason": f'user "{user}" is disabled'}
    return decision(gate, Caller(user, known), asked)


def _mine(gate: Gate, caller: Caller, spec: Raw, namespace: str) -> Raw:
    return decision(gate, caller, _attributes(spec))


def _attributes(spec: Raw) -> Attributes:
    path = spec.get("nonResourceAttributes")
    if isinstance(path, dict):
        return Attributes(verb=_text(path, "verb"), path=_text(path, "path") or "/")
    asked = spec.get("resourceAttributes")
    if not isinstance(asked, dict):
        raise bad_request("spec.resourceAttributes or spec.nonResourceAttributes is required")
    words = ("verb", "group", "resource", "subresource", "namespace", "name")
    return Attributes(**{word: _text(asked, word) for word in words})


def _text(raw: Raw, name: str) -> str:
    value = raw.get(name) or ""
    if not isinstance(value, str):
        raise bad_request(f"{name} must be text")
    return value


def decision(gate: Gate, caller: Caller, asked: Attributes) -> Raw:
    """`allowed`, and a reason where there is something to say."""
    refused = "" if asked.path else _not_had(asked)
    if refused:
        return {"allowed": False, "reason": refused}
    if not gate.may(caller, asked):
        return {"allowed": False, "reason": "no role of this user allows it"}
    why = gate.directory.grants.why(caller, asked)
    return {"allowed": True, "reason": why} if why else {"allowed": True}


def _not_had(asked: Attributes) -> str:
    """Why nobody can do it, whatever his roles: the kind is not here, or does not have the verb."""
    if ALL in (asked.verb, asked.group, asked.resource) or asked.verb not in _USUAL:
        return ""
    if asked.group in REVIEWS or (asked.group == "" and asked.resource == "events"):
        return ""
    info = _served(asked.group, asked.resource)
    if info is None:
        return f"{asked.resource}.{asked.group} is not served here".replace(". ", " ")
    if asked.subresource == "status":
        return "" if asked.verb == "get" else "status is written by the platform alone"
    if asked.subresource:
        return "" if asked.verb == "create" else "this subresource is only created"
    if asked.verb not in verbs(info) and not info.operating:
        return f"{asked.resource} are written by the platform, not with {asked.verb}"
    return "" if asked.verb in verbs(info) else f"{asked.resource} don't have {asked.verb}"


def _served(group: str, plural: str) -> KindInfo | None:
    return next((kinds[plural] for (g, _), kinds in SERVED.items() if g == group and plural in kinds), None)


def _what(gate: Gate, caller: Caller, spec: Raw, namespace: str) -> Raw:
    """Everything the caller may: the kinds that are served with the verbs that work, then his rules."""
    space = _text(spec, "namespace")
    rules = gate.directory.grants.rules(caller, space)
    found: list[Raw] = []
    for (group, _), kinds in SERVED.items():
        for plural, info in kinds.items():
            allowed = [
                verb
                for verb in verbs(info)
                if gate.may(caller, Attributes(verb=verb, group=group, resource=plural, namespace=space))
            ]
            if allowed:
                found.append({"verbs": allowed, "apiGroups": [group], "resources": [plural]})
    said = {(g, r) for row in found for g in row["apiGroups"] for r in row["resources"]}
    for rule in rules:
        if rule.resources and not _is_said(rule, said):
            row: Raw = {"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources}
            if rule.resource_names:
                row["resourceNames"] = rule.resource_names
            if row not in found:
                found.append(row)
    paths = [
        {"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}
        for rule in rules
        if rule.non_resource_urls
    ]
    return {"resourceRules": found, "nonResourceRules": paths, "incomplete": False}


def _is_said(rule: PolicyRule, said: set[tuple[str, str]]) -> bool:
    """Whether a rule says no more than the rows of the kinds do."""
    if rule.resource_names or not set(rule.verbs) <= _USUAL:
        return False
    return all((g, r) in said for g in rule.api_groups for r in rule.resources)


async def _token(gate: Gate, spec: Raw) -> Raw:
    """Whose token it is; wrong ones get `authenticated: false` and no more."""
    token, audiences = spec.get("token"), spec.get("audiences") or []
    if not isinstance(token, str) or not token:
        raise bad_request("spec.token is required")
    if not isinstance(audiences, list) or not all(isinstance(a, str) for a in audiences):
        raise bad_request("spec.audiences must be a list of texts")
    try:
        known, fitting = await gate.review_token(token, audiences)
    except ApiError as error:
        if error.code not in (401, 403):
            raise
        return {"authenticated": False, "error": "the token is not valid here"}
    return {"authenticated": True, "user": user_info(known), "audiences": fitting}


_ANSWERS: dict[str, Callable[[Gate, Caller, Raw, str], Raw]] = {
    "SelfSubjectReview": _myself,
    "SelfSubjectAccessReview": _mine,
    "SelfSubjectRulesReview": _what,
    "SubjectAccessReview": _other,
    "LocalSubjectAccessReview": _other,
}
