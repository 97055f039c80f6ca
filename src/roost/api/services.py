"""Services: none, for Roost runs no workloads of its own that need them.

`kubectl cluster-info` looks for Services before it prints where the API is, and clients that show a cluster
list them. An empty list answers both.
"""

from __future__ import annotations

from roost.model.kind import Column, KindInfo
from roost.model.meta import Owner, Resource


class Service(Resource, frozen=True, kw_only=True):
    """A name for several programs that do the same."""


SERVICE = KindInfo(
    kind="Service",
    group="",
    plural="services",
    singular="service",
    short_names=("svc",),
    type=Service,
    served=False,
    spec_owner=Owner.CLOUD,
    description="A name for several programs that do the same; there are none here.",
    columns=(Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),),
)
