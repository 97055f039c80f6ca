"""On a real terminal: live views, colours, folding to its width, Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from roost.model.host import Host
from roost.model.meta import Metadata
from tests.cli.test_hosts import playing, succeed
from tests.support.api import ApiServer

PATIENCE = 60.0
CODE = "import sys\nfrom roost.cli.main import app, run\nsys.exit(run(app, sys.argv[1:]))"


class Terminal:
    """The command on a pseudo-terminal of a given width."""

    def __init__(self, server: ApiServer, *arguments: str, columns: int = 80, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        whole = {**server.environment(), "TERM": "xterm-256color", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=whole,
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""

    def read_until(self, done: Callable[[str], bool]) -> str:
        """Read until what was read satisfies `done`, or the program has ended."""
        deadline = time.monotonic() + PATIENCE
        while not done(self.text):
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"nothing more came in time after: {self.text!r}"
            try:
                chunk = os.read(self._master, 65536)
            except OSError:
                break
            self.text += chunk.decode()
        return self.text

    def end(self) -> int:
        """Read the rest; the exit code."""
        self.read_until(lambda _: False)
        os.close(self._master)
        return self.process.wait(PATIENCE)


def test_unlocking_is_followed_live(server: ApiServer, controller: Host) -> None:
    with playing(server, succeed):
        terminal = Terminal(server, "host", "unlock", "controller-0", "--timeout", "50")
        code = terminal.end()
    assert code == 0, terminal.text
    assert "\x1b[" in terminal.text
    assert "2/2" in terminal.text
    assert terminal.text.rstrip().endswith("controller-0 is unlocked.")


def test_ctrl_c_leaves_the_work_running(server: ApiServer, controller: Host) -> None:
    terminal = Terminal(server, "host", "unlock", "controller-0")
    terminal.read_until(lambda text: "waiting" in text)
    terminal.process.send_signal(signal.SIGINT)
    code = terminal.end()
    assert code == 130
    assert "goes on in the cloud" in " ".join(terminal.text.split())
    assert "Traceback" not in terminal.text


def test_a_table_that_follows_changes(server: ApiServer, controller: Host) -> None:
    terminal = Terminal(server, "host", "list", "--watch", columns=120)
    terminal.read_until(lambda text: "controller-0" in text)
    server.do(server.store.save(Host(metadata=Metadata(name="worker-7", namespace="central"))))
    terminal.read_until(lambda text: "worker-7" in text)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text


def test_the_status_screen_stays_fresh(server: ApiServer, controller: Host) -> None:
    terminal = Terminal(server, "status", "--watch")
    terminal.read_until(lambda text: "1 locked" in text)
    status = msgspec.structs.replace(controller.status, administrative="unlocked", availability="failed")
    server.do(server.store.save(msgspec.structs.replace(controller, status=status)))
    terminal.read_until(lambda text: "1 failed" in text)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text


def test_tables_keep_to_the_width(server: ApiServer, controller: Host) -> None:
    status = msgspec.structs.replace(controller.status, task="unlock: a step with a rather long name")
    server.do(server.store.save(msgspec.structs.replace(controller, status=status)))
    terminal = Terminal(server, "host", "list", columns=80, NO_COLOR="1")
    assert terminal.end() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.text), "NO_COLOR leaves bold, but no colours"
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text).split("\r\n")
    assert lines[0].split() == ["NAME", "ROLES", "ADMIN", "OPER", "AVAIL", "TASK", "AGE"]
    assert len(lines) > 3, "the task is folded"
    assert all(len(line) <= 80 for line in lines), lines


def test_without_a_terminal_status_can_not_be_watched(server: ApiServer, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "status", "--watch"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=server.environment(),
    )
    assert done.returncode == 1
    assert "needs a terminal" in done.stderr


def test_changes_are_lines_without_a_terminal(server: ApiServer, controller: Host) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "get", "hosts", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=server.environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("NAME")
    assert process.stdout.readline().startswith("controller-0")
    server.do(server.store.transact(lambda tx: tx.remove("Host", "central", "controller-0")))
    assert process.stdout.readline() == "central/controller-0 deleted\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, "", "")
