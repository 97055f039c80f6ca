"""Quiet: when either end of a session last spoke, and whether silence means that the peer is lost.

Three look for a peer that is gone, each for what the others don't see:

- the kernel asks the peer's kernel whenever a connection rests (`sockets`, keepalive), and ends the
  connection when there is no answer: it finds a way that is cut, and nobody here does anything for that;
- while something that was sent has not arrived, the kernel asks nothing but repeats it, for many minutes. So
  where something was said and nothing came back, it is looked up for how long the peer's kernel is silent;
- heartbeats find a peer whose kernel answers though its process does not.

Silence counts only while this end listens: who is kept waiting has no chance to be heard.

Times are seconds of the loop's clock.
"""

from __future__ import annotations

from collections.abc import Callable

from roost.link.rhythm import Rhythm
from roost.link.wire import Way

CUT_AFTER = 8.0
"""Seconds after which a peer whose kernel acknowledges nothing is lost: as long as keepalive takes."""
REPETITIONS, LONGEST_REPEATING = 6, 10.0
"""Round trips that a frame may take longer because packets are lost, and the most seconds for that."""
AGAIN = 1.0


class Quiet:
    """Of one session. Tell it what happens; `lost` judges, `due` says when to judge again."""

    def __init__(self, usual: Rhythm, way: Callable[[], Way]) -> None:
        self.usual, self._way = usual, way
        self.rhythm = usual
        self.heard = self._said = self._since = 0.0
        self._listening = False

    def listens(self, now: float) -> None:
        """This end reads, from now until it is told what it `hears`: only then does silence count."""
        self._since, self._listening = now, True

    def hears(self, now: float) -> None:
        """Something came."""
        self.heard, self._listening = now, False

    def spoke(self, now: float) -> bool:
        """Something is sent; whether it is the first since anything came."""
        if self._said > self.heard:
            return False
        self._said = now
        return self._said > self.heard

    def lost(self, now: float) -> str:
        """Why the peer is taken for lost; empty when it is not."""
        silent = now - self._since if self._listening else 0.0
        unanswered = now - self._said if self._said > self.heard else 0.0
        if silent < self.usual.silence and unanswered < CUT_AFTER:
            return ""
        way = self._way()
        repeating = min(REPETITIONS * way.round_trip, LONGEST_REPEATING)
        patience = self.rhythm.silence + repeating
        if silent >= patience:
            return f"nothing was heard for {patience:.3g} s"
        if unanswered >= CUT_AFTER and way.unanswered >= CUT_AFTER + repeating:
            return f"what was sent did not arrive for {way.unanswered:.3g} s"
        return ""

    def due(self, now: float) -> float:
        """When to judge again, if nothing is said or heard until then."""
        due = self._since + self.rhythm.silence if self._listening else now + AGAIN
        if self._said > self.heard:
            due = min(due, self._said + CUT_AFTER)
        # What is due and still there is waited for: packets may be under way again.
        return due if due > now else now + AGAIN
