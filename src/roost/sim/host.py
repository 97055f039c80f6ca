"""A simulated host: the real agent, store and link, on a simulated machine.

When its machine restarts, the agent ends and a new one begins on the same store, as after a real restart; its
link is down for that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime
from pathlib import Path

from roost import __version__
from roost.host.agent import SAMPLE_SECONDS, Agent, AgentIdentity, Probe
from roost.link.lower import Backoff, Dialer, LowerLink, State
from roost.link.node import host as host_node
from roost.link.session import Timing
from roost.model import chance
from roost.sim.machine import SimulatedMachine
from roost.store.database import sqlite_url
from roost.store.store import Store

BACKOFF = Backoff(first=0.1, cap=2.0)


class SimulatedHost:
    """One host of a cloud in this process: `open`, `start`, and `close` in the end.

    `dialer` leads to its cloud, and `probe` proves that it can be dialled anew; `writing` does the writes of
    its store.
    """

    def __init__(
        self,
        cloud: str,
        name: str,
        machine: SimulatedMachine,
        dialer: Dialer,
        directory: Path,
        *,
        clock: Callable[[], datetime],
        timing: Timing,
        probe: Probe,
        sample_seconds: float = SAMPLE_SECONDS,
        backoff: Backoff = BACKOFF,
        writing: Executor | None = None,
    ) -> None:
        self.node = host_node(cloud, name)
        self.machine = machine
        self._dialer, self._probe, self._backoff, self._writing = dialer, probe, backoff, writing
        self._path = directory / f"{name}.db"
        self._clock, self._timing, self._sample_seconds = clock, timing, sample_seconds
        self._agent: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self.store: Store
        self.link: LowerLink

    async def open(self) -> None:
        """Open its store."""
        url = sqlite_url(self._path, synced=False)
        self.store = await Store.open(url, clock=self._clock, inline=True, writing=self._writing)
        self.machine.when_restarted(self._restarted)

    def start(self) -> None:
        """Begin the agent and dial."""
        self.link = LowerLink(
            self.store,
            self._dialer,
            node=self.node,
            clock=self._clock,
            timing=self._timing,
            backoff=self._backoff,
        )
        agent = Agent(
            self.store,
            AgentIdentity(
                cloud=self.node.cloud,
                host=self.node.name,
                version=__version__,
                incarnation=chance.uuid(),
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


def on_connection(notice: Callable[[], None]) -> Callable[[State], None]:
    """A listener that calls `notice` when the link comes or goes, and not with each proof that it is up."""
    was_up = False

    def changed(state: State) -> None:
        nonlocal was_up
        if state.connected != was_up:
            was_up = state.connected
            notice()

    return changed
