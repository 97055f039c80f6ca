"""Restraint: a peer that sends more than its budget is read no faster than that allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from roost.link.budget import ASKED, PATIENCE, STRANGE, UNBIDDEN, UNBIDDEN_BYTES, Budget
from roost.link.calls import Calls
from roost.link.conduct import What
from roost.link.errors import Flooded
from roost.link.messages import Acknowledge, AnyMessage, CallAnswer, CallBody, CallEnd, Entries
from roost.link.outgoing import Outgoing


class Restraint:
    """Of one session: who reads waits in it. A lower end bears its upper one whatever that sends."""

    def __init__(
        self, outgoing: Outgoing, calls: Calls, *, lower: bool, complain: Callable[[What, str], None]
    ) -> None:
        self._outgoing, self._calls, self._lower, self._complain = outgoing, calls, lower, complain
        self._unbidden, self._answers = Budget(UNBIDDEN, UNBIDDEN_BYTES), Budget(ASKED)

    async def part(self, now: float) -> None:
        """A part of a message came that is not whole yet."""
        await _hold_back(self._answers.charge(now, 1))

    async def afford(self, message: AnyMessage | None, size: int, now: float) -> None:
        """A message of so many bytes came. Raises Flooded."""
        match message:
            case Entries():
                return
            case CallAnswer() | CallBody() | CallEnd():
                asked = self._calls.awaits(message)
            case Acknowledge():
                asked = self._outgoing.awaits
            case _:
                asked = False
        if asked:
            wait = self._answers.charge(now, 1)
        else:
            wait = self._unbidden.charge(now, 1, size)
            if not self._lower and self._unbidden.short_for(now) > PATIENCE:
                raise Flooded(PATIENCE)
        if wait > 0 and not asked and self._unbidden.short_for(now) > STRANGE:
            self._complain("floods", "it sends more than a node has to say, and is read slowly for it")
        await _hold_back(wait)


async def _hold_back(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)
