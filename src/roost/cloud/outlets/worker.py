"""Sends for one outlet: reads changes after its position, sends what they mean, moves the position.

Order of things: what is about to be sent is noted (`Memory.sending`), sent, and then the position moves, each
durably. So a crash anywhere sends the last request again, marked, and loses nothing. Between changes, a
snapshot of all present alarms goes out page by page when one is owed (`Pages`): to a new receiver, after a
change of the filter, after messages were merged, and when history was dropped before the receiver came back.

One request is in hand at a time, at most MOST_CHANGES changes are in memory: what waits is the store's
history. A receiver that is away costs an attempt now and then and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from roost.cloud.outlets import memory as memories
from roost.cloud.outlets.memory import Memory
from roost.cloud.outlets.merging import Merged, allowance, merge, portions
from roost.cloud.outlets.messages import Message, Scope, concerns, message_of, missed_message
from roost.cloud.outlets.pages import Pages
from roost.cloud.outlets.pausing import Failed, Unwanted, pause
from roost.cloud.outlets.progress import Progress
from roost.cloud.outlets.sink import Settings, Sink, traits_of
from roost.engine.faults import write_log
from roost.model import time
from roost.model.cloud import SUBCLOUD
from roost.model.outlet import AlarmOutlet, Missed
from roost.store.errors import Compacted, FutureRevision, StoreError
from roost.store.store import Store
from roost.store.transaction import Change, Transaction

MOST_CHANGES = 5000
MOST_LOOKED_AT = 50_000
"""Revisions that are looked through for them at a time."""
READ_AT_ONCE = 500
IDLE = 5.0
"""Seconds of quiet after which snapshot, resend and status are looked at."""
FLOOD_PAUSE = 1.0
"""Seconds that are waited while messages are merged, so that a summary stands for all of a second."""
MOVE_AFTER = 1000
"""Revisions without anything to tell after which the position is noted all the same."""
STORE_RETRY = 1.0
REST = 0.05
"""Seconds that a look at changes may take while pages of a snapshot wait."""

MakeSink = Callable[[], Sink]


class Worker:
    """The sending of one outlet. `run` until cancelled."""

    def __init__(
        self, store: Store, settings: Settings, make: MakeSink, clock: Callable[[], datetime]
    ) -> None:
        self._store, self._settings, self._make, self._clock = store, settings, make, clock
        self._log = structlog.get_logger("roost.outlets").bind(outlet=settings.name)
        self._limits, self._traits = settings.spec.limits, traits_of(settings.spec)
        self._allowed = allowance(self._limits.per_second, self._limits.burst)
        self._sink: Sink | None = None
        self._position = 0
        self._memory = Memory()
        self._noted: tuple[int, Memory] | None = None
        self._missed_again = False
        self._progress = Progress(settings, clock)
        self._labels: dict[str, Mapping[str, str] | None] = {}
        self._scope = Scope(settings.spec, settings.namespace, settings.name, self._labels.get)
        self._pages = Pages(settings, self._scope, self._traits)

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Send until cancelled; whatever fails in the store is tried again."""
        lost: StoreError | None = None
        try:
            while True:
                try:
                    await self._begin()
                    if lost is not None:
                        await self._lose(lost)
                        lost = None
                    await self._go_on()
                except (Compacted, FutureRevision) as error:
                    lost = error
                except StoreError as error:
                    self._log.warning("the store failed, tried again in a moment", reason=str(error))
                    await asyncio.sleep(STORE_RETRY)
        finally:
            if self._sink is not None:
                await asyncio.shield(self._sink.close())

    async def _begin(self) -> None:
        """Take up where the last sender was; a new outlet begins now, with a snapshot."""
        uid, generation = self._settings.uid, self._settings.generation
        (store, position, memory), here, outlet = await self._store.read(
            lambda tx: (
                memories.recall(tx, uid),
                tx.revision,
                tx.seek(AlarmOutlet, self._settings.namespace, self._settings.name),
            )
        )
        if outlet is not None:
            self._progress.resume(outlet.status)
        if store == self._store.identity:
            self._position = position
            if memory.generation != generation and not memory.owes:
                memory = msgspec.structs.replace(memory, owes="its configuration has changed")
        else:
            # Another store's revisions mean nothing here.
            why = "the store was made anew" if store else "the receiver is new"
            self._position, memory = here, Memory(owes=why)
        self._memory = msgspec.structs.replace(memory, generation=generation)
        self._missed_again = memory.missed is not None
        self._pages.start_over()
        await self._note()

    async def _go_on(self) -> None:
        while True:
            if self._memory.missed is not None:
                await self._tell_missed(self._memory.missed)
            changes, upto = await self._read()
            if upto > self._position:
                await self._send_changes(changes, upto)
            if self._pages.due(self._now, self._memory.owes):
                await self._send_page()
            if self._progress.due(self._now):
                await self._note()

    # -- changes

    async def _read(self) -> tuple[list[Change], int]:
        """Changes that concern alarms or the log after the position, and the revision that was looked up to;
        waits for some, not longer than until something else is due."""
        idle = max(REST, min(IDLE, self._pages.wait(self._now, self._memory.owes)))
        wanted: list[Change] = []
        upto = self._position
        async for batch in self._store.watch(upto, concerns, idle=idle):
            wanted, upto = list(batch.changes), batch.upto
            break
        else:
            # The store is closed: wait to be cancelled rather than spin.
            await asyncio.Event().wait()
        if wanted and self._pages.merged_within(FLOOD_PAUSE, self._now):
            await asyncio.sleep(FLOOD_PAUSE)
        end = min(self._store.revision, self._position + MOST_LOOKED_AT)
        while upto < end and len(wanted) < MOST_CHANGES:
            more = await self._store.changes(upto, limit=READ_AT_ONCE)
            wanted += [change for change in more.changes if concerns(change)]
            upto = more.upto
        return wanted, upto

    async def _send_changes(self, changes: Sequence[Change], upto: int) -> None:
        await self._learn_labels({change.namespace for change in changes})
        now = time.stamp(self._clock())
        told = (message_of(change, self._scope, self._store.identity, now) for change in changes)
        messages = [self._marked(message) for message in told if message is not None]
        if not messages:
            self._position = upto
            if self._noted is None or upto >= self._noted[0] + MOVE_AFTER:
                await self._note()
            return
        merged = Merged(messages=messages)
        if not self._traits.level:
            merged = merge(messages, self._allowed, self._now)
        if merged.merged:
            self._pages.merged(self._now)
            self._progress.count("merged", merged.merged)
            self._memory = msgspec.structs.replace(self._memory, owes="messages were told together")
        for portion in portions(merged, self._traits.most, upto):
            await self._deliver(portion.messages, max(self._position, portion.upto))
        await self._note()

    def _marked(self, message: Message) -> Message:
        """Marked when an attempt to send it was under way before this worker began or lost its store."""
        if message.revision > self._memory.sending:
            return message
        return msgspec.structs.replace(message, again=True)

    async def _learn_labels(self, namespaces: set[str]) -> None:
        """Look up the labels of subclouds as they are now."""
        if not self._scope.needs_labels:
            return
        self._labels.clear()
        for name in namespaces - {self._settings.namespace}:
            stored = await self._store.find(SUBCLOUD.kind, "", name)
            self._labels[name] = (stored.raw["metadata"].get("labels") or {}) if stored else None

    # -- snapshots

    async def _send_page(self) -> None:
        found = await self._store.read(self._pages.read)
        await self._learn_labels({alarm.metadata.namespace for alarm in found.alarms})
        messages = self._pages.messages(found, self._store.identity, self._memory.owes, self._clock())
        if self._memory.owes:
            self._progress.resyncing()
        for start in range(0, len(messages), self._traits.most):
            await self._deliver(messages[start : start + self._traits.most], self._position)
        if self._pages.sent(found, len(messages), self._now):
            if self._memory.owes:
                self._progress.count("snapshots")
            if not self._pages.owed_again:
                self._memory = msgspec.structs.replace(self._memory, owes="")
            self._progress.settled()
            await self._note()

    # -- what was missed

    async def _lose(self, error: StoreError) -> None:
        """History was dropped past the position: count what is known of it, and owe a snapshot."""
        dropped = error.oldest if isinstance(error, Compacted) else 0

        def count(tx: Transaction) -> tuple[Missed, int]:
            if self._position > tx.revision:
                return Missed(at=time.stamp(tx.now)), tx.revision
            upto = min(tx.revision, max(dropped, memories.oldest_kept(tx)))
            return memories.missed_between(tx, self._position, upto), upto

        found, upto = await self._store.read(count)
        self._progress.missed(found)
        untold = _together(self._memory.missed, found)
        self._memory = msgspec.structs.replace(self._memory, missed=untold, owes="history was dropped")
        self._position = upto
        await self._note()

    async def _tell_missed(self, missed: Missed) -> None:
        now = time.stamp(self._clock())
        message = missed_message(missed, self._store.identity, self._settings.namespace, self._position, now)
        if self._missed_again:
            message = msgspec.structs.replace(message, again=True)
        await self._deliver([message], self._position)
        self._memory = msgspec.structs.replace(self._memory, missed=None)
        await self._note()

    # -- sending

    async def _deliver(self, messages: Sequence[Message], upto: int) -> None:
        """Send until it is acknowledged or refused for good; then all up to `upto` is told."""
        last = max(message.upto for message in messages)
        if last > self._memory.sending:
            self._memory = msgspec.structs.replace(self._memory, sending=last)
        if self._noted != (self._position, self._memory):
            await self._note()
        failures = 0
        while True:
            try:
                await self._attempt(messages)
            except Unwanted as refusal:
                if len(messages) == 1:
                    self._progress.unwanted(refusal.reason, messages[0].id)
                    break
                # One of them is bad: each is sent alone to find out which.
                for message in messages:
                    await self._deliver([message], self._position)
                break
            except Failed as failure:
                failures += 1
                if failure.doubtful:
                    messages = [msgspec.structs.replace(m, again=True) for m in messages]
                seconds = pause(failures, float(self._limits.longest_pause_seconds), failure)
                self._progress.failed(failure, seconds)
                await self._pause(seconds)
            else:
                self._progress.sent(len(messages))
                break
        self._position = upto

    async def _attempt(self, messages: Sequence[Message]) -> None:
        limit = float(self._limits.timeout_seconds)
        try:
            async with asyncio.timeout(limit):
                if self._sink is None:
                    self._sink = self._make()
                await self._sink.send(messages)
        except TimeoutError as error:
            raise Failed(
                f"there was no answer within {limit:.0f} seconds",
                "see whether the receiver is overloaded; spec.limits.timeoutSeconds is how long is waited",
                doubtful=True,
                code="NoAnswer",
            ) from error

    async def _pause(self, seconds: float) -> None:
        """Wait, and report meanwhile what is due."""
        if self._progress.due(self._now):
            await self._note()
        await asyncio.sleep(seconds)

    async def _note(self) -> None:
        """Keep position and memory, and the status when that is due, in one transaction."""
        position, memory, settings = self._position, self._memory, self._settings
        reports = self._progress.due(self._now)
        told = self._progress.untold if reports else []
        # Counted among readers: who is far behind has many to count, and no writer should wait for that.
        waiting = await self._store.read(lambda tx: memories.waiting(tx, position)) if reports else 0

        def work(tx: Transaction) -> None:
            outlet = tx.seek(AlarmOutlet, settings.namespace, settings.name)
            if outlet is None or outlet.metadata.uid != settings.uid:
                return
            memories.remember(tx, settings.uid, self._store.identity, position, memory)
            if not reports:
                return
            for event, text, severity in told:
                write_log(
                    tx,
                    settings.namespace,
                    event=event,
                    text=text,
                    entity=f"outlet={settings.name}",
                    severity=severity,
                )
            status = self._progress.status(outlet.status, position, waiting, memory)
            tx.report(msgspec.structs.replace(outlet, status=status))

        await self._store.transact(work)
        self._noted = (position, memory)
        if reports:
            self._progress.reported(self._now)


def _together(before: Missed | None, found: Missed) -> Missed:
    """What was missed and not told yet, and what was missed since."""
    if before is None:
        return found
    counted = {
        name: getattr(before, name) + getattr(found, name)
        for name in ("revisions", "number", "critical", "major", "minor", "warning", "cleared")
    }
    since = before.since or found.since
    return msgspec.structs.replace(found, since=since, until=found.until or before.until, **counted)
