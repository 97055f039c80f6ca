"""/metrics: who may read it, that Prometheus' own tool takes it, that its labels stay bounded."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from roost.api.access import USERS
from roost.api.metrics import OTHERS, bounded
from roost.engine.faults import settle
from roost.model.alarms import Fault
from roost.model.cloud import Subcloud
from roost.model.meta import Metadata
from roost.model.outlet import AlarmOutlet, AlarmOutletSpec
from roost.store.store import Store
from tests.api.client import Client
from tests.cloud.outlets import programs
from tests.cloud.outlets.receivers import until
from tests.support.api import ApiServer


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


def test_ids_that_a_cloud_below_makes_up_are_bounded_too() -> None:
    alarms = {("ridge", "critical", f"{n // 1000:03}.{n % 1000:03}"): 1 for n in range(20_000)}
    alarms["harbor", "major", "100.101"] = 7
    found = bounded(alarms, 100)
    assert len(found) <= 100 and sum(found.values()) == 20_007
    assert found["harbor", "major", "100.101"] == 7


async def test_a_real_prometheus_scrapes_it_with_a_certificate(tmp_path: Path) -> None:
    prometheus = programs.program("prometheus", "prometheus")
    (tmp_path / "api").mkdir()
    with ApiServer(tmp_path / "api") as server:
        await asyncio.to_thread(lambda: server.do(_filled(server.store)))
        pair, port = server.authority.client("scraper", USERS, "system:monitoring"), programs.free_port()
        file = tmp_path / "prometheus.json"
        tls = {"ca_file": server.authority.path, "cert_file": pair.certificate, "key_file": pair.key}
        scrape = {
            "job_name": "roost",
            "scheme": "https",
            "scrape_interval": "1s",
            "tls_config": {name: str(path) for name, path in tls.items()},
            "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}],
        }
        # JSON is YAML.
        file.write_text(json.dumps({"scrape_configs": [scrape]}))
        command = [
            prometheus, f"--config.file={file}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip

        async def shown() -> dict[str, str]:
            async with httpx.AsyncClient(trust_env=False) as asking:
                query = {"query": "roost_alarms"}
                answer = await asking.get(f"http://127.0.0.1:{port}/api/v1/query", params=query)
            found = answer.json().get("data", {}).get("result", [])
            return {**found[0]["metric"], "value": found[0]["value"][1]} if found else {}

        async with programs.running(command, tmp_path / "log") as there:
            await there.listens(port)
            told = await until(shown)
        assert (told["alarm_id"], told["severity"], told["value"]) == ("100.101", "major", "1")
