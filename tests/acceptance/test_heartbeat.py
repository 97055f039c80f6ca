"""Failure detection by heartbeat: real processes and packets, ways cut by nft, a stopped controller."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.waiting import report
from tests.support.watched import NETWORKS, Watched, seconds, watched

ALONE, OTHER = "worker-0", "worker-1"
FAILED, MANAGEMENT, CLUSTER, EVENT = "200.004", "200.005", "200.009", "200.203"
SOON = 6.0
"""What takes a second, on a machine whose processors are busy with other things."""


@pytest.fixture(scope="module")
def cloud(place: Path) -> Iterator[Watched]:
    with watched(place, [ALONE, OTHER], {"periodMilliseconds": 100}) as made:
        made.until("no alarm", lambda: made.alarms() == {})
        yield made


def of(host: str) -> str:
    return f"host={host}"


def test_one_silent_network_is_one_alarm_and_degrades(cloud: Watched) -> None:
    cut = cloud.cut(ALONE, "cluster0")
    cloud.until("it is told", lambda: (CLUSTER, of(ALONE)) in cloud.alarms())
    cloud.until("it is critical", lambda: cloud.alarms()[CLUSTER, of(ALONE)]["severity"] == "critical")
    alarms = cloud.alarms()
    took = seconds(alarms[CLUSTER, of(ALONE)]["raisedAt"]) - cut
    report(f"a silent network: told after {took:.2f} s")
    assert list(alarms) == [(CLUSTER, of(ALONE))]
    assert took < SOON
    host = cloud.host(ALONE)
    assert (host["operational"], host["availability"]) == ("enabled", "degraded")
    assert "200.009" in str(host["degraded"])
    mended = cloud.mend(ALONE)
    cloud.until("it is over", lambda: cloud.alarms() == {})
    report(f"cleared within {time.time() - mended:.2f} s")


def test_a_silent_management_network_degrades_and_fails_nobody(cloud: Watched) -> None:
    cut = cloud.cut(ALONE, "mgmt0")
    cloud.until("it is told", lambda: cloud.alarms()[MANAGEMENT, of(ALONE)]["severity"] == "critical")
    assert seconds(cloud.alarms()[MANAGEMENT, of(ALONE)]["raisedAt"]) - cut < SOON
    # The link runs on this network: the cloud can tell it nothing, and hears that it lives all the same.
    cloud.until("its link is gone", lambda: "link.lost" in cloud.log("controller") or time.time() > cut + 8)
    host = cloud.host(ALONE)
    assert (host["operational"], host["availability"]) == ("enabled", "degraded")
    assert list(cloud.alarms()) == [(MANAGEMENT, of(ALONE))]
    cloud.mend(ALONE)
    cloud.until("it is over", lambda: cloud.alarms() == {})


def test_a_host_that_is_silent_on_all_networks_has_failed_and_returns(cloud: Watched) -> None:
    cut = cloud.cut(ALONE, *NETWORKS)
    cloud.until("it has failed", lambda: (FAILED, of(ALONE)) in cloud.alarms())
    took = seconds(cloud.alarms()[FAILED, of(ALONE)]["raisedAt"]) - cut
    report(f"a failed host: told after {took:.2f} s")
    assert took < SOON
    assert cloud.host(ALONE)["availability"] == "failed"
    assert cloud.serves(OTHER)
    cloud.mend(ALONE)
    cloud.until("it serves again", lambda: cloud.serves(ALONE))
    cloud.until("it is over", lambda: cloud.alarms() == {})


def test_a_controller_that_was_stopped_blames_nobody(cloud: Watched) -> None:
    before = time.time()
    cloud.signal("controller", signal.SIGSTOP)
    time.sleep(30)  # What is tried is the passing of time.
    cloud.signal("controller", signal.SIGCONT)
    cloud.until("it answers", lambda: cloud.roost("status", check=False).returncode == 0)
    goes_on = time.monotonic() + 15
    while time.monotonic() < goes_on:
        assert cloud.alarms() == {}
        time.sleep(0.5)
    assert cloud.told(before) == []
    assert cloud.serves(ALONE) and cloud.serves(OTHER)


def test_hosts_that_go_silent_at_once_are_one_event_and_none_fails(cloud: Watched) -> None:
    before = time.time()
    cloud.cut(ALONE, *NETWORKS)
    cloud.cut(OTHER, *NETWORKS)
    cloud.until("the event is told", lambda: (EVENT, "cloud=watched") in cloud.alarms())
    took = seconds(cloud.alarms()[EVENT, "cloud=watched"]["raisedAt"]) - before
    report(f"an event of all hosts: told after {took:.2f} s")
    told = cloud.conditions()["FailureAvoidance"]
    assert (told["status"], told["reason"]) == ("True", "MultiNodeFailure")
    assert ALONE in told["message"] and "until 20" in told["message"]
    # Longer than links and heartbeats need to fail hosts that are judged one by one.
    goes_on = time.monotonic() + 20
    while time.monotonic() < goes_on:
        assert cloud.serves(ALONE) and cloud.serves(OTHER)
        time.sleep(0.5)
    for host in (ALONE, OTHER):
        cloud.mend(host)
    cloud.until("it is over", lambda: cloud.alarms() == {})
    assert cloud.conditions()["FailureAvoidance"]["status"] == "False"
    assert FAILED not in [alarm for alarm, _ in cloud.told(before)]
