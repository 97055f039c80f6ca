"""`roost up` on this machine: the real machine as a simplex cloud, through its whole life."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import ROOST, Answer, free_port, machine, run
from tests.acceptance.waiting import report, until

AGAIN = 75
WRAPPER = f"""
while true; do
    "$@"
    code=$?
    echo "roost up ended with $code"
    [ $code = {AGAIN} ] || exit $code
done
"""


class Up:
    """`roost up --contained` under a supervisor that starts it again when it asks for that."""

    def __init__(self, home: Path, port: int, links: int) -> None:
        self.home, self.port, self.links = home, port, links
        self.environment = {"ROOST_HOME": str(home)}
        self.printed = home.parent / "printed"
        self.process: subprocess.Popen[bytes]

    @property
    def argv(self) -> list[str]:
        options = ["--name", "solo", "--address", f"127.0.0.1:{self.port}"]
        options += ["--link-address", f"127.0.0.1:{self.links}", "--contained"]
        return [sys.executable, "-m", "roost.program", "up", *options]

    def start(self) -> Up:
        with self.printed.open("a") as output:
            self.process = subprocess.Popen(
                ["sh", "-c", WRAPPER, "sh", *self.argv],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                cwd=self.home.parent,
                start_new_session=True,
            )
        until("the cloud answers", lambda: self.roost("status").ok(), 60)
        return self

    def roost(self, *arguments: str, text: str | None = None) -> Answer:
        assert self.process.poll() is None, self.printed.read_text()
        return run(
            [str(ROOST), *arguments],
            environment={**self.environment, "KUBECONFIG": ""},
            here=self.home.parent,
            text=text,
        )

    @property
    def pid(self) -> int:
        """The process that has the home."""
        return int((self.home / "lock").read_text())

    def available(self, wanted: str) -> None:
        row = self.roost("host", "list", "--no-headers").ok().output.split()
        assert row[:1] == ["controller-0"] and wanted in row, row

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Up]:
    place = Path(tempfile.mkdtemp(prefix="roost-"))
    made = Up(place / "home", free_port(), free_port())
    try:
        yield made.start()
    finally:
        made.close()
        shutil.rmtree(place)


def test_its_inventory_is_that_of_the_real_machine(cloud: Up) -> None:
    until("the host answers", lambda: cloud.available("online"), 30)
    shown = cloud.roost("host", "inventory", "controller-0").ok().output
    memory = int(re.search(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
    told = int(re.search(r"Memory: +(\d+) MiB", shown)[1])  # type: ignore[index]
    assert abs(told - memory / 1024) < 2, f"{told} MiB of {memory} KiB"
    assert f"kernel {os.uname().release}" in shown, shown
    threads = len(re.findall(r"^processor", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    assert re.search(rf"\b{threads} threads?\b", shown), shown
    for port in Path("/sys/class/net").iterdir():
        if (port / "device").exists():
            assert port.name in shown and (port / "address").read_text().strip() in shown, shown
    disks = run(["lsblk", "-dnro", "NAME,TYPE"]).ok().output.splitlines()
    real = [
        d.split()[0]
        for d in disks
        if d.endswith(" disk") and Path(f"/sys/block/{d.split()[0]}/device").exists()
    ]
    for disk in real:
        assert re.search(rf"^{disk} ", shown, re.MULTILINE), f"disk {disk} is missing:\n{shown}"


def test_what_it_keeps_is_its_owners_alone(cloud: Up) -> None:
    assert (cloud.home / "kubeconfig").stat().st_mode & 0o777 == 0o600
    assert cloud.home.stat().st_mode & 0o777 == 0o700
    open_to_others = [
        str(path) for path in cloud.home.rglob("*") if path.is_file() and path.stat().st_mode & 0o077
    ]
    sensitive = [p for p in open_to_others if not p.endswith((".db", ".db-wal", ".db-shm"))]
    assert not sensitive, f"others may read {sensitive}"


def test_a_second_one_on_the_same_home_is_refused(cloud: Up) -> None:
    refused = run(cloud.argv, environment=cloud.environment)
    assert refused.code == 1 and "Traceback" not in refused.said, refused
    assert f"already runs on {cloud.home}, as process {cloud.pid}" in refused.said, refused
    assert "--home" in refused.said, f"no remedy: {refused}"


@pytest.mark.parametrize("which", ["address", "link-address"])
def test_a_taken_port_is_said_clearly(cloud: Up, tmp_path: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        other = {"address": "link-address", "link-address": "address"}[which]
        port = taken.getsockname()[1]
        argv = [*cloud.argv[:4], "--home", str(tmp_path / "h"), "--name", "other", "--contained"]
        argv += [f"--{which}", f"127.0.0.1:{port}", f"--{other}", f"127.0.0.1:{free_port()}"]
        refused = run(argv, within=40)
    assert refused.code == 1 and "Traceback" not in refused.said, refused
    assert f"127.0.0.1:{port}" in refused.said and "in use" in refused.said, refused
    assert f"--{which}" in refused.said, f"no remedy: {refused}"


def test_lock_unlock_and_a_contained_reboot(cloud: Up) -> None:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    cloud.roost("host", "unlock", "controller-0").ok()
    until("it serves", lambda: _serves(cloud), 60)
    refused = cloud.roost("host", "reboot", "controller-0")
    assert refused.code != 0 and "lock" in refused.said, f"an unlocked host must not be restarted: {refused}"
    cloud.roost("host", "lock", "controller-0").ok()
    cloud.available("locked")
    before = cloud.pid
    answer = cloud.roost("host", "reboot", "controller-0")

    def again() -> None:
        assert cloud.pid != before, "it still runs"
        cloud.available("online")

    until("it has left to be started again, and is back", again, 60)
    assert f"ended with {AGAIN}" in cloud.printed.read_text(), cloud.printed.read_text()
    assert float(Path("/proc/uptime").read_text().split()[0]) > uptime, "the machine itself was restarted"

    def over() -> None:
        states = [o.split()[-1] for o in _operations(cloud)]
        assert len(states) == 3 and set(states) == {"succeeded"}, states

    until("every operation has ended well", over, 60)
    report(f"the reboot took {answer.seconds:.1f} s")
    assert answer.seconds < 40, f"the operation stood still after the restart: {answer}"
    assert answer.code == 0, f"the command lost its way over the restart: {answer}"
    starts = cloud.printed.read_text().count(f"ended with {AGAIN}")
    assert starts == 1, f"one reboot restarted it {starts} times"


def _serves(cloud: Up) -> None:
    """Available, or degraded by this machine's true load."""
    row = cloud.roost("host", "list", "--no-headers").ok().output.split()
    assert "unlocked" in row and "enabled" in row, row


