"""A whole laboratory in a process of its own: control, the second start, the kill -9, the ordinary user."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from roost.sim.lab import control
from roost.sim.lab.errors import LabError
from roost.sim.lab.namespaces import has_rights
from roost.sim.lab.supervisor import ProcessStatus
from tests.sim import lab_stand_in

pytestmark = pytest.mark.namespaces
SECONDS = 60.0
PORT = 27443
NOBODY = 65534
REPOSITORY = Path(__file__).parents[2]

# Lets an ordinary user reach an interpreter that lies in a home only root may enter: in a mount
# namespace of its own, that home is replaced by an empty one with the interpreter alone in it.
OPEN_UP = """
set -e
stage=$1; needed=$2; closed=$3; shift 3
if [ -n "$closed" ]; then
    mount --bind "$needed" "$stage"
    mount -t tmpfs -o mode=755 none "$closed"
    mkdir -p "$needed"
    mount --bind "$stage" "$needed"
fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"""


class Running:
    """A laboratory process and what it prints."""

    def __init__(self, directory: Path, before: Sequence[str] = ()) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [*before, sys.executable, lab_stand_in.__file__, "lab", str(directory), str(PORT)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.port = 0

    def until_ready(self) -> Running:
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if found := re.match(r"ready (\d+)", line):
                self.port = int(found[1])
                return self
        raise AssertionError("".join(said))

    def status(self) -> control.LabStatus:
        return asyncio.run(control.status(self.directory))

    def call(self, request: control.Request) -> control.Reply:
        return asyncio.run(control.call(self.directory, request, within=SECONDS))

    def refusal(self) -> str:
        said, _ = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 1
        return said

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=SECONDS)


def as_nobody(stage: Path) -> list[str]:
    needed = Path(sys.base_prefix).resolve()
    closed = next((path for path in reversed(needed.parents) if not path.stat().st_mode & 0o001), None)
    return ["unshare", "--mount", "sh", "-c", OPEN_UP, "sh", str(stage), str(needed), str(closed or "")]


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path, whose parents only its owner may enter.
    made = Path(tempfile.mkdtemp(prefix="lab-"))
    if os.geteuid() == 0:
        os.chown(made, NOBODY, NOBODY)
    yield made / "demo"
    shutil.rmtree(made)


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., Running]]:
    began: list[Running] = []

    def begin(before: Sequence[str] = ()) -> Running:
        began.append(Running(directory, before))
        return began[-1]

    yield begin
    for running in began:
        running.close()


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def namespaces_of(running: Running) -> set[str]:
    lab = running.status()
    names = {str(Path(f"/proc/{lab.pid}/fd/{node.descriptor}").readlink()) for node in lab.nodes}
    assert len(names) == len(lab.nodes) >= 10
    assert all(name.startswith("net:[") for name in names)
    return names


def holders(namespaces: set[str]) -> set[str]:
    """Every process or descriptor on this machine that keeps one of the namespaces."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        links = [entry / "ns/net"]
        with contextlib.suppress(OSError):
            links += [*(entry / "fd").iterdir()]
        for link in links:
            try:
                if str(link.readlink()) in namespaces:
                    found.add(str(link))
            except OSError:
                continue
    return found


