"""A simulated machine: what the real agent asks and tells, answered from a made-up world.

It implements `roost.host.machine.Machine`. Its load is `machine.load`, which a test sets and the
agent's monitors see at their next sample; its aspects put every intent in force at once, or fail with
a reason while told to; a restart gives it a new boot id and is counted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC

import msgspec

from roost.host.aspect import Aspect, AspectFacts, AspectOutcome
from roost.host.machine import RestartFailed
from roost.host.sampling import PortState, Sample
from roost.model import time
from roost.model.configuration import AspectStatus, HostConfigurationSpec
from roost.model.host import Inventory
from roost.sim.inventory import inventory

RETRY_SECONDS = 1.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a machine is in use, in percent, and which of its ports have no carrier."""

    processor: float = 12.0
    memory: float = 40.0
    root: float = 30.0
    dark_ports: frozenset[str] = frozenset()


class SimulatedAspect:
    """Puts each generation in force at once; fails with `failure` while that is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failure = ""
        self.in_force: HostConfigurationSpec | None = None
        self._told = AspectStatus(aspect=name, state="pending")

    async def reconcile(
        self, spec: HostConfigurationSpec, generation: int, facts: AspectFacts
    ) -> AspectOutcome:
        """In force when this returns, unless told to fail."""
        if self.failure:
            return AspectOutcome(self._status("failed", generation, self.failure, facts), RETRY_SECONDS)
        self.in_force = spec
        return AspectOutcome(self._status("applied", generation, "", facts))

    async def hold(self, facts: AspectFacts) -> AspectOutcome:
        """Nothing is known of the intent: what was in force stays."""
        return AspectOutcome(self._told)

    def _status(self, state: str, generation: int, message: str, facts: AspectFacts) -> AspectStatus:
        told = self._told
        if (told.state, told.generation, told.message) != (state, generation, message):
            changed = time.seconds(facts.now.astimezone(UTC))
            self._told = AspectStatus(
                aspect=self.name,
                state=state,  # type: ignore[arg-type]
                generation=generation,
                message=message,
                changed_at=changed,
            )
        return self._told


class SimulatedMachine:
    """One machine, made from a seed; `addresses` with prefix length by port."""

    def __init__(self, seed: str, hostname: str, addresses: Mapping[str, str]) -> None:
        self._chance = random.Random(f"{seed}/boot")  # noqa: S311 - not a secret
        self._has = inventory(seed, hostname, addresses)
        self._on_restart: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()
        self.load = Load()
        self.refuses_restart = ""
        self.restarts = 0
        self.firewall = SimulatedAspect("firewall")
        self.aspects: Sequence[Aspect] = (self.firewall,)
        self.boot_id = self._boot()

    def _boot(self) -> str:
        return f"{self._chance.getrandbits(128):032x}"

    async def inventory(self) -> Inventory:
        """What the machine has now."""
        return self._has

    async def sample(self) -> Sample:
        """How much of it is in use now."""
        load = self.load
        ports = {p.name: PortState(up=True, carrier=p.name not in load.dark_ports) for p in self._has.ports}
        return Sample(processor=load.processor, memory=load.memory, filesystems={"/": load.root}, ports=ports)

    async def changes(self) -> AsyncIterator[None]:
        """Yields when ports changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield

    async def restart(self) -> None:
        """Go down and come back; raises RestartFailed while told to."""
        if self.refuses_restart:
            raise RestartFailed(self.refuses_restart)
        self.restarts += 1
        self.boot()
        self._on_restart()

    def boot(self) -> None:
        """Be another start of the same machine."""
        self.boot_id = self._boot()

    def when_restarted(self, callback: Callable[[], None]) -> None:
        """Call this when it goes down, to end its agent and begin it anew."""
        self._on_restart = callback

    def change(self, **fields: object) -> None:
        """Give the machine other parts, as `inventory` names them; ports are noticed at once."""
        self._has = msgspec.structs.replace(self._has, **fields)
        self._changed.set()
