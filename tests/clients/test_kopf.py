"""kopf: an operator on a Roost kind, in a process of its own: create, update, resume, finalizer.

The operator writes what it sees into a file, a JSON line each, and its answer into an annotation of the
policy (status belongs to the platform). Peering is off: one operator per cloud.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.clients.policies import policy
from tests.support.api import ApiServer

PATIENCE = 60.0
OPERATOR = Path(__file__).with_name("operator_for_kopf.py")


class Operator:
    """A running operator and what it has told."""

    def __init__(self, process: subprocess.Popen[bytes], told: Path, log: Path) -> None:
        self._process, self._told, self._log = process, told, log

    def events(self) -> list[tuple[str, str, int]]:
        """(handler, policy, order), as they came."""
        if not self._told.exists():
            return []
        lines = self._told.read_text().splitlines()
        return [(e["handler"], e["name"], e["order"]) for e in map(json.loads, lines)]

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Until something holds; fails with the operator's log."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < deadline, f"{what}\n{self._log.read_text()[-3000:]}"
            time.sleep(0.1)


@contextlib.contextmanager
def operator(server: ApiServer, directory: Path, run: str) -> Iterator[Operator]:
    """The operator, until the end of the block."""
    told, log = directory / f"told-{run}", directory / f"log-{run}"
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "--namespace", "central", str(OPERATOR)]
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV")}
    environment = {**keep, "KUBECONFIG": str(server.administrator), "TOLD": str(told), "HOME": str(directory)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            yield Operator(process, told, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _read(server: ApiServer, name: str) -> dict[str, Any]:
    done = server.kubectl("get", "firewallpolicy", name, "-o", "json")
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def test_an_operator_lives_on_a_roost_kind(server: ApiServer, tmp_path: Path) -> None:
    done = server.kubectl("create", "-f", "-", stdin=json.dumps(policy("early", 1)))
    assert done.returncode == 0, done.stderr
    with operator(server, tmp_path, "first") as first:
        first.wait(lambda: ("create", "early", 1) in first.events(), "the policy that was there is not seen")
        server.kubectl("create", "-f", "-", stdin=json.dumps(policy("late", 2)))
        first.wait(lambda: ("create", "late", 2) in first.events(), "the new policy is not seen")
        first.wait(
            lambda: _read(server, "late")["metadata"].get("annotations", {}).get("answer") == "seen 2",
            "the operator's patch does not arrive",
        )
        assert _read(server, "late")["metadata"]["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]
        server.kubectl("patch", "firewallpolicy", "late", "--type=merge", "-p", '{"spec": {"order": 22}}')
        first.wait(lambda: ("update", "late", 22) in first.events(), "the change is not seen")

    with operator(server, tmp_path, "second") as second:
        second.wait(
            lambda: {("resume", "early", 1), ("resume", "late", 22)} <= set(second.events()),
            "a restarted operator does not resume",
        )
        assert not [e for e in second.events() if e[0] == "create"]
        gone = server.kubectl("delete", "firewallpolicy", "late", "early", "--wait", "--timeout=60s")
        assert gone.returncode == 0, gone.stderr
        second.wait(lambda: ("delete", "late", 22) in second.events(), "the deletion is not seen")
    assert _read(server, "late") == {}
