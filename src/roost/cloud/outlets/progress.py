"""What an outlet's status says: counted here, reported when it is due.

Each report is a revision of the store, so counters alone are reported every COUNTERS seconds at most, and
while attempts fail every FAILING; a change of state is reported at once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from roost.cloud.outlets.memory import Memory
from roost.cloud.outlets.pausing import Failed
from roost.cloud.outlets.sink import Settings
from roost.model import time
from roost.model.fault import LogSeverity
from roost.model.meta import Condition, set_condition
from roost.model.outlet import AlarmOutletStatus, Missed, OutletState

COUNTERS = 30.0
FAILING = 15.0
TOLD_AFTER = 60.0
"""Seconds of failing after which the log tells of it."""

Told = tuple[str, str, LogSeverity]
"""Event, text and severity of an entry of the log that is due."""


class Progress:
    """What an outlet has done since its worker began, on top of what its status said then."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._name, self._generation, self._clock = settings.name, settings.generation, clock
        self._endpoint = settings.spec.type
        self._counted = dict.fromkeys(("delivered", "retries", "refused", "merged", "shed", "snapshots"), 0)
        self._state: OutletState = "unknown"
        self._failure: Failed | None = None
        self._failing_since: datetime | None = None
        self._told_failing = False
        self._facts: dict[str, str] = {}
        self._missed: Missed | None = None
        self._urgent = True
        self._changed = False
        self._reported_at = float("-inf")
        self._reported: AlarmOutletStatus | None = None
        self._told: list[Told] = []
        self._unwanted_at: datetime | None = None

    def resume(self, before: AlarmOutletStatus) -> None:
        """Go on where the last worker was: what delivered then is not unknown now."""
        if before.state == "delivering":
            self._state = before.state

    # -- what happens

    def count(self, what: str, number: int = 1) -> None:
        """Count something that happened."""
        self._counted[what] += number
        self._changed = True

    def sent(self, number: int) -> None:
        """Messages were acknowledged."""
        self.count("delivered", number)
        self._facts["last_delivery_at"] = time.stamp(self._clock())
        self._facts["next_attempt_at"] = ""
        if self._told_failing:
            self._told.append(("outlet-recovered", f"outlet {self._name} delivers again.", "info"))
        self._failure, self._failing_since, self._told_failing = None, None, False
        self._enter("delivering")

    def failed(self, failure: Failed, seconds: float) -> None:
        """An attempt failed; the next is in so many seconds."""
        now = self._clock()
        self.count("retries")
        self._failure = failure
        self._facts |= {
            "last_error": str(failure)[:1024],
            "last_error_at": time.stamp(now),
            "next_attempt_at": time.stamp(now + timedelta(seconds=seconds)),
        }
        self._failing_since = self._failing_since or now
        if not self._told_failing and (now - self._failing_since).total_seconds() >= TOLD_AFTER:
            self._told_failing = True
            text = f"outlet {self._name} can't deliver: {failure}"
            self._told.append(("outlet-failing", text, "major"))
            self._urgent = True
        self._enter("halted" if failure.halted else "retrying")

    def unwanted(self, reason: str, id: str) -> None:
        """A message was refused and passed over; the log tells of one a minute at most."""
        self.count("refused")
        now = self._clock()
        text = f"{reason} to message {id}; it was passed over"
        self._facts |= {"last_error": text[:1024], "last_error_at": time.stamp(now)}
        if self._unwanted_at is None or (now - self._unwanted_at).total_seconds() >= TOLD_AFTER:
            self._unwanted_at = now
            self._told.append(("outlet-refused", f"outlet {self._name}: {text}", "minor"))
            self._urgent = True

    def missed(self, missed: Missed) -> None:
        """History was dropped before it was sent."""
        self._missed = missed
        self.count("shed", missed.number)
        self._told.append(
            (
                "outlet-missed",
                f"outlet {self._name} never told {missed.number} alarms set or cleared between "
                f"{missed.since or 'its position'} and {missed.until or 'now'}; what stands is sent anew",
                "major",
            )
        )
        self._urgent = True

    def resyncing(self) -> None:
        """A snapshot has begun."""
        if self._failure is None:
            self._enter("resyncing")

    def settled(self) -> None:
        """Nothing is owed and nothing fails."""
        if self._failure is None:
            self._enter("delivering")

    def _enter(self, state: OutletState) -> None:
        if state != self._state:
            self._state, self._urgent = state, True

    # -- what is reported

    def due(self, now: float) -> bool:
        """Whether there is something to report by now (monotonic seconds)."""
        every = FAILING if self._failure else COUNTERS
        return self._urgent or (self._changed and now >= self._reported_at + every)

    @property
    def untold(self) -> list[Told]:
        """Entries for the log, until they are `reported`: a store that fails now is told later."""
        return list(self._told)

    def status(
        self, before: AlarmOutletStatus, position: int, waiting: int, memory: Memory
    ) -> AlarmOutletStatus:
        """The status, from the one that stands."""
        now = time.stamp(self._clock())
        facts = {name: value for name, value in self._facts.items() if hasattr(before, name)}
        conditions = set_condition(before.conditions, self._delivering(), now)
        conditions = set_condition(conditions, _complete(memory), now)
        counted = {name: getattr(before, name) + number for name, number in self._counted.items()}
        return msgspec.structs.replace(
            before,
            observed_generation=self._generation,
            state=self._state,
            position=position,
            waiting=waiting,
            missed=self._missed or before.missed,
            conditions=conditions,
            **counted,
            **facts,
        )

    def reported(self, now: float) -> None:
        """The status is in the store: what was counted is in it."""
        self._counted = dict.fromkeys(self._counted, 0)
        self._told.clear()
        self._urgent = self._changed = False
        self._reported_at = now

    def _delivering(self) -> Condition:
        if self._failure is not None:
            message = f"{self._failure}. Tried again at {self._facts.get('next_attempt_at', 'once')}."
            return self._condition("Delivering", "False", self._failure.code, message)
        if self._state == "unknown":
            return self._condition("Delivering", "Unknown", "NothingSent", "Nothing was sent yet.")
        return self._condition("Delivering", "True", "Acknowledged", "What is sent is acknowledged.")

    def _condition(self, type: str, status: str, reason: str, message: str) -> Condition:
        return msgspec.convert(
            {
                "type": type,
                "status": status,
                "reason": reason,
                "message": message[:4096],
                "observedGeneration": self._generation,
            },
            Condition,
        )


def _complete(memory: Memory) -> Condition:
    """Whether the receiver's picture is whole."""
    if memory.owes:
        message = f"All present alarms are sent anew: {memory.owes}."
        return Condition(type="Complete", status="False", reason="SnapshotOwed", message=message)
    message = "The receiver was told of everything up to the position."
    return Condition(type="Complete", status="True", reason="Told", message=message)
