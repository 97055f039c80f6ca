"""Alarms by the real kubectl: suppressing, acknowledging, selecting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roost.cloud.suppressing import rules
from roost.model.cloud import Subcloud
from roost.model.fault import Alarm, AlarmStatus
from roost.model.meta import Metadata
from roost.model.suppression import AlarmSuppression
from tests.support.api import ApiServer

SUPPRESSION = """
apiVersion: roost.edge/v1
kind: AlarmSuppression
metadata:
  name: {name}
spec:
  alarmIds: ["{alarm_id}"]
  entity: {entity}
  reason: works
  until: "{until}"
"""
SOON = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path, rules=rules("central")) as running:
        yield running


def test_suppressions_are_applied_listed_refused_and_deleted(server: ApiServer) -> None:
    right = SUPPRESSION.format(name="works", alarm_id="100.104", entity="host=w-*", until=SOON)
    assert "created" in server.kubectl("apply", "-f", "-", stdin=right).stdout
    assert "unchanged" in server.kubectl("apply", "-f", "-", stdin=right).stdout
    listed = server.kubectl("get", "alarmsuppressions").stdout.split()
    assert {"works", "100.104", "host=w-*", SOON} <= set(listed)
    for alarm_id, until, told in (
        ("200.001", SOON, "can't be suppressed"),
        ("999.999", SOON, "no alarm has the id 999.999"),
        ("100.104", "2020-01-01T00:00:00Z", "is past"),
        ("100.104", "soon", "no time with its zone"),
    ):
        wrong = SUPPRESSION.format(name="wrong", alarm_id=alarm_id, entity="'*'", until=until)
        refused = server.kubectl("apply", "-f", "-", stdin=wrong)
        assert refused.returncode != 0 and told in refused.stderr
    assert [s.metadata.name for s in server.do(server.store.every(AlarmSuppression))] == ["works"]
    # The central cloud writes for a subcloud in its namespace.
    nobody = server.kubectl("apply", "-n", "harbor", "-f", "-", stdin=right)
    assert nobody.returncode != 0 and "neither this cloud nor a subcloud of it" in nobody.stderr
    server.do(server.store.save(Subcloud(metadata=Metadata(name="harbor"))))
    assert server.kubectl("apply", "-n", "harbor", "-f", "-", stdin=right).returncode == 0
    assert server.kubectl("delete", "asup", "works").returncode == 0


def test_alarms_are_acknowledged_by_a_patch_and_selected_by_what_is_said_of_them(server: ApiServer) -> None:
    for name, blocks in (("host.a.200.004", True), ("host.b.100.104", False)):
        status = AlarmStatus(alarm_id=name[-7:], severity="critical", entity="host=a", blocks_updates=blocks)
        server.do(server.store.save(Alarm(metadata=Metadata(name=name, namespace="central"), status=status)))
    patch = json.dumps({"spec": {"acknowledgedBy": "ada", "acknowledgedSeverity": "critical"}})
    done = server.kubectl("patch", "alarm", "host.a.200.004", "--type", "merge", "-p", patch)
    assert done.returncode == 0, done.stderr
    stored = server.do(server.store.load(Alarm, "central", "host.a.200.004"))
    assert (stored.spec.acknowledged_by, stored.spec.acknowledged_severity) == ("ada", "critical")
    wrong = server.kubectl(
        "patch", "alarm", "host.a.200.004", "--type", "merge",
        "-p", json.dumps({"spec": {"acknowledgedSeverity": "dire"}}),
    )  # fmt: skip
    assert wrong.returncode != 0 and "dire" in wrong.stderr
    found = server.kubectl("get", "alarms", "-o", "name", "--field-selector", "status.blocksUpdates=true")
    assert found.stdout.split() == ["alarm.roost.edge/host.a.200.004"]
    wide = server.kubectl("get", "alarms", "-o", "wide").stdout
    assert "BLOCKS UPDATES" in wide and "SUPPRESSED UNTIL" in wide
