"""Two real clouds, a central one and a subcloud, linked over TLS through a relay that can be cut."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.relay import Relay

ROOST = Path(sys.executable).parent / "roost"
READY_WITHIN = 90.0
SETTLED_WITHIN = 90.0
Raw = dict[str, Any]
T = TypeVar("T")


class Said:
    """A command that ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.output, self.error = done.returncode, done.stdout, done.stderr

    @property
    def said(self) -> str:
        return self.output + self.error

    def ok(self) -> Said:
        assert self.code == 0, self.said
        return self

    def json(self) -> Any:
        return json.loads(self.ok().output)


class CloudProcess:
    """One cloud without a host, under a home of its own; started again it goes on."""

    def __init__(self, name: str, place: Path) -> None:
        self.name, self.home = name, place / name
        self.port, self.links = free_port(), free_port()
        self.printed = place / f"{name}.out"
        self.process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def start(self, *options: str) -> CloudProcess:
        """Start it, and wait until it serves."""
        self._starts += 1
        command = ["up", "--no-host", "--name", self.name, "--home", str(self.home), *options]
        command += ["--address", f"127.0.0.1:{self.port}", "--link-address", f"127.0.0.1:{self.links}"]
        with self.printed.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "roost.program", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self.home.parent,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "ROOST_RETRY_SECONDS": "1"},
            )
        until("the cloud is up", self._up, READY_WITHIN)
        return self

    def _up(self) -> None:
        assert self.process is not None and self.process.poll() is None, self.said
        assert self.said.count('"cloud up"') >= self._starts, self.said

    @property
    def said(self) -> str:
        return self.printed.read_text()

    def kill(self) -> None:
        """As the loss of its power would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)

    def roost(self, *arguments: str) -> Said:
        return self._run([str(ROOST), *arguments])

    def kubectl(self, *arguments: str, text: str | None = None) -> Said:
        return self._run(["kubectl", *arguments], text)

    def _run(self, argv: list[str], text: str | None = None) -> Said:
        environment = {**os.environ, "KUBECONFIG": str(self.home / "kubeconfig"), "ROOST_HOME": ""}
        done = subprocess.run(
            argv,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.home.parent,
            timeout=60,
            check=False,
        )
        return Said(done)

    def get(self, kind: str, name: str, namespace: str = "") -> Raw:
        """One object; an AssertionError when it is not there."""
        where = ["-n", namespace] if namespace else []
        found: Raw = self.kubectl("get", kind, name, *where, "-o", "json").json()
        return found

    def items(self, kind: str, namespace: str = "") -> list[Raw]:
        where = ["-n", namespace] if namespace else []
        found: list[Raw] = self.kubectl("get", kind, *where, "-o", "json").json()["items"]
        return found


class Pair:
    """A central cloud, a site, and the link between them."""

    def __init__(self, centre: CloudProcess, site: CloudProcess, relay: Relay) -> None:
        self.centre, self.site, self.relay = centre, site, relay

    def cut(self) -> None:
        """Nothing passes; both sides have noticed on return."""
        self.relay.cut()
        until("the centre misses the site", lambda: self._availability("offline"))

    def mend(self) -> None:
        self.relay.mend()
        until("the site is back", lambda: self._availability("online"))

    def _availability(self, wanted: str) -> None:
        status = self.centre.get("subcloud", self.site.name)["status"]
        assert status["availability"] == wanted, status


@contextlib.contextmanager
def linked(place: Path, *, site: str = "harbor", options: Sequence[str] = ()) -> Iterator[Pair]:
    """A managed subcloud that is online. `options` are for the start of the central cloud."""
    centre, below = CloudProcess("central", place), CloudProcess(site, place)
    with Relay(centre.links) as relay:
        door = relay.url.removeprefix("https://")
        try:
            centre.start("--advertise", door, *options)
            token = centre.roost("subcloud", "add", site, "--managed", "-o", "name").ok().output.strip()
            file = place / "token"
            file.touch(mode=0o600)
            file.write_text(token.splitlines()[-1] + "\n")
            below.start("--join", str(file))
            pair = Pair(centre, below, relay)
            pair.mend()
            yield pair
        finally:
            below.kill()
            centre.kill()


def until(what: str, look: Callable[[], T], within: float = SETTLED_WITHIN) -> T:
    """Call `look` until it returns; AssertionErrors mean not yet. Raises the last with what was awaited."""
    start = time.monotonic()
    while True:
        try:
            return look()
        except AssertionError as error:
            if time.monotonic() - start > within:
                raise AssertionError(f"after {within:g} s still not: {what}\n{error}") from None
        time.sleep(0.25)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
