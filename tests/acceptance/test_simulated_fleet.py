"""`roost sim fleet` as somebody uses it: a real cloud, forty simulated sites, a script, Ctrl-C, and again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pair import CloudProcess, until

COUNT = 40
SCRIPT = """
- {at: 0, action: alarms, count: 2, share: 0.5}
- {at: 1, action: cut, sites: 10}
"""


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[CloudProcess]:
    cloud = CloudProcess("central", tmp_path)
    cloud.start("--contained")
    try:
        yield cloud
    finally:
        cloud.kill()


def simulated(centre: CloudProcess, place: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [
        "sim",
        "fleet",
        "--subclouds",
        str(COUNT),
        "--hosts-per-subcloud",
        "2",
        "--keep",
        "certificates",
    ]
    with (place / "said").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "roost.program", *command, *options],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=place,
            env={**os.environ, "KUBECONFIG": str(centre.home / "kubeconfig"), "ROOST_HOME": ""},
        )


def online(centre: CloudProcess, wanted: int) -> None:
    found = [item["status"]["availability"] for item in centre.items("subclouds")]
    assert found.count("online") == wanted, found


def children(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text().split()]


def test_a_real_cloud_takes_simulated_sites_and_they_end_with_their_command(
    centre: CloudProcess, tmp_path: Path
) -> None:
    (tmp_path / "script.yaml").write_text(SCRIPT)
    running = simulated(centre, tmp_path, "--faults", "script.yaml")
    try:
        until("those that are not cut are online", lambda: online(centre, COUNT - 10))
        alarms = [a for a in centre.items("alarms", "site-0039") if a["metadata"]["name"].startswith("sim")]
        assert len(alarms) in (0, 2)
        lost = [a["status"]["alarmId"] for a in centre.items("alarms", "central")]
        assert lost.count("280.001") == 10, lost
        assert len(centre.kubectl("get", "hosts", "-A", "-o", "name").ok().output.split()) == 2 * COUNT
        started = children(running.pid)
        assert started
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
    finally:
        running.kill()
    said = (tmp_path / "said").read_text()
    assert f"{COUNT} have enrolled" in said and "all are linked" in said and "They are gone" in said, said
    assert "Traceback" not in said, said
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()], "its processes end with it"
    until("all are missed", lambda: online(centre, 0))
    began = time.monotonic()
    again = simulated(centre, tmp_path, "--seconds", "15")
    try:
        until("they are back, with the certificates they had", lambda: online(centre, COUNT))
        assert again.wait(60) == 0
    finally:
        again.kill()
    said = (tmp_path / "said").read_text()
    assert "enrolled" not in said and time.monotonic() - began < 60, said
