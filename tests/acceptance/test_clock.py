"""Wall clocks jump by a day and back, as they do when a site finds its time source: nothing minds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance import checker, clock_demo
from tests.acceptance.running import Demo, free_port
from tests.acceptance.waiting import report

pytestmark = pytest.mark.skipif(
    clock_demo.library() is None, reason="libfaketime is not installed: apt-get install faketime"
)
VALLEY = tuple(f"valley-{host}" for host in checker.SITES["valley"])


@pytest.fixture(scope="module")
def demo(place: Path) -> Iterator[Demo]:
    """A demo whose clocks can be moved."""
    program = [sys.executable, "-m", "tests.acceptance.clock_demo"]
    running = Demo(place / "demo", free_port(), program=program)
    try:
        yield running.until_ready(120)
    finally:
        running.close()


def jump(demo: Demo, processes: tuple[str, ...], offset: str) -> None:
    for name in processes:
        path = demo.directory / "clock" / name
        (fresh := path.with_suffix(".new")).write_text(f"{offset}\n")
        fresh.rename(path)


def use(demo: Demo, cloud: str, host: str) -> None:
    """Operations must end under the clock as it is now."""
    demo.roost("--cloud", cloud, "host", "lock", host).ok()
    checker.converge(demo)
    demo.roost("--cloud", cloud, "host", "unlock", host).ok()
    checker.converge(demo)


def latest(demo: Demo, namespace: str) -> datetime:
    entries = demo.kubectl("-n", namespace, "get", "logentries", "-o", "json").json()["items"]
    return max(datetime.fromisoformat(e["status"]["time"]) for e in entries)


@pytest.mark.parametrize(
    ("processes", "cloud", "host"),
    [(VALLEY, "valley", "worker-0"), (("centre",), "central", "controller-0")],
    ids=["a site", "the centre"],
)
def test_a_clock_that_jumps_a_day_ahead_and_back(
    demo: Demo, processes: tuple[str, ...], cloud: str, host: str
) -> None:
    checker.converge(demo)
    before = demo.processes()
    jump(demo, processes, "+1d")
    checker.converge(demo)
    use(demo, cloud, host)
    ahead = latest(demo, cloud) - datetime.now(UTC)
    assert ahead > timedelta(hours=20), f"the clock never moved: {ahead}"
    report(f"the log of {cloud} is {ahead} ahead")
    jump(demo, processes, "+0")
    checker.converge(demo)
    use(demo, cloud, host)
    after = demo.processes()
    restarted = [name for name, p in after.items() if p["pid"] != before[name]["pid"]]
    assert not restarted, f"processes restarted: {restarted}"
    log = demo.kubectl("-n", "central", "get", "logentries", "-o", "json").json()["items"]
    offline = [e["status"]["text"] for e in log if "is offline" in e["status"]["text"]]
    assert not offline, f"a site counted as lost though no link was cut: {offline}"
    starts = [e for e in log if e["status"]["event"] == "agent-started"]
    assert len(starts) <= 1, starts
