"""Operation: long work, as steps in the store. Created by people (reboot) or by controllers (lock, unlock).

Its status is a summary that the step engine writes in the transaction that moves a step.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from roost.model.kind import Column, Flow, KindInfo
from roost.model.meta import DNS_NAME, Part, Resource, doc
from roost.model.power import BootDevice

LONGEST_MESSAGE = 2048

OperationAction = Literal["lock", "force-lock", "unlock", "reboot", "swact", "power-on", "power-off", "reset"]
StepState = Literal["pending", "running", "succeeded", "failed", "skipped", "aborted"]
OperationState = Literal["pending", "running", "paused", "succeeded", "failed", "aborted"]


class PlannedStep(NamedTuple):
    """A step that an operation will have: its name, its timeout in seconds, what it waits for or does."""

    name: str
    seconds: float
    about: str


_CHECK = PlannedStep("check", 300.0, "wait until the host answers and has told what it has")
_BOOT = PlannedStep("boot", 120.0, "have it start from another device once, if wanted")
_COMMAND = PlannedStep("command", 120.0, "tell its board controller, once")
_LOCK = (
    PlannedStep("disable", 7260.0, "wait until the workloads have left, at most spec.drainSeconds"),
    PlannedStep("lock", 60.0, "take it out of service"),
)
PLANNED: dict[str, tuple[PlannedStep, ...]] = {
    "unlock": (
        _CHECK,
        PlannedStep("configure", 180.0, "wait until its configuration is in force"),
        PlannedStep("test", 1080.0, "run its health checks and wait until all have passed"),
        PlannedStep("enable", 60.0, "put it into service"),
    ),
    "lock": _LOCK,
    "force-lock": (PlannedStep("disable", 60.0, "ask nothing: what runs there is lost"), _LOCK[1]),
    "reboot": (
        _CHECK,
        PlannedStep("command", 60.0, "tell the host to restart"),
        PlannedStep("restart", 900.0, "wait until it went down and answers again"),
    ),
    "power-on": (_BOOT, _COMMAND, PlannedStep("power", 600.0, "wait until it has power")),
    "power-off": (_COMMAND, PlannedStep("power", 600.0, "wait until it has no power")),
    "reset": (_BOOT, _COMMAND, PlannedStep("power", 600.0, "wait until it has power")),
}
"""The steps of each action, in order: what carries them out goes by this, and so does a dry run."""


class OperationSpec(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What is to be done."""

    action: Annotated[OperationAction, doc("What to do.")]
    host: Annotated[str, doc("The host it is done to.", min_length=1, max_length=63)]
    host_uid: Annotated[
        str, doc("The uid of the host it is meant for; empty: whichever bears the name.", max_length=64)
    ] = ""
    boot: Annotated[
        BootDevice, doc("For power-on and reset: start from this once; none: from what it is set to.")
    ] = "none"
    paused: Annotated[bool, doc("Start no further step while true.")] = False
    aborted: Annotated[bool, doc("End after the step that runs.")] = False

    def meant_for(self, uid: str) -> bool:
        """Whether it is for this host, and not for one of the same name that was deleted before."""
        return self.host_uid in ("", uid)


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
