"""What a site and its central cloud do when they don't want the same: four kinds, one writer each.

- LocalOverride (home at the site, told upwards): this much of a copy from above is otherwise here. The copy
  stays to the letter what the central cloud said; in force is the copy with its overrides laid over it.
- OverrideReview (home at the central cloud, in the subcloud's namespace, told downwards): the central cloud
  adopts or reverts one override, as it was at one generation.
- SubcloudException (as the review): this much of what is shared with all is otherwise for this one subcloud.
- Management (as the review, written by the fleet's controllers): whether the subcloud is managed.

A patch is a JSON merge patch (RFC 7386) of a spec, in two parts: the values it sets, and JSON pointers (RFC
6901) to what it removes. For in Kubernetes' conventions null means absent, so no null could be kept in it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from roost.model.kind import Column, Flow, KindInfo, Problem
from roost.model.meta import DNS_NAME, Condition, Owner, Part, Resource, doc

LONGEST_VALUE = 4096
MOST_REMOVED = 256
MOST_SHOWN = 100
_POINTER = Annotated[str, doc("A JSON pointer.", max_length=1024)]

Decision = Literal["adopt", "revert"]
ReviewState = Literal["pending", "refused", "outdated"]
Managed = Literal["managed", "unmanaged"]


class OverrideTarget(Part, frozen=True, kw_only=True, omit_defaults=False):
    """The copy that is overridden."""

    kind: Annotated[str, doc("Its kind.", min_length=1, max_length=63)]
    name: Annotated[str, doc("Its name.", min_length=1, max_length=253)]
    uid: Annotated[str, doc("Its identity, as it was seen; refused when it is another by now.")] = ""
    generation: Annotated[
        int, doc("Its generation, as it was seen; refused when it is another by now.", ge=0)
    ] = 0


class LocalOverrideSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the site's operator wants otherwise."""

    target: Annotated[OverrideTarget, doc("What is overridden.")]
    patch: Annotated[dict[str, Any], doc("Values to set in its spec: a JSON merge patch without null.")] = {}
    removes: Annotated[
        list[_POINTER],
        doc("What to remove from its spec: JSON pointers, as /hosts/labels/zone.", max_length=MOST_REMOVED),
    ] = []
    withdrawn: Annotated[bool, doc("True: all of it is out of force here.")] = False
    reason: Annotated[str, doc("Why; must be told while the site is managed.", max_length=1024)] = ""
    by: Annotated[str, doc("Who; nobody can name another than himself.", max_length=255)] = ""


class OverrideBase(Part, frozen=True, kw_only=True, omit_defaults=False):
    """The target as it was when the override was made."""

    uid: Annotated[str, doc("Its identity.")] = ""
    generation: Annotated[int, doc("Its generation.")] = 0
    paths: Annotated[list[str], doc("What the override spoke of, as JSON pointers.")] = []
    spec: Annotated[dict[str, Any], doc("What its spec had there.")] = {}


class Difference(Part, frozen=True, kw_only=True, omit_defaults=False):
    """One thing that the two sides want otherwise. Values are JSON; empty stands for absent."""

    path: Annotated[str, doc("Where in spec, as a JSON pointer; empty: all of it.")] = ""
    central: Annotated[str, doc("What the central cloud says now.", max_length=LONGEST_VALUE)] = ""
    local: Annotated[str, doc("What the site says.", max_length=LONGEST_VALUE)] = ""
    before: Annotated[
        str, doc("What the central cloud said when the override was made.", max_length=4096)
    ] = ""
    conflict: Annotated[bool, doc("The central cloud has changed it since.")] = False


class LocalOverrideStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What came of it."""

    observed_generation: Annotated[int, doc("Generation of spec this speaks of.")] = 0
    in_force: Annotated[bool, doc("Whether it is laid over its target.")] = False
    base: Annotated[OverrideBase | None, doc("The target as it was when the override was made.")] = None
    central_generation: Annotated[int, doc("Generation of the target as it is now.")] = 0
    differences: Annotated[
        list[Difference], doc("What the two sides want otherwise.", max_length=MOST_SHOWN)
    ] = []
    conflicts: Annotated[int, doc("How much of it the central cloud has changed since.")] = 0
    review: Annotated[
        str, doc("What the central cloud has decided: adopt or revert; empty until it has.")
    ] = ""
    conditions: Annotated[
        list[Condition],
        doc("Aspects of its state.", list_type="map", list_keys=("type",), max_length=16),
    ] = []


class LocalOverride(Resource, frozen=True, kw_only=True):
    """Something of the central cloud's intent is otherwise at this site."""

    spec: Annotated[LocalOverrideSpec, doc("What the site's operator wants otherwise.")]
    status: Annotated[LocalOverrideStatus, doc("What came of it.")] = LocalOverrideStatus()


class OverrideReviewSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the central cloud decides."""

    override: Annotated[str, doc("Name of the LocalOverride.", min_length=1, max_length=253)]
    uid: Annotated[str, doc("Its identity.", min_length=1, max_length=64)]
    generation: Annotated[int, doc("Its generation, as it was seen: a later one is not meant.", ge=1)]
    decision: Annotated[
        Decision,
        doc("Adopt: the site keeps it, as an exception of the central cloud. Revert: the site gives it up."),
    ]
    comment: Annotated[str, doc("For people.", max_length=1024)] = ""
    by: Annotated[str, doc("Who; nobody can name another than himself.", max_length=255)] = ""


class OverrideReviewStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """How far it is."""

    state: Annotated[ReviewState, doc("Pending until the override is gone; then the review goes too.")] = (
        "pending"
    )
    message: Annotated[str, doc("What it waits for, and what to do.", max_length=2048)] = ""


class OverrideReview(Resource, frozen=True, kw_only=True):
    """The central cloud's decision on one override."""

    spec: Annotated[OverrideReviewSpec, doc("What the central cloud decides.")]
    status: Annotated[OverrideReviewStatus, doc("How far it is.")] = OverrideReviewStatus()


class SubcloudExceptionSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is otherwise for one subcloud."""

    kind: Annotated[str, doc("Kind of the shared resource.", min_length=1, max_length=63)]
    name: Annotated[str, doc("Its name at the central cloud.", min_length=1, max_length=253)]
    patch: Annotated[dict[str, Any], doc("Values to set in its spec: a JSON merge patch without null.")] = {}
    removes: Annotated[
        list[_POINTER],
        doc("What to remove from its spec: JSON pointers, as /hosts/labels/zone.", max_length=MOST_REMOVED),
    ] = []
    withdrawn: Annotated[bool, doc("True: all of it is out of force for this subcloud.")] = False
    reason: Annotated[str, doc("Why.", max_length=1024)] = ""


class SubcloudExceptionStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What came of it."""

    observed_generation: Annotated[int, doc("Generation of spec this speaks of.")] = 0
    in_force: Annotated[bool, doc("Whether the subcloud's copy has it.")] = False
    message: Annotated[str, doc("Why not, and what to do.", max_length=2048)] = ""


class SubcloudException(Resource, frozen=True, kw_only=True):
    """Something of what is shared is otherwise for one subcloud."""

    spec: Annotated[SubcloudExceptionSpec, doc("What is otherwise.")]
    status: Annotated[SubcloudExceptionStatus, doc("What came of it.")] = SubcloudExceptionStatus()


class ManagementSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the central cloud's operator has decided."""

    management_state: Annotated[Managed, doc("Whether shared intent flows down to the subcloud.")] = (
        "unmanaged"
    )


class Management(Resource, frozen=True, kw_only=True):
    """Whether the central cloud manages this site; remembered when the link is down."""

    spec: Annotated[ManagementSpec, doc("What the central cloud's operator has decided.")] = ManagementSpec()


