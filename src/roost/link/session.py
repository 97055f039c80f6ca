"""Session: one connection, from hello to goodbye. The same code at both ends.

The lower end says hello first; the upper answers with its own, or with a refusal that names reason
and remedy. Each hello tells how far the speaker took the other's stream in, so both streams resume at
once. Then four things go on side by side: sending our stream, taking theirs in, heartbeats, calls.

The lower end sends heartbeats (`beating`), the upper echoes them and says how often it wants them (`rhythm`);
whoever takes the other for lost (`quiet`) gives the connection up. Large messages go in parts, between which
others pass: however narrow the link, what is sent over it does not keep heartbeats from it.

A centre has ten thousand of these, and most of them have nothing to say but that they are there. So one at
rest has one task, its reader, and no timer: what else there is to do is done when there is some (`errand`),
and the watch that all share says when to look at it (`watch`).

Every wait has a deadline. When anything fails the whole session ends: the cursors make the next one
complete, so nothing here repairs itself halfway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Literal

import msgspec
import structlog

from roost.link import messages
from roost.link.beating import Beating
from roost.link.beating import Proof as Proof
from roost.link.calls import Calls
from roost.link.comparing import Comparison, Pace
from roost.link.conduct import What
from roost.link.ending import Over, fail, failure_of
from roost.link.errand import Errand
from roost.link.errors import BadMessage, ConnectionLost, LinkError, Refused
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
from roost.link.outgoing import Outgoing
from roost.link.parts import Collected
from roost.link.quiet import Quiet
from roost.link.rehoming import check_owner
from roost.link.restraint import Restraint
from roost.link.rhythm import Rhythm
from roost.link.sending import Sending
from roost.link.taking import Taking
from roost.link.telling import Telling
from roost.link.timing import Timing as Timing
from roost.link.watch import NEVER, Watch
from roost.link.wire import UNKNOWN_WAY, Connection
from roost.store.store import Store

log = structlog.get_logger(__name__)

OWNED_FIELDS = 256


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
        watch: Watch | None = None,
        rhythm: Callable[[], Rhythm] | None = None,
        complain: Callable[[What, str], None] = lambda _what, _detail: None,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`watch` and `pace` are shared by the sessions of a process; `rhythm` is what an upper end wants."""
        self.node, self.side, self.timing = node, side, timing
        self._connection, self._store, self._name = connection, store, name
        lower = side == "lower"
        sends: Direction = Upward(node) if lower else Downward(node)
        takes: Direction = Downward(node) if lower else Upward(node)
        self.peer = "the upper cloud" if lower else str(node)
        self._feed, self._sends, self._takes, self._pace = feed, sends, takes, pace or Pace()
        self._watch = watch if watch is not None else Watch(lambda: store.trouble)
        self._comparison: Comparison | None = None
        usual = Rhythm(timing.heartbeat, timing.lost_after)
        self._quiet = Quiet(usual, lambda: getattr(connection, "way", UNKNOWN_WAY))
        self._sending = Sending(
            connection, self._quiet, within=timing.send_within, on_silence=self._look_after_silence
        )
        self.beating = Beating(
            self._send,
            spawn=self._spawn,
            peer=self.peer,
            beats=lower,
            quiet=self._quiet,
            choose=rhythm or (lambda: usual),
            clock=clock,
            own_trouble=lambda: store.trouble,
            on_proof=on_proof,
            on_trouble=on_trouble,
        )
        of_host = node.name if lower and node.kind == "host" else ""
        telling = Telling(node, self.peer, node.cloud if lower else name, of_host)
        self.intake = Intake(store, takes, "up" if lower else str(node), telling.drift, telling.other_store)
        self.taking = Taking(
            self.intake,
            self._send,
            spawn=self._spawn,
            peer=self.peer,
            acknowledge_within=timing.acknowledge_within,
            complain=complain,
        )
        self.outgoing = Outgoing(
            feed,
            EVERYONE if lower else str(node),
            sends,
            self._send,
            spawn=self._spawn,
            acknowledge_within=timing.acknowledge_within,
            on_changes=self.taking.make_way,
            has_reason=lambda: bool(self.beating.trouble),
        )
        self.calls = Calls(self._send, handler, first=1 if lower else 2, peer=self.peer, caller=self._caller)
        self._restraint = Restraint(self.outgoing, self.calls, lower=lower, complain=complain)
        self.epoch = 0
        """Under which the subcloud is owned, as this end knows (`rehoming`). Set it before the own hello."""
        self.hello: Hello | None = None
        self._collected = Collected()
        self._leave = Errand(self._spawn, self._say_goodbye)
        self._ending: Goodbye | None = None
        self._tasks: asyncio.TaskGroup | None = None
        """While it runs: what it does beside reading."""
        self._is_over = False
        self.farewell: Goodbye | None = None

    @property
    def heard(self) -> float:
        """When anything last came, on the loop's clock: a batch says as well as a heartbeat who is there."""
        return self._quiet.heard

    # -- hello

    async def greet(self, admit: Callable[[], Awaitable[None]] = _anyone) -> Hello:
        """Exchange hellos; the peer's. Raises Refused (also from `admit`), ConnectionLost, BadMessage.

        The upper end hears the lower before it may refuse: a refusal sent into a connection on which
        the other still speaks could be lost with it.
        """
        try:
            async with asyncio.timeout(self.timing.hello_within):
                if self.side == "lower":
                    taken = await self.intake.load()
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
        self._quiet.hears(asyncio.get_running_loop().time())
        self._know(self.hello)
        # It is kept as long as the link; what it listed is known now.
        self.hello = msgspec.structs.replace(self.hello, kinds=[], owned={})
        return self.hello

    def _own_hello(self, taken: tuple[str, int]) -> Hello:
        lower = self.side == "lower"
        speaker = str(self.node) if lower else self._name
        of_host = lower and self.node.kind == "host"
        return own_hello(speaker, self._store.identity, taken, of_host=of_host, epoch=self.epoch)

    def _know(self, hello: Hello) -> None:
        """Go by what the peer says it knows. One that does not say is told everything, as ever."""
        self._sending.in_parts = "parts" in hello.features
        self.beating.negotiated = "rhythm" in hello.features
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
            async with asyncio.TaskGroup() as self._tasks:
                self.taking.begin(hello.store_id, asks_again="again" in hello.features)
                self.outgoing.begin(hello.taken_store_id, hello.taken_revision)
                self._watch.by(self, asyncio.get_running_loop().time())
                if self._ending is not None:
                    self._leave.wake()
                try:
                    await self._receive()
                finally:
                    self._is_over = True
        except BaseExceptionGroup as group:
            failure = failure_of(group)
            if failure is None:
                return
            reason = str(failure)
            raise failure from None
        finally:
            self._tasks = None
            await self._finish(reason)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        if self._tasks is None or self._is_over:
            work.close()
            return None
        task = self._tasks.create_task(self._until_over(work))
        # One that is cancelled before it began has not begun its work either.
        task.add_done_callback(lambda _: work.close())
        return task

    async def _until_over(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BaseException:
            # The group ends all that it has now, and waits for what is begun after that.
            self._is_over = True
            raise

    async def _finish(self, reason: str) -> None:
        self._watch.forget(self)
        self.outgoing.close()
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
            if self._tasks is not None:
                self._leave.wake()

    async def call(self, request: Request) -> Response:
        """Ask the peer; raises Unreachable."""
        return await self.calls.call(request, answer_within=self.timing.answer_within)

    async def probe(self) -> None:
        """Have the peer say something, as soon as it can. Raises ConnectionLost."""
        await self.beating.probe()

    async def _say_goodbye(self) -> None:
        if self._ending is not None:
            try:
                async with asyncio.timeout(1):
                    await self._send(self._ending)
            except (LinkError, TimeoutError) as error:
                log.debug("link.goodbye-unsent", peer=self.peer, reason=str(error))
        raise Over

    # -- silence

    def look(self, now: float) -> float:
        """Called by the watch: whether the peer is there, and what is due; when to look again."""
        reason = self._quiet.lost(now)
        if reason:
            self._spawn(fail(ConnectionLost(reason)))
            return NEVER
        if self._comparison is not None and not self.taking.waiting:
            self._comparison.look(now)
        self.outgoing.look(now)
        return min(self.beating.look(now), self._quiet.due(now))

    def _look_after_silence(self, now: float) -> None:
        if self._tasks is not None:
            self._watch.by(self, self._quiet.due(now))

    # -- what comes

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._quiet.listens(loop.time())
            frame = await self._connection.receive()
            self._quiet.hears(loop.time())
            message = messages.unpack(frame)
            if isinstance(message, Part):
                whole = self._collected.take(message)
                if whole is None:
                    await self._restraint.part(self._quiet.heard)
                    continue
                frame, message = whole, messages.unpack(whole)
            await self._restraint.afford(message, len(frame), self._quiet.heard)
            if isinstance(message, Entries):
                await self.taking.put(message, len(frame))
            elif message is not None:
                await self._dispatch(message)

    async def _dispatch(self, message: messages.AnyMessage) -> None:
        match message:
            case Acknowledge():
                self.outgoing.acknowledge(message)
            case Again():
                self.outgoing.again(message.keys)
            case Heartbeat():
                await self.beating.asked(message)
                self._watch.by(self, self.beating.due)
            case HeartbeatEcho():
                self.beating.answered(message)
                self._watch.by(self, self.beating.due)
            case DigestAsk() | Digest():
                await self._compared(message)
            case CallStart() | CallAnswer() | CallBody() | CallEnd() | CallCancel() | CallCredit():
                self.calls.take(message)
            case Refusal():
                raise refused(message)
            case Goodbye():
                self.farewell = message
                raise Over
            case _:
                raise BadMessage(f"{type(message).__name__} has no place in a session")

    # -- digests

    async def _compared(self, message: DigestAsk | Digest) -> None:
        if self._comparison is None:
            raise BadMessage("it speaks of digests, which its hello did not name")
        if isinstance(message, DigestAsk):
            await self._comparison.asked(message)
        else:
            self._comparison.answered(message)

    # -- inside

    def _caller(self, start: CallStart) -> Caller:
        """Who asks: the upper end speaks for its users, a lower end only for itself."""
        if self.side == "upper":
            return Caller(f"roost:{self.node}", ["roost:nodes"])
        extra = {k: list(v) for k, v in start.extra.items()}
        return Caller(start.caller, list(start.groups), start.uid, extra, start.by, linked=True)

    async def _send(self, message: Message) -> None:
        await self._sending.send(message)
