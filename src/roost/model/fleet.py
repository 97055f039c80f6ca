"""SubcloudGroup: subclouds that are treated alike; SubcloudSelector: which subclouds something is for.

A subcloud is in one group at most, the one that its own `spec.group` names. A group says how work over its
subclouds goes: one after the other or several at once, and how many may fail before it halts. A group that is
named and not declared is no error, so manifests may come in any order: work goes then as `SubcloudGroupSpec`
says by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import asin, cos, radians, sin, sqrt
from typing import Annotated, Literal

from roost.model.cloud import Subcloud
from roost.model.kind import Column, KindInfo
from roost.model.meta import DNS_LABEL, Owner, Part, Resource, doc

EARTH_KILOMETRES = 6371.0088
"""Mean radius (IUGG)."""
MOST_AT_ONCE = 5000


class Circle(Part, frozen=True, kw_only=True, omit_defaults=False):
    """A circle on the map."""

    latitude: Annotated[float, doc("Of its middle; north positive.", unit="degrees", ge=-90, le=90)]
    longitude: Annotated[float, doc("Of its middle; east positive.", unit="degrees", ge=-180, le=180)]
    kilometres: Annotated[float, doc("Its radius.", ge=0, le=20040)]


class SubcloudSelector(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Which subclouds; all conditions must hold; an empty selector selects all."""

    names: Annotated[list[str], doc("Any of these names.", list_type="set", max_length=1024)] = []
    labels: Annotated[dict[str, str], doc("All of these labels.")] = {}
    groups: Annotated[list[str], doc("In any of these groups.", list_type="set", max_length=1024)] = []
    near: Annotated[Circle | None, doc("Within this circle; a subcloud without coordinates is in none.")] = (
        None
    )


def selects(selector: SubcloudSelector, subcloud: Subcloud) -> bool:
    """Whether a selector selects a subcloud."""
    spec, metadata = subcloud.spec, subcloud.metadata
    return chooses(
        selector, metadata.name, metadata.labels, spec.group, place=(spec.latitude, spec.longitude)
    )


def chooses(
    selector: SubcloudSelector,
    name: str,
    labels: Mapping[str, str],
    group: str,
    *,
    place: tuple[float | None, float | None],
) -> bool:
    """Whether a selector selects a subcloud of which this is known; `place` is in degrees, None: unknown."""
    if selector.names and name not in selector.names:
        return False
    if selector.groups and group not in selector.groups:
        return False
    if not selector.labels.items() <= labels.items():
        return False
    if selector.near is None:
        return True
    latitude, longitude = place
    if latitude is None or longitude is None:
        return False
    return distance(selector.near, latitude, longitude) <= selector.near.kilometres


def distance(circle: Circle, latitude: float, longitude: float) -> float:
    """Kilometres from the middle of a circle to a place in degrees, along the surface (haversine)."""
    here, there = radians(circle.latitude), radians(latitude)
    across = sin(radians(longitude - circle.longitude) / 2) ** 2
    square = sin((there - here) / 2) ** 2 + cos(here) * cos(there) * across
    return 2 * EARTH_KILOMETRES * asin(min(1.0, sqrt(square)))


class SubcloudGroupSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the operator wants."""

    description: Annotated[str, doc("For people.", max_length=255)] = ""
    apply_type: Annotated[
        Literal["serial", "parallel"], doc("Work on its subclouds one after the other, or several at once.")
    ] = "parallel"
    max_parallel: Annotated[
        int, doc("How many are worked on at once, when parallel.", ge=1, le=MOST_AT_ONCE)
    ] = 2
    failure_budget: Annotated[
        str,
        doc(
            "How many may fail before work halts: a number, or a share of them as 5%.",
            pattern=r"^([0-9]{1,5}|([0-9]{1,2}|100)%)$",
        ),
    ] = "0"


class SubcloudGroupStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is."""

    subclouds: Annotated[int, doc("Subclouds that are in it.")] = 0
    managed: Annotated[int, doc("Of these, managed ones.")] = 0
    online: Annotated[int, doc("Of these, ones whose link is up.")] = 0
    in_sync: Annotated[int, doc("Of these, ones where shared intent is in force.")] = 0


class SubcloudGroup(Resource, frozen=True, kw_only=True):
    """Subclouds that are treated alike."""

    spec: Annotated[SubcloudGroupSpec, doc("What the operator wants.")] = SubcloudGroupSpec()
    status: Annotated[SubcloudGroupStatus, doc("What is.")] = SubcloudGroupStatus()


SUBCLOUD_GROUP = KindInfo(
    kind="SubcloudGroup",
    plural="subcloudgroups",
    singular="subcloudgroup",
    short_names=("scg",),
    categories=("roost",),
    type=SubcloudGroup,
    namespaced=False,
    description="Subclouds that are treated alike, and how work over them goes.",
    status_owner=Owner.FLEET,
    name_pattern=DNS_LABEL,
    columns=(
        Column("Apply", "spec.applyType", "One after the other, or several at once."),
        Column("Parallel", "spec.maxParallel", "How many at once.", "integer"),
        Column("Budget", "spec.failureBudget", "How many may fail before work halts."),
        Column("Subclouds", "status.subclouds", "Subclouds in it.", "integer"),
        Column("Online", "status.online", "Whose link is up.", "integer"),
        Column("In sync", "status.inSync", "Where shared intent is in force.", "integer"),
        Column("Description", "spec.description", "For people.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
