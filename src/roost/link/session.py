"""Session: one connection, from hello to goodbye. The same code at both ends.

The lower end says hello first; the upper answers with its own, or with a refusal that names reason
and remedy. Each hello tells how far the speaker took the other's stream in, so both streams resume at
once. Then four things go on side by side: sending our stream, taking theirs in, heartbeats, calls.

The lower end sends heartbeats, the upper echoes them; whoever heard nothing for `lost_after` seconds
and a few round trips gives the connection up. A heartbeat that was echoed proves the way there and back
after the moment it was sent. Large messages go in parts, between which others pass: however narrow the
link, what is sent over it does not keep heartbeats from it.

Every wait has a deadline. When anything fails the whole session ends: the cursors make the next one
complete, so nothing here repairs itself halfway.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import Literal

import msgspec
import structlog

from roost.link import messages, parts
from roost.link.budget import ASKED, ENTRIES, ENTRY_BYTES, PATIENCE, STRANGE, UNBIDDEN, UNBIDDEN_BYTES, Budget
from roost.link.calls import Calls
from roost.link.comparing import Comparison, Pace, Pacing
from roost.link.conduct import What
from roost.link.errors import BadMessage, ConnectionLost, Flooded, LinkError, Refused, TookNothing
from roost.link.exchange import Caller, Handler, Request, Response
from roost.link.feed import EVERYONE, Feed
from roost.link.flow import Direction, Downward, Upward
from roost.link.greeting import check_identity, own_hello, refused, their_hello
from roost.link.intake import Intake
from roost.link.merging import HOST_KINDS, owned_by_host
from roost.link.messages import (
    Acknowledge,
    Again,
    CallAnswer,
    CallBody,
    CallCancel,
    CallCredit,
    CallEnd,
    CallStart,
    Digest,
    DigestAsk,
    Entries,
    Goodbye,
    Heartbeat,
    HeartbeatEcho,
    Hello,
    Message,
    Part,
    Refusal,
)
from roost.link.node import Node
from roost.link.outgoing import WINDOW, Outgoing
from roost.link.parts import PART, Collected, Lane
from roost.link.rehoming import check_owner
from roost.link.telling import Telling
from roost.link.wire import Connection
from roost.store.errors import StoreError
from roost.store.store import Store
from roost.store.transaction import Change

log = structlog.get_logger(__name__)

AGAIN_AT_ONCE = 1000
TROUBLE = 300
"""Characters of what a side says of its trouble."""

TROUBLE_FOR = 5.0
"""Seconds for which such a word holds at least: a peer must not raise and clear alarms at will."""
OWNED_FIELDS = 256
QUEUED_BYTES = 8 * 1024 * 1024
"""Of batches that wait to be taken in; one larger than that waits alone."""

REPETITIONS, LONGEST_REPEATING = 6, 10.0
"""Round trips that a frame may take longer because packets are lost, and the most seconds for that."""

CATCHING_UP = 600.0
"""Seconds for which a peer may be held back for its entries before that is strange."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines of a session, in seconds."""

    heartbeat: float = 5.0
    lost_after: float = 15.0
    hello_within: float = 10.0
    acknowledge_within: float = 60.0
    send_within: float = 30.0
    answer_within: float = 30.0
    comparing: Pacing = Pacing()


class Proof(msgspec.Struct, frozen=True):
    """A heartbeat that came back: when it was sent and when its echo came."""

    sent_at: datetime
    proven_at: datetime
    sent_monotonic: float


async def _anyone() -> None:
    """Admits whoever speaks."""


