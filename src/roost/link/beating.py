"""Beating: heartbeats of a session, what they prove, and the word of trouble that they carry.

The lower end beats, the upper answers. A heartbeat that was answered proves the way there and back after the
moment it was sent. Who can't write its store says so with its heartbeats, and at once when that changes.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec
import structlog

from roost.link import rhythm
from roost.link.errand import Errand, Spawn
from roost.link.messages import Heartbeat, HeartbeatEcho, Message
from roost.link.quiet import Quiet
from roost.link.rhythm import Rhythm

log = structlog.get_logger(__name__)

TROUBLE = 300
"""Characters of what a side says of its trouble."""
TROUBLE_FOR = 5.0
"""Seconds for which such a word holds at least: a peer must not raise and clear alarms at will."""
UNANSWERED = 16


class Proof(msgspec.Struct, frozen=True):
    """A heartbeat that came back: when it was sent and when its echo came."""

    sent_at: datetime
    proven_at: datetime
    sent_monotonic: float


class Beating:
    """Of one session. `beats`: whether this end does, as the lower one; else it answers."""

    def __init__(
        self,
        send: Callable[[Message], Awaitable[None]],
        *,
        spawn: Spawn,
        peer: str,
        beats: bool,
        quiet: Quiet,
        choose: Callable[[], Rhythm],
        clock: Callable[[], datetime],
        own_trouble: Callable[[], str],
        on_proof: Callable[[Proof], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._send, self._clock, self._peer = send, clock, peer
        self._beats, self._quiet, self._choose = beats, quiet, choose
        self._own_trouble, self._on_proof, self._on_trouble = own_trouble, on_proof, on_trouble
        self._errand = Errand(spawn, self._beat)
        self._sequence = 0
        self._due = 0.0
        self._sent: deque[tuple[int, datetime, float]] | None = None
        self._said_trouble: str | None = None
        self._last_word, self._shown_at = "", 0.0
        self.trouble: str | None = None
        """Why the peer can't write its store, as it last said; empty when it can, None before it said so."""
        self.negotiated = False
        """Whether the peer knows that the rhythm is negotiated."""

    # -- own heartbeats

    def look(self, now: float) -> float:
        """Beat when that is due; when to look again."""
        every, unsaid = self._quiet.rhythm.every, self._said_trouble not in (None, self._word())
        if self._beats and now >= self._due:
            self._due = now + every
            self._errand.wake()
        elif unsaid:
            self._errand.wake()
        self._show_trouble(now)
        return min(self.due, now + every)

    @property
    def due(self) -> float:
        """When to look at the latest, on the loop's clock."""
        settles = self._shown_at + TROUBLE_FOR if self._is_held else math.inf
        return min(settles, self._due if self._beats else math.inf)

    @property
    def unanswered(self) -> int:
        """Heartbeats without an answer, of the last UNANSWERED."""
        return len(self._sent) if self._sent else 0

    async def probe(self) -> None:
        """Have the peer say something, as soon as it can. Raises ConnectionLost."""
        await self._send(Heartbeat(sequence=0, trouble=self._say_trouble()))

    async def _beat(self) -> None:
        if not self._beats:
            await self.probe()
            return
        self._sequence += 1
        if self._sent is None:
            self._sent = deque(maxlen=UNANSWERED)
        self._sent.append((self._sequence, self._clock(), asyncio.get_running_loop().time()))
        await self._send(Heartbeat(sequence=self._sequence, trouble=self._say_trouble()))

    # -- the peer's

    async def asked(self, beat: Heartbeat) -> None:
        """Answer a heartbeat of the peer's. Raises ConnectionLost."""
        self._hear_of_trouble(beat.trouble)
        every = 0.0
        if not self._beats and self.negotiated:
            self._quiet.rhythm = self._choose()
            if self._quiet.rhythm != self._quiet.usual:
                every = self._quiet.rhythm.every
        trouble = self._say_trouble()
        await self._send(HeartbeatEcho(sequence=beat.sequence, trouble=trouble, every=every))

    def answered(self, echo: HeartbeatEcho) -> None:
        """The peer's answer to one of ours."""
        self._hear_of_trouble(echo.trouble)
        if self._beats:
            before, self._quiet.rhythm = self._quiet.rhythm, rhythm.told(self._quiet.usual, echo.every)
            self._due += self._quiet.rhythm.every - before.every
        while self._sent and self._sent[0][0] <= echo.sequence:
            sequence, sent_at, monotonic = self._sent.popleft()
            if sequence == echo.sequence:
                self._on_proof(Proof(sent_at, self._clock(), monotonic))

    # -- trouble

    def _word(self) -> str:
        return self._own_trouble()[:TROUBLE]

    def _say_trouble(self) -> str:
        self._said_trouble = self._word()
        return self._said_trouble

    def _hear_of_trouble(self, trouble: str) -> None:
        """The peer can't write its store, or can again: until then it takes nothing in, and is waited for."""
        self._last_word = trouble[:TROUBLE]
        self._show_trouble(asyncio.get_running_loop().time())

    @property
    def _is_held(self) -> bool:
        """Whether the last word is another than the one that holds."""
        return self.trouble is not None and bool(self._last_word) != bool(self.trouble)

    def _show_trouble(self, now: float) -> None:
        if self.trouble is not None:
            if not self._is_held or now - self._shown_at < TROUBLE_FOR:
                return
            log.info("link.trouble", peer=self._peer, trouble=self._last_word)
        self.trouble, self._shown_at = self._last_word, now
        self._on_trouble(self.trouble)
