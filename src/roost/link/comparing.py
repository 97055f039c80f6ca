"""Comparing: both streams of a link checked against what each end really has, seldom and cheaply.

The receiver of a stream asks; the sender answers with its digest when the receiver has everything it told,
and nothing was told while it counted. The receiver counts what it holds, and compares if no batch came
meanwhile. Where sums differ it asks for keys, and then for the resources that differ, as after a conflict
(`Again`): so the repair is the code of every day. What is taken in again and changes the store had drifted,
and is named in a warning and a log entry by `Intake`; what changes nothing was only not comparable (another
version counts otherwise), and is left out from then on.

Cost follows change. A stream is compared once after the link came up, then when something was taken in since
the last time, not more often than `Pacing.after`; a stream on which nothing happens once in `Pacing.quiet`.
All links of a process share one `Pace`: one counts at a time, and not for more than a share of a processor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import structlog

from roost.link import digest
from roost.link.errors import BadMessage, LinkError
from roost.link.feed import Feed
from roost.link.flow import Direction
from roost.link.intake import TOO_MANY, Intake
from roost.link.messages import Again, Digest, DigestAsk, Key, Message
from roost.link.outgoing import Outgoing
from roost.model import chance
from roost.store.errors import StoreError

log = structlog.get_logger(__name__)

EXCLUDED = 2000
AT_ONCE = 1000
FED_WITHIN = 2.0
LOOK = 0.05


class Pacing(msgspec.Struct, frozen=True, kw_only=True):
    """When streams are compared, in seconds; each wait has jitter of a half either way."""

    first: float = 60.0
    after: float = 300.0
    quiet: float = 86_400.0
    again: float = 30.0
    """After what was not ready, and after a repair."""
    unanswered: float = 3600.0
    answer_every: float = 10.0
    """How often a peer is answered at most; what it asks for in between is not ready."""


class Pace:
    """One count at a time, and the processor for it not longer than `share` of the time."""

    def __init__(self, share: float = 0.02) -> None:
        self._share, self._turn, self._seconds = share, asyncio.Lock(), 0.0

    def spent(self, seconds: float) -> None:
        """So much processor time was used by who has the turn."""
        self._seconds += seconds

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn; whoever is next waits until this one's time is worked off."""
        await self._turn.acquire()
        self._seconds = 0.0
        try:
            yield
        finally:
            rest = self._seconds * (1 / self._share - 1)
            asyncio.get_running_loop().call_later(rest, self._turn.release)


