"""Everything the demo prints to be typed is typed, as printed, and shows what it claims to show."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from roost.cli.demo.tour import STOPS, Stop
from tests.acceptance.running import Answer, Demo, run
from tests.acceptance.waiting import report, until

SHOWS: dict[str, tuple[str, ...]] = {
    "{roost} status": (
        r"central .*central cloud",
        r"Subclouds: +3 +3 online +3 in-sync",
        r"harbor +managed +online +in-sync +1/1",
        r"ridge +managed +online +in-sync +2/2",
        r"valley +managed +online +in-sync +3/3",
    ),
    "kubectl get hosts -A": (
        r"central +controller-0 .* unlocked +enabled +available",
        r"harbor +controller-0 .* unlocked +enabled +available",
        r"ridge +controller-1 .* unlocked +enabled +available",
        r"valley +controller-1 +controller +unlocked +enabled +available",
        r"valley +worker-0 +worker +unlocked +enabled +available",
    ),
    "{roost} subcloud list": (
        r"harbor +managed +online +in-sync",
        r"ridge +managed +online +in-sync",
        r"valley +managed +online +in-sync",
    ),
    "{roost} --cloud harbor host inventory controller-0": (
        r"Memory: +\d{3,} MiB",
        r"Processors: .*[1-9]\d* threads",
        r"mgmt0 .* 02:19:01:02:00:0b .*192\.168\.204\.11/24",
        r"oam0 .* 10\.1\.0\.11/24",
    ),
    "kubectl --context harbor describe host controller-0": (
        r"Name: +controller-0",
        r"Namespace: +harbor",
        r"Availability: +available",
        r"10\.1\.0\.11/24",
    ),
    "kubectl --context valley get firewallpolicies": (r"site-baseline\.central +oam +3 +3 +3 .*True",),
    "{roost} --cloud valley firewall plan": (
        r"worker-0 +generation (\d+) of \1 in force",
        r"add to oam: allow tcp 22 \(ingress\): remote shell",
        r"default of oam: deny \(ingress\)",
    ),
    "{roost} demo exec valley-worker-0 -- nft list ruleset": (
        r"table inet roost_firewall",
        r"tcp dport 22 .*accept",
        r'drop comment "default deny \(ingress\) of oam"',
    ),
    "{roost} --cloud valley host lock worker-0": (r"worker-0 is locked",),
    "kubectl get alarms -A": (r"valley .* 200\.001 +warning +host=worker-0",),
    "{roost} --cloud valley host unlock worker-0": (r"worker-0 is unlocked",),
    "{roost} demo cut ridge": (r"the link of ridge is cut",),
    "{roost} alarm list": (r"critical +280\.001 +subcloud=ridge +ridge is offline",),
    "{roost} demo exec ridge-controller-0 -- roost status": (
        r"ridge .*under central \(link down",
        r"controller-1 .*unlocked +enabled +available",
    ),
    "{roost} demo mend ridge": (r"the link of ridge is whole",),
    "{roost} demo kill valley-controller-0": (r"valley-controller-0, process \d+, is killed",),
    "{roost} log list -A": (
        r"valley .*worker-0 is locked",
        r"valley .*worker-0 is unlocked",
        r"central .*ridge was online and is offline",
    ),
    "kubectl explain host.spec": (r"KIND: +Host", r"administrativeState", r"personalities"),
}
"""What each stop must show, by its command: a new stop needs its own."""

ONCE = ("lock", "unlock", "cut", "mend", "kill")
"""Verbs that change something are typed once; looking is repeated as a person would."""


def printed(demo: Demo) -> list[str]:
    """The commands as the demo printed them, without the remarks behind them."""
    said = demo.said[demo.said.index("In another terminal") :]
    lines = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    assert lines[0] == f"export KUBECONFIG={demo.kubeconfig}", lines[0]
    return [line.rsplit("  # ", 1)[0].rstrip() for line in lines[1:]]


@pytest.fixture(scope="module")
def typed(demo: Demo) -> Iterator[dict[str, str]]:
    """What was printed for each stop."""
    lines = printed(demo)
    assert len(lines) == len(STOPS), f"{len(STOPS)} stops, but printed: {lines}"
    yield dict(zip([stop.command for stop in STOPS], lines, strict=True))
    demo.verb("mend", "ridge")


def test_the_tour_is_as_long_as_what_is_expected_of_it() -> None:
    assert set(SHOWS) == {stop.command for stop in STOPS}, "each stop needs what it must show, and no other"


@pytest.mark.parametrize("stop", STOPS, ids=[stop.command for stop in STOPS])
def test_a_stop_of_the_tour_shows_what_it_claims(demo: Demo, typed: dict[str, str], stop: Stop) -> None:
    line = typed[stop.command]

    def type_it() -> Answer:
        answer = run(["bash", "-c", line], environment=demo.environment).ok()
        missing = [wanted for wanted in SHOWS[stop.command] if not re.search(wanted, answer.said)]
        assert not missing, f"{missing} is not in what was shown\n{answer}"
        return answer

    changes = any(f" {verb} " in line for verb in ONCE)
    answer = type_it() if changes else until(f"`{line}` shows it", type_it, 60)
    report(f"{answer.seconds:5.1f} s  {line}")
