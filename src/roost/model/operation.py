"""Operation: long work, as steps in the store. Created by people (reboot) or by controllers (lock, unlock).

Its status is a summary that the step engine writes in the transaction that moves a step.
"""

from __future__ import annotations

from typing import Annotated, Literal

from roost.model.kind import Column, Flow, KindInfo
from roost.model.meta import DNS_NAME, Part, Resource, doc

LONGEST_MESSAGE = 2048

OperationAction = Literal["lock", "force-lock", "unlock", "reboot", "swact"]
StepState = Literal["pending", "running", "succeeded", "failed", "skipped", "aborted"]
OperationState = Literal["pending", "running", "paused", "succeeded", "failed", "aborted"]


class OperationSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is to be done."""

    action: Annotated[OperationAction, doc("What to do.")]
    host: Annotated[str, doc("The host it is done to.", min_length=1, max_length=63)]
    paused: Annotated[bool, doc("Start no further step while true.")] = False
    aborted: Annotated[bool, doc("End after the step that runs.")] = False


class StepStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """One step."""

    name: Annotated[str, doc("What the step does.")]
    state: Annotated[StepState, doc("Where it stands.")] = "pending"
    attempt: Annotated[int, doc("How often it was tried.")] = 0
    started_at: Annotated[str, doc("When it was first tried.", format="date-time")] = ""
    finished_at: Annotated[str, doc("When it ended.", format="date-time")] = ""
    deadline: Annotated[str, doc("When it is given up.", format="date-time")] = ""
    message: Annotated[str, doc("What it waits for, or why it ended.", max_length=LONGEST_MESSAGE)] = ""


class OperationStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """How far it is."""

    state: Annotated[OperationState, doc("Where it stands.")] = "pending"
    message: Annotated[str, doc("What it waits for, or why it ended.", max_length=LONGEST_MESSAGE)] = ""
    steps_done: Annotated[int, doc("Steps that are over.")] = 0
    steps_total: Annotated[int, doc("All steps.")] = 0
    started_at: Annotated[str, doc("When it started.", format="date-time")] = ""
    finished_at: Annotated[str, doc("When it ended.", format="date-time")] = ""
    steps: Annotated[list[StepStatus], doc("The first fifty steps.", max_length=50)] = []


class Operation(Resource, frozen=True, kw_only=True):
    """Long work."""

    spec: Annotated[OperationSpec, doc("What is to be done.")]
    status: Annotated[OperationStatus, doc("How far it is.")] = OperationStatus()


OPERATION = KindInfo(
    kind="Operation",
    operating=("paused", "aborted"),
    plural="operations",
    singular="operation",
    short_names=("op",),
    categories=("roost",),
    type=Operation,
    description="Long work on a host, as steps in the store that survive any crash.",
    flow=Flow.UP,
    name_pattern=DNS_NAME,
    selectable=("spec.host", "spec.action", "status.state"),
    columns=(
        Column("Action", "spec.action", "What is done."),
        Column("Host", "spec.host", "To which host."),
        Column("State", "status.state", "Where it stands."),
        Column("Done", "status.stepsDone", "Steps that are over.", "integer"),
        Column("Steps", "status.stepsTotal", "All steps.", "integer"),
        Column("Message", "status.message", "What it waits for, or why it ended."),
        Column("Age", "metadata.creationTimestamp", "Time since creation.", "date"),
    ),
)
