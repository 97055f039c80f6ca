"""Patches as pure functions: JSON merge patch (RFC 7386), JSON patch (RFC 6902), strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from roost.api import bodies, strategic
from roost.api.status import ApiError, bad_request
from roost.api.write_options import APPLY_PATCH
from roost.model.codec import Raw
from roost.model.kind import KindInfo, Problem
from roost.model.meta import GROUP
from roost.model.patches import merge

MOST_STEPS = 1000
_TAKEN = (bodies.MERGE_PATCH, bodies.JSON_PATCH, APPLY_PATCH)

_REMEDIES = {
    strategic.MEDIA_TYPE: (
        "strategic merge patch is for built-in kinds of Kubernetes; "
        "send a merge patch (kubectl patch --type=merge)"
    ),
    "application/apply-patch+cbor": f"send {APPLY_PATCH}, which takes YAML and JSON",
}


class Unfit(Exception):
    """A step of a JSON patch that the resource, as it is, does not allow."""

    def __init__(self, number: int, step: Raw, reason: str) -> None:
        super().__init__(f"step {number}: {reason}")
        path = str(step.get("path", ""))[:200].strip("/").replace("/", ".")
        operation = str(step.get("op", ""))[:16]
        self.problem = Problem(
            path, f"step {number} of the patch ({operation}): {reason}", "read the resource again"
        )


def check_type(kind: str, info: KindInfo) -> None:
    """Raise ApiError 415 with the remedy unless patches of this type are taken for a kind."""
    if kind not in _TAKEN and not (kind == strategic.MEDIA_TYPE and info.group != GROUP):
        remedy = _REMEDIES.get(kind, f"send one of {', '.join(_TAKEN)}")
        raise ApiError(415, f"a patch of type {kind[:100]!r} is not taken: {remedy}")


def apply(kind: str, current: Raw, patch: Any) -> Raw:
    """The patched object; raises Unfit, ApiError 400 and 413. `current` stays as it is."""
    if kind in (bodies.MERGE_PATCH, strategic.MEDIA_TYPE):
        if not isinstance(patch, dict):
            raise bad_request("a merge patch must be a JSON object")
        patched = merge(current, patch) if kind == bodies.MERGE_PATCH else strategic.merge(current, patch)
    else:
        patched = _json_patch(current, patch)
    if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
        raise bad_request("the patch leaves no resource: metadata must stay an object")
    return patched


def _json_patch(current: Raw, steps: Any) -> Any:
    """RFC 6902, step by step.

    Copies could double an object with each step, so what they copy is weighed: all of them together, so
    that weighing costs no more than the largest resource, however many steps there are.
    """
    import jsonpatch
    import jsonpointer

    if not isinstance(steps, list) or not all(isinstance(s, dict) for s in steps):
        raise bad_request("a JSON patch must be a list of objects with op and path")
    if len(steps) > MOST_STEPS:
        raise bad_request(f"a JSON patch may have {MOST_STEPS} steps at most; split it")
    patched: Any = copy.deepcopy(current)
    copied = 0
    for number, step in enumerate(steps):
        try:
            if step.get("op") == "copy":
                copied += _weight(jsonpointer.resolve_pointer(patched, step.get("from")))
                if copied > bodies.LARGEST:
                    raise ApiError(413, f"step {number} of the patch makes the resource too large")
            patched = jsonpatch.JsonPatch([step]).apply(patched, in_place=True)
        except jsonpatch.InvalidJsonPatch as error:
            raise bad_request(f"step {number} of the patch: {error}") from error
        except jsonpatch.JsonPatchTestFailed as error:
            raise Unfit(number, step, "the test fails: the resource has another value there") from error
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
            raise Unfit(number, step, "the resource has nothing there") from error
        except (TypeError, AttributeError, KeyError, IndexError, ValueError) as error:
            raise bad_request(f"step {number} of the patch does not fit the resource") from error
    if not bodies.shallow(patched):
        raise ApiError(413, f"the patch nests the resource deeper than {bodies.DEEPEST} levels")
    return patched


def _weight(value: Any) -> int:
    """Bytes of a value that a patch copies; one that is too deep weighs more than is allowed."""
    return len(msgspec.json.encode(value)) if bodies.shallow(value) else bodies.LARGEST + 1
