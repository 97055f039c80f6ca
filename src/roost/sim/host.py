"""A simulated host: the real agent, store and link, on a simulated machine.

It is attached to its cloud over memory. When its machine restarts, the agent ends and a new one begins
on the same store, as after a real restart; its link is down for that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from roost import __version__
from roost.host.agent import SAMPLE_SECONDS, Agent, AgentIdentity
from roost.link.lower import Backoff, LowerLink, State
from roost.link.node import host as host_node
from roost.link.session import Timing
from roost.link.upper import LocalDialer, UpperLink
from roost.sim.dialing import SeverableDialer
from roost.sim.machine import SimulatedMachine
from roost.store.database import sqlite_url
from roost.store.store import Store


class SimulatedHost:
    """One host of a cloud in this process: `open`, `start`, and `close` in the end."""

    def __init__(
        self,
        cloud: str,
        name: str,
        machine: SimulatedMachine,
        upper: UpperLink,
        directory: Path,
        *,
        clock: Callable[[], datetime],
        timing: Timing,
        sample_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self.node = host_node(cloud, name)
        self.machine = machine
        self.way = SeverableDialer(LocalDialer(upper, self.node))
        self._path = directory / f"{name}.db"
        self._clock, self._timing, self._sample_seconds = clock, timing, sample_seconds
        self._starts = 0
        self._agent: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self.store: Store
        self.link: LowerLink

    async def open(self) -> None:
        """Open its store."""
        url = sqlite_url(self._path, synced=False)
        self.store = await Store.open(url, clock=self._clock, inline=True)
        self.machine.when_restarted(self._restarted)

    def start(self) -> None:
        """Begin the agent and dial."""
        self._starts += 1
        self.link = LowerLink(
            self.store,
            self.way,
            node=self.node,
            clock=self._clock,
            timing=self._timing,
            backoff=Backoff(first=0.1, cap=2.0),
        )
        agent = Agent(
            self.store,
            AgentIdentity(
                cloud=self.node.cloud,
                host=self.node.name,
                version=__version__,
                incarnation=f"{self.machine.boot_id}/{self._starts}",
            ),
            self.machine,
            clock=self._clock,
            link_up=lambda: self.link.state.connected,
            probe=self._probe,
            sample_seconds=self._sample_seconds,
        )
        self.link.listen(on_connection(agent.notice))
        self.link.start()
        self._agent = asyncio.create_task(agent.run(), name=f"agent {self.node}")

    async def stop(self) -> None:
        """End the agent and its link, as the end of its process would."""
        if self._agent is not None:
            self._agent.cancel()
            await asyncio.gather(self._agent, return_exceptions=True)
            self._agent = None
            await self.link.stop()

    async def close(self) -> None:
        """End everything."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.stop()
        await self.store.close()

    def _restarted(self) -> None:
        task = asyncio.create_task(self._begin_anew())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _begin_anew(self) -> None:
        await self.stop()
        self.start()

    async def _probe(self) -> None:
        """The way to its cloud is memory: whether it is open is known without dialling anew."""
        if self.way.is_cut:
            raise ConnectionError(f"the way of {self.node} is cut")


def on_connection(notice: Callable[[], None]) -> Callable[[State], None]:
    """A listener that calls `notice` when the link comes or goes, and not with each proof that it is up."""
    was_up = False

    def changed(state: State) -> None:
        nonlocal was_up
        if state.connected != was_up:
            was_up = state.connected
            notice()

    return changed
