"""No room is left, or the disk turns read-only: writes are refused in words, reads go on, nothing is lost.

Homes of a centre, a controller and agents are on disks of their own, which somebody else fills to the last
byte while they work. All goes on by itself once there is room; nothing is restarted for it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.acceptance import checker, disk_demo
from tests.acceptance.running import Answer, Demo, free_port, run
from tests.acceptance.test_cut import Ledger, policy
from tests.acceptance.waiting import report, until

CENTRE, CONTROLLER, AGENT = "centre", "valley-controller-0", "valley-worker-0"
FRAIL_CONTROLLER, FRAIL = "ridge-controller-0", "ridge-controller-1"
DISKS = {CENTRE: "tmpfs", CONTROLLER: "tmpfs", AGENT: "tmpfs"}
if disk_demo.can_break():
    DISKS |= {FRAIL_CONTROLLER: "ext4", FRAIL: "ext4"}
NAMED_WITHIN = 60.0


@pytest.fixture(scope="module")
def demo(place: Path) -> Iterator[Demo]:
    """A demo in which some homes have disks of their own."""
    program = [sys.executable, "-m", "tests.acceptance.disk_demo"]
    for name, kind in DISKS.items():
        program += ["--disk", f"{name}={kind}"]
    running = Demo(place / "demo", free_port(), program=program)
    try:
        yield running.until_ready(120)
    finally:
        running.close()
        disk_demo.unmount(place)


@contextlib.contextmanager
def full(demo: Demo, *names: str) -> Iterator[None]:
    """Their disks are full meanwhile."""
    try:
        for name in names:
            disk_demo.fill(demo.directory / name)
        yield
    finally:
        for name in names:
            disk_demo.make_room(demo.directory / name)


# Disks that are full


def create(demo: Demo, ledger: Ledger, cloud: str, name: str) -> Answer:
    """A large policy that is for no host; remembered when it was accepted."""
    text = policy(name, ["80"], description="x" * 1000, hosts={"labels": {"never": "there"}})
    made = demo.kubectl("create", "-f", "-", "-o", "json", cloud=cloud, text=_padded(text))
    if made.code == 0:
        ledger.keep(cloud, made.json())
    return made


def _padded(text: str) -> str:
    raw = json.loads(text)
    raw["spec"].pop("description", None)
    raw["spec"]["rules"] = [{**raw["spec"]["rules"][0], "ports": [str(p)]} for p in range(1000, 1400)]
    return json.dumps(raw)


def alarms_of(demo: Demo, namespace: str) -> dict[tuple[str, str], str]:
    items = demo.kubectl("-n", namespace, "get", "alarms", "-o", "json").json()["items"]
    return {(a["status"]["alarmId"], a["status"]["entity"]): a["status"]["reason"] for a in items}


def named(demo: Demo, namespace: str, entity: str) -> None:
    """Until the cloud above says of this node that its store can't be written."""

    def raised() -> None:
        found = alarms_of(demo, namespace)
        assert ("280.202", entity) in found, found
        report(found["280.202", entity])

    until(f"{entity} is known to be without room", raised, NAMED_WITHIN)


@pytest.mark.parametrize(("process", "cloud"), [(CONTROLLER, "valley"), (CENTRE, "central")])
def test_a_cloud_on_a_full_disk_goes_on_reading_and_then_writing(
    demo: Demo, process: str, cloud: str
) -> None:
    ledger = Ledger(demo)
    checker.converge(demo)
    before = demo.processes()
    seen = demo.kubectl("get", "hosts", "-A", "-o", "name", cloud=cloud).ok().output
    with full(demo, process):
        number = 0

        def refused() -> None:
            nonlocal number
            number += 1
            write = create(demo, ledger, cloud, f"full-{number}")
            assert write.code != 0, f"a write was accepted: {write.output[:200]}"
            assert "ServiceUnavailable" in write.error and "disk" in write.error, write
            report(write.error.strip()[-300:])

        until("writes are refused for want of room", refused, 60)
        for _ in range(3):
            assert demo.kubectl("get", "hosts", "-A", "-o", "name", cloud=cloud).ok().output == seen
        if cloud != "central":
            named(demo, "central", f"subcloud={cloud}")
            assert demo.local(cloud, "get", "hosts").ok()
            found = alarms_of(demo, "central")
            assert ("280.001", f"subcloud={cloud}") not in found, f"its link was lost: {found}"
    checker.converge(demo, 120, writes=ledger.writes)
    same = {name: p["pid"] for name, p in demo.processes().items()}
    assert same == {name: p["pid"] for name, p in before.items()}, "something was restarted"
    for write in ledger.writes:
        demo.kubectl("delete", "fwp", write.key[2], cloud=cloud).ok()


