"""An agent with its store and its link: of the host in this process, or of a host on its own.

The host in its cloud's process is linked over memory. What proves its changes is then the cloud's own
link upwards, when there is one: rules that would cut the site off from its central cloud are taken
back like those that would cut a host off from its cloud.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from roost import __version__
from roost.host.agent import Agent, AgentIdentity
from roost.host.aspect import AspectFacts
from roost.host.heartbeat import Registrar
from roost.host.hooks import DirectoryHooks
from roost.host.machine import RealMachine
from roost.link.lower import Backoff, Dialer, LowerLink, State
from roost.link.node import Node
from roost.link.session import Timing
from roost.model import time
from roost.program.home import Home, Settings
from roost.program.troubles import prove_writing
from roost.store.database import sqlite_url
from roost.store.store import Store

_log = structlog.get_logger("roost.program")


def tell_of_connection(link: LowerLink, callback: Callable[[], None]) -> None:
    """Call back when the link comes or goes; not at each echoed heartbeat, as `listen` alone would."""
    known = link.state.connected

    def changed(state: State) -> None:
        nonlocal known
        if state.connected != known:
            known = state.connected
            callback()

    link.listen(changed)


class HostRole:
    """One host: `open`, then `run` until cancelled, then `close`."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        node: Node,
        dialer: Dialer,
        *,
        clock: Callable[[], datetime],
        leave: Callable[[], None],
        timing: Timing,
    ) -> None:
        self._home, self._settings, self.node = home, settings, node
        self._dialer, self._clock, self._timing = dialer, clock, timing
        self._machine = RealMachine(home.agent, contained=settings.contained, leave=leave)
        self._store: Store
        self.link: LowerLink
        self._heartbeats: Registrar
        self.agent: Agent

    async def open(
        self, *, link_up: Callable[[], bool] | None = None, probe: Callable[[], Awaitable[None]]
    ) -> None:
        """Open the store and dial. `link_up` and `probe` speak of the link that proves changes."""
        self._store = await Store.open(sqlite_url(self._home.path / "agent.db"), clock=self._clock)
        self.link = LowerLink(
            self._store,
            self._dialer,
            node=self.node,
            clock=self._clock,
            timing=self._timing,
            backoff=Backoff(cap=self._settings.retry_seconds),
        )
        self.agent = Agent(
            self._store,
            AgentIdentity(
                cloud=self.node.cloud,
                host=self.node.name,
                version=__version__,
                incarnation=str(uuid.uuid4()),
            ),
            self._machine,
            clock=self._clock,
            link_up=link_up or (lambda: self.link.state.connected),
            probe=probe,
            certificate_expires_at=self._certificate_end,
            hooks=DirectoryHooks(self._home.path),
        )
        tell_of_connection(self.link, self.agent.notice)
        self._heartbeats = Registrar(
            self._store,
            self.node.cloud,
            self.node.name,
            call=self.link.call,
            link_up=lambda: self.link.state.connected,
        )
        tell_of_connection(self.link, self._heartbeats.notice)

    async def hold(self) -> None:
        """Put back what was in force on this machine, though its store can't be opened."""
        facts = AspectFacts.gather(now=self._clock(), link_up=False, link_proof=None)
        for aspect in self._machine.aspects:
            status = (await aspect.hold(facts)).status
            _log.info(
                "held without the store", aspect=aspect.name, state=status.state, message=status.message
            )

    async def run(self) -> None:
        """Run the agent until cancelled, the link beside it."""
        self.link.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._heartbeats.run())
                group.create_task(self.agent.run())
                group.create_task(prove_writing(self._store))
        finally:
            await self.link.stop()

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    def _certificate_end(self) -> str:
        end = self.link.state.certificate_expires_at
        return time.seconds(end) if end else ""
