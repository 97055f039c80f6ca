"""The official JavaScript client's informer: list, watch, resume after the connection is cut, one cache.

Its package is fetched into the cache of the tests at the first run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roost.api.access import ADMINISTRATORS
from tests.clients.policies import policy
from tests.support.api import ApiServer
from tests.support.relay import Relay

PACKAGE = "@kubernetes/client-node@1.4.0"
PATIENCE = 60.0
PROGRAM = Path(__file__).with_name("informer.mjs")


def _folder() -> Path | None:
    """Where the package is; None when it can't be had."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "roost-tests" / PACKAGE.replace("/", "-")
    if (folder / "ready").exists():
        return folder
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, timeout=100, check=False)
    if done.returncode:
        return None
    (folder / "ready").touch()
    return folder


class Informer:
    """The running program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.told: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self.told.append(json.loads(line))

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self._process.poll() is None, "the informer has ended"
            assert time.monotonic() < deadline, f"{what}: {self.told}"
            time.sleep(0.05)

    def cache(self) -> list[list[Any]]:
        """What the informer holds now."""
        before = len([t for t in self.told if t["event"] == "list"])
        assert self._process.stdin is not None
        self._process.stdin.write("list\n")
        self._process.stdin.flush()
        self.wait(lambda: len([t for t in self.told if t["event"] == "list"]) > before, "no answer")
        known: list[list[Any]] = [t for t in self.told if t["event"] == "list"][-1]["known"]
        return known


@pytest.fixture
def relay(server: ApiServer) -> Iterator[Relay]:
    with Relay(server.port) as made:
        yield made


@pytest.fixture
def informer(server: ApiServer, relay: Relay) -> Iterator[Informer]:
    folder = _folder()
    node = shutil.which("node")
    if folder is None or node is None:
        pytest.skip(f"there is no Node.js with {PACKAGE} here, and it can't be fetched")
    kubeconfig = server.kubeconfig(server.authority.client("ines", ADMINISTRATORS), relay.url)
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig), "CLIENT_FOLDER": str(folder)}
    process = subprocess.Popen(
        [node, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield Informer(process)
    finally:
        process.kill()
        process.wait()


def test_informer_follows_and_resumes(server: ApiServer, relay: Relay, informer: Informer) -> None:
    def write(*arguments: str, body: Any = None) -> None:
        done = server.kubectl(*arguments, stdin=json.dumps(body) if body else "")
        assert done.returncode == 0, done.stderr

    informer.wait(lambda: {"event": "connect"} in informer.told, "it does not connect")
    write("create", "-f", "-", body=policy("one", 1))
    write("create", "-f", "-", body=policy("two", 2))
    informer.wait(lambda: {"event": "add", "name": "two", "order": 2} in informer.told, "no add")
    assert informer.cache() == [["one", 1], ["two", 2]]

    relay.cut()
    write("patch", "firewallpolicy", "one", "--type=merge", "-p", '{"spec": {"order": 11}}')
    write("delete", "firewallpolicy", "two")
    write("create", "-f", "-", body=policy("three", 3))
    relay.mend()
    informer.wait(lambda: {"event": "add", "name": "three", "order": 3} in informer.told, "no resume")
    informer.wait(lambda: {"event": "delete", "name": "two", "order": 2} in informer.told, "no delete")
    assert informer.cache() == [["one", 11], ["three", 3]]
    added = [t["name"] for t in informer.told if t["event"] == "add"]
    assert sorted(added) == ["one", "three", "two"], "something was added twice"
