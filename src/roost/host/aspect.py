"""An aspect of a host's configuration, and how one that may cut the link is carried out.

The agent's loop calls `reconcile` when intent, link or proof change, and again after
`AspectOutcome.again_seconds`. While `link_proof_wanted` is true it dials its link anew and calls with
the proof; see trial.py for why an established connection proves nothing.

`TrialRunner` is the imperative half of trial.py: it reads the world, asks `decide`, carries out one
step, remembers it, and asks again until nothing is left to do. Memory is one JSON file: written beside,
flushed to disk, renamed, before the world is changed. Errors become the state `failed` with reason and
remedy; the trial, if one is on, is attended to all the same at the next call.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import msgspec

from roost.host import trial
from roost.host.trial import Current, Decision, LinkProof, Memory, Step, TrialFacts, Version, Wanted
from roost.link.files import write_private
from roost.model.configuration import AspectState, AspectStatus, HostConfigurationSpec

AUDIT_SECONDS = 60.0
"""How long a change by another's hand may go unseen."""
RETRY_SECONDS = 30.0
RETRY_DURING_TRIAL_SECONDS = 2.0
_MAX_STEPS = 8
_MAX_PLAN = 200
_MAX_MESSAGE = 4000
_SAME_MOMENT = 5.0


class AspectFacts(TrialFacts, frozen=True, kw_only=True):
    """What an aspect needs to know of the agent: time, link, and proof of the link."""

    now: datetime

    @classmethod
    def gather(
        cls, *, link_up: bool, link_proof: LinkProof | None, now: datetime | None = None
    ) -> AspectFacts:
        """Facts with this machine's clocks; `now` tells another time of day."""
        return cls(
            now=now or datetime.now(UTC),
            boottime=boottime(),
            boot_id=boot_id(),
            link_up=link_up,
            link_proof=link_proof,
        )


class AspectOutcome(msgspec.Struct, frozen=True):
    """Where the aspect stands, when to call again at the latest, and whether to dial the link anew."""

    status: AspectStatus
    again_seconds: float | None = None
    link_proof_wanted: bool = False


class Aspect(Protocol):
    """One part of the machine that intent speaks of."""

    name: str

    async def reconcile(
        self, spec: HostConfigurationSpec, generation: int, facts: AspectFacts
    ) -> AspectOutcome:
        """Bring this aspect nearer to `spec`. Never raises for what the machine or intent got wrong."""
        ...

    async def hold(self, facts: AspectFacts) -> AspectOutcome:
        """Keep what was in force, for an agent that has no intent at hand yet."""
        ...


class AspectError(Exception):
    """Why an aspect could not be brought about, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


class Target(Protocol):
    """What a TrialRunner acts upon. Raises AspectError."""

    async def read(self) -> Current: ...

    async def check(self, version: Version) -> None:
        """Refuse what cannot be put into force; change nothing."""
        ...

    async def install(self, version: Version) -> None:
        """Put this version into force as one transaction."""
        ...

    def lines(self, current: Current, version: Version) -> Sequence[str]:
        """What putting it into force would change, for people."""
        ...


class Recollection(msgspec.Struct, frozen=True):
    """What is on disk: the trial's memory, and the status as last told, for its times and its plan."""

    memory: Memory
    told: AspectStatus
    format: int = 1


class MemoryFile:
    """The durable home of one aspect's recollection."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Recollection | None:
        """What was saved; None when nothing was. What cannot be read is put aside, not overwritten."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(data, type=Recollection)
        except msgspec.MsgspecError:
            self._path.replace(self._path.with_suffix(".unreadable"))
            return None

    def save(self, recollection: Recollection) -> None:
        """On disk when this returns: a power cut leaves the old content or the new."""
        write_private(self._path, msgspec.json.encode(recollection))