def marked(directory: Path) -> set[int]:
    """Every process that carries the mark of a laboratory of this directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and f"ROOST_LAB={directory}:".encode() in (entry / "environ").read_bytes()
            ):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def ports_here() -> str:
    return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout


def ask(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as link:
        return link.recv(100).decode()


@pytest.fixture(params=["root", "nobody"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """In front of the command that starts the laboratory: what makes it run as this user."""
    if not has_rights():
        return []
    return as_nobody(tmp_path) if request.param == "nobody" else []


def test_a_life_from_start_to_ctrl_c(start: Callable[..., Running], before: list[str]) -> None:
    ports = ports_here()
    running = start(before).until_ready()
    lab = running.status()
    assert lab.rights == ("user namespace" if before or not has_rights() else "root")
    assert {process.name: process.message for process in lab.processes} == {
        "central": "answers",
        "harbor-controller-0": "centre to 198.18.0.1",
        "ridge-controller-0": "centre to 198.18.0.2",
        "ridge-controller-1": "centre to 198.18.0.2",
        "valley-controller-0": "centre to 198.18.0.3",
        "valley-controller-1": "centre to 198.18.0.3",
        "valley-worker-0": "centre to 198.18.0.3",
    }
    assert ask(running.port) == "centre to 127.0.0.1"
    assert ports_here() == ports
    namespaces, directory = namespaces_of(running), running.directory
    assert len(marked(directory)) >= 2 * 6 + 1  # each agent has a child
    assert (directory / "control.sock").stat().st_mode & 0o777 == 0o600

    os.kill(lab.pid, signal.SIGINT)
    running.process.communicate(timeout=SECONDS)
    assert running.process.returncode == 0
    assert not marked(directory)
    assert not holders(namespaces)
    assert [path.name for path in directory.iterdir()] == ["log"]
    assert ports_here() == ports


def test_after_a_kill_9_nothing_is_left_and_the_next_start_behaves(
    start: Callable[..., Running], before: list[str]
) -> None:
    running = start(before).until_ready()
    namespaces = namespaces_of(running)
    pid, directory = running.status().pid, running.directory
    children = marked(directory)
    os.kill(pid, signal.SIGKILL)
    running.process.communicate(timeout=SECONDS)
    assert eventually(lambda: not marked(directory) and not holders(namespaces))
    assert eventually(lambda: not any(Path(f"/proc/{child}/ns/net").exists() for child in children))
    with pytest.raises(LabError, match=r"no demo runs from .*; start it with `make demo`"):
        running.status()

    again = start(before).until_ready()
    assert ask(again.port) == "centre to 127.0.0.1"


def test_a_start_at_once_after_a_kill_9_keeps_its_processes(start: Callable[..., Running]) -> None:
    first = start().until_ready()
    os.kill(first.process.pid, signal.SIGKILL)
    second = start().until_ready()
    assert all(process.restarts == 0 for process in second.status().processes)


def test_control(start: Callable[..., Running], before: list[str]) -> None:
    running = start(before).until_ready()
    name = "harbor-controller-0"

    done = running.call(control.Execute(host=name, argv=["ip", "-br", "address", "show", "oam0"]))
    assert isinstance(done, control.Finished)
    assert "10.1.0.11/24 fd00:1::11/64" in done.output

    running.call(control.Cut(site="harbor", direction="up"))
    assert running.status().sites[0].cut == "up"
    # The agent that is started again does not reach the centre and waits.
    running.call(control.Kill(process=name))

    def agent() -> ProcessStatus:
        return next(process for process in running.status().processes if process.name == name)

    assert eventually(lambda: agent().restarts == 1 and agent().state == "starting")
    running.call(control.Mend(site="harbor"))
    assert eventually(lambda: agent().state == "ready")

    running.call(control.Pause(process=name))
    assert agent().state == "paused"
    running.call(control.Resume(process=name))
    assert agent().state == "ready"
    with pytest.raises(LabError, match="no process named nobody; choose one of: central"):
        running.call(control.Kill(process="nobody"))

    # A terminal in a host: the client's own process steps in, with its exit code.
    script = "uname -n; ls /sys/class/net; exit 3"
    command = asyncio.run(control.attach_command(running.directory, name, ["sh", "-c", script]))
    attached = subprocess.run([*before, *command], capture_output=True, text=True, timeout=SECONDS)
    assert attached.returncode == 3, attached.stderr
    assert attached.stdout.split() == [name, "lo", "mgmt0", "oam0"]

    # What somebody left running in a host ends with the laboratory.
    command = asyncio.run(control.attach_command(running.directory, name, ["sleep", "1000"]))
    left = subprocess.Popen([*before, *command])
    assert eventually(lambda: left.pid in marked(running.directory))
    running.call(control.Stop())
    running.process.communicate(timeout=SECONDS)
    assert running.process.returncode == 0
    assert left.wait(timeout=SECONDS) == -signal.SIGKILL


def test_a_second_start_is_refused_by_the_number_of_the_first(start: Callable[..., Running]) -> None:
    first = start().until_ready()
    said = start().refusal()
    assert f"a demo runs from {first.directory} already, as process {first.process.pid}; stop it" in said
    assert ask(first.port) == "centre to 127.0.0.1"


def test_a_lock_nobody_holds_and_files_nobody_uses_are_no_obstacle(start: Callable[..., Running]) -> None:
    running = start().until_ready()
    directory = running.directory
    running.call(control.Stop())
    running.process.communicate(timeout=SECONDS)
    (directory / "lock").write_text("1\n")
    (directory / "control.sock").write_text("")
    (directory / "notify.sock").write_text("")
    assert start().until_ready().status().processes
    with (directory / "lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_broken_request_is_refused_by_name(start: Callable[..., Running]) -> None:
    running = start().until_ready()

    async def send(line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(running.directory / "control.sock")
        writer.write(line)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    assert b"Invalid value 'fly'" in asyncio.run(send(b'{"verb":"fly"}\n'))
    assert b"unknown field `color`" in asyncio.run(send(b'{"verb":"status","color":1}\n'))
    assert b"missing required field `site`" in asyncio.run(send(b'{"verb":"cut"}\n'))
    assert b"Invalid enum value 'sideways'" in asyncio.run(
        send(b'{"verb":"cut","site":"harbor","direction":"sideways"}\n')
    )
    assert b"not a request" in asyncio.run(send(b"x" * 100_000 + b"\n"))


@pytest.mark.skipif(not has_rights(), reason="needs root to make a system without user namespaces")
def test_where_user_namespaces_are_forbidden_one_sentence_says_so(
    start: Callable[..., Running], directory: Path
) -> None:
    os.chown(directory.parent, 0, 0)
    # The limit is that of a user namespace of its own; the machine's stays as it is.
    forbid = (
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all $@"
    )
    said = start(["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]).refusal()
    assert said.splitlines() == [
        "refused: network namespaces are forbidden to ordinary users on this system; "
        "allow them with `sudo sysctl -w user.max_user_namespaces=15000`, or run it as root"
    ]


def test_a_directory_of_somebody_else_is_refused(start: Callable[..., Running], directory: Path) -> None:
    if not has_rights():
        pytest.skip("needs root to own a directory the user may not enter")
    directory.mkdir(mode=0o700)
    with tempfile.TemporaryDirectory() as stage:
        said = start(as_nobody(Path(stage))).refusal()
    assert said.startswith(f"refused: no right to write in {directory} (Permission denied); it may belong")


def test_a_path_too_long_for_sockets_is_refused(directory: Path) -> None:
    running = Running(directory / ("long" * 25))
    assert "too long for sockets in it" in running.refusal()


def test_where_no_laboratory_runs_the_client_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no demo runs from"):
        asyncio.run(control.call(tmp_path, control.Status()))
