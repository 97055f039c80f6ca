"""Bad wide-area links: slow, lossy and narrow; cut one way, without a word or with resets; by real packets.

All figures are each way: with 300 ms of delay a round trip takes 600 ms and more.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.acceptance import checker
from tests.acceptance.checker import SITES
from tests.acceptance.running import Demo, run
from tests.acceptance.test_cut import Ledger, policy
from tests.acceptance.waiting import report, until

SITE, FIRST, SECOND = "ridge", "ridge-controller-0", "controller-1"
DELAY, LOSS, RATE = ("--delay", "300"), ("--loss", "5"), ("--rate", "1mbit")
EVERYTHING = (*DELAY, *LOSS, *RATE)
CUT_SECONDS = 65.0
"""Longer than every deadline of a link."""
ENTRIES = 2000
LARGE, LARGE_BYTES = 8, 190_000

TELL = f"""
import asyncio, sys
from pathlib import Path
from roost.engine.faults import write_log
from roost.store.database import sqlite_url
from roost.store.store import Store
async def main():
    store = await Store.open(sqlite_url(Path(sys.argv[1]) / "cloud.db"))
    def work(tx):
        for n in range({ENTRIES}):
            text = f"entry {{n}} of a busy day: {{n * 7919 % 1000}} packets of {{n * 104729 % 65536}} bytes"
            write_log(tx, sys.argv[2], event="counted", text=text, entity=f"cloud={{sys.argv[2]}}")
    await store.transact(work)
    await store.close()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def ledger(demo: Demo) -> Ledger:
    """What was accepted; faults begin when everything is well."""
    checker.converge(demo, 180)
    return Ledger(demo)


@pytest.fixture(autouse=True)
def mended(demo: Demo) -> Iterator[None]:
    """Whatever fails, the next test begins on whole links."""
    yield
    for site in SITES:
        demo.verb("mend", site)


def crossings(demo: Demo) -> list[str]:
    """Every time a site was lost or found, in the words of the centre's log."""
    log = demo.kubectl("-n", "central", "get", "logentries", "-o", "json").json()["items"]
    texts = [e["status"]["text"] for e in log]
    return [text for text in texts if "is offline" in text or "is online" in text]


def ends(demo: Demo, site: str) -> list[str]:
    """Every end of a site's link, in the words of the centre's own log."""
    lines = (demo.directory / "log/centre.log").read_text().splitlines()
    return [line for line in lines if "link.down" in line and f"subcloud/{site}" in line]


def sent(demo: Demo, site: str) -> tuple[int, int]:
    """Bytes that have gone up and come down through a site's router."""
    counters = [f"/sys/class/net/wan/statistics/{way}_bytes" for way in ("tx", "rx")]
    up, down = demo.inside(f"{site}-router", "cat", *counters).ok().output.split()
    return int(up), int(down)


def change(demo: Demo, ledger: Ledger, port: int) -> float:
    """Change the shared policy at the centre; the seconds until it is in force at the site."""
    rules = [
        {"action": "allow", "protocol": "icmp"},
        {"action": "allow", "protocol": "icmpv6"},
        {"action": "allow", "protocol": "tcp", "ports": ["22", str(port)]},
    ]
    patch = json.dumps({"spec": {"rules": rules}})
    made = ledger.centre("patch", "fwp", "site-baseline", "--type=merge", "-p", patch)
    ledger.keep("central", made)
    begun = time.monotonic()

    def in_force() -> None:
        host = f"/apis/roost.edge/v1/namespaces/{SITE}/firewallpolicies/site-baseline.central"
        copy = demo.kubectl("get", "--raw", host).json()
        assert copy["spec"]["rules"] == made["spec"]["rules"], copy["spec"]
        ready = {c["type"]: c for c in copy["status"]["conditions"]}["Ready"]
        assert ready["status"] == "True", ready
        assert copy["status"]["observedGeneration"] == copy["metadata"]["generation"], copy["status"]

    until("the centre sees the policy in force at the site", in_force, 90)
    return time.monotonic() - begun


