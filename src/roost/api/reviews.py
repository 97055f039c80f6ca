"""Questions a caller may ask about itself: who am I, may I, what may I (kubectl auth)."""

from __future__ import annotations

from starlette.requests import Request

from roost.api import bodies, protobuf
from roost.api.access import SELF, allowed_verbs, may
from roost.api.discovery import AUTHENTICATION, AUTHORIZATION, REVIEWS, SERVED
from roost.api.status import bad_request, no_such_path
from roost.link.exchange import Caller
from roost.model.codec import Raw

PROTOBUF = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_RESOURCE_ATTRIBUTES = {
    "namespace": 1,
    "verb": 2,
    "group": 3,
    "version": 4,
    "resource": 5,
    "subresource": 6,
    "name": 7,
}
OPEN_PATHS = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/readyz", "/openapi/*", "/version"]


async def read(request: Request) -> Raw:
    """The review in a request's body, JSON or protobuf; raises ApiError 400, 413 and 415."""
    if bodies.media_type(request) != PROTOBUF:
        return await bodies.json_object(request)
    try:
        return _from_protobuf(await bodies.read(request))
    except (protobuf.Malformed, UnicodeDecodeError) as error:
        raise bad_request(f"the body is not valid protobuf: {error}") from error


def _from_protobuf(body: bytes) -> Raw:
    """A review as Kubernetes' envelope carries it: magic, then Unknown with kind (1) and message (2)."""
    if not body.startswith(_MAGIC):
        raise protobuf.Malformed("it does not begin with the magic of Kubernetes")
    unknown = protobuf.fields(body[len(_MAGIC) :])
    kind = protobuf.fields(unknown.get(1, b"")).get(2, b"").decode()
    spec = protobuf.fields(protobuf.fields(unknown.get(2, b"")).get(2, b""))
    if kind == "SelfSubjectRulesReview":
        return {"spec": _texts(spec, {"namespace": 1})}
    if kind != "SelfSubjectAccessReview":
        return {}
    found: Raw = {}
    if 1 in spec:
        found["resourceAttributes"] = _texts(protobuf.fields(spec[1]), _RESOURCE_ATTRIBUTES)
    if 2 in spec:
        found["nonResourceAttributes"] = _texts(protobuf.fields(spec[2]), {"path": 1, "verb": 2})
    return {"spec": found}


def _texts(found: dict[int, bytes], names: dict[str, int]) -> Raw:
    return {name: found[number].decode() for name, number in names.items() if number in found}


def answer(group: str, plural: str, body: Raw, caller: Caller) -> Raw:
    """The review with its status; raises ApiError 404 for a review that is not served."""
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        raise bad_request("spec must be an object")
    match group, plural:
        case "authorization.k8s.io", "selfsubjectaccessreviews":
            status, kind = _access(spec, caller), "SelfSubjectAccessReview"
        case "authorization.k8s.io", "selfsubjectrulesreviews":
            status, kind = _rules(caller), "SelfSubjectRulesReview"
        case "authentication.k8s.io", "selfsubjectreviews":
            user = {"username": caller.name, "groups": list(caller.groups)}
            status, kind = {"userInfo": user}, "SelfSubjectReview"
        case _:
            raise no_such_path()
    return {"kind": kind, "apiVersion": f"{group}/v1", "metadata": {}, "spec": spec, "status": status}


def _access(spec: Raw, caller: Caller) -> Raw:
    path = spec.get("nonResourceAttributes")
    if isinstance(path, dict):
        allowed = path.get("verb") == "get" or may(caller, str(path.get("verb", "")))
        return {"allowed": allowed}
    asked = spec.get("resourceAttributes")
    if not isinstance(asked, dict):
        raise bad_request("spec.resourceAttributes or spec.nonResourceAttributes is required")
    group, verb = str(asked.get("group", "")), str(asked.get("verb", ""))
    plural, subresource = str(asked.get("resource", "")), str(asked.get("subresource", ""))
    if group == "*" or plural == "*" or verb == "*":
        allowed = may(caller, "*")
        return {"allowed": allowed, **({} if allowed else {"reason": "only administrators do everything"})}
    if plural in SELF:
        return {"allowed": verb == "create" and group in (AUTHORIZATION, AUTHENTICATION)}
    if group == "" and plural in ("namespaces", "events"):
        return {"allowed": verb in ("get", "list", "watch") and may(caller, verb)}
    info = SERVED.get((group, "v1"), {}).get(plural)
    if info is None:
        return {"allowed": False, "reason": f"{plural}.{group} is not served here"}
    if subresource == "status":
        return {"allowed": verb == "get" and may(caller, verb)}
    if subresource:
        return {"allowed": verb == "create" and may(caller, verb)}
    if not may(caller, verb):
        return {"allowed": False, "reason": "the role of this user does not allow it"}
    if verb not in allowed_verbs(info, caller):
        return {"allowed": False, "reason": f"{plural} are written by the platform, not with {verb}"}
    return {"allowed": True}


def _rules(caller: Caller) -> Raw:
    rules = [
        {"verbs": verbs, "apiGroups": [info.group], "resources": [info.plural]}
        for kinds in SERVED.values()
        for info in kinds.values()
        if (verbs := allowed_verbs(info, caller))
    ]
    if may(caller, "get"):
        reading = ["get", "list", "watch"]
        rules.append({"verbs": reading, "apiGroups": [""], "resources": ["namespaces", "events"]})
    rules += [
        {"verbs": ["create"], "apiGroups": [group], "resources": [f"{kind.lower()}s" for kind in kinds]}
        for group, kinds in REVIEWS.items()
    ]
    paths = [{"verbs": ["get"], "nonResourceURLs": OPEN_PATHS}]
    return {"resourceRules": rules, "nonResourceRules": paths, "incomplete": False}
