"""A real cloud, its real host, real executables: in test, killed meanwhile, failing, recovered, drained."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.running import free_port
from tests.acceptance.test_up import Up
from tests.acceptance.waiting import report, until

HOST = "controller-0"


@pytest.fixture
def cloud() -> Iterator[Up]:
    place = Path(tempfile.mkdtemp(prefix="roost-"))
    (place / "home" / "health.d").mkdir(parents=True)
    (place / "home" / "drain.d").mkdir()
    made = Up(place / "home", free_port(), free_port())
    try:
        yield made.start()
    finally:
        made.close()
        shutil.rmtree(place)


def put(cloud: Up, name: str, *lines: str, mode: int = 0o755) -> Path:
    """A hook, by its path in the home; put in place whole, for the host may look at any time."""
    path = cloud.home / name
    new = path.with_name(f".{path.name}")
    new.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    new.chmod(mode)
    new.rename(path)
    return path


def status(cloud: Up) -> dict[str, Any]:
    found: dict[str, Any] = cloud.roost("host", "show", HOST, "-o", "json").json()["status"]
    return found


def checks(cloud: Up) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in (status(cloud).get("health") or {}).get("checks", [])}


def condition(cloud: Up, type: str) -> dict[str, Any]:
    return next((c for c in status(cloud)["conditions"] if c["type"] == type), {})


def is_(cloud: Up, *words: str) -> None:
    found = status(cloud)
    assert (found["administrative"], found["operational"], found["availability"]) == words, found


def serves(cloud: Up) -> None:
    """Available, or degraded by this machine's true load."""
    found = status(cloud)
    assert (found["administrative"], found["operational"]) == ("unlocked", "enabled"), found


def there(cloud: Up, path: Path) -> None:
    assert path.exists() and path.read_text().strip(), f"{path} is not there yet"


