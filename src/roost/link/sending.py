"""Sending: messages of a session into its connection, large ones in parts, each with its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from roost.link import messages, parts
from roost.link.errors import ConnectionLost, TookNothing
from roost.link.messages import Message
from roost.link.parts import PART, Lane
from roost.link.quiet import Quiet
from roost.link.wire import Connection


class Sending:
    """`send` for one session. `on_silence` is called when something is said after which nothing came yet."""

    def __init__(
        self, connection: Connection, quiet: Quiet, *, within: float, on_silence: Callable[[float], None]
    ) -> None:
        self._connection, self._quiet, self._within, self._on_silence = connection, quiet, within, on_silence
        self._lanes: dict[Lane, asyncio.Lock] = {}
        self.in_parts = False
        """Whether the peer knows parts."""

    async def send(self, message: Message) -> None:
        """Raises ConnectionLost, TookNothing."""
        frame = messages.pack(message)
        if len(frame) <= PART or not self.in_parts:
            await self._send(frame)
            return
        lane = parts.lane(message)
        if lane not in self._lanes:
            self._lanes[lane] = asyncio.Lock()
        async with self._lanes[lane]:
            for part in parts.parts(frame, lane):
                await self._send(messages.pack_plain(part))

    async def _send(self, frame: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if self._quiet.spoke(now):
            self._on_silence(now)
        try:
            async with asyncio.timeout(self._within):
                await self._connection.send(frame)
        except TimeoutError:
            reason = f"the peer took nothing for {self._within:g} s"
            if asyncio.get_running_loop().time() - self._quiet.heard < self._within:
                # It is there, and speaks: this is no cut line.
                raise TookNothing(reason) from None
            raise ConnectionLost(reason) from None
