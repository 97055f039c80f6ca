"""A host on its own: the agent with its store and its link to its cloud."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from roost.link.lower import TlsDialer
from roost.program import notify
from roost.program.home import Home, Settings, StartError
from roost.program.local import HostRole
from roost.program.proof import probe
from roost.program.room import when_possible
from roost.program.start import now
from roost.program.timing import TIMING


async def run_agent(home: Home, settings: Settings, stop: asyncio.Event, leave: Callable[[], None]) -> None:
    """Run the agent of an enrolled host until `stop` is set."""
    dialer = TlsDialer(home.uplink, clock=now)
    node = dialer.identity.who()
    if node.kind != "host":
        raise StartError(f"the identity in {home.uplink} is that of {node}, not of a host", "use `roost up`")
    role = HostRole(home, settings, node, dialer, clock=now, leave=leave, timing=TIMING)
    await when_possible(lambda: role.open(probe=lambda: probe(home.uplink)), stop, role.hold)
    try:
        running = asyncio.create_task(role.run())
        stopping = asyncio.create_task(stop.wait())
        notify.tell("READY=1")
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if running.done():
            running.result()
        running.cancel()
        await asyncio.wait({running})
    finally:
        await role.close()