def work(demo: Demo, ledger: Ledger, mark: str) -> None:
    """The operator's day: at the site through the link, and at the site itself."""
    begun = time.monotonic()
    through = demo.kubectl(
        "label", "host", SECOND, f"through={mark}", "--overwrite", "-o", "json", cloud=SITE
    )
    ledger.keep(SITE, through.json())
    report(f"a label written through the link: {time.monotonic() - begun:.1f} s")
    ledger.keep(SITE, ledger.site(SITE, "label", "host", "controller-0", f"local={mark}", "--overwrite"))


@pytest.mark.parametrize(
    "conditions", [(), DELAY, LOSS, RATE, EVERYTHING], ids=["whole", "delay", "loss", "rate", "everything"]
)
def test_work_goes_on_over_a_bad_link(demo: Demo, ledger: Ledger, conditions: tuple[str, ...]) -> None:
    before, lost = crossings(demo), len(ends(demo, SITE))
    if conditions:
        demo.verb("slow", SITE, *conditions)
    name = " ".join(conditions) or "a whole link"
    times = [change(demo, ledger, port) for port in (80, 8080)]
    report(f"{name}: a policy in force and told after {', '.join(f'{t:.1f} s' for t in times)}")
    work(demo, ledger, f"n{len(conditions)}")
    checker.converge(demo, 180, writes=ledger.writes)
    report(f"{name}: the link was lost {len(ends(demo, SITE)) - lost} times")
    assert crossings(demo) == before, "the site was there all the time"


def test_a_site_that_has_much_to_tell_is_heard_over_a_bad_link(
    demo: Demo, ledger: Ledger, place: Path
) -> None:
    """The bulk of a day goes up while heartbeats, the operator and the centre's own changes pass."""
    took = [
        _resume(demo, ledger, place, number, conditions) for number, conditions in enumerate(((), EVERYTHING))
    ]
    checker.converge(demo, 120, writes=ledger.writes)
    report(f"resumed after {took[0]:.1f} s over a whole link, after {took[1]:.1f} s over a bad one")


def _resume(demo: Demo, ledger: Ledger, place: Path, number: int, conditions: tuple[str, ...]) -> float:
    if conditions:
        demo.verb("slow", SITE, *conditions)
    demo.verb("cut", SITE)
    until("the centre misses the site", lambda: _is(demo, "offline"), 60)
    _fill(demo, ledger, number)
    ledger.keep(
        "central", ledger.centre("create", "-f", "-", text=policy(f"late-{number}", ["443"], subclouds={}))
    )
    up, down = sent(demo, SITE)
    lost, begun = len(ends(demo, SITE)), time.monotonic()
    demo.verb("mend", SITE, "--only", "cut")
    until("the site is back", lambda: _is(demo, "online"), 120)
    before = crossings(demo)
    asked = time.monotonic()
    demo.kubectl("get", "hosts", cloud=SITE).ok()
    report(f"`kubectl get hosts` through the link meanwhile: {time.monotonic() - asked:.1f} s")
    until("the centre has all of it", lambda: _all_there(demo, number), 240)
    took = time.monotonic() - begun
    now_up, now_down = sent(demo, SITE)
    report(f"{took:.1f} s; {now_up - up} bytes went up, {now_down - down} came down")
    checker.converge(demo, 180, writes=ledger.writes)
    assert crossings(demo) == before, "once back, the site stayed"
    assert len(ends(demo, SITE)) == lost, f"the link died of its own load: {ends(demo, SITE)[lost:]}"
    demo.verb("mend", SITE)
    return took


def _is(demo: Demo, availability: str) -> None:
    status = demo.kubectl("get", "subcloud", SITE, "-o", "json").json()["status"]
    assert status["availability"] == availability, status


