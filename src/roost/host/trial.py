"""Change that may cut its own author off: tried, proven or taken back. Pure; aspect.py carries it out.

A host that applies a rule which blocks its own link can no longer be told to undo it. So a new
version of an aspect is first on trial: the former version is on disk before anything is touched, and
the new one stays only when the agent's link is proven to work under it before a deadline.

    pending --link up--> trial --link proven--> applied
                           |--deadline, restart of the machine, or changed by another--> rolled-back

Level triggered: `decide` looks at what was remembered, what is wanted and what the world holds, and
names one step. The caller carries it out, records it with the functions below, and asks again until
the step is REST. Any process may die between any two of these: the next one decides from the same facts.

Invariants:
- A trial is remembered durably before the world is changed, and counts from then on.
- Proof is a round trip on a connection that was dialled after the new version was in force: an
  established flow passes a stateful firewall whatever the new rules say, so it proves nothing.
- Deadlines are CLOCK_BOOTTIME with the identity of the boot: jumps of the wall clock neither extend nor
  cut a trial, a restart of the process neither, a restart of the machine ends it.
- A version that was taken back is tried again, for the link may have died by chance: after a growing pause
  (RETRY_PAUSES), once a new connection got through under what is in force, and so often only. It is known by
  its content, whatever its generation. It is forgotten when something else is wanted and in force.
- Without a link no trial begins (nothing could prove it); what was proven before is put back at once
  and without trial when the world lost it, by a restart of the machine or another's hand.
- Absence cannot cut anybody off: it is brought about at once.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from roost.model.configuration import AspectState

MAX_REFUSALS = 32
RETRY_PAUSES = (60.0, 600.0, 3600.0)
"""Seconds before each further try of a version that was taken back; after the last it takes other intent."""


class LinkProof(msgspec.Struct, frozen=True):
    """The newest connection of the agent's own link that completed a round trip, in CLOCK_BOOTTIME."""

    dialled_at: float
    completed_at: float


class TrialFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision needs to know of time and link."""

    boottime: float
    boot_id: str
    link_up: bool
    link_proof: LinkProof | None = None


class Version(msgspec.Struct, frozen=True):
    """One state of the aspect that can be put into force; content None is its absence.

    `fingerprint` is what the world showed when it was last put into force; empty when not yet seen.
    """

    generation: int = 0
    digest: str = ""
    content: Any = None
    fingerprint: str = ""


class Wanted(msgspec.Struct, frozen=True):
    """The version that intent asks for, and how long its trial may last."""

    version: Version
    confirm_seconds: float


class Current(msgspec.Struct, frozen=True):
    """What the world holds now. An empty digest of something present: nobody knows what it is.

    `content` would bring it about again; `detail` is the aspect's own.
    """

    present: bool
    digest: str = ""
    fingerprint: str = ""
    content: Any = None
    detail: Any = None


class Trial(msgspec.Struct, frozen=True):
    """A version on trial. `applied_at` is None until it is known to be in force."""

    version: Version
    confirm_seconds: float
    boot_id: str
    deadline: float
    applied_at: float | None = None


class Refusal(msgspec.Struct, frozen=True):
    """A version that was taken back, and why."""

    generation: int
    digest: str
    reason: str
    tries: int = len(RETRY_PAUSES) + 1
    """How often it was tried. Memory of a version of this program that did not count is not tried again."""
    boot_id: str = ""
    at: float = 0.0
    """When it was last taken back, in CLOCK_BOOTTIME of that start of the machine."""


class Memory(msgspec.Struct, frozen=True):
    """What must outlive the process: the version that is proven, the trial, what was taken back."""

    baseline: Version = Version()
    trial: Trial | None = None
    refused: tuple[Refusal, ...] = ()


class Step(Enum):
    REST = "rest"
    TRY = "try"
    RESUME = "resume"
    ABANDON = "abandon"
    CONFIRM = "confirm"
    ROLL_BACK = "roll back"
    RESTORE = "restore"
    ADOPT = "adopt"
    REMOVE = "remove"


class Decision(msgspec.Struct, frozen=True):
    """The next step; for REST also what to tell and when to ask again. `reason` is why, for people."""

    step: Step
    state: AspectState = "pending"
    reason: str = ""
    again_seconds: float | None = None
    link_proof_wanted: bool = False
    tries: int = 0
    retry_seconds: float | None = None
    """For what was taken back: how often it was tried, and in how long it may be again; None: never."""


def matches(version: Version, current: Current) -> bool:
    """Whether the world holds this version, unchanged."""
    if version.content is None:
        return not current.present
    if not current.present or version.digest != current.digest:
        return False
    return not version.fingerprint or version.fingerprint == current.fingerprint


def decide(memory: Memory, wanted: Wanted, current: Current, facts: TrialFacts) -> Decision:
    """The next step towards `wanted`."""
    version, baseline = wanted.version, memory.baseline
    if version.content is None:
        if memory.trial is not None or current.present or baseline.content is not None:
            return Decision(Step.REMOVE, reason="it is not wanted any more")
        if baseline.generation != version.generation:
            return Decision(Step.ADOPT, reason="it is absent already")
        return Decision(Step.REST, "applied", "Not wanted, and not there.")
    if memory.trial is not None:
        return _decide_trial(memory, memory.trial, current, facts)
    if not matches(baseline, current):
        return Decision(Step.RESTORE, reason="what was in force is missing or was changed by another")
    if version.digest == baseline.digest:
        if version.generation != baseline.generation:
            return Decision(Step.ADOPT, reason="the same is in force already")
        return Decision(Step.REST, "applied", "In force.")
    refusal = _refusal(memory, version)
    if refusal is not None:
        return _decide_retry(refusal, baseline, facts)
    if not facts.link_up:
        return Decision(
            Step.REST,
            "pending",
            "Waits for the link of this host: a change is tried only while the link is up, because "
            f"nothing else can prove it. {_in_force(baseline)} Restore the link; the change follows then.",
        )
    return Decision(Step.TRY, reason="it is new")


def _decide_retry(refusal: Refusal, baseline: Version, facts: TrialFacts) -> Decision:
    """Whether what was taken back is tried again now."""
    if refusal.tries > len(RETRY_PAUSES):
        return Decision(Step.REST, "rolled-back", _given_up(refusal, baseline), tries=refusal.tries)
    # A clock that starts with the machine: after a restart the whole pause is waited for anew.
    began = refusal.at if refusal.boot_id == facts.boot_id else 0.0
    due = began + RETRY_PAUSES[refusal.tries - 1]
    if facts.boottime < due:
        left = due - facts.boottime
        return Decision(
            Step.REST,
            "rolled-back",
            _taken_back(refusal, baseline),
            again_seconds=left,
            tries=refusal.tries,
            retry_seconds=left,
        )
    proof = facts.link_proof
    if facts.link_up and proof is not None and proof.dialled_at >= due:
        return Decision(
            Step.TRY, reason="the link works under what is in force, and it may have died by chance"
        )
    reason = (
        f"{_taken_back(refusal, baseline)} It waits for a new connection of the link, which must work now."
    )
    wanted = facts.link_up
    return Decision(
        Step.REST,
        "rolled-back",
        reason,
        link_proof_wanted=wanted,
        tries=refusal.tries,
        retry_seconds=0.0,
    )


def _decide_trial(memory: Memory, trial: Trial, current: Current, facts: TrialFacts) -> Decision:
    if trial.boot_id != facts.boot_id:
        return Decision(Step.ROLL_BACK, reason="the machine restarted during the trial")
    here = matches(trial.version, current)
    if trial.applied_at is None and not here:
        # The process died between remembering the trial and changing the world: nothing was tried.
        return Decision(Step.ABANDON, reason="it was never put into force")
    proof = facts.link_proof
    proven = (
        proof is not None
        and trial.applied_at is not None
        and proof.dialled_at > trial.applied_at
        and proof.completed_at <= trial.deadline
    )
    if here and proven:
        return Decision(Step.CONFIRM, reason="the link was proven under it")
    if facts.boottime >= trial.deadline:
        reason = f"no new connection of the agent's link got through within {trial.confirm_seconds:g} seconds"
        return Decision(Step.ROLL_BACK, reason=reason)
    if not here:
        return Decision(Step.ROLL_BACK, reason="another program changed it during the trial")
    if trial.applied_at is None:
        return Decision(Step.RESUME, reason="the process restarted during the trial")
    return Decision(
        Step.REST,
        "trial",
        f"Generation {trial.version.generation} is in force on trial: it stays when a new connection of the "
        f"agent's link gets through within {trial.confirm_seconds:g} seconds, and is taken back otherwise.",
        again_seconds=max(0.0, trial.deadline - facts.boottime),
        link_proof_wanted=True,
    )


def remembered_first(current: Current) -> Memory:
    """Memory of a host that has none: whatever the world holds is what to go back to."""
    if not current.present:
        return Memory()
    return Memory(Version(0, current.digest, current.content, current.fingerprint))


def begun(memory: Memory, wanted: Wanted, facts: TrialFacts) -> Memory:
    """Before TRY changes the world."""
    deadline = facts.boottime + wanted.confirm_seconds
    trial = Trial(wanted.version, wanted.confirm_seconds, facts.boot_id, deadline)
    return msgspec.structs.replace(memory, trial=trial)


def put_into_force(memory: Memory, current: Current, facts: TrialFacts) -> Memory:
    """After TRY changed the world: the trial's time counts from here."""
    trial = _on_trial(memory)
    seen = msgspec.structs.replace(trial.version, fingerprint=current.fingerprint)
    deadline = facts.boottime + trial.confirm_seconds
    started = msgspec.structs.replace(trial, version=seen, applied_at=facts.boottime, deadline=deadline)
    return msgspec.structs.replace(memory, trial=started)


