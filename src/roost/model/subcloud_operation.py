"""SubcloudOperation: one thing done at many subclouds, within a window and a budget of failures.

Which subclouds it is for is decided once, when it begins: each becomes a step, a row of a table of its own
(`store.subcloud_steps`), not a resource. Groups named in `order` come first, one after the other; the next
begins when the former is over. The others follow: each as its own group says or, where the operation sets a
window itself, all of them as one.

Status is a summary, written in the transaction that moves steps.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from roost.model.fleet import MOST_AT_ONCE, SubcloudSelector
from roost.model.kind import Column, KindInfo, Problem
from roost.model.meta import DNS_NAME, Condition, Owner, Part, Resource, doc
from roost.model.selector import LABEL_KEY, LABEL_VALUE

SubcloudAction = Literal["manage", "unmanage", "label"]
SubcloudStepState = Literal["waiting", "offline", "running", "done", "failed", "skipped", "aborted"]
SubcloudOperationPhase = Literal[
    "planned", "running", "paused", "halted", "aborting", "aborted", "done", "failed"
]

OPEN = ("waiting", "offline", "running")
"""States of steps that are not over."""
OVER_PHASES = ("aborted", "done", "failed")
MOST_STAGES = 256
MOST_ERRORS = 10
LONGEST_MESSAGE = 1024
_FIXED = ("action", "subclouds", "labels", "order")


class SubcloudOperationSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is to be done, where, and how."""

    action: Annotated[
        SubcloudAction,
        doc(
            "Manage, unmanage: over when the site says that it is. Label: set labels, so that what is shared "
            "with who has them flows; over when the site says that it is in force."
        ),
    ]
    subclouds: Annotated[SubcloudSelector, doc("At which subclouds, as they are when it begins.")] = (
        SubcloudSelector()
    )
    labels: Annotated[dict[str, str], doc("For label: what to set.")] = {}
    order: Annotated[
        list[str],
        doc("Groups that come first, one after the other.", list_type="set", max_length=MOST_STAGES - 1),
    ] = []
    apply_type: Annotated[
        Literal["", "serial", "parallel"],
        doc("One after the other, or several at once; empty: as the group says."),
    ] = ""
    max_parallel: Annotated[
        int, doc("How many at once, when parallel; 0: as the group says.", ge=0, le=MOST_AT_ONCE)
    ] = 0
    failure_budget: Annotated[
        str,
        doc(
            "How many of all may fail before it halts, as 3 or 5%; empty: of each group, as the group says.",
            pattern=r"^([0-9]{1,5}|([0-9]{1,2}|100)%)?$",
        ),
    ] = ""
    deadline_seconds: Annotated[
        int, doc("How long one subcloud may take, and be waited for.", unit="seconds", ge=1, le=604800)
    ] = 1800
    retries: Annotated[int, doc("How often one that missed its deadline is tried again.", ge=0, le=10)] = 0
    paused: Annotated[bool, doc("Start no further step while true; those that run go on.")] = False
    aborted: Annotated[bool, doc("Start no further step; over when those that run are.")] = False
    retry: Annotated[
        int, doc("Raise it by one to have the steps that failed until now tried again.", ge=0, le=1_000_000)
    ] = 0