class Comparison:
    """Both streams of one session. Have it `look`, and give it messages; `close` in the end."""

    def __init__(
        self,
        *,
        feed: Feed,
        sends: Direction,
        takes: Direction,
        outgoing: Outgoing,
        intake: Intake,
        send: Callable[[Message], Awaitable[None]],
        pace: Pace,
        pacing: Pacing,
        peer: str,
    ) -> None:
        self._feed, self._sends, self._takes = feed, sends, takes
        self._outgoing, self._intake, self._send = outgoing, intake, send
        self._pace, self._pacing, self._peer = pace, pacing, peer
        self._due = self._now() + _jittered(pacing.first)
        self._compared_at, self._compared_number = -pacing.quiet, -1
        self._asked: DigestAsk | None = None
        self._not_comparable: set[Key] = set()
        self._answer_from = 0.0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.compared = 0
        """How often the two ends were found to agree."""

    # -- the receiver of a stream

    def look(self, now: float) -> None:
        """Called about as often as heartbeats come: ask when it is time."""
        if now < self._due or "ask" in self._tasks or "compare" in self._tasks:
            return
        if self._intake.number == self._compared_number and now < self._compared_at + self._pacing.quiet:
            return
        self._due = now + _jittered(self._pacing.unanswered)
        self._begin("ask", self._ask([]))

    async def _ask(self, buckets: list[int]) -> None:
        excluded = sorted((self._intake.refused | self._not_comparable) - {TOO_MANY})[:EXCLUDED]
        self._asked = DigestAsk(buckets=buckets, excluded=excluded)
        await self._send(self._asked)

    def answered(self, message: Digest) -> None:
        """The sender's digest. Raises BadMessage."""
        if self._asked is None or message.asked != self._asked.buckets:
            return
        if message.ready and len(message.sums) != digest.BUCKETS:
            raise BadMessage(f"a digest of {len(message.sums)} sums")
        if len(message.keys) > digest.KEYS_LIMIT:
            raise BadMessage(f"a digest of {len(message.keys)} keys")
        self._begin("compare", self._compare(self._asked, message))

    async def _compare(self, asked: DigestAsk, theirs: Digest) -> None:
        self._asked = None
        self._due = self._now() + _jittered(self._pacing.again)
        if not theirs.ready or self._intake.number != theirs.number:
            return
        content = digest.Content(set(asked.excluded), asked.buckets)
        async with self._pace.turn():
            spans = self._takes.held()
            await digest.read(self._feed.store, spans, self._takes.taken, content, self._pace.spent)
        if self._intake.number != theirs.number:
            return
        differ = digest.differing(content.sums, theirs.sums)
        if not differ:
            self.compared += 1
            self._compared_at, self._compared_number = self._now(), theirs.number
            self._due = self._now() + _jittered(self._pacing.after)
        elif not asked.buckets:
            self._due = self._now() + _jittered(self._pacing.unanswered)
            await self._ask(differ)
        else:
            await self._repair(digest.suspects(content.keys, theirs.keys)[:AT_ONCE])

    async def _repair(self, keys: list[Key]) -> None:
        """Ask for these again; what was asked for before and is not better for it is left out from now on."""
        hopeless = [key for key in keys if key in self._intake.unchanged]
        self._not_comparable.update(hopeless[: EXCLUDED - len(self._not_comparable)])
        wanted = [key for key in keys if key not in self._not_comparable]
        log.info("link.digest-differs", peer=self._peer, count=len(keys), not_comparable=len(hopeless))
        self._intake.suspect(wanted)
        if wanted:
            await self._send(Again(keys=wanted))

    # -- the sender of a stream

    async def asked(self, message: DigestAsk) -> None:
        """The receiver wants our digest. Raises BadMessage."""
        if len(message.excluded) > EXCLUDED or len(message.buckets) > digest.BUCKETS:
            raise BadMessage("a digest was asked for with too many exceptions")
        now = self._now()
        # The second question of a comparison follows the first at once.
        if "answer" in self._tasks or (now < self._answer_from and not message.buckets):
            await self._send(Digest(number=0, ready=False, asked=message.buckets))
            return
        self._answer_from = now + self._pacing.answer_every
        self._begin("answer", self._answer(message))

    async def _answer(self, asked: DigestAsk) -> None:
        content = digest.Content(set(asked.excluded), asked.buckets)
        async with self._pace.turn():
            number, ready = self._outgoing.number, self._outgoing.in_step
            if ready:
                spans = self._sends.sent()
                revision = await digest.read(
                    self._feed.store, spans, self._sends.compared, content, self._pace.spent
                )
                await self._fed(revision)
                ready = self._outgoing.in_step and self._outgoing.number == number
                ready = ready and self._feed.position >= revision
        if not ready:
            await self._send(Digest(number=0, ready=False, asked=asked.buckets))
            return
        await self._send(Digest(number=number, sums=content.sums, keys=content.hashed(), asked=asked.buckets))

    async def _fed(self, revision: int) -> None:
        """Until the feed has come as far as was read, or that takes too long."""
        deadline = self._now() + FED_WITHIN
        while self._feed.position < revision and self._now() < deadline:  # noqa: ASYNC110 - it lags by little
            await asyncio.sleep(LOOK)

    # -- inside

    def _begin(self, name: str, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _guarded(self, work: Awaitable[None]) -> None:
        """A comparison that fails is no reason to end a link."""
        try:
            await work
        except (LinkError, StoreError, TimeoutError) as error:
            log.debug("link.not-compared", peer=self._peer, reason=str(error))
        except Exception:
            log.exception("link.not-compared", peer=self._peer)

    def close(self) -> None:
        """End what goes on."""
        for task in list(self._tasks.values()):
            task.cancel()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _jittered(seconds: float) -> float:
    return seconds * chance.between(0.5, 1.5)
