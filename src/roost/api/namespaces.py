"""Namespaces are clouds: /api/v1/namespaces shows the Cloud resources this store has, read-only."""

from __future__ import annotations

from typing import Annotated

from roost.api.forms import View
from roost.model.codec import Raw
from roost.model.kind import Column, KindInfo
from roost.model.meta import Owner, Part, Resource, doc


class NamespaceStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is."""

    phase: Annotated[str, doc("Active, or Terminating.")] = "Active"


class Namespace(Resource, frozen=True, kw_only=True):
    """One cloud's resources."""

    status: Annotated[NamespaceStatus, doc("What is.")] = NamespaceStatus()


NAMESPACE = KindInfo(
    kind="Namespace",
    group="",
    plural="namespaces",
    singular="namespace",
    short_names=("ns",),
    type=Namespace,
    namespaced=False,
    served=False,
    spec_owner=Owner.CLOUD,
    description="The resources of one cloud.",
    columns=(
        Column("Status", "status.phase", "Active, or Terminating."),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)


def _shape(cloud: Raw) -> Raw:
    meta = cloud["metadata"]
    kept = ("name", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels")
    metadata = {k: meta[k] for k in kept if k in meta}
    metadata["labels"] = {**metadata.get("labels", {}), "kubernetes.io/metadata.name": meta["name"]}
    phase = "Terminating" if "deletionTimestamp" in meta else "Active"
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "status": {"phase": phase}}


VIEW = View(info=NAMESPACE, source="Cloud", shape=_shape)
