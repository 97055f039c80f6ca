"""All present alarms, sent page by page: the snapshot that an outlet owes, or what is told again and again.

A snapshot is `snapshot-begin`, a `present` for each alarm, `snapshot-end`. Changes are sent between pages.
What is neither listed nor set since the beginning does not stand: that is how a receiver gets rid of alarms
whose clear it was never told. Pages are read from the store as it is then, ahead of the position if anything:
the changes that follow bring the receiver to the same end.

After merging a snapshot waits for QUIET seconds without, LONGEST_FLOOD at most.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from roost.cloud.outlets.messages import Message, Scope, SnapshotFacts, bracket, present
from roost.cloud.outlets.sink import Settings, Traits
from roost.model import chance, time
from roost.model.fault import ALARM, Alarm
from roost.store.transaction import Transaction

PAGE = 500
QUIET = 5.0
LONGEST_FLOOD = 60.0
NEVER = float("-inf")


class Found(msgspec.Struct, frozen=True):
    """Alarms of one page, the revision they are of, and whether there are more after them."""

    alarms: list[Alarm]
    revision: int
    more: bool


class Pages:
    """How far the snapshot of one outlet is. Times are monotonic seconds."""

    def __init__(self, settings: Settings, scope: Scope, traits: Traits) -> None:
        self._cloud, self._scope, self._traits = settings.namespace, scope, traits
        self._per_second = settings.spec.limits.per_second
        self._resend = float(settings.spec.resend_seconds)
        self._size = min(PAGE, self._per_second) if traits.singly else PAGE
        self._merged_at = self._flood_since = self._next_at = self._resent_at = NEVER
        self.owed_again = False
        """Messages were merged while this snapshot was under way."""
        self.start_over()

    def start_over(self) -> None:
        """Forget the snapshot that was under way."""
        self._id = ""
        self._after: tuple[str, str] | None = None
        self._count = 0
        self.owed_again = False

    def merged(self, now: float) -> None:
        """Messages were merged."""
        if now > self._merged_at + QUIET:
            self._flood_since = now
        self._merged_at = now
        self.owed_again = bool(self._id)

    def merged_within(self, seconds: float, now: float) -> bool:
        """Whether messages were merged just now."""
        return now < self._merged_at + seconds

    def due(self, now: float, owes: str) -> bool:
        """Whether a page is to be sent now."""
        return self.wait(now, owes) <= 0

    def wait(self, now: float, owes: str) -> float:
        """Seconds until a page is to be sent; infinite when nothing is owed."""
        if self._id:
            return self._next_at - now
        if owes:
            calm = min(self._merged_at + QUIET, self._flood_since + LONGEST_FLOOD)
            return calm - now if calm > now else 0.0
        return self._resent_at + self._resend - now if self._traits.level else float("inf")

    def read(self, tx: Transaction) -> Found:
        """The next page."""
        stored = tx.select(ALARM.kind, after=self._after, limit=self._size)
        return Found([s.typed(Alarm) for s in stored], tx.revision, len(stored) == self._size)

    def messages(self, found: Found, store: str, why: str, now: datetime) -> list[Message]:
        """What a page is told as, with the beginning and the end where they belong."""
        told: list[Message] = []
        brackets = not self._traits.level and self._scope.has_alarms
        stamp = time.stamp(now)
        if not self._id:
            self._id = f"{store[:8]}-snapshot-{found.revision}-{chance.digits(4)}"
            self._count, self.owed_again = 0, False
            if brackets:
                begun = SnapshotFacts(id=self._id, why=why)
                told.append(bracket("snapshot-begin", begun, self._cloud, 0, stamp))
        shown = [alarm for alarm in found.alarms if self._scope.shows(alarm)]
        # Revision 0: a page moves no position, and is not what a crash doubles unsaid.
        told += [present(alarm, self._id, 0) for alarm in shown]
        self._count += len(shown)
        if not found.more and brackets:
            ended = SnapshotFacts(id=self._id, why=why, count=self._count)
            told.append(bracket("snapshot-end", ended, self._cloud, 0, stamp))
        return told

    def sent(self, found: Found, number: int, now: float) -> bool:
        """A page was acknowledged; whether it was the last."""
        requests = number if self._traits.singly else -(-number // self._traits.most)
        self._next_at = now + requests / self._per_second
        if found.more:
            last = found.alarms[-1].metadata
            self._after = (last.namespace, last.name)
            return False
        self._resent_at = now
        again = self.owed_again
        self.start_over()
        self.owed_again = again
        return True
