"""A site is off until its certificates have expired: it comes back by itself, and nobody drives there.

Clocks are moved (`clock_demo`): all of them by more than the life of a node's certificate, while the site has
no link and its processes are ended. What starts again there has nothing but certificates that are over: the
controller's towards the centre, and its agents' towards it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roost.link import identity
from tests.acceptance import checker, clock_demo
from tests.acceptance.running import Demo, free_port
from tests.acceptance.test_clock import VALLEY, jump
from tests.acceptance.test_cut import Ledger, policy
from tests.acceptance.waiting import report, until

pytestmark = pytest.mark.skipif(
    clock_demo.library() is None, reason="libfaketime is not installed: apt-get install faketime"
)
DAYS = 200
ALL = ("centre", *(f"{site}-{host}" for site, hosts in checker.SITES.items() for host in hosts))


@pytest.fixture(scope="module")
def demo(place: Path) -> Iterator[Demo]:
    """A demo whose clocks can be moved."""
    program = [sys.executable, "-m", "tests.acceptance.clock_demo"]
    running = Demo(place / "demo", free_port(), program=program)
    try:
        yield running.until_ready(120)
    finally:
        running.close()


def ends(demo: Demo, name: str) -> datetime:
    return identity.load(demo.directory / name / "uplink").expires()


def alarms(demo: Demo, namespace: str) -> dict[str, str]:
    items = demo.kubectl("-n", namespace, "get", "alarms", "-o", "json").json()["items"]
    return {a["status"]["alarmId"]: a["status"]["reason"] for a in items}


def test_a_site_that_was_off_for_longer_than_its_certificates_live_comes_back(demo: Demo) -> None:
    ledger = Ledger(demo)
    checker.converge(demo)
    before, later = demo.processes(), datetime.now(UTC) + timedelta(days=DAYS)
    old = {name: ends(demo, name) for name in VALLEY}
    assert all(end < later for end in old.values()), old
    demo.verb("cut", "valley")
    jump(demo, ALL, f"+{DAYS}d")
    for name in VALLEY:
        demo.verb("kill", name)
    for name in VALLEY:
        demo.restarted(name, before[name])

    def told() -> None:
        found = alarms(demo, "central")
        assert "280.001" in found and "500.210" in found, found
        assert "renewed by itself when its holder comes back" in found["500.210"], found
        report(found["500.210"])

    def has_its_hosts() -> None:
        assert all(ends(demo, name) > later for name in VALLEY[1:]), "an agent's certificate is still over"
        hosts = demo.local("valley", "get", "hosts", "-o", "json").json()["items"]
        states = {h["metadata"]["name"]: h["status"]["operational"] for h in hosts}
        assert set(states.values()) == {"enabled"}, states

    until("its hosts are with it again, though it is alone", has_its_hosts, 90)
    text = policy("meanwhile", ["8080"])
    ledger.keep("valley", demo.local("valley", "create", "-f", "-", "-o", "json", text=text).json())
    until("the centre says what becomes of it", told, 90)
    demo.verb("mend", "valley")
    checker.converge(demo, 120, writes=ledger.writes)
    assert ends(demo, VALLEY[0]) > later, "the site's certificate is still over"
    demo.kubectl("delete", "fwp", "meanwhile", cloud="valley").ok()
    checker.converge(demo)
