"""The demo as a person has it: `roost demo` in a process group of its own, driven by typed commands."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.acceptance.waiting import report, until
from tests.support.namespaces import PREFIX

REPOSITORY = Path(__file__).parents[2]
ROOST = Path(sys.executable).parent / "roost"
COMMAND_WITHIN = 100.0
READY_WITHIN = 60.0
END_WITHIN = 30.0
Raw = dict[str, Any]


class Answer:
    """A command that ended."""

    def __init__(self, argv: Sequence[str], done: subprocess.CompletedProcess[str], seconds: float) -> None:
        self.argv, self.code, self.seconds = list(argv), done.returncode, seconds
        self.output, self.error = done.stdout, done.stderr

    @property
    def said(self) -> str:
        return self.output + self.error

    def ok(self) -> Answer:
        """This answer, after making sure that the command succeeded."""
        assert self.code == 0, str(self)
        return self

    def json(self) -> Raw:
        found: Raw = json.loads(self.ok().output)
        return found

    def __str__(self) -> str:
        return f"`{shlex.join(self.argv)}` ended with {self.code} after {self.seconds:.1f} s:\n{self.said}"


def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    here: Path = REPOSITORY,
    text: str | None = None,
    within: float = COMMAND_WITHIN,
) -> Answer:
    """Run a command to its end."""
    start = time.monotonic()
    done = subprocess.run(
        list(argv),
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        cwd=here,
        env={**os.environ, **(environment or {})},
        timeout=within,
        check=False,
    )
    return Answer(argv, done, time.monotonic() - start)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Demo:
    """A running demo. `program` is another way to start it."""

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        program: Sequence[str] = (),
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.port = directory, port
        self.printed = directory.parent / f"{directory.name}.out"
        argv = [*(program or (sys.executable, "-m", "roost.program", "demo"))]
        argv += ["--directory", str(directory), "--port", str(port)]
        self.started = time.monotonic()
        with self.printed.open("w") as output:
            self.process = subprocess.Popen(
                [*before, *argv],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """Everything it has printed."""
        return self.printed.read_text()

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def environment(self) -> dict[str, str]:
        return {"KUBECONFIG": str(self.kubeconfig)}

    def until_ready(self, within: float = READY_WITHIN) -> Demo:
        """Wait until it says that it is ready."""

        def ready() -> None:
            assert self.process.poll() is None or "] ready" in self.said, self.tell()
            assert "Ctrl-C ends everything" in self.said, self.tell()

        while self.process.poll() is None and time.monotonic() - self.started < within:
            with contextlib.suppress(AssertionError):
                ready()
                break
            time.sleep(0.1)
        ready()
        report(f"the demo was ready after {time.monotonic() - self.started:.1f} s")
        return self

    def tell(self) -> str:
        """What it printed and the ends of its logs."""
        logs = sorted(self.directory.glob("log/*.log")) if self.directory.exists() else []
        ends = [f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-8:]) for log in logs]
        return "\n".join([f"code {self.process.poll()}", self.said, *ends])

    # Commands

    def roost(self, *arguments: str, within: float = COMMAND_WITHIN) -> Answer:
        """`roost` at the central cloud."""
        return run([str(ROOST), *arguments], environment=self.environment, within=within)

    def verb(self, verb: str, *arguments: str) -> Answer:
        """A verb of `roost demo` on this demo."""
        return self.roost("demo", verb, "--directory", str(self.directory), *arguments).ok()

    def kubectl(self, *arguments: str, cloud: str = "central", text: str | None = None) -> Answer:
        """kubectl at the central cloud, or at a subcloud through it."""
        argv = ["kubectl", "--context", cloud, "--request-timeout=20s", *arguments]
        return run(argv, environment=self.environment, text=text)

    def inside(self, host: str, *argv: str, text: str | None = None) -> Answer:
        """A command inside a host."""
        full = [str(ROOST), "demo", "exec", "--directory", str(self.directory), host, "--", *argv]
        return run(full, text=text)

    def local(self, site: str, *arguments: str, text: str | None = None) -> Answer:
        """kubectl at a site's own API, inside the site, with the site's own kubeconfig."""
        first = f"{site}-controller-0"
        config = str(self.directory / first / "kubeconfig")
        return self.inside(
            first, "kubectl", "--kubeconfig", config, "--request-timeout=20s", *arguments, text=text
        )

    def local_roost(self, site: str, *arguments: str) -> Answer:
        """`roost` at a site's own API."""
        first = f"{site}-controller-0"
        config = str(self.directory / first / "kubeconfig")
        return self.inside(first, str(ROOST), "--kubeconfig", config, *arguments)

    # What it is made of

    def status(self) -> Raw:
        """The laboratory's own words, from its socket."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(15)
            asking.connect(str(self.directory / "control.sock"))
            asking.sendall(b'{"verb":"status"}\n')
            pieces = b""
            while not pieces.endswith(b"\n"):
                piece = asking.recv(65_536)
                assert piece, f"the demo ended without an answer; {self.tell()}"
                pieces += piece
        found: Raw = json.loads(pieces)
        return found

    def processes(self) -> dict[str, Raw]:
        """Every process the demo keeps, by name."""
        return {one["name"]: one for one in self.status()["processes"]}

    def namespaces(self) -> set[str]:
        """The network namespaces of this demo, as the kernel names them."""
        lab = self.status()
        return {str(Path(f"/proc/{lab['pid']}/fd/{n['descriptor']}").readlink()) for n in lab["nodes"]}

    def restarted(self, name: str, before: Raw) -> None:
        """Wait until a process that was ended runs again and is ready."""

        def again() -> None:
            now = self.processes()[name]
            assert now["state"] == "ready" and now["pid"] != before["pid"], now

        until(f"{name} runs again", again, 60)

    # The end

    def interrupt(self) -> float:
        """Ctrl-C; the seconds until it has ended."""
        start = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(timeout=END_WITHIN)
        return time.monotonic() - start

    def close(self) -> None:
        """End it however it is."""
        if self.process.poll() is None:
            try:
                self.interrupt()
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(timeout=END_WITHIN)


# What is left on this machine


def marked(directory: Path) -> dict[int, str]:
    """Every process that carries the mark of a demo of this directory, with its command."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and f"ROOST_LAB={directory}:".encode() in (entry / "environ").read_bytes()
            ):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def mentioning(directory: Path) -> dict[int, str]:
    """Every process whose command line names this directory."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if f"{directory}" in command:
                    found[int(entry.name)] = command
        except OSError:
            continue
    return found


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
            with contextlib.suppress(OSError):
                if str(link.readlink()) in namespaces:
                    found.add(str(link))
    return found


def machine() -> dict[str, str]:
    """The network of the machine itself, which a demo must leave alone."""
    commands = (
        ["nft", "list", "ruleset"],
        ["ip", "-o", "link"],
        ["ip", "-o", "address", "show", "scope", "global"],
        ["ip", "rule"],
        ["ip", "route"],
        ["ip", "netns", "list"],
    )
    found = {shlex.join(argv): run(argv).ok().output for argv in commands}
    # Tests that run at the same time have namespaces of their own, which come and go.
    names = found["ip netns list"].splitlines()
    found["ip netns list"] = "\n".join(name for name in names if not name.startswith(PREFIX))
    return found


def assert_nothing_left(directory: Path, namespaces: set[str], before: Mapping[str, str]) -> None:
    """Nothing of an ended demo is on this machine."""

    def gone() -> None:
        assert not marked(directory), f"processes with its mark: {marked(directory)}"
        assert not mentioning(directory), f"processes that name it: {mentioning(directory)}"
        assert not holders(namespaces), f"its namespaces are kept by {holders(namespaces)}"
        assert not (directory / "control.sock").exists(), "its socket is there"

    until("nothing of it is left", gone, 15)
    after = machine()
    assert after == before, f"the machine's own network changed: {before} -> {after}"