class SubcloudStepCounts(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Steps by state."""

    total: Annotated[int, doc("All steps.")] = 0
    waiting: Annotated[int, doc("Not begun.")] = 0
    offline: Annotated[int, doc("Their turn has come and their link is down: waited for.")] = 0
    running: Annotated[int, doc("Begun, and not seen to have come about.")] = 0
    done: Annotated[int, doc("Come about.")] = 0
    failed: Annotated[int, doc("Given up.")] = 0
    skipped: Annotated[int, doc("Right already, or no subcloud any more.")] = 0
    aborted: Annotated[int, doc("Not begun when it was aborted.")] = 0

    @property
    def ended(self) -> int:
        """Steps that are over."""
        return self.done + self.failed + self.skipped + self.aborted

    @property
    def open(self) -> int:
        """Steps that are not over."""
        return self.waiting + self.offline + self.running


class SubcloudStage(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Steps that share a window, one stage after the other."""

    group: Annotated[str, doc("The group it is of; empty: of none, or all that no other stage has.")] = ""
    total: Annotated[int, doc("Its steps.")] = 0


class SubcloudError(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Steps that failed for one reason."""

    reason: Annotated[str, doc("One CamelCase word for the cause.", max_length=64)] = ""
    count: Annotated[int, doc("How many.")] = 0
    subcloud: Annotated[str, doc("The first of them.")] = ""
    message: Annotated[str, doc("What was seen there, and what to do.", max_length=LONGEST_MESSAGE)] = ""


class SubcloudOperationStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """How far it is."""

    observed_generation: Annotated[int, doc("Generation of spec this speaks of.")] = 0
    phase: Annotated[
        SubcloudOperationPhase,
        doc("Where it stands. Halted: its budget of failures is spent; nothing further is started."),
    ] = "planned"
    message: Annotated[str, doc("Why it stands there, and what to do.", max_length=LONGEST_MESSAGE)] = ""
    steps: Annotated[SubcloudStepCounts, doc("All its steps by state.")] = SubcloudStepCounts()
    stages: Annotated[list[SubcloudStage], doc("Its stages in order.", max_length=MOST_STAGES)] = []
    stage: Annotated[int, doc("The stage at work, counted from 0.")] = 0
    stage_steps: Annotated[SubcloudStepCounts, doc("The steps of that stage by state.")] = (
        SubcloudStepCounts()
    )
    window: Annotated[int, doc("How many may run at once now.")] = 0
    budget: Annotated[int, doc("How many may fail before it halts.")] = 0
    rate: Annotated[float, doc("Steps that end in a minute, since it last began to run.")] = 0.0
    expected_end: Annotated[str, doc("When it will be over at this rate.", format="date-time")] = ""
    started_at: Annotated[str, doc("When its first step could start.", format="date-time")] = ""
    finished_at: Annotated[str, doc("When it was over.", format="date-time")] = ""
    running_since: Annotated[str, doc("When it last began to run.", format="date-time")] = ""
    running_from: Annotated[int, doc("How many steps were over then.")] = 0
    retried: Annotated[int, doc("The last spec.retry that was carried out.")] = 0
    errors: Annotated[
        list[SubcloudError], doc("Why steps failed, each cause once.", max_length=MOST_ERRORS)
    ] = []
    conditions: Annotated[
        list[Condition],
        doc("Aspects of its state.", list_type="map", list_keys=("type",), max_length=16),
    ] = []


class SubcloudOperation(Resource, frozen=True, kw_only=True):
    """One thing done at many subclouds."""

    spec: Annotated[SubcloudOperationSpec, doc("What is to be done, where, and how.")]
    status: Annotated[SubcloudOperationStatus, doc("How far it is.")] = SubcloudOperationStatus()


def _invariants(operation: SubcloudOperation) -> list[Problem]:
    spec = operation.spec
    problems = []
    if spec.action == "label" and not spec.labels:
        problems.append(Problem("spec.labels", "there is nothing to set", "name one, as rollout: a"))
    if spec.action != "label" and spec.labels:
        problems.append(Problem("spec.labels", f"{spec.action} sets none", "leave them out"))
    for key, value in spec.labels.items():
        if not LABEL_KEY.match(key):
            problems.append(Problem("spec.labels", f"{key[:100]!r} is not a label key", "as [PREFIX/]NAME"))
        elif not LABEL_VALUE.match(value):
            step = "letters, digits, '-_.', 63 at most"
            problems.append(Problem(f"spec.labels.{key}", f"{value[:100]!r} is not a label value", step))
    return problems


def _transition(old: dict[str, Any], new: dict[str, Any]) -> list[Problem]:
    before, after = (msgspec.convert(raw["spec"], SubcloudOperationSpec) for raw in (old, new))
    problems = [
        Problem(f"spec.{field}", "it was decided when the operation began", "start another operation")
        for field in _FIXED
        if getattr(before, field) != getattr(after, field)
    ]
    if before.aborted and not after.aborted:
        problems.append(Problem("spec.aborted", "it is aborted for good", "start another operation"))
    if after.retry < before.retry:
        problems.append(Problem("spec.retry", "it only counts up", f"write {before.retry + 1}"))
    return problems


SUBCLOUD_OPERATION = KindInfo(
    kind="SubcloudOperation",
    operating=("paused", "aborted", "retry"),
    plural="subcloudoperations",
    singular="subcloudoperation",
    short_names=("sco",),
    categories=("roost",),
    type=SubcloudOperation,
    namespaced=False,
    description="One thing done at many subclouds, within a window and a budget of failures.",
    status_owner=Owner.FLEET,
    name_pattern=DNS_NAME,
    invariants=_invariants,
    transition=_transition,
    selectable=("spec.action", "status.phase"),
    columns=(
        Column("Action", "spec.action", "What is done."),
        Column("Phase", "status.phase", "Where it stands."),
        Column("Steps", "status.steps.total", "Subclouds it is for.", "integer"),
        Column("Done", "status.steps.done", "Where it has come about.", "integer"),
        Column("Skipped", "status.steps.skipped", "Where it was right already.", "integer"),
        Column("Failed", "status.steps.failed", "Where it was given up.", "integer"),
        Column("Running", "status.steps.running", "Where it is under way.", "integer"),
        Column("Offline", "status.steps.offline", "Whose link is waited for.", "integer", 1),
        Column("Rate", "status.rate", "Steps that end in a minute.", "number", 1),
        Column("Message", "status.message", "Why it stands there."),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
