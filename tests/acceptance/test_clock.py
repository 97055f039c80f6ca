"""Wall clocks jump by a day and back, as they do when a site finds its time source: nothing minds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance import checker, clock_demo
from tests.acceptance.running import Demo, free_port
from tests.acceptance.waiting import report, until

pytestmark = pytest.mark.skipif(
    clock_demo.library() is None, reason="libfaketime is not installed: apt-get install faketime"
)
HOST = "valley-worker-0"
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


def test_a_host_that_starts_with_its_clock_a_day_ahead(demo: Demo) -> None:
    """Its cloud's clock is right. It links, beats and is believed; nothing it has is renewed for it."""
    checker.converge(demo)
    before, kept = demo.processes(), secrets(demo, HOST)
    jump(demo, (HOST,), "+1d")
    demo.verb("kill", HOST)
    demo.restarted(HOST, before[HOST])
    checker.converge(demo)
    jump(demo, (HOST,), "+0")
    checker.converge(demo)
    assert secrets(demo, HOST) == kept, "it renewed what was good"


def test_a_host_that_starts_with_its_clock_a_day_behind(demo: Demo) -> None:
    """It links, for what it trusts began long ago; its health check names the clock."""
    checker.converge(demo)
    before, kept = demo.processes(), secrets(demo, HOST)
    jump(demo, (HOST,), "-1d")
    demo.verb("kill", HOST)
    demo.restarted(HOST, before[HOST])

    def named() -> None:
        host = demo.kubectl("-n", "valley", "get", "host", "worker-0", "-o", "json").json()["status"]
        assert host["connected"], f"it has no link: {host}"
        assert "clock" in host["task"], host["task"]

    until("its clock is named", named, 60)
    jump(demo, (HOST,), "+0")
    checker.converge(demo, 180)
    assert secrets(demo, HOST) == kept, "it renewed what was good"


def test_a_site_that_boots_in_1970_keeps_everything_and_is_back_once_its_clock_is_set(demo: Demo) -> None:
    """As machines without a battery do, before a time server has answered."""
    checker.converge(demo)
    before = demo.processes()
    kept = {name: secrets(demo, name) for name in VALLEY}
    jump(demo, VALLEY, f"-{int(time.time()) - 300}")
    for name in VALLEY:
        demo.verb("kill", name)
    for name in VALLEY:
        demo.restarted(name, before[name])

    def alone() -> None:
        log = demo.directory / "log"
        for name in VALLEY:
            told = (log / f"{name}.log").read_text()
            told = told[told.rindex("started as process") :]
            assert "set the clock" in told, f"{name} does not say what is wrong: {told[-1500:]}"

    until("all of it say that their clock is wrong", alone, 90)
    seen = checker.probe(demo, "valley-router", ["10.3.0.11", "10.3.0.13"])
    for target in ("10.3.0.11", "10.3.0.13"):
        assert seen[target, 22] in checker.LET_THROUGH and seen[target, 80] == "silence", seen
    early = demo.processes()
    jump(demo, VALLEY, "+0")
    checker.converge(demo, 120)
    after = demo.processes()
    assert {n: after[n]["pid"] for n in VALLEY} == {n: early[n]["pid"] for n in VALLEY}, "it had to restart"
    assert {name: secrets(demo, name) for name in VALLEY} == kept, "something was made anew in 1970"
    use(demo, "valley", "worker-0")


def secrets(demo: Demo, name: str) -> dict[str, bytes]:
    """Its keys and certificates, and the way in."""
    home = demo.directory / name
    files = [
        *home.glob("pki/*"),
        *home.glob("uplink/*.pem"),
        *home.glob("uplink/ca.crt"),
        home / "kubeconfig",
    ]
    return {str(path): path.read_bytes() for path in files if path.exists()}
