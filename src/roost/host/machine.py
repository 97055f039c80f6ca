"""The machine an agent looks after: what it can be asked and told.

`RealMachine` is this one. A contained one is real too, but not the agent's own to restart: several
share one kernel, as in the demo. There a restart of the machine is a restart of the agent, and its
boot id is that of the agent. Simulated machines implement the same protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

from roost.host.aspect import Aspect
from roost.host.aspect import boot_id as kernel_boot_id
from roost.host.firewall.aspect import FirewallAspect
from roost.host.firewall.driver import FirewallDriver
from roost.host.observe import observe, watch_ports
from roost.host.observe.source import Source
from roost.host.sampling import Sample, Sampler
from roost.model.host import Inventory

_RESTART_DEADLINE = 30.0


class RestartFailed(Exception):
    """The machine did not take the command to restart."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the machine could not be restarted: {reason}; restart it by hand or by its BMC")
        self.reason = reason


class Machine(Protocol):
    """What an agent needs of its machine."""

    boot_id: str
    aspects: Sequence[Aspect]

    async def inventory(self) -> Inventory:
        """What the machine has now. Never raises: what can't be read is listed as unknown."""
        ...

    async def sample(self) -> Sample:
        """How much of it is in use now. Never raises."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yields when ports or addresses changed."""
        ...

    async def restart(self) -> None:
        """Restart the machine; raises RestartFailed."""
        ...


class RealMachine:
    """This machine. `leave` ends the agent's process so that its supervisor starts it anew."""

    def __init__(self, state: Path, *, contained: bool, leave: Callable[[], None]) -> None:
        self._contained, self._leave = contained, leave
        self._source = Source()
        self._sampler = Sampler(self._source)
        self.boot_id = str(uuid.uuid4()) if contained else kernel_boot_id()
        self.aspects: Sequence[Aspect] = (FirewallAspect(state, FirewallDriver()),)

    async def inventory(self) -> Inventory:
        return await observe(self._source)

    async def sample(self) -> Sample:
        return await self._sampler.sample()

    async def changes(self) -> AsyncIterator[None]:
        async with contextlib.aclosing(watch_ports()) as changes:
            async for _ in changes:
                yield

    async def restart(self) -> None:
        if self._contained:
            self._leave()
            return
        try:
            process = await asyncio.create_subprocess_exec(
                "systemctl", "reboot", stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
            )
            async with asyncio.timeout(_RESTART_DEADLINE):
                _, said = await process.communicate()
        except FileNotFoundError as error:
            raise RestartFailed("systemctl is not there") from error
        except TimeoutError as error:
            process.kill()
            raise RestartFailed(f"systemctl did not answer in {_RESTART_DEADLINE:.0f} seconds") from error
        if process.returncode:
            raise RestartFailed(said.decode(errors="replace").strip() or f"exit code {process.returncode}")