def test_a_host_on_a_full_disk_keeps_its_rules_says_so_and_follows_later(demo: Demo) -> None:
    ledger = Ledger(demo)
    checker.converge(demo)
    before = demo.processes()
    home = demo.directory / AGENT
    with full(demo, AGENT):
        text = policy("more", ["8080"])
        made = demo.kubectl("create", "-f", "-", "-o", "json", cloud="valley", text=text).json()
        ledger.keep("valley", made)
        _grow(demo, "worker-0")
        named(demo, "valley", "host=worker-0")
        seen = checker.probe(demo, "valley-router", ["10.3.0.13", "10.3.0.12"])
        assert seen["10.3.0.12", 8080] in checker.LET_THROUGH, f"another host follows: {seen}"
        assert seen["10.3.0.13", 22] in checker.LET_THROUGH and seen["10.3.0.13", 80] == "silence", seen
        host = demo.kubectl("-n", "valley", "get", "host", "worker-0", "-o", "json").json()["status"]
        assert host["operational"] == "enabled", f"a full disk fails no host: {host}"
        _sound(home)
    checker.converge(demo, 120, writes=ledger.writes)
    assert demo.processes()[AGENT]["pid"] == before[AGENT]["pid"], "it was restarted"
    _sound(home)
    demo.kubectl("delete", "fwp", "more", cloud="valley").ok()


def _grow(demo: Demo, host: str) -> None:
    """More for the host's store than fits where it has room already."""
    annotations = {f"much-{n}": "x" * 20_000 for n in range(10)}
    for turn in range(20):
        _annotate(demo, host, {key: f"{turn}{value}" for key, value in annotations.items()})
        if ("280.202", f"host={host}") in alarms_of(demo, "valley"):
            break
    _annotate(demo, host, dict.fromkeys(annotations))


def _annotate(demo: Demo, host: str, annotations: Mapping[str, str | None]) -> None:
    patch = json.dumps({"metadata": {"annotations": annotations}})
    argv = ("patch", "host", host, "--type=merge", "--patch-file=/dev/stdin")
    demo.kubectl(*argv, cloud="valley", text=patch).ok()


def _sound(home: Path) -> None:
    """No file is torn: what is JSON reads as JSON, keys and certificates are whole, nothing is left over."""
    for path in (home / "settings.json", home / "uplink" / "node.json", home / "agent" / "firewall.json"):
        json.loads(path.read_text())
    pem = (home / "uplink" / "node.pem").read_text()
    assert pem.count("-----END") == 2, pem.count("-----END")


# A start on a full disk


def test_what_starts_on_a_full_disk_waits_with_its_rules_and_comes_up_by_itself(demo: Demo) -> None:
    checker.converge(demo)
    before = demo.processes()
    # As after a stop in good order, which closes the store: one that was killed still has room to read.
    _stop_in_good_order(demo, AGENT)
    with full(demo, AGENT):
        # As the machine is after its start: without rules.
        demo.inside(AGENT, "nft", "flush", "ruleset").ok()

        def waits() -> None:
            log = (demo.directory / "log" / f"{AGENT}.log").read_text()
            told = log[log.rindex("started as process") :]
            assert "the disk can't be used; waiting for it" in told, told[-2000:]

        until("it says what it waits for", waits, 60)

        def held() -> None:
            seen = checker.probe(demo, "valley-router", ["10.3.0.13"])
            assert seen["10.3.0.13", 80] == "silence", f"the host stands open: {seen}"
            assert seen["10.3.0.13", 22] in checker.LET_THROUGH, seen

        until("its rules are in force without its store", held, 60)
    demo.restarted(AGENT, before[AGENT])
    checker.converge(demo, 120)


