"""A central cloud on fake time; its subclouds are what the store and the presences say of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec

from roost.fleet.controllers import controllers
from roost.model.cloud import Subcloud, SubcloudSpec, SubcloudStatus
from roost.model.fault import Alarm, LogEntry
from roost.model.firewall import FirewallPolicy
from roost.model.meta import Condition, Metadata
from roost.store.transaction import Transaction
from tests.support.stores import World, world

CENTRE = "central"


class Centre(World):
    """The fleet's controllers and what people and subclouds do."""

    def __init__(self, made: World) -> None:
        super().__init__(made.store, made.clock)
        self.disconnected: list[str] = []

    def work(self) -> None:
        """Start the controllers."""
        presence = lambda name: self.presence(name)  # noqa: E731 - the book changes with a restart
        self.start(controllers(CENTRE, presence, self.disconnected.append).values())

    async def declare(self, name: str, *, managed: bool = True, **labels: str) -> None:
        spec = SubcloudSpec(management_state="managed" if managed else "unmanaged")
        await self.store.save(Subcloud(metadata=Metadata(name=name, labels=labels), spec=spec))

    async def manage(self, name: str, *, managed: bool) -> None:
        def work(tx: Transaction) -> None:
            current = tx.load(Subcloud, "", name)
            state = "managed" if managed else "unmanaged"
            spec = msgspec.structs.replace(current.spec, management_state=state)
            tx.save(msgspec.structs.replace(current, spec=spec))

        await self.store.transact(work)

    async def label(self, name: str, **labels: str) -> None:
        def work(tx: Transaction) -> None:
            current = tx.load(Subcloud, "", name)
            metadata = msgspec.structs.replace(current.metadata, labels=labels)
            tx.save(msgspec.structs.replace(current, metadata=metadata))

        await self.store.transact(work)

    async def report(self, subcloud: str, policy: str, *, ready: str) -> None:
        """What the subcloud says of its copy of a policy, at the generation it has."""

        def work(tx: Transaction) -> None:
            copy = tx.load(FirewallPolicy, subcloud, policy)
            condition = Condition(type="Ready", status=ready, reason="R")  # type: ignore[arg-type]
            status = msgspec.structs.replace(
                copy.status, observed_generation=copy.metadata.generation, conditions=[condition]
            )
            tx.report(msgspec.structs.replace(copy, status=status))

        await self.store.transact(work)

    def link(self, name: str, *, up: bool) -> None:
        """The link of a subcloud comes up or goes down."""
        (self.up if up else self.down)(name, namespace="")

    async def subcloud(self, name: str = "harbor") -> SubcloudStatus:
        return (await self.store.load(Subcloud, "", name)).status

    async def alarms(self) -> list[tuple[str, str]]:
        found = [a.status for a in await self.store.every(Alarm, CENTRE)]
        return sorted((a.alarm_id, a.entity) for a in found)

    async def events(self) -> list[tuple[str, str]]:
        return [(e.status.event, e.status.text) for e in await self.store.every(LogEntry, CENTRE)]


@contextlib.asynccontextmanager
async def centre() -> AsyncIterator[Centre]:
    """A central cloud; `work` starts it."""
    async with world() as made:
        place = Centre(made)
        try:
            yield place
        finally:
            await place.stop()
