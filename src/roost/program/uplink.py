"""Tells in a Cloud whether its link upwards stands: at the start, for nobody knows how the process
before ended, and then whenever it changes. What could not be written is written at the next word of
the link.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from roost.link.lower import State
from roost.model.cloud import Cloud
from roost.store.errors import Overloaded, Unavailable
from roost.store.store import Store
from roost.store.transaction import Transaction

_log = structlog.get_logger("roost.program")


class UplinkTeller:
    """Give `changed` to `LowerLink.listen`, and call it with the state at the start."""

    def __init__(self, store: Store, cloud: str) -> None:
        self._store, self._cloud = store, cloud
        self._told: tuple[str, bool] | None = None
        self._writing: set[asyncio.Task[None]] = set()

    def changed(self, state: State) -> None:
        """The link has said something; most of it is known already."""
        told = (state.upper, state.connected)
        if told == self._told:
            return
        self._told = told
        task = asyncio.get_running_loop().create_task(self._write(state))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, state: State) -> None:
        try:
            await self._store.transact(lambda tx: self._tell(tx, state))
        except (Unavailable, Overloaded) as error:
            self._told = None
            _log.warning("the state of the link could not be written", reason=str(error))

    def _tell(self, tx: Transaction, state: State) -> None:
        cloud = tx.load(Cloud, "", self._cloud)
        status = msgspec.structs.replace(
            cloud.status, upper=state.upper or cloud.status.upper, upper_connected=state.connected
        )
        if status != cloud.status:
            tx.report(msgspec.structs.replace(cloud, status=status))