def _stop_in_good_order(demo: Demo, name: str) -> None:
    pid = demo.processes()[name]["pid"]
    run(["kill", "-TERM", str(pid)]).ok()

    def ended() -> None:
        assert demo.processes()[name]["pid"] != pid

    until(f"{name} has ended", ended, 30)


# A disk that turns read-only


@pytest.mark.skipif(FRAIL not in DISKS, reason="needs loop devices and ext4")
def test_a_disk_that_turns_read_only_ends_nothing_and_its_copy_is_gone_on_with(demo: Demo) -> None:
    """The filesystem finds an error and is read-only from then on, as cheap disks end."""
    checker.converge(demo)
    home, before = demo.directory / FRAIL, demo.processes()
    disk_demo.break_disk(home)
    with pytest.raises(OSError, match="Read-only"):
        (home / "probe").write_text("x")
    demo.kubectl("label", "host", "controller-1", "seen=read-only", cloud="ridge").ok()
    named(demo, "ridge", "host=controller-1")
    seen = checker.probe(demo, "ridge-router", ["10.2.0.12"])
    assert seen["10.2.0.12", 22] in checker.LET_THROUGH and seen["10.2.0.12", 80] == "silence", seen
    host = demo.kubectl("-n", "ridge", "get", "host", "controller-1", "-o", "json").json()["status"]
    assert host["operational"] == "enabled", f"a disk that is read-only fails no host: {host}"
    assert demo.processes()[FRAIL]["pid"] == before[FRAIL]["pid"], "it died of it"
    disk_demo.replace_disk(home)
    demo.verb("kill", FRAIL)
    demo.restarted(FRAIL, before[FRAIL])
    _sound(home)
    checker.converge(demo, 120)


@pytest.mark.skipif(FRAIL_CONTROLLER not in DISKS, reason="needs loop devices and ext4")
def test_a_cloud_whose_disk_turns_read_only_reads_on_refuses_writes_and_is_known(demo: Demo) -> None:
    """What it accepted before is on the copy that an operator makes, and it goes on from there."""
    ledger = Ledger(demo)
    create(demo, ledger, "ridge", "kept").ok()
    checker.converge(demo)
    home, before = demo.directory / FRAIL_CONTROLLER, demo.processes()
    seen = demo.kubectl("get", "hosts", "-o", "name", cloud="ridge").ok().output
    disk_demo.break_disk(home)
    with pytest.raises(OSError, match="Read-only"):
        (home / "probe").write_text("x")
    for number in range(3):
        write = create(demo, ledger, "ridge", f"lost-{number}")
        assert write.code != 0, f"a write was accepted: {write.output[:200]}"
        assert "ServiceUnavailable" in write.error and "nothing was written" in write.error, write
        report(write.error.strip()[-300:])
        assert demo.kubectl("get", "hosts", "-o", "name", cloud="ridge").ok().output == seen
    named(demo, "central", "subcloud=ridge")
    found = alarms_of(demo, "central")
    assert ("280.001", "subcloud=ridge") not in found, f"its link was lost: {found}"
    for host in ("10.2.0.11", "10.2.0.12"):
        reached = checker.probe(demo, "ridge-router", [host])
        assert reached[host, 22] in checker.LET_THROUGH and reached[host, 80] == "silence", reached
    assert demo.processes()[FRAIL_CONTROLLER]["pid"] == before[FRAIL_CONTROLLER]["pid"], "it died of it"
    disk_demo.replace_disk(home)
    demo.verb("kill", FRAIL_CONTROLLER)
    demo.restarted(FRAIL_CONTROLLER, before[FRAIL_CONTROLLER])
    create(demo, ledger, "ridge", "after").ok()
    checker.converge(demo, 120, writes=ledger.writes)
    assert ("280.202", "subcloud=ridge") not in alarms_of(demo, "central")
    for kept in ledger.writes:
        demo.kubectl("delete", "fwp", kept.key[2], cloud="ridge").ok()
