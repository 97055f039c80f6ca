"""A suppression that the central cloud writes is applied, and ends, at the site: over a link that is cut."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from roost.cloud.alarms import AlarmController
from roost.engine.controller import Runner
from roost.engine.faults import settle
from roost.link import node
from roost.model import time
from roost.model.alarms import Fault
from roost.model.fault import Alarm, AlarmStatus
from roost.model.meta import Metadata
from roost.model.suppression import AlarmSuppression, AlarmSuppressionSpec
from roost.store.store import Store
from tests.link.world import Link, clock, run, with_link

HARBOR = node.subcloud("harbor")
FULL = Fault(alarm_id="100.103", severity="critical", entity="host=h", reason="memory is full")


async def told(store: Store) -> AlarmStatus:
    return (await store.load(Alarm, "harbor", "host.h.100.103")).status


def test_it_flows_down_is_shown_above_and_ends_while_the_site_is_cut_off(tmp_path: Path) -> None:
    async def work(link: Link) -> None:
        runner = asyncio.ensure_future(Runner(link.lower, AlarmController("harbor")).run())
        try:
            await link.lower.transact(lambda tx: settle(tx, "harbor", "host.h", [FULL]))
            await link.settle()
            assert not (await told(link.upper)).suppressed
            until = time.stamp(clock() + timedelta(seconds=600))
            spec = AlarmSuppressionSpec(alarm_ids=["100.103"], reason="works", until=until, by="ada")
            metadata = Metadata(name="works", namespace="harbor")
            await link.upper.save(AlarmSuppression(metadata=metadata, spec=spec))
            await link.settle()
            await asyncio.sleep(3)
            await link.settle()
            shown = await told(link.upper)
            assert shown.suppressed and shown.suppression is not None
            assert (shown.suppression.by, shown.suppression.until) == ("ada", until)
            assert (await told(link.lower)) == shown
            link.hold()
            await asyncio.sleep(700)
            assert not (await told(link.lower)).suppressed, "it ends by the site's own clock"
            assert (await told(link.upper)).suppressed, "as it was when the link was lost"
            link.release()
            await link.settle()
            assert (await told(link.upper)) == (await told(link.lower))
        finally:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)

    run(lambda: with_link(tmp_path, HARBOR, work))