def resumed(memory: Memory, current: Current, facts: TrialFacts) -> Memory:
    """After a restart found the trial in force: proof counts from here, the deadline stays."""
    trial = _on_trial(memory)
    seen = msgspec.structs.replace(trial.version, fingerprint=current.fingerprint)
    again = msgspec.structs.replace(trial, version=seen, applied_at=facts.boottime)
    return msgspec.structs.replace(memory, trial=again)


def abandoned(memory: Memory) -> Memory:
    """The trial never came into force."""
    return msgspec.structs.replace(memory, trial=None)


def confirmed(memory: Memory) -> Memory:
    """The version on trial is the one to go back to from now on."""
    return msgspec.structs.replace(memory, baseline=_on_trial(memory).version, trial=None, refused=())


def rolled_back(memory: Memory, current: Current, reason: str, facts: TrialFacts) -> Memory:
    """After the former version is in force again."""
    version = _on_trial(memory).version
    before = _refusal(memory, version)
    tries = before.tries + 1 if before is not None else 1
    refusal = Refusal(version.generation, version.digest, reason, tries, facts.boot_id, facts.boottime)
    others = tuple(r for r in memory.refused if r.digest != version.digest)
    return msgspec.structs.replace(
        restored(memory, current), trial=None, refused=(*others, refusal)[-MAX_REFUSALS:]
    )


def restored(memory: Memory, current: Current) -> Memory:
    """After the proven version was put into force anew."""
    seen = msgspec.structs.replace(memory.baseline, fingerprint=current.fingerprint)
    return msgspec.structs.replace(memory, baseline=seen)


def adopted(memory: Memory, wanted: Wanted) -> Memory:
    """The wanted version is the proven one under another generation."""
    same = msgspec.structs.replace(memory.baseline, generation=wanted.version.generation)
    return msgspec.structs.replace(memory, baseline=same, refused=())


def removed(memory: Memory, wanted: Wanted) -> Memory:
    """After the aspect was removed from the world."""
    return msgspec.structs.replace(memory, baseline=wanted.version, trial=None, refused=())


def held(memory: Memory) -> Wanted:
    """What to want when intent is not known or cannot be understood: what is there already."""
    if memory.trial is not None:
        return Wanted(memory.trial.version, memory.trial.confirm_seconds)
    return Wanted(memory.baseline, 0)


def in_force(memory: Memory) -> str:
    """For people: what holds while something else is wanted."""
    return _in_force(memory.baseline)


def _on_trial(memory: Memory) -> Trial:
    assert memory.trial is not None, "a step of a trial needs one"  # noqa: S101
    return memory.trial


def _refusal(memory: Memory, version: Version) -> Refusal | None:
    return next((r for r in memory.refused if r.digest == version.digest), None)


def _in_force(baseline: Version) -> str:
    if baseline.content is None:
        return "In force: nothing."
    return f"In force: generation {baseline.generation}." if baseline.generation else "In force: as found."


def _taken_back(refusal: Refusal, baseline: Version) -> str:
    return (
        f"Generation {refusal.generation} was taken back: {refusal.reason}. {_in_force(baseline)} It is "
        f"tried again by itself, as try {refusal.tries + 1} of {len(RETRY_PAUSES) + 1}, for the link may "
        "have died by chance; check that it lets the host reach its cloud."
    )


def _given_up(refusal: Refusal, baseline: Version) -> str:
    return (
        f"Generation {refusal.generation} was taken back: {refusal.reason}. {_in_force(baseline)} After "
        f"{refusal.tries} tries it is not tried again: check that it lets the host reach its cloud, then "
        "change the intent."
    )