def override_name(kind: str, name: str) -> str:
    """Usual name of the override of a copy, and of the exception for a shared resource."""
    return f"{kind.lower()}.{name}"


def _pointers(removes: list[str]) -> list[Problem]:
    return [
        Problem(
            f"spec.removes[{n}]", f"{pointer[:100]!r} is no JSON pointer", "write it as /hosts/labels/zone"
        )
        for n, pointer in enumerate(removes)
        if not pointer.startswith("/")
    ]


def _says_something(resource: LocalOverride | SubcloudException) -> list[Problem]:
    problems = _pointers(resource.spec.removes)
    if not (resource.spec.patch or resource.spec.removes or resource.spec.withdrawn):
        problems.append(
            Problem(
                "spec.patch",
                "it changes nothing (null is not kept in it)",
                "set a value, name what to remove in spec.removes, or set spec.withdrawn",
            )
        )
    return problems


LOCAL_OVERRIDE = KindInfo(
    kind="LocalOverride",
    plural="localoverrides",
    singular="localoverride",
    short_names=("lov",),
    categories=("roost",),
    type=LocalOverride,
    description="Something of the central cloud's intent is otherwise at this site, until it is reviewed.",
    flow=Flow.UP,
    name_pattern=DNS_NAME,
    invariants=_says_something,
    selectable=("spec.target.kind", "spec.target.name", "status.review"),
    columns=(
        Column("Kind", "spec.target.kind", "Kind of what is overridden."),
        Column("Target", "spec.target.name", "What is overridden."),
        Column("In force", "status.inForce", "Whether it is laid over its target.", "boolean"),
        Column("Withdraws", "spec.withdrawn", "Whether it puts all of its target out of force.", "boolean"),
        Column("Differences", "status.differences|count", "What the two sides want otherwise.", "integer"),
        Column("Conflicts", "status.conflicts", "Of these, changed above since.", "integer"),
        Column("Review", "status.review", "What the central cloud has decided."),
        Column("Reason", "spec.reason", "Why."),
        Column("By", "spec.by", "Who.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)

OVERRIDE_REVIEW = KindInfo(
    kind="OverrideReview",
    plural="overridereviews",
    singular="overridereview",
    short_names=("ovr",),
    categories=("roost",),
    type=OverrideReview,
    description="The central cloud adopts or reverts one override of a subcloud.",
    flow=Flow.DOWN,
    status_owner=Owner.FLEET,
    name_pattern=DNS_NAME,
    selectable=("spec.override", "spec.decision", "status.state"),
    columns=(
        Column("Override", "spec.override", "Which override."),
        Column("Decision", "spec.decision", "Adopt or revert."),
        Column("State", "status.state", "How far it is."),
        Column("Message", "status.message", "What it waits for."),
        Column("By", "spec.by", "Who.", "string", 1),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)

SUBCLOUD_EXCEPTION = KindInfo(
    kind="SubcloudException",
    plural="subcloudexceptions",
    singular="subcloudexception",
    short_names=("sce",),
    categories=("roost",),
    type=SubcloudException,
    description="Something of what is shared with subclouds is otherwise for one of them.",
    flow=Flow.DOWN,
    status_owner=Owner.FLEET,
    name_pattern=DNS_NAME,
    invariants=_says_something,
    selectable=("spec.kind", "spec.name"),
    columns=(
        Column("Kind", "spec.kind", "Kind of the shared resource."),
        Column("Shared", "spec.name", "Its name at the central cloud."),
        Column("In force", "status.inForce", "Whether the subcloud's copy has it.", "boolean"),
        Column("Reason", "spec.reason", "Why."),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)

MANAGEMENT = KindInfo(
    kind="Management",
    plural="managements",
    singular="management",
    type=Management,
    description="Whether the central cloud manages this site; remembered when the link is down.",
    flow=Flow.DOWN,
    spec_owner=Owner.FLEET,
    columns=(
        Column("State", "spec.managementState", "Managed or unmanaged."),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
