"""The first start of a cloud after a restore: told once, commands ended, configurations numbered anew."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from roost.cloud.restored import GENERATIONS, after_restore
from roost.engine.procedures import OperationController
from roost.host.agent import progress
from roost.model.cloud import Cloud, CloudSpec
from roost.model.configuration import (
    AspectStatus,
    HostConfiguration,
    HostConfigurationStatus,
    is_in_force,
)
from roost.model.fault import LogEntry
from roost.model.host import Host
from roost.model.meta import Metadata
from roost.model.operation import Operation, OperationAction, OperationSpec
from roost.store import database, restore, snapshot
from roost.store.store import Store
from roost.store.transaction import Transaction
from tests.support.stores import opened

HOST = Metadata(name="c0", namespace="harbor")


def operation(name: str, action: OperationAction) -> Operation:
    metadata = Metadata(name=name, namespace="harbor")
    return Operation(metadata=metadata, spec=OperationSpec(action=action, host="c0"))


def lived(tx: Transaction) -> None:
    tx.save(Cloud(metadata=Metadata(name="harbor"), spec=CloudSpec()))
    tx.save(Host(metadata=HOST))
    tx.save(HostConfiguration(metadata=HOST))
    tx.save(operation("reboot-c0", "reboot"))
    tx.save(operation("unlock-c0-1-1", "unlock"))


def quiet(*_: object) -> None:
    pass


def go_back(url: str, path: Path) -> None:
    engine = database.open_engine(url)
    snapshot.write(engine, path, datetime.now(UTC), quiet)
    engine.dispose()
    restore.restore(url, path, restore.look(url), datetime.now(UTC), quiet)


async def told(store: Store) -> list[str]:
    entries = await store.read(lambda tx: tx.every(LogEntry, "harbor"))
    return [e.status.text for e in entries if e.status.event == "store-restored"]


async def test_a_restore_is_reckoned_with_once(tmp_path: Path) -> None:
    url = database.sqlite_url(tmp_path / "cloud.db")
    async with opened(url) as store:
        await store.transact(lived)
        assert not await store.transact(lambda tx: after_restore(tx, "harbor")), "nothing was restored"
        # Planned, as an operation under way is.
        await OperationController({}, "me").reconcile(store, ("harbor", "unlock-c0-1-1"))
    go_back(url, tmp_path / "a.roost")
    async with opened(url) as store:
        before = await store.get("HostConfiguration", "harbor", "c0")
        assert await store.transact(lambda tx: after_restore(tx, "harbor"))
        assert not await store.transact(lambda tx: after_restore(tx, "harbor")), "once is enough"
        (text,) = await told(store)
        assert "was restored at" in text and "from a snapshot of 20" in text and "reboot-c0" in text
        ended = (await store.get("Operation", "harbor", "reboot-c0")).raw["status"]
        assert ended["finishedAt"] and "ask again" in ended["message"]
        going = await store.get("Operation", "harbor", "unlock-c0-1-1")
        assert "restored" not in str(going.raw.get("status"))
        after = await store.get("HostConfiguration", "harbor", "c0")
        assert after.uid == before.uid and after.raw.get("spec") == before.raw.get("spec")
        assert after.raw["metadata"]["generation"] == before.raw["metadata"]["generation"] + GENERATIONS
    go_back(url, tmp_path / "b.roost")
    async with opened(url) as store:
        assert await store.transact(lambda tx: after_restore(tx, "harbor")), "and again after another"
        assert len(await told(store)) == 2


@pytest.mark.parametrize(("applied", "said"), [(5, "in force"), (4, "not"), (7, "not"), (0, "not")])
def test_a_generation_that_the_cloud_never_gave_is_not_in_force(applied: int, said: str) -> None:
    status = HostConfigurationStatus(applied_generation=applied)
    metadata = msgspec.structs.replace(HOST, generation=5)
    assert is_in_force(HostConfiguration(metadata=metadata, status=status)) is (said == "in force")


@pytest.mark.parametrize(("applied", "left"), [(4, 4), (7, 0), (5, 0)])
def test_a_host_says_of_no_generation_of_a_lost_future_that_it_has_it(applied: int, left: int) -> None:
    """What is pending is not in force, though a configuration of that number, or a later one, was."""
    metadata = msgspec.structs.replace(HOST, generation=5)
    before = HostConfiguration(metadata=metadata, status=HostConfigurationStatus(applied_generation=applied))
    now = progress(before, [AspectStatus(aspect="firewall", state="failed", generation=5)])
    assert now.applied_generation == left
    done = progress(before, [AspectStatus(aspect="firewall", state="applied", generation=5)])
    assert done.applied_generation == 5