def _operations(cloud: Up) -> list[str]:
    argv = [
        "kubectl",
        "--kubeconfig",
        str(cloud.home / "kubeconfig"),
        "get",
        "operations",
        "-A",
        "--no-headers",
    ]
    columns = "custom-columns=NAME:.metadata.name,STATE:.status.state"
    return run([*argv, "-o", columns]).ok().output.splitlines()


def test_kill_9_keeps_everything(cloud: Up) -> None:
    cloud.roost("user", "add", "ada", "--role", "reader").ok()
    kubectl = ["kubectl", "--kubeconfig", str(cloud.home / "kubeconfig")]
    everything = [*kubectl, "get", "hosts,operations,users", "-A", "-o", "jsonpath={range .items[*]}"]
    everything[-1] += "{.kind}/{.metadata.name} {.metadata.uid} {.spec}{'\\n'}{end}"
    before = run(everything).ok().output
    assert "User/ada" in before, before
    os.killpg(cloud.process.pid, signal.SIGKILL)
    cloud.process.wait(timeout=10)
    cloud.start()
    assert run(everything).ok().output == before
    until("the host is back", lambda: cloud.available("online"), 60)


def test_sigterm_ends_it_soon_and_leaves_nothing_on_the_machine(cloud: Up) -> None:
    network = machine()
    pid, begun = cloud.pid, time.monotonic()
    watch = subprocess.Popen(
        ["kubectl", "--kubeconfig", str(cloud.home / "kubeconfig"), "get", "hosts", "-A", "-w"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert watch.stdout is not None and watch.stdout.readline(), "the watch shows the hosts first"
    os.kill(pid, signal.SIGTERM)
    cloud.process.wait(timeout=20)
    took = time.monotonic() - begun
    watch.kill()
    watch.communicate(timeout=10)
    report(f"ended {took:.1f} s after SIGTERM, with a watch open")
    assert took < 10, f"it took {took:.1f} s: {cloud.printed.read_text()[-2000:]}"
    assert cloud.process.returncode == 0, cloud.printed.read_text()[-2000:]
    assert "Traceback" not in cloud.printed.read_text(), cloud.printed.read_text()
    assert not Path(f"/proc/{pid}").exists()
    assert machine() == network
