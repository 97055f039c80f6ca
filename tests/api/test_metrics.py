"""/metrics: who may read it, that Prometheus' own tool takes it, that its labels stay bounded."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from roost.api.metrics import OTHERS, bounded
from roost.engine.faults import settle
from roost.model.alarms import Fault
from roost.model.cloud import Subcloud
from roost.model.meta import Metadata
from roost.model.outlet import AlarmOutlet, AlarmOutletSpec
from roost.store.store import Store
from tests.api.client import Client
from tests.cloud.outlets import programs


async def _filled(store: Store) -> None:
    fault = Fault(alarm_id="100.101", severity="major", entity="host=h", reason='busy "\\ \n')
    await store.transact(lambda tx: settle(tx, "central", "host.h", [fault]))
    await store.save(Subcloud(metadata=Metadata(name="east")))
    spec = AlarmOutletSpec(type="webhook", endpoint="https://noc.example/in")
    await store.save(AlarmOutlet(metadata=Metadata(name="noc", namespace="central"), spec=spec))


async def _figures(client: Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await client.get("/metrics")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


async def test_what_stands_and_what_happened_is_told(store: Store, client: Client) -> None:
    await _filled(store)
    await client.get("/version")
    found = await _figures(client)
    labels = (("alarm_id", "100.101"), ("cloud", "central"), ("severity", "major"))
    assert found[("roost_alarms", labels)] == 1
    assert found[("roost_lower_nodes", (("availability", "unknown"), ("kind", "subcloud")))] == 1
    assert found[("roost_outlet_state", (("outlet", "noc"), ("state", "unknown"), ("type", "webhook")))] == 1
    assert found[("roost_http_requests_total", (("code", "200"), ("method", "GET")))] >= 1
    assert found[("roost_store_revision", ())] == store.revision
    assert found[("roost_store_batches_total", ())] >= 3
    assert found[("process_resident_memory_bytes", ())] > 0


async def test_rights_decide_who_reads_it(client: Client) -> None:
    assert (await client.reader().get("/metrics")).status == 200
    assert (await client.local("scraper", "system:monitoring").get("/metrics")).status == 200
    (await client.local("nobody").get("/metrics")).refused(403, "/metrics")
    assert (await client.at("192.0.2.9").get("/metrics")).status in (401, 403)


async def test_promtool_takes_it(store: Store, client: Client) -> None:
    promtool = programs.program("promtool", "prometheus")
    await _filled(store)
    answer = await client.get("/metrics")
    done = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=answer.body, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.parametrize("most", [10, 40, 1000])
def test_labels_are_bounded_and_no_alarm_is_left_out(most: int) -> None:
    alarms = {
        (f"c{n}", severity, id): n + 1
        for n in range(50)
        for severity, id in (("major", "100.101"), ("minor", "100.103"))
    }
    found = bounded(alarms, most)
    assert len(found) <= max(most, 0) or most >= len(alarms)
    assert sum(found.values()) == sum(alarms.values())
    assert ("c49", "major", "100.101") in found
    assert any(cloud == OTHERS for cloud, _, _ in found) is (most < len(alarms))
