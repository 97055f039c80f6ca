"""What a cloud says of its link upwards follows from the link, whoever wrote it last."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from roost.link.lower import State
from roost.model.cloud import Cloud, CloudStatus
from roost.model.meta import Metadata
from roost.program.uplink import UplinkTeller
from roost.store.errors import Unavailable
from roost.store.store import Store
from tests.support.clock import START

DOWN = State(connected=False, since=START)
UP = State(connected=True, since=START, upper="central")


async def _status(store: Store) -> CloudStatus:
    # A write that waits its turn behind the teller's own.
    await asyncio.sleep(0)
    await store.transact(lambda tx: None)
    return (await store.load(Cloud, "", "harbor")).status


async def test_what_a_process_that_was_killed_left_behind_is_put_right(store: Store) -> None:
    left = CloudStatus(upper="central", upper_connected=True)
    await store.save(Cloud(metadata=Metadata(name="harbor"), status=left))
    UplinkTeller(store, "harbor").changed(DOWN)
    status = await _status(store)
    assert (status.upper, status.upper_connected) == ("central", False)


async def test_only_a_change_is_written_and_a_failed_write_is_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save(Cloud(metadata=Metadata(name="harbor")))
    teller, transact = UplinkTeller(store, "harbor"), store.transact

    async def failing(work: object) -> None:
        raise Unavailable("disk full")

    monkeypatch.setattr(store, "transact", failing)
    teller.changed(UP)
    await asyncio.sleep(0)
    monkeypatch.setattr(store, "transact", transact)
    assert not (await _status(store)).upper_connected
    teller.changed(UP)
    assert (await _status(store)).upper_connected
    before = store.revision
    teller.changed(msgspec.structs.replace(UP, endpoint="elsewhere"))
    await _status(store)
    assert store.revision == before
