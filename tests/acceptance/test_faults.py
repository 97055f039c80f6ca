"""Processes die, hang and lose one direction of their link: what runs goes on, and all converges again."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from tests.acceptance import checker
from tests.acceptance.checker import SITES
from tests.acceptance.running import Demo
from tests.acceptance.waiting import report, until

PROCESSES = ("centre", *(f"{site}-{host}" for site, hosts in SITES.items() for host in hosts))
AGENTS = tuple(p for p in PROCESSES if p != "centre" and not p.endswith("controller-0"))
PAUSED_SECONDS = 20.0
ONE_WAY_SECONDS = 15.0


@pytest.fixture(scope="module", autouse=True)
def whole(demo: Demo) -> None:
    """Faults begin when everything is well."""
    checker.converge(demo)


def test_every_process_is_killed_here() -> None:
    assert len(PROCESSES) == 7 and len(AGENTS) == 3


@pytest.mark.parametrize("name", PROCESSES)
def test_a_killed_process_comes_back_and_everything_converges(demo: Demo, name: str) -> None:
    site, _, host = name.partition("-")
    before, started = demo.processes(), time.monotonic()
    demo.verb("kill", name)
    if host:
        targets = list(checker.addresses(site, host))
        seen = checker.probe(demo, f"{site}-router", targets)
        assert demo.inside(name, "nft", "list", "table", "inet", "roost_firewall").ok()
        dead = demo.processes()[name]["state"] != "ready"
        report(f"probed while {name} was {'dead' if dead else 'already back'}")
        for target in targets:
            assert seen[target, 22] in checker.LET_THROUGH, f"let through before, and not now: {seen}"
            assert seen[target, 80] == "silence", f"held back before, and not now: {seen}"
    demo.restarted(name, before[name])
    checker.converge(demo)
    after = demo.processes()
    also = [p for p in PROCESSES if p != name and after[p]["pid"] != before[p]["pid"]]
    assert not also, f"others restarted with it: {also}"
    report(f"{name}: all well {time.monotonic() - started:.1f} s after its end")


def test_rules_hold_while_an_agent_is_dead_for_long(demo: Demo) -> None:
    """Killed again and again as it comes up: it is dead or starting all the time, and never ready."""
    name, states, enough = "valley-worker-0", set[str](), threading.Event()
    before = demo.processes()[name]

    def keep_dead() -> None:
        while not enough.is_set():
            now = demo.processes()[name]
            states.add(now["state"])
            if now["pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(now["pid"], signal.SIGKILL)
            enough.wait(0.05)

    killer = threading.Thread(target=keep_dead)
    killer.start()
    try:
        until("it is dead", lambda: _is_not(demo, name, before["pid"]), 10)
        states.clear()
        for _ in range(2):
            seen = checker.probe(demo, "valley-router", ["10.3.0.13", "fd00:3::13"])
            for target in ("10.3.0.13", "fd00:3::13"):
                assert seen[target, 22] in checker.LET_THROUGH and seen[target, 80] == "silence", seen
        assert "ready" not in states, f"it was alive meanwhile: {states}"
    finally:
        enough.set()
        killer.join()
    report(f"it was {sorted(states)} while packets were sent")
    demo.verb("resume", name)
    checker.converge(demo, 120)


def _is_not(demo: Demo, name: str, pid: int) -> None:
    assert demo.processes()[name]["pid"] != pid


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_link_that_is_cut_one_way_is_cut_and_comes_back(demo: Demo, direction: str) -> None:
    incarnations = _incarnations(demo)
    demo.verb("cut", "ridge", "--direction", direction)
    begun = time.monotonic()

    def offline() -> None:
        status = demo.kubectl("get", "subcloud", "ridge", "-o", "json").json()["status"]
        assert status["availability"] == "offline", status

    def alone() -> None:
        status = demo.local("ridge", "get", "cloud", "ridge", "-o", "json").json()["status"]
        assert status["upperConnected"] is False, status

    until("the centre says offline", offline, 40)
    until("the site knows that it is alone", alone, 40)
    while (left := ONE_WAY_SECONDS - (time.monotonic() - begun)) > 0:
        time.sleep(min(left, 1.0))
    demo.verb("mend", "ridge")
    checker.converge(demo)
    assert _incarnations(demo) == incarnations, "a link that came back restarted an agent"


def _incarnations(demo: Demo) -> dict[str, str]:
    hosts = demo.kubectl("get", "hosts", "-A", "-o", "json").json()["items"]
    return {
        f"{h['metadata']['namespace']}/{h['metadata']['name']}": h["status"]["agent"]["incarnation"]
        for h in hosts
    }


def test_an_agent_that_hangs_is_missed_everywhere_and_forgiven(demo: Demo) -> None:
    name = "ridge-controller-1"
    incarnations = _incarnations(demo)
    demo.verb("pause", name)
    begun = time.monotonic()

    def missed(*alarms: str) -> None:
        for where, answer in (
            ("the site", demo.local("ridge", "get", "alarms", "-o", "json")),
            ("the centre", demo.kubectl("-n", "ridge", "get", "alarms", "-o", "json")),
        ):
            raised = {a["status"]["alarmId"]: a["status"] for a in answer.json()["items"]}
            assert set(alarms) <= set(raised), f"{where} shows {sorted(raised)}, not {alarms}"
            assert all(raised[one]["entity"] == "host=controller-1" for one in alarms), raised

    until("the heartbeat is missed", lambda: missed("200.005"), 30)
    until("the host counts as failed", lambda: missed("200.005", "200.004"), 40)
    host = demo.kubectl("-n", "ridge", "get", "host", "controller-1", "-o", "json").json()["status"]
    assert (host["operational"], host["availability"]) == ("disabled", "failed"), host
    seen = checker.probe(demo, "ridge-router", ["10.2.0.12"])
    assert seen["10.2.0.12", 22] in checker.LET_THROUGH and seen["10.2.0.12", 80] == "silence", seen
    while (left := PAUSED_SECONDS - (time.monotonic() - begun)) > 0:
        time.sleep(min(left, 1.0))
    report(f"{name} stood still for {time.monotonic() - begun:.1f} s")
    demo.verb("resume", name)
    checker.converge(demo)
    assert _incarnations(demo) == incarnations, "it was restarted rather than forgiven"


def test_a_central_cloud_that_hangs_is_survived(demo: Demo) -> None:
    demo.verb("pause", "centre")
    begun = time.monotonic()

    def alone() -> None:
        for site in SITES:
            status = demo.local(site, "get", "cloud", site, "-o", "json").json()["status"]
            assert status["upperConnected"] is False, status

    until("every site knows that it is alone", alone, 40)
    demo.local("valley", "label", "host", "worker-0", "seen=alone").ok()
    while (left := ONE_WAY_SECONDS - (time.monotonic() - begun)) > 0:
        time.sleep(min(left, 1.0))
    demo.verb("resume", "centre")
    checker.converge(demo)
    host = demo.kubectl("-n", "valley", "get", "host", "worker-0", "-o", "json").json()
    assert host["metadata"].get("labels") == {"seen": "alone"}, host["metadata"]
    demo.kubectl("label", "host", "worker-0", "seen-", cloud="valley").ok()
    checker.converge(demo)