class Session:
    """One end of one connection of `node`. `greet`, then `run` until it ends."""

    def __init__(
        self,
        connection: Connection,
        store: Store,
        feed: Feed,
        *,
        side: Literal["lower", "upper"],
        node: Node,
        name: str,
        timing: Timing,
        clock: Callable[[], datetime],
        handler: Handler | None = None,
        on_proof: Callable[[Proof], None] = lambda _: None,
        pace: Pace | None = None,
        complain: Callable[[What, str], None] = lambda _what, _detail: None,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.node, self.side, self.timing = node, side, timing
        self._connection, self._store, self._clock = connection, store, clock
        self._name, self._on_proof = name, on_proof
        lower = side == "lower"
        sends: Direction = Upward(node) if lower else Downward(node)
        takes: Direction = Downward(node) if lower else Upward(node)
        self.peer = "the upper cloud" if lower else str(node)
        self._sends, self._takes, self._pace = sends, takes, pace or Pace()
        self._comparison: Comparison | None = None
        self._complain, self._on_trouble = complain, on_trouble
        self._trouble: str | None = None
        self._trouble_heard = 0.0
        self._unbidden, self._answers = Budget(UNBIDDEN, UNBIDDEN_BYTES), Budget(ASKED)
        self._entries = Budget(ENTRIES, ENTRY_BYTES)
        self._queued, self._drained = 0, asyncio.Event()
        self._heard = 0.0
        self._feed = feed
        self._subscription = feed.subscribe(EVERYONE if lower else str(node))
        self.outgoing = Outgoing(
            store,
            sends,
            self._subscription,
            self._send,
            acknowledge_within=timing.acknowledge_within,
            on_changes=self._make_way,
            has_reason=lambda: bool(self._trouble),
        )
        of_host = node.name if lower and node.kind == "host" else ""
        telling = Telling(node, self.peer, node.cloud if lower else name, of_host)
        self.intake = Intake(store, takes, "up" if lower else str(node), telling.drift, telling.other_store)
        self.calls = Calls(self._send, handler, first=1 if lower else 2, peer=self.peer, caller=self._caller)
        self.hello: Hello | None = None
        self.epoch = 0
        """Under which the subcloud is owned, as this end knows (`rehoming`). Set it before the own hello."""
        self._batches: deque[tuple[Entries, int]] = deque()
        self._batch_came = asyncio.Event()
        self._beats: deque[tuple[int, datetime, float]] = deque(maxlen=16)
        self._in_parts, self._collected = False, Collected()
        self._lanes: dict[Lane, asyncio.Lock] = {"stream": asyncio.Lock(), "calls": asyncio.Lock()}
        self._ending: Goodbye | None = None
        self._end = asyncio.Event()
        self.farewell: Goodbye | None = None

    @property
    def heard(self) -> float:
        """When anything last came, on the loop's clock: a batch says as well as a heartbeat who is there."""
        return self._heard

    # -- hello

    async def greet(self, admit: Callable[[], Awaitable[None]] = _anyone) -> Hello:
        """Exchange hellos; the peer's. Raises Refused (also from `admit`), ConnectionLost, BadMessage.

        The upper end hears the lower before it may refuse: a refusal sent into a connection on which
        the other still speaks could be lost with it.
        """
                    taken = await self.intake.load()
        try:
            async with asyncio.timeout(self.timing.hello_within):
                if self.side == "lower":
                    await self._send(self._own_hello(taken))
                    self.hello = their_hello(await self._connection.receive())
                    check_owner(self.hello.node, self.hello.epoch, self.epoch)
                else:
                    self.hello = their_hello(await self._connection.receive())
                    check_identity(self.hello, self.node)
                    await admit()
                    # After admission: from then on no older session moves the cursor.
                    await self._send(self._own_hello(await self.intake.load()))
        except TimeoutError:
            raise ConnectionLost(f"no hello came within {self.timing.hello_within:g} s") from None
        self._know(self.hello)
        return self.hello

    def _own_hello(self, taken: tuple[str, int]) -> Hello:
        lower = self.side == "lower"
        speaker = str(self.node) if lower else self._name
        of_host = lower and self.node.kind == "host"
        return own_hello(speaker, self._store.identity, taken, of_host=of_host, epoch=self.epoch)

    def _know(self, hello: Hello) -> None:
        """Go by what the peer says it knows. One that does not say is told everything, as ever."""
        self._in_parts = "parts" in hello.features
        if hello.kinds:
            self._sends.narrow(hello.kinds)
            self._takes.narrow(hello.kinds)
        if isinstance(self._takes, Upward) and hello.kinds:
            self._takes.owned = {k: v[:OWNED_FIELDS] for k, v in hello.owned.items() if k in HOST_KINDS}
        if isinstance(self._sends, Upward):
            self._sends.owned = owned_by_host()
        if "digest" in hello.features:
            self._comparison = Comparison(
                feed=self._feed,
                sends=self._sends,
                takes=self._takes,
                outgoing=self.outgoing,
                intake=self.intake,
                send=self._send,
                pace=self._pace,
                pacing=self.timing.comparing,
                peer=self.peer,
            )

    # -- the session

    async def run(self) -> None:
        """Until the connection ends: returns after a goodbye, raises LinkError otherwise."""
        if self.hello is None:
            raise RuntimeError("greet before run")
        hello, reason = self.hello, "the link is down"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ended())
                tasks.create_task(self._receive())
                tasks.create_task(self._take_in(hello.store_id))
                tasks.create_task(self.outgoing.run(hello.taken_store_id, hello.taken_revision))
                if self.side == "lower":
                    tasks.create_task(self._beat())
        except BaseExceptionGroup as group:
            failure = self._failure(group)
            if failure is None:
                return
            reason = str(failure)
            raise failure from None
        finally:
            await self._finish(reason)

    def _failure(self, group: BaseExceptionGroup[BaseException]) -> BaseException | None:
        """What ended the session; None for a good end. What nobody expected stays as it is."""
        errors = list(_leaves(group))
        for error in errors:
            if not isinstance(error, LinkError | StoreError | TimeoutError):
                return group
        if any(isinstance(error, _Over) for error in errors):
            return None
        first = errors[0]
        return first if isinstance(first, LinkError) else ConnectionLost(str(first) or "a deadline passed")

    async def _finish(self, reason: str) -> None:
        self._feed.unsubscribe(self._subscription)
        if self._comparison is not None:
            self._comparison.close()
        await self.calls.close(reason)
        await self._connection.close()

    async def abandon(self, refusal: Refused | None = None) -> None:
        """Close before `run`, telling why."""
        if refusal is not None:
            word = Refusal(
                code=refusal.code,
                reason=refusal.reason,
                remedy=refusal.remedy,
                retry_after=refusal.retry_after,
            )
            try:
                await self._send(word)
            except LinkError as error:
                log.debug("link.refusal-unsent", peer=self.peer, reason=str(error))
        await self._finish("the link was refused")

    def end(self, reason: str, *, returning: bool = False) -> None:
        """End in good order, soon; `run` returns."""
        if self._ending is None:
            self._ending = Goodbye(reason=reason, returning=returning)
            self._end.set()

    async def call(self, request: Request) -> Response:
        """Ask the peer; raises Unreachable."""
        return await self.calls.call(request, answer_within=self.timing.answer_within)

    async def probe(self) -> None:
        """Have the peer say something, as soon as it can. Raises ConnectionLost."""
        await self._send(Heartbeat(sequence=0, trouble=self._own_trouble()))

    async def _ended(self) -> None:
        await self._end.wait()
        if self._ending is not None and self.farewell is None:
            try:
                async with asyncio.timeout(1):
                    await self._send(self._ending)
            except (LinkError, TimeoutError) as error:
                log.debug("link.goodbye-unsent", peer=self.peer, reason=str(error))
        raise _Over

    async def _receive(self) -> None:
        while True:
            try:
                patience = self._patience()
                async with asyncio.timeout(patience):
                    frame = await self._connection.receive()
            except TimeoutError:
                raise ConnectionLost(f"nothing was heard for {patience:.3g} s") from None
            self._heard = asyncio.get_running_loop().time()
            message = messages.unpack(frame)
            if isinstance(message, Part):
                whole = self._collected.take(message)
                if whole is None:
                    await self._hold_back(self._answers.charge(self._heard, 1))
                    continue
                frame, message = whole, messages.unpack(whole)
            await self._afford(message, len(frame))
            if isinstance(message, Entries):
                await self._queue(message, len(frame))
            elif message is not None:
                await self._dispatch(message)

    def _patience(self) -> float:
        """How long silence is none yet: what is lost on the way takes round trips to be repeated."""
        round_trip = float(getattr(self._connection, "round_trip", 0.0))
        return self.timing.lost_after + min(REPETITIONS * round_trip, LONGEST_REPEATING)

    async def _afford(self, message: messages.AnyMessage | None, size: int) -> None:
        """Hold a peer back that sends more than its budget, by reading no further. Raises Flooded."""
        now = self._heard
        match message:
            case Entries():
                return
            case CallAnswer() | CallBody() | CallEnd():
                asked = self.calls.awaits(message)
            case Acknowledge():
                asked = self.outgoing.awaits
            case _:
                asked = False
        if asked:
            wait = self._answers.charge(now, 1)
        else:
            wait = self._unbidden.charge(now, 1, size)
            if self.side == "upper" and self._unbidden.short_for(now) > PATIENCE:
                raise Flooded(PATIENCE)
        if wait > 0 and not asked and self._unbidden.short_for(now) > STRANGE:
            self._complain("floods", "it sends more than a node has to say, and is read slowly for it")
        await self._hold_back(wait)

    async def _hold_back(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)

    async def _queue(self, batch: Entries, size: int) -> None:
        """Keep a batch until it is taken in. What is kept is bounded: with too much, nothing more is read."""
        # The sender's window bounds this queue; repeated batches get room for as many again.
        if len(self._batches) >= 4 * WINDOW:
            raise BadMessage("more batches than the window allows")
        while self._batches and self._queued + size > QUEUED_BYTES:
            self._drained.clear()
            await self._drained.wait()
        self._batches.append((batch, size))
        self._queued += size
        self._batch_came.set()

    async def _dispatch(self, message: messages.AnyMessage) -> None:
        match message:
            case Acknowledge():
                self.outgoing.acknowledge(message)
            case Again():
                self.outgoing.again(message.keys)
            case Heartbeat():
                self._hear_of_trouble(message.trouble)
                await self._send(HeartbeatEcho(sequence=message.sequence, trouble=self._own_trouble()))
                await self._tick()
            case HeartbeatEcho():
                self._hear_of_trouble(message.trouble)
                self._proven(message)
                await self._tick()
            case DigestAsk() | Digest():
                await self._compared(message)
            case CallStart() | CallAnswer() | CallBody() | CallEnd() | CallCancel() | CallCredit():
                self.calls.take(message)
            case Refusal():
                raise refused(message)
            case Goodbye():
                self.farewell = message
                self._end.set()
            case _:
                raise BadMessage(f"{type(message).__name__} has no place in a session")

    # -- their stream

    async def _take_in(self, store_id: str) -> None:
        if self.intake.refused:
            await self._ask_again([k for k in self.intake.refused if k[0] != "*"])
        while True:
            await self._batch_came.wait()
            self._batch_came.clear()
            while self._batches:
                batch, size = self._batches.popleft()
                now = asyncio.get_running_loop().time()
                wait = self._entries.charge(now, len(batch.entries), _unpacked(batch))
                if wait > 0:
                    if self._entries.short_for(now) > CATCHING_UP:
                        self._complain("floods", "it has sent more than a site that catches up, for minutes")
                    await asyncio.sleep(min(wait, self.timing.acknowledge_within / 2))
                refused = await self.intake.take(batch, store_id)
                self._queued -= size
                self._drained.set()
                if self.intake.claims:
                    self._complain("claims what is not its own", self.intake.claims[0])
                if refused:
                    shown = [f"{r.kind} {r.namespace}/{r.name}: {r.reason}" for r in refused[:5]]
                    log.warning("link.refused", peer=self.peer, count=len(refused), first=shown)
                await self._send(Acknowledge(number=batch.number, upto=batch.upto, refused=refused))

    async def _make_way(self, changes: list[Change]) -> None:
        """Our own history went on: ask again for what it no longer stands in the way of."""
        if self.intake.refused:
            await self._ask_again([k for k in map(self.intake.unblocked, changes) if k is not None])

    async def _ask_again(self, keys: list[messages.Key]) -> None:
        if keys and self.hello and "again" in self.hello.features:
            await self._send(Again(keys=keys[:AGAIN_AT_ONCE]))

    # -- digests

    async def _tick(self) -> None:
        if self._comparison is not None and not self._batches:
            await self._comparison.tick()

    async def _compared(self, message: DigestAsk | Digest) -> None:
        if self._comparison is None:
            raise BadMessage("it speaks of digests, which its hello did not name")
        if isinstance(message, DigestAsk):
            await self._comparison.asked(message)
        else:
            self._comparison.answered(message)

    # -- heartbeats

    async def _beat(self) -> None:
        sequence = 0
        while True:
            sequence += 1
            self._beats.append((sequence, self._clock(), asyncio.get_running_loop().time()))
            await self._send(Heartbeat(sequence=sequence, trouble=self._own_trouble()))
            await asyncio.sleep(self.timing.heartbeat)

    def _own_trouble(self) -> str:
        return self._store.trouble[:TROUBLE]

    def _hear_of_trouble(self, trouble: str) -> None:
        """The peer can't write its store, or can again: until then it takes nothing in, and is waited for."""
        now = asyncio.get_running_loop().time()
        if self._trouble is not None:
            if bool(trouble) == bool(self._trouble) or now - self._trouble_heard < TROUBLE_FOR:
                return
            log.info("link.trouble", peer=self.peer, trouble=trouble[:TROUBLE])
        self._trouble, self._trouble_heard = trouble[:TROUBLE], now
        self._on_trouble(self._trouble)

    def _proven(self, echo: HeartbeatEcho) -> None:
        while self._beats and self._beats[0][0] <= echo.sequence:
            sequence, sent_at, monotonic = self._beats.popleft()
            if sequence == echo.sequence:
                self._on_proof(Proof(sent_at, self._clock(), monotonic))

    # -- inside

    def _caller(self, start: CallStart) -> Caller:
        """Who asks: the upper end speaks for its users, a lower end only for itself."""
        if self.side == "upper":
            return Caller(f"roost:{self.node}", ["roost:nodes"])
        extra = {k: list(v) for k, v in start.extra.items()}
        return Caller(start.caller, list(start.groups), start.uid, extra, start.by, linked=True)

    async def _send(self, message: Message) -> None:
        frame = messages.pack(message)
        if len(frame) <= PART or not self._in_parts:
            await self._send_frame(frame)
            return
        lane = parts.lane(message)
        async with self._lanes[lane]:
            for part in parts.parts(frame, lane):
                await self._send_frame(messages.pack_plain(part))

    async def _send_frame(self, frame: bytes) -> None:
        try:
            async with asyncio.timeout(self.timing.send_within):
                await self._connection.send(frame)
        except TimeoutError:
            seconds = self.timing.send_within
            reason = f"the peer took nothing for {seconds:g} s"
            if asyncio.get_running_loop().time() - self._heard < seconds:
                # It is there, and speaks: this is no cut line.
                raise TookNothing(reason) from None
            raise ConnectionLost(reason) from None


def _unpacked(batch: Entries) -> int:
    """Bytes of the entries of a batch."""
    return sum(len(entry.data) for entry in batch.entries)


class _Over(LinkError):
    """The session ended in good order."""


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors of a group, in the order in which its tasks failed."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