def _fill(demo: Demo, ledger: Ledger, number: int) -> None:
    """Thousands of log entries, written while the process is down; and large objects that nothing packs."""
    before = demo.processes()[FIRST]
    demo.verb("halt", FIRST)
    until("the site is down", lambda: _halted(demo), 30)
    run([sys.executable, "-c", TELL, str(demo.directory / FIRST), SITE]).ok()
    demo.verb("resume", FIRST)
    demo.restarted(FIRST, before)
    for n in range(LARGE):
        noise = run(["openssl", "rand", "-base64", str(LARGE_BYTES * 3 // 4)]).ok().output.replace("\n", "")
        made = json.loads(policy(f"large-{number}-{n}", [], networks=["storage"]))
        made["metadata"]["annotations"] = {"example.com/noise": noise}
        ledger.keep(SITE, ledger.site(SITE, "create", "-f", "-", text=json.dumps(made)))


def _halted(demo: Demo) -> None:
    assert demo.processes()[FIRST]["state"] == "halted"


def _all_there(demo: Demo, number: int) -> None:
    names = demo.kubectl("-n", SITE, "get", "fwp", "-o", "name").ok().output
    large = names.count(f"/large-{number}-")
    answer = demo.kubectl(
        "-n", SITE, "get", "logentries", "--field-selector", "status.event=counted", "-o", "name"
    )
    told = len(answer.ok().output.split())
    assert (large, told) == (LARGE, ENTRIES * (number + 1)), f"{large} large objects, {told} entries"


def test_links_cut_one_way_and_with_resets_come_back_and_lose_nothing(demo: Demo, ledger: Ledger) -> None:
    """Three sites at once, each cut otherwise; both sides are written to, for longer than any deadline."""
    how = {
        "harbor": ("--direction", "both", "--manner", "reset"),
        "ridge": ("--direction", "up"),
        "valley": ("--direction", "down"),
    }
    _cut_and_work(demo, ledger, how, CUT_SECONDS)
    turned = {
        "ridge": ("--direction", "down", "--manner", "reset"),
        "valley": ("--direction", "up", "--manner", "reset"),
    }
    _cut_and_work(demo, ledger, turned, 0)


def _cut_and_work(demo: Demo, ledger: Ledger, how: Mapping[str, tuple[str, ...]], seconds: float) -> None:
    incarnations = _incarnations(demo)
    for site, arguments in how.items():
        demo.verb("cut", site, *arguments)
    begun = time.monotonic()
    mark = f"m{int(begun)}"

    def apart(site: str) -> None:
        above = demo.kubectl("get", "subcloud", site, "-o", "json").json()["status"]["availability"]
        below = demo.local(site, "get", "cloud", site, "-o", "json").json()["status"]["upperConnected"]
        assert (above, below) == ("offline", False), (site, above, below)

    for site in how:
        until(f"{site} and the centre know that they are apart", lambda s=site: apart(s), 60)  # type: ignore[misc]
    ledger.keep(
        "central",
        ledger.centre("apply", "-f", "-", text=policy("apart", [str(int(begun) % 60000 + 1)], subclouds={})),
    )
    for site in how:
        ledger.keep(site, ledger.site(site, "label", "host", "controller-0", f"apart={mark}", "--overwrite"))
    while (left := seconds - (time.monotonic() - begun)) > 0:
        time.sleep(min(left, 1.0))
    report(f"{', '.join(how)} were cut for {time.monotonic() - begun:.1f} s")
    for site in how:
        demo.verb("mend", site)
    checker.converge(demo, 180, writes=ledger.writes)
    assert _incarnations(demo) == incarnations, "a link that came back restarted an agent"


def _incarnations(demo: Demo) -> dict[str, str]:
    hosts = demo.kubectl("get", "hosts", "-A", "-o", "json").json()["items"]
    return {
        f"{h['metadata']['namespace']}/{h['metadata']['name']}": h["status"]["agent"]["incarnation"]
        for h in hosts
    }