class TrialRunner:
    """Carries out the steps of trial.py on one target. Calls are taken one at a time."""

    def __init__(
        self,
        name: str,
        target: Target,
        file: MemoryFile,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._name, self._target, self._file = name, target, file
        self._clock = clock or boottime
        self._known: Recollection | None = None
        self._lock = asyncio.Lock()

    async def reconcile(self, wanted: Wanted, facts: AspectFacts) -> AspectOutcome:
        """Carry out every step that is due towards `wanted`."""
        async with self._lock:
            return await self._settle(wanted, facts, None)

    async def hold(
        self, facts: AspectFacts, generation: int | None, problem: AspectError | None
    ) -> AspectOutcome:
        """Keep what is there: nothing is known of the intent, or it has this problem."""
        async with self._lock:
            try:
                known = await self._recall()
            except AspectError as error:
                return self._failed(error, generation or 0, facts)
            outcome = await self._settle(trial.held(known.memory), facts, generation)
            if problem is None or outcome.status.state in ("trial", "failed"):
                return outcome
            return self._failed(problem, generation or 0, facts)

    async def _settle(self, wanted: Wanted, facts: AspectFacts, generation: int | None) -> AspectOutcome:
        speaks_of = wanted.version.generation if generation is None else generation
        plan: list[str] | None = None
        try:
            for _ in range(_MAX_STEPS):
                facts = msgspec.structs.replace(facts, boottime=max(facts.boottime, self._clock()))
                known = await self._recall()
                current = await self._target.read()
                decision = trial.decide(known.memory, wanted, current, facts)
                plan = self._plan(decision, known.memory, wanted, current) or plan
                if decision.step is Step.REST:
                    return await self._tell(decision, speaks_of, plan, facts)
                await self._carry_out(decision, known.memory, wanted, current, facts)
            raise AspectError("it does not settle", "find out which other program changes it")
        except AspectError as error:
            return self._failed(error, speaks_of, facts, plan)
        except OSError as error:
            problem = AspectError(f"its memory could not be kept: {error}", "make room on the agent's disk")
            return self._failed(problem, speaks_of, facts, plan)

    def _plan(self, decision: Decision, memory: Memory, wanted: Wanted, current: Current) -> list[str] | None:
        """Lines for a step that changes the world, or that waits to; None keeps those told before."""
        waits = decision.step is Step.REST and decision.state == "pending"
        if waits or decision.step in (Step.TRY, Step.REMOVE):
            lines = self._target.lines(current, wanted.version)
        elif decision.step is Step.ROLL_BACK:
            lines = ["take back the trial", *self._target.lines(current, memory.baseline)]
        elif decision.step is Step.RESTORE:
            # Not what we left there, whatever it says of itself.
            lines = self._target.lines(msgspec.structs.replace(current, digest=""), memory.baseline)
        else:
            return None
        return list(lines[:_MAX_PLAN])

    async def _carry_out(
        self, decision: Decision, memory: Memory, wanted: Wanted, current: Current, facts: AspectFacts
    ) -> None:
        if decision.step is Step.TRY:
            await self._try(memory, wanted, facts)
        elif decision.step is Step.RESUME:
            await self._remember(trial.resumed(memory, current, facts))
        elif decision.step is Step.ABANDON:
            await self._remember(trial.abandoned(memory))
        elif decision.step is Step.CONFIRM:
            await self._remember(trial.confirmed(memory))
        elif decision.step is Step.ADOPT:
            await self._remember(trial.adopted(memory, wanted))
        elif decision.step is Step.ROLL_BACK:
            after = await self._install(memory.baseline)
            now = msgspec.structs.replace(facts, boottime=max(facts.boottime, self._clock()))
            await self._remember(trial.rolled_back(memory, after, decision.reason, now))
        elif decision.step is Step.RESTORE:
            await self._note(trial.restored(memory, await self._install(memory.baseline)))
        elif decision.step is Step.REMOVE:
            await self._install(wanted.version)
            await self._remember(trial.removed(memory, wanted))

    async def _try(self, memory: Memory, wanted: Wanted, facts: AspectFacts) -> None:
        await self._target.check(wanted.version)
        memory = trial.begun(memory, wanted, facts)
        await self._remember(memory)
        await self._target.install(wanted.version)
        after = await self._target.read()
        now = msgspec.structs.replace(facts, boottime=max(facts.boottime, self._clock()))
        await self._remember(trial.put_into_force(memory, after, now))

    async def _install(self, version: Version) -> Current:
        await self._target.install(version)
        after = await self._target.read()
        # The fingerprint is new with each installation; only what the version says of itself can be asked.
        if not trial.matches(msgspec.structs.replace(version, fingerprint=""), after):
            raise AspectError("it was changed right after it was put into force", "find the other program")
        return after

    async def _recall(self) -> Recollection:
        if self._known is None:
            try:
                self._known = await asyncio.to_thread(self._file.load)
            except OSError as error:
                raise AspectError(f"its memory cannot be read: {error}", "mend the agent's disk") from error
        if self._known is None:
            first = trial.remembered_first(await self._target.read())
            self._known = Recollection(first, AspectStatus(aspect=self._name, state="pending"))
        return self._known

    async def _remember(self, memory: Memory) -> None:
        known = await self._recall()
        recollection = msgspec.structs.replace(known, memory=memory)
        await asyncio.to_thread(self._file.save, recollection)
        self._known = recollection

    async def _note(self, memory: Memory) -> None:
        """Remember what is in force again. Where that can't be kept, the next process finds it out anew."""
        self._known = msgspec.structs.replace(await self._recall(), memory=memory)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._file.save, self._known)

    async def _tell(
        self, decision: Decision, generation: int, plan: list[str] | None, facts: AspectFacts
    ) -> AspectOutcome:
        status = self._status(decision.state, generation, decision.reason, plan, facts)
        status = msgspec.structs.replace(
            status, tries=decision.tries, next_try_at=self._next_try(decision, facts)
        )
        known = await self._recall()
        if status != known.told:
            self._known = msgspec.structs.replace(known, told=status)
            # The world is as told; only the words for after a restart would be lost.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._file.save, self._known)
        again = AUDIT_SECONDS if decision.again_seconds is None else decision.again_seconds
        return AspectOutcome(status, again, decision.link_proof_wanted)

    def _next_try(self, decision: Decision, facts: AspectFacts) -> str:
        """When what was taken back is tried again; the same words for the same moment."""
        if decision.retry_seconds is None:
            return ""
        told = self._known.told.next_try_at if self._known else ""
        due = facts.now + timedelta(seconds=decision.retry_seconds)
        if told:
            before = datetime.fromisoformat(told)
            if abs((before - due).total_seconds()) < _SAME_MOMENT or (
                not decision.retry_seconds and before <= due
            ):
                return told
        return due.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _failed(
        self, error: AspectError, generation: int, facts: AspectFacts, plan: list[str] | None = None
    ) -> AspectOutcome:
        on_trial = self._known is not None and self._known.memory.trial is not None
        again = RETRY_DURING_TRIAL_SECONDS if on_trial else RETRY_SECONDS
        holds = trial.in_force(self._known.memory) if self._known and not on_trial else ""
        message = f"{error.reason}. Next: {error.remedy}. {holds} Tried again in {again:g} seconds."
        status = self._status("failed", generation, message, plan, facts)
        if self._known is not None:
            self._known = msgspec.structs.replace(self._known, told=status)
        return AspectOutcome(status, again, link_proof_wanted=on_trial)

    def _status(
        self, state: AspectState, generation: int, message: str, plan: list[str] | None, facts: AspectFacts
    ) -> AspectStatus:
        told = self._known.told if self._known else AspectStatus(aspect=self._name, state="pending")
        now = facts.now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        unchanged = (told.state, told.generation) == (state, generation) and told.changed_at
        return AspectStatus(
            aspect=self._name,
            state=state,
            generation=generation,
            message=message[:_MAX_MESSAGE],
            plan=told.plan if plan is None else plan,
            changed_at=told.changed_at if unchanged else now,
        )


def boottime() -> float:
    """Seconds since this machine started, counting suspend; no one can set it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@cache
def boot_id() -> str:
    """Identity of this start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def version_of(generation: int, digest: str, content: Any) -> Version:
    """A version as intent asks for it; the absence of the aspect has neither digest nor content."""
    return Version(generation, digest if content is not None else "", content)
