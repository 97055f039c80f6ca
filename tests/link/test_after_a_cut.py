"""What is told after a cut: of observations the last, of log entries each, and how many were shed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from roost.cloud.overview import OverviewController
from roost.engine import faults
from roost.engine.controller import Runner
from roost.engine.faults import write_log
from roost.link import node
from roost.model.cloud import Cloud
from roost.model.fault import Alarm, AlarmStatus, LogEntry
from roost.model.meta import Metadata
from roost.store.transaction import Transaction
from tests.link.world import Link, run, with_link
from tests.support.stores import history

HARBOR = node.subcloud("harbor")


async def observe(link: Link, reason: str) -> None:
    """The site sees something else."""

    def work(tx: Transaction) -> None:
        current = tx.seek(Alarm, "harbor", "a")
        status = AlarmStatus(alarm_id="100.101", severity="major", reason=reason)
        if current is None:
            tx.save(Alarm(metadata=Metadata(name="a", namespace="harbor"), status=status))
        else:
            tx.report(msgspec.structs.replace(current, status=status))

    await link.lower.transact(work)


async def log(link: Link, count: int, **more: Any) -> None:
    def work(tx: Transaction) -> None:
        for number in range(count):
            write_log(tx, "harbor", event="e", text=str(number), **more)

    await link.lower.transact(work)


def test_of_observations_the_last_is_told_and_of_log_entries_each(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        await observe(link, "at first")
        await link.settle()
        before = link.upper.revision
        link.hold()
        for number in range(300):
            await observe(link, f"value {number}")
        await log(link, 40)
        link.release()
        await link.settle()
        told = [c for c in await history(link.upper, before) if c.kind == "Alarm"]
        assert len(told) == 1, f"{len(told)} values were told"
        assert (await link.upper.load(Alarm, "harbor", "a")).status.reason == "value 299"
        entries = await link.upper.every(LogEntry, "harbor")
        assert [e.status.sequence for e in entries] == list(range(1, 41))

    run(lambda: with_link(tmp_path, HARBOR, work))


def test_above_it_is_known_how_many_entries_are_missing_and_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "KEPT", 60)
    monkeypatch.setattr(faults, "_PRUNE_EVERY", 50)

    async def work(link: Link) -> None:
        await link.lower.save(Cloud(metadata=Metadata(name="harbor")))
        overview = asyncio.ensure_future(Runner(link.lower, OverviewController("harbor", "1")).run())
        link.hold()
        await log(link, 20, severity="major")
        await log(link, 130)
        await asyncio.sleep(5)
        link.release()
        await link.settle()
        overview.cancel()
        entries = [e.status for e in await link.upper.every(LogEntry, "harbor")]
        told = [e for e in entries if e.event == faults.SHED]
        shed = (await link.upper.load(Cloud, "", "harbor")).status.log_shed
        assert shed is not None and shed.total == shed.info > 80 and shed.major == 0, shed
        assert len(told) == 1 and told[0].severity == "warning"
        assert f"{shed.total} entries" in told[0].text and f"{shed.info} info" in told[0].text
        assert sum(e.severity == "major" for e in entries) == 20, "the severe ones stay"
        here = {e.status.sequence for e in await link.lower.every(LogEntry, "harbor")}
        assert {e.sequence for e in entries} == here

    run(lambda: with_link(tmp_path, HARBOR, work))
