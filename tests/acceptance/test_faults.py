"""A process dies, or loses one direction of its link: what runs goes on, and all converges again.

One fault at a time, so that what goes wrong is easy to read; all at once and for long is `test_storm`, which
also has processes stand still.
"""

from __future__ import annotations

import time

import pytest

from tests.acceptance import checker
from tests.acceptance.checker import SITES
from tests.acceptance.running import Demo
from tests.acceptance.waiting import report, until

PROCESSES = ("centre", *(f"{site}-{host}" for site, hosts in SITES.items() for host in hosts))
ONE_OF_EACH = ("centre", "valley-controller-0", "ridge-controller-1")
ONE_WAY_SECONDS = 15.0


@pytest.fixture(scope="module", autouse=True)
def whole(demo: Demo) -> None:
    """Faults begin when everything is well."""
    checker.converge(demo)


@pytest.mark.parametrize("name", ONE_OF_EACH)
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
