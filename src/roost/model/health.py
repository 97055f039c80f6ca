"""Health of a host: what its checks found, what its cloud makes of that, and how it recovers by itself.

A `CheckReport` is written by the host alone. It names the request that it answers and the start of the
machine in which it was made: a verdict is worth something for that pair only, so that an old one is never
taken for a new one. A host that reports nothing at all has an agent that knows no checks; a host whose
report is `idle` knows them and was asked nothing yet.
"""

from __future__ import annotations

from typing import Annotated, Literal

from roost.model.meta import Part, doc

LONGEST_LINE = 512
MOST_CHECKS = 80
"""Checks in one report: those of the platform and at most 64 executables."""

CheckState = Literal["pending", "running", "passed", "failed", "timed-out"]
ReportState = Literal["idle", "running", "passed", "failed"]
RecoveryCause = Literal["configuration", "health", "heartbeat"]
ExaminationState = Literal["none", "asked", "running", "again", "passed", "unwell", "failed"]


class CheckRequest(Part, frozen=True, kw_only=True):
    """The wish of a cloud that a host runs its executables of one directory once."""

    id: Annotated[str, doc("Names the request; another one asks for another run.", max_length=253)]
    deadline_seconds: Annotated[int, doc("Time for each check.", unit="seconds", ge=1, le=600)] = 60
    requested_at: Annotated[str, doc("When the cloud asked.", format="date-time")] = ""


class CheckResult(Part, frozen=True, kw_only=True):
    """One check of a host."""

    name: Annotated[str, doc("Name of the check: the platform's own, or of the executable.", max_length=255)]
    state: Annotated[CheckState, doc("Where it stands.")]
    message: Annotated[
        str, doc("What it found: the last line that it wrote, and the next step.", max_length=LONGEST_LINE)
    ] = ""
    seconds: Annotated[float, doc("How long it took.", unit="seconds")] = 0.0


class CheckReport(Part, frozen=True, kw_only=True):
    """What one run of the checks found."""

    request: Annotated[str, doc("The request that it answers.", max_length=253)] = ""
    boot_id: Annotated[str, doc("The start of the machine in which it ran.")] = ""
    incarnation: Annotated[str, doc("The start of the agent that ran it.")] = ""
    state: Annotated[ReportState, doc("Passed when every check has passed.")] = "idle"
    started_at: Annotated[str, doc("When it began.", format="date-time")] = ""
    finished_at: Annotated[str, doc("When it ended.", format="date-time")] = ""
    checks: Annotated[
        list[CheckResult],
        doc(
            "The checks in the order they run.", list_type="map", list_keys=("name",), max_length=MOST_CHECKS
        ),
    ] = []


class RecoveryPolicy(Part, frozen=True, kw_only=True, omit_defaults=False):
    """How far a host may be recovered by itself."""

    tries: Annotated[int, doc("Tries for each cause before a host stays failed.", ge=0, le=20)] = 3
    restarts: Annotated[
        int,
        doc("After those, how often its machine may be restarted; 0: only people restart it.", ge=0, le=5),
    ] = 0


class RecoveryCount(Part, frozen=True, kw_only=True, omit_defaults=False):
    """How often a host was recovered by itself from one cause."""

    cause: Annotated[RecoveryCause, doc("What it is recovered from.")]
    tries: Annotated[int, doc("Tries so far.", ge=0)] = 0
    limit: Annotated[int, doc("Tries at most.", ge=0)] = 0
    restarts: Annotated[int, doc("Restarts of the machine so far.", ge=0)] = 0
    restarted_from: Annotated[str, doc("The start of the machine that the last restart was to end.")] = ""
    tried_at: Annotated[str, doc("When the last try began.", format="date-time")] = ""
    next_at: Annotated[str, doc("When the next try begins; empty: none is due.", format="date-time")] = ""
    off: Annotated[bool, doc("Whether automatic recovery is over for this cause.")] = False
    message: Annotated[str, doc("What the last try came to, and the next step.", max_length=2048)] = ""


class RecoveryStatus(Part, frozen=True, kw_only=True, omit_defaults=False):
    """The counters of a host's recoveries. They go back to none after a time of health."""

    round: Annotated[int, doc("The round of the policy that they count for.")] = 0
    well_since: Annotated[str, doc("Since when it serves without a break.", format="date-time")] = ""
    counts: Annotated[
        list[RecoveryCount], doc("By cause.", list_type="map", list_keys=("cause",), max_length=8)
    ] = []


class Examination(Part, frozen=True, kw_only=True, omit_defaults=False):
    """What the cloud makes of a host's report."""

    state: Annotated[
        ExaminationState,
        doc(
            "none: nothing was asked. asked: it has not begun. running: in test. again: serves and is "
            "looked at again. passed. unwell: serves, and a check fails. failed: does not serve."
        ),
    ] = "none"
    request: Annotated[str, doc("The request it speaks of.")] = ""
    boot_id: Annotated[str, doc("The start of the machine it speaks of.")] = ""
    since: Annotated[str, doc("When this state began.", format="date-time")] = ""
    deadline: Annotated[str, doc("When it counts as failed; empty: no wait.", format="date-time")] = ""


class DegradedReason(Part, frozen=True, kw_only=True, omit_defaults=False):
    """Why a host is degraded; it is for as long as one reason remains."""

    reason: Annotated[str, doc("One CamelCase word for the cause.", max_length=64)]
    alarm: Annotated[str, doc("Name of the alarm behind it; empty when it has none.")] = ""
    message: Annotated[str, doc("For people.", max_length=1024)] = ""
