"""Failure detection where hosts have IPv6 addresses alone: the link, the registration and every heartbeat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.waiting import report
from tests.support.watched import NETWORKS6, Watched, seconds, watched

ALONE, OTHER = "worker-0", "worker-1"
FAILED, CLUSTER = "200.004", "200.009"
SOON = 6.0
"""What takes a second, on a machine whose processors are busy with other things."""


@pytest.fixture(scope="module")
def cloud(place: Path) -> Iterator[Watched]:
    with watched(place, [ALONE, OTHER], {"periodMilliseconds": 100}, NETWORKS6) as made:
        made.until("no alarm", lambda: made.alarms() == {})
        yield made


def of(host: str) -> str:
    return f"host={host}"


def test_nobody_has_another_address_than_of_ipv6(cloud: Watched) -> None:
    for host in (ALONE, OTHER):
        ports = cloud.host(host)["inventory"]["ports"]
        addresses = [a for p in ports if p["name"] != "lo" for a in p["addresses"]]
        assert addresses and all(":" in address for address in addresses), addresses
        targets = [t for n in cloud.heartbeats(host)["networks"] for t in n["targets"]]
        assert targets == ["fd00:40:2::1", "fd00:40:1::1"]


def test_one_silent_network_degrades(cloud: Watched) -> None:
    cut = cloud.cut(ALONE, "cluster0")
    cloud.until("it is critical", lambda: cloud.alarms()[CLUSTER, of(ALONE)]["severity"] == "critical")
    took = seconds(cloud.alarms()[CLUSTER, of(ALONE)]["raisedAt"]) - cut
    report(f"a silent network of IPv6 alone: told after {took:.2f} s")
    assert list(cloud.alarms()) == [(CLUSTER, of(ALONE))]
    assert took < SOON
    cloud.mend(ALONE)
    cloud.until("it is over", lambda: cloud.alarms() == {})


def test_a_silent_host_has_failed_and_returns(cloud: Watched) -> None:
    cut = cloud.cut(ALONE, *NETWORKS6)
    cloud.until("it has failed", lambda: (FAILED, of(ALONE)) in cloud.alarms())
    took = seconds(cloud.alarms()[FAILED, of(ALONE)]["raisedAt"]) - cut
    report(f"a failed host of IPv6 alone: told after {took:.2f} s")
    assert took < SOON
    assert cloud.host(ALONE)["availability"] == "failed" and cloud.serves(OTHER)
    cloud.mend(ALONE)
    cloud.until("it serves again", lambda: cloud.serves(ALONE))
    cloud.until("it is over", lambda: cloud.alarms() == {})
