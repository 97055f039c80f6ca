"""The demo comes up soon, ends without a trace however it ends, and runs once."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import (
    REPOSITORY,
    ROOST,
    Demo,
    assert_nothing_left,
    free_port,
    machine,
    marked,
    run,
)
from tests.acceptance.waiting import report, until
from tests.sim.test_lab_run import NOBODY, as_nobody


@pytest.fixture
def short() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="roost-"))
    yield made
    shutil.rmtree(made)


def test_ctrl_c_leaves_nothing_and_a_killed_demo_is_no_obstacle(short: Path) -> None:
    before = machine()
    port = free_port()
    first = Demo(short / "d", port)
    try:
        first.until_ready()
        namespaces = first.namespaces()
        assert len(namespaces) == 10, namespaces
        assert len(marked(short / "d")) >= 7

        again = run([str(ROOST), "demo", "--directory", str(short / "d"), "--port", str(port)])
        assert again.code == 1, again
        assert re.search(r"^roost: .*(runs|running)", again.said), f"not a sentence: {again}"
        assert "Traceback" not in again.said, again
        assert first.processes()["centre"]["state"] == "ready", "the refused start disturbed the first"

        shell = subprocess.Popen(
            [
                str(ROOST),
                "demo",
                "exec",
                "--directory",
                str(short / "d"),
                "harbor-router",
                "--",
                "sleep",
                "600",
            ],
            stdin=subprocess.DEVNULL,
            cwd=REPOSITORY,
        )
        until("a shell in a host runs", lambda: _runs(short / "d", "sleep 600"), 30)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(timeout=10)
        shell.wait(timeout=15)
        until("the guard has cleared up", lambda: _none(short / "d"), 15)
    finally:
        first.close()

    second = Demo(short / "d", port)
    try:
        second.until_ready()
        both = namespaces | second.namespaces()
        assert len(both) == 20, "the second demo stands in namespaces of the first"
        took = second.interrupt()
        report(f"ended {took:.1f} s after Ctrl-C")
        assert second.process.returncode == 0, second.tell()
        assert "nothing is left" in second.said, second.said
        assert took < 20, f"it took {took:.1f} s to end"
    finally:
        second.close()
    assert_nothing_left(short / "d", both, before)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def _runs(directory: Path, command: str) -> None:
    assert any(command in one for one in marked(directory).values()), marked(directory)


def _none(directory: Path) -> None:
    assert not marked(directory), marked(directory)


def test_ctrl_c_while_it_comes_up_leaves_nothing(short: Path) -> None:
    before = machine()
    demo = Demo(short / "d", free_port())
    try:
        until("it has begun", lambda: _said(demo, "the central cloud answers"), 60)
        namespaces = demo.namespaces()
        demo.interrupt()
        assert demo.process.returncode == 130, demo.tell()
        assert "stopping before everything was up" in demo.said, demo.said
        assert "Traceback" not in demo.said, demo.said
    finally:
        demo.close()
    assert_nothing_left(short / "d", namespaces, before)


def test_a_port_that_is_taken_is_passed_over_and_said(short: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        demo = Demo(short / "d", port)
        try:
            said = until("it says so", lambda: _said(demo, "the central cloud answers"), 60)
            found = re.search(rf"port {port} is taken; using (\d+)", said)
            assert found, said
            assert f"answers at https://127.0.0.1:{found[1]}" in said, said
        finally:
            demo.close()


def test_a_path_too_long_for_sockets_is_refused_with_a_sentence(short: Path) -> None:
    answer = run([str(ROOST), "demo", "--directory", str(short / ("d" * 100)), "--port", str(free_port())])
    assert answer.code == 1, answer
    assert "Traceback" not in answer.said and "long" in answer.said, answer


def _said(demo: Demo, text: str) -> str:
    assert demo.process.poll() is None, demo.tell()
    assert text in demo.said, demo.said
    return demo.said


def test_an_ordinary_user_has_the_whole_demo(short: Path) -> None:
    """In user namespaces; the tree is read through a mount namespace where root's home closes it."""
    os.chown(short, NOBODY, NOBODY)
    stage = short / "stage"
    stage.mkdir()
    readable = run([*as_nobody(stage), sys.executable, "-c", "import roost.program, sqlalchemy"])
    if readable.code != 0:
        pytest.skip(f"nobody can't read this checkout or its interpreter: {readable.said.strip()[-300:]}")
    if run(["setpriv", f"--reuid={NOBODY}", "--clear-groups", "unshare", "--user", "true"]).code != 0:
        pytest.skip("this kernel gives ordinary users no user namespaces")
    before = machine()
    environment = {"HOME": str(short), "PYTHONDONTWRITEBYTECODE": "1"}
    demo = Demo(short / "d", free_port(), before=as_nobody(stage), environment=environment)
    try:
        demo.until_ready()
        assert "11 network namespaces stand (user namespace)" in demo.said, demo.said
        processes = marked(short / "d")
        owners = {
            pid: Path(f"/proc/{pid}").stat().st_uid for pid in processes if Path(f"/proc/{pid}").exists()
        }
        assert set(owners.values()) == {NOBODY}, f"not all are nobody's: {owners} {processes}"
        namespaces = demo.namespaces()
        hosts = demo.kubectl("get", "hosts", "-A", "-o", "json").json()["items"]
        states = {f"{h['metadata']['namespace']}/{h['metadata']['name']}": h["status"] for h in hosts}
        assert len(states) == 7
        assert {one["availability"] for one in states.values()} == {"available"}, states
        exec_it = [str(ROOST), "demo", "exec", "--directory", str(short / "d"), "valley-worker-0", "--"]
        rules = (
            run([*as_nobody(stage), *exec_it, "nft", "list", "ruleset"], environment=environment).ok().output
        )
        assert "tcp dport 22" in rules and "default deny (ingress) of oam" in rules, rules
        took = demo.interrupt()
        report(f"ended {took:.1f} s after Ctrl-C")
        assert demo.process.returncode == 0, demo.tell()
    finally:
        demo.close()
    assert_nothing_left(short / "d", namespaces, before)
