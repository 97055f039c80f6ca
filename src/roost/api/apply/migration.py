"""What kubectl's client-side apply left behind, for its first server-side apply.

kubectl writes the last applied manifest into an annotation. When the manager `kubectl` applies, conflicts
over fields that still have the value of that manifest are its own, and it takes them without being forced;
and the annotation follows what it applies, so that one can go back to client-side apply.
"""

from __future__ import annotations

from typing import Any

import msgspec

from roost.api.apply import comparing, fields
from roost.api.apply.fields import NONE, Fields
from roost.api.apply.shapes import Shape
from roost.model.codec import Raw

MANAGER = "kubectl"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
LONGEST = 256 * 1024
_sorted = msgspec.json.Encoder(order="sorted").encode


def annotation(body: Raw) -> str | None:
    """The manifest applied last, as text; None when there is none."""
    annotations = (body.get("metadata") or {}).get("annotations") or {}
    found: Any = annotations.get(LAST_APPLIED) if isinstance(annotations, dict) else None
    return found if isinstance(found, str) else None


def own(live: Raw, shape: Shape) -> Fields:
    """Fields that have the value of the manifest applied last."""
    try:
        last = msgspec.json.decode(annotation(live) or "null")
    except (msgspec.DecodeError, RecursionError):
        return NONE
    if not isinstance(last, dict) or not isinstance(last.get("metadata", {}), dict):
        return NONE
    differing = comparing.compare(last, live, shape)
    claimed = fields.difference(comparing.applied(last, shape), differing.changed)
    return fields.without(claimed, differing.removed)


def followed(body: Raw, config: Raw) -> Raw:
    """`body` with its annotation brought to what was applied; as it is when it has none."""
    if annotation(body) is None:
        return body
    text = _sorted(_without_annotation(config)).decode() + "\n"
    annotations = dict(body["metadata"]["annotations"])
    rest = sum(len(k) + len(str(v).encode()) for k, v in annotations.items() if k != LAST_APPLIED)
    annotations[LAST_APPLIED] = text if rest + len(LAST_APPLIED) + len(text.encode()) <= LONGEST else ""
    return {**body, "metadata": {**body["metadata"], "annotations": annotations}}


def _without_annotation(config: Raw) -> Raw:
    metadata = config.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("annotations"), dict):
        return config
    annotations = {k: v for k, v in metadata["annotations"].items() if k != LAST_APPLIED}
    return {**config, "metadata": {**metadata, "annotations": annotations}}