def gone(pid: int) -> None:
    """No process, or one that is dead and waits for its parent to look."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return
    assert state == "Z", f"process {pid} is there"


def kill(cloud: Up) -> None:
    """Kill cloud and agent, which are one process here, without a word; a supervisor starts them again."""
    os.kill(cloud.pid, signal.SIGKILL)
    cloud.process.wait(timeout=60)
    cloud.start()


def answers(cloud: Up) -> None:
    assert status(cloud)["connected"] and status(cloud).get("inventory"), status(cloud)


def test_a_host_serves_when_its_checks_pass_whatever_they_write(cloud: Up) -> None:
    until("the host answers", lambda: answers(cloud))
    put(
        cloud,
        "health.d/10-flood",
        "head -c 20000000 /dev/zero | tr '\\0' x",
        "echo",
        "echo all disks are well",
    )
    put(cloud, "health.d/20-quick", "exit 0")
    rehearsed = cloud.roost("host", "unlock", HOST, "--dry-run").ok().output
    assert [
        w for w in ("check", "configure", "test", "enable") if w in rehearsed
    ] and "health checks" in rehearsed
    is_(cloud, "locked", "disabled", "online")
    said = cloud.roost("host", "unlock", HOST).ok().output
    assert "test: succeeded: All 5 checks have passed." in said, said
    serves(cloud)
    found = checks(cloud)
    assert list(found) == ["configuration", "readings", "clock", "10-flood", "20-quick"]
    assert found["10-flood"]["message"] == "all disks are well"
    shown = cloud.roost("host", "show", HOST).ok().output
    assert "all disks are well" in shown and "Health checks" in shown


def test_what_hangs_or_can_not_be_run_names_itself(cloud: Up) -> None:
    until("the host answers", lambda: answers(cloud))
    pids = cloud.home / "pids"
    path = put(cloud, "health.d/30-raid", "exit 0", mode=0o644)
    hang = put(cloud, "health.d/40-hang", f"echo $$ >> {pids}", "echo waiting for the disks", "sleep 900")
    cloud.roost("apply", "-f", "-", text=_seconds(2)).ok()
    failed = cloud.roost("host", "unlock", HOST)
    assert failed.code == 1, failed
    assert f"30-raid failed: {path} is not executable; chmod 0755 it" in failed.said, failed
    assert "40-hang timed out" in failed.said and "waiting for the disks" in failed.said, failed
    for pid in pids.read_text().split():
        until("nothing is left of the hanging check", partial(gone, int(pid)))
    path.chmod(0o755)
    hang.unlink()
    until("the unlock is tried again by itself", lambda: serves(cloud), 150)
    is_gone = [
        a for a in cloud.roost("alarm", "list", "--no-headers").ok().output.splitlines() if "200." in a
    ]
    assert not is_gone, is_gone


def test_killed_in_test_it_goes_through_the_test_anew(cloud: Up) -> None:
    until("the host answers", lambda: answers(cloud))
    pids, go = cloud.home / "pids", cloud.home / "go"
    put(
        cloud,
        "health.d/50-slow",
        f"echo $$ >> {pids}",
        f"while [ ! -e {go} ]; do sleep 0.2; done",
        "echo through",
    )
    cloud.roost("host", "unlock", HOST, "--no-wait").ok()
    until("the check runs", lambda: there(cloud, pids))
    is_(cloud, "locked", "disabled", "intest")
    before = status(cloud)
    kill(cloud)
    until("the check runs again", lambda: _lines(pids, 2))
    is_(cloud, "locked", "disabled", "intest")
    shown = cloud.roost("host", "show", HOST).ok().output
    assert "Now: unlock, test: Waiting for the host's checks" in shown and "Then: enable." in shown, shown
    go.touch()
    until("it serves", lambda: serves(cloud), 60)
    after = status(cloud)
    assert after["health"]["incarnation"] != before["agent"]["incarnation"], (
        "an old verdict was taken for a new one"
    )
    assert after["fitBoot"] == after["agent"]["bootId"]

    # A start of the machine in service: it serves when its checks have passed in that start.
    go.unlink()
    kill(cloud)
    until("it is in test", lambda: is_(cloud, "unlocked", "disabled", "intest"), 60)
    assert condition(cloud, "Healthy")["status"] == "Unknown"
    go.touch()
    until("it serves again", lambda: serves(cloud), 60)
    report(f"the check ran {len(pids.read_text().split())} times")


def test_a_host_that_fails_is_recovered_so_often_over_restarts_of_its_cloud(cloud: Up) -> None:
    until("the host answers", lambda: answers(cloud))
    runs, well = cloud.home / "runs", cloud.home / "well"
    well.touch()
    put(
        cloud,
        "health.d/50-raid",
        f"echo $$ >> {runs}",
        f"[ -e {well} ] && exit 0",
        "echo md0 is degraded",
        "exit 2",
    )
    cloud.roost("host", "unlock", HOST).ok()
    cloud.roost("apply", "-f", "-", text=_recovery(1)).ok()
    well.unlink()
    kill(cloud)
    until("it has failed", lambda: is_(cloud, "unlocked", "disabled", "failed"), 60)
    told = condition(cloud, "Healthy")["message"]
    assert "50-raid failed: exit code 2; its last line: md0 is degraded" in told, told
    alarms = cloud.roost("alarm", "list", "-o", "json").ok().output
    assert '"200.004"' in alarms and '"200.201"' in alarms and "md0 is degraded" in alarms

    def over() -> None:
        (count,) = [c for c in status(cloud)["recovery"]["counts"] if c["cause"] == "health"]
        assert (count["tries"], count["off"]) == (1, True), count

    kill(cloud)
    until("its one try is used up", over, 120)
    kill(cloud)
    until("it is failed still", lambda: is_(cloud, "unlocked", "disabled", "failed"), 60)
    over()
    assert "roost host recover" in condition(cloud, "Healthy")["message"]
    well.touch()
    cloud.roost("host", "recover", HOST).ok()
    until("it serves", lambda: serves(cloud), 60)


def test_a_lock_waits_until_the_hooks_say_that_all_has_left(cloud: Up) -> None:
    until("the host answers", lambda: answers(cloud))
    cloud.roost("host", "unlock", HOST).ok()
    left = cloud.home / "left"
    put(cloud, "drain.d/50-move", f"[ -e {left} ] && exit 0", "echo 2 workloads are left", "exit 1")
    cloud.roost("host", "lock", HOST, "--no-wait").ok()

    def waits() -> None:
        shown = cloud.roost("host", "show", HOST).ok().output
        told = " ".join(shown.split())
        assert "Workloads stay. 50-move: exit code 1; its last line: 2 workloads are left" in told, shown
        assert "roost host lock --force controller-0" in told, shown

    until("it says what it waits for", waits, 60)
    serves(cloud)
    left.touch()
    until("it is locked", lambda: is_(cloud, "locked", "disabled", "online"), 60)
    cloud.roost("host", "unlock", HOST).ok()
    left.unlink()
    cloud.roost("host", "lock", HOST, "--no-wait").ok()
    until("it waits again", waits, 60)
    cloud.roost("host", "lock", HOST, "--force").ok()
    is_(cloud, "locked", "disabled", "online")


def _lines(path: Path, count: int) -> None:
    assert path.exists() and len(path.read_text().split()) >= count, path


def _seconds(seconds: int) -> str:
    return _host(f"checkSeconds: {seconds}")


def _recovery(tries: int) -> str:
    return _host(f"recovery: {{tries: {tries}}}")


def _host(field: str) -> str:
    return (
        f"apiVersion: roost.edge/v1\nkind: Host\nmetadata: {{name: {HOST}, namespace: solo}}\n"
        f"spec: {{{field}}}\n"
    )
