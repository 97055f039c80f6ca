"""Whoever stops the outlets is not kept waiting because one of them was just ending."""

from __future__ import annotations

import asyncio
from typing import cast

from roost.cloud.outlets import outlets
from roost.engine.vault import Vault
from tests.support.clock import START, on_fake_time
from tests.support.stores import CLOUD


@on_fake_time
async def test_a_stop_gets_through_while_a_worker_takes_its_time_to_end() -> None:
    subject = outlets.Outlets(CLOUD, cast(Vault, None), lambda: START)
    key = (CLOUD, "slow")

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(3)

    task = asyncio.create_task(slow())
    subject._running[key] = outlets._Running(("", 0, "", ""), task, "")
    await asyncio.sleep(0)
    ending = asyncio.create_task(subject._end(key))
    await asyncio.sleep(1)
    ending.cancel()
    await asyncio.wait({ending})
    assert ending.cancelled() and key in subject._running, "it is ended by who stops everything"
    await subject._end(key)
    assert task.done() and key not in subject._running
