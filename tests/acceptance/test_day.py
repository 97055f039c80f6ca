"""A site is cut off for 24 hours while both sides work: wall clocks pass a day, an hour every few seconds.

Monotonic clocks go on as they are: the same day on those, with the real code and simulated time, is
`tests/sim/test_long_cut.py`. The day begins so that the site's certificate falls due for renewal in the midst
of it, and the site's controller loses power shortly after.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance import checker, clock_demo
from tests.acceptance.checker import SITES, Raw
from tests.acceptance.running import Demo, free_port
from tests.acceptance.test_clock import jump
from tests.acceptance.test_cut import Ledger, policy
from tests.acceptance.waiting import report, until

pytestmark = pytest.mark.skipif(
    clock_demo.library() is None, reason="libfaketime is not installed: apt-get install faketime"
)
SITE, FIRST = "ridge", "ridge-controller-0"
PROCESSES = ("centre", *(f"{site}-{host}" for site, hosts in SITES.items() for host in hosts))
HOURS = 24
PACE = 2.0
"""Seconds for which every hour lasts at least, so that something happens in each."""
BEFORE = timedelta(days=59, hours=12)
"""Node certificates last for 90 days and are renewed after 60."""
RISEN = 80 * 1024 * 1024
CHANGES = 4
SELDOM = 2 * CHANGES
MOST = {"subcloud-sync": CHANGES * len(SITES) * 2, "firewall-applied": 3 * CHANGES * len(SITES)}
"""Log entries of a cloud that such a day may add: those that follow from what people did, and few besides."""


@pytest.fixture(scope="module")
def demo(place: Path) -> Iterator[Demo]:
    """A demo whose clocks can be moved."""
    program = [sys.executable, "-m", "tests.acceptance.clock_demo"]
    running = Demo(place / "demo", free_port(), program=program)
    try:
        yield running.until_ready(200)
    finally:
        running.close()


def offset(passed: timedelta) -> str:
    """As libfaketime reads it."""
    return f"+{int(passed.total_seconds())}"


def resident(demo: Demo) -> dict[str, int]:
    """Bytes of memory of every process."""
    found = {}
    for name, process in demo.processes().items():
        text = Path(f"/proc/{process['pid']}/status").read_text()
        found[name] = (
            int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
        )
    return found


def entries(demo: Demo, cloud: str) -> list[Raw]:
    """The log of a cloud as the centre shows it."""
    found: list[Raw] = demo.kubectl("-n", cloud, "get", "logentries", "-o", "json").json()["items"]
    return [entry["status"] for entry in found]


def test_a_day_apart_loses_nothing_and_leaves_nothing_behind(demo: Demo) -> None:
    ledger = Ledger(demo)
    checker.converge(demo, 180)
    jump(demo, PROCESSES, offset(BEFORE))
    checker.converge(demo, 180)
    before = {cloud: {number(e) for e in entries(demo, cloud)} for cloud in (SITE, "central")}
    memory, processes = resident(demo), demo.processes()
    demo.verb("cut", SITE)
    until("the site is missed", lambda: missed(demo), 60)
    begun = time.monotonic()
    for hour in range(1, HOURS + 1):
        started = time.monotonic()
        jump(demo, PROCESSES, offset(BEFORE + timedelta(hours=hour)))
        if hour % (HOURS // CHANGES) == 0:
            both_work(demo, ledger, hour)
        if hour == 14:
            demo.verb("kill", FIRST)
            demo.restarted(FIRST, processes[FIRST])
        until("the site is at rest", lambda: at_rest(demo), 90)
        time.sleep(max(0.0, PACE - (time.monotonic() - started)))
    report(f"{HOURS} hours passed in {time.monotonic() - begun:.1f} s")
    alone = demo.local(SITE, "get", "alarms", "-o", "json").json()["items"]
    report(f"after a day alone the site has {[a['status']['alarmId'] for a in alone]}")

    demo.verb("mend", SITE)
    checker.converge(demo, 180, writes=ledger.writes)
    latest = max(datetime.fromisoformat(e["time"]) for e in entries(demo, SITE))
    assert latest - datetime.now(UTC) > BEFORE + timedelta(hours=HOURS - 1), f"no day passed: {latest}"
    for cloud in (SITE, "central"):
        added = [e for e in entries(demo, cloud) if number(e) not in before[cloud]]
        told = Counter(f"{e['event']} {e['alarmId']}".strip() for e in added)
        report(f"{cloud}: {len(added)} log entries of the day: {dict(told)}")
        often = {what: count for what, count in told.items() if count > MOST.get(what, SELDOM)}
        assert not often, f"something went to and fro: {often}"
    risen = {name: now - memory[name] for name, now in resident(demo).items() if name != FIRST}
    report(f"memory rose by {max(risen.values()) >> 20} MB at most")
    assert max(risen.values()) < RISEN, risen
    after = demo.processes()
    again = [name for name in processes if name != FIRST and after[name]["pid"] != processes[name]["pid"]]
    assert not again, f"processes restarted: {again}"
    until("the certificate that fell due meanwhile is renewed", lambda: renewed(demo), 150)
    checker.converge(demo, 120, writes=ledger.writes)


def number(entry: Raw) -> tuple[str, int]:
    """Which one it is."""
    return entry["source"], entry["sequence"]


def at_rest(demo: Demo) -> None:
    """What takes seconds must not seem to take hours."""
    kinds = "hosts,hostconfigurations,alarms"
    items = demo.local(SITE, "get", kinds, "-o", "json").json()["items"]
    view = checker.View(items)
    found = checker.hosts(view, SITE) + checker.alarms(view, SITE, set())
    assert not found, found


def missed(demo: Demo) -> None:
    status = demo.kubectl("get", "subcloud", SITE, "-o", "json").json()["status"]
    assert status["availability"] == "offline", status


def both_work(demo: Demo, ledger: Ledger, hour: int) -> None:
    """People change things at the centre and, locally, at the site."""
    shared = policy("hourly", ["443", str(8000 + hour)], subclouds={})
    ledger.keep("central", ledger.centre("apply", "-f", "-", text=shared))
    label = ledger.site(SITE, "label", "host", "controller-1", f"hour=h{hour}", "--overwrite")
    ledger.keep(SITE, label)
    # Not for the first controller: its firewall waits for the link of the site, which alone could prove it.
    own = policy(f"own-{hour}", [str(9000 + hour)], hosts={"labels": {"hour": f"h{hour}"}})
    ledger.keep(SITE, ledger.site(SITE, "create", "-f", "-", text=own))


def renewed(demo: Demo) -> None:
    lines = (demo.directory / f"log/{FIRST}.log").read_text().splitlines()
    assert any("link.renewed" in line and f"subcloud/{SITE}" in line for line in lines)
