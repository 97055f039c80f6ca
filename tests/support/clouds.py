"""Processes of one cloud on one PostgreSQL database, as an operator runs them with `roost up`.

The first one's home is made by itself; the others get its certificate authority. All share one file of keys.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import yaml

NAME = "central"
READY_WITHIN = 90.0


class CloudProcess:
    """One process of the cloud, under one home."""

    def __init__(self, place: Path, number: int, database: Path) -> None:
        self.home = place / f"home-{number}"
        self.printed = place / f"printed-{number}"
        self.port, self.links = _free_port(), _free_port()
        self._database, self._keys = database, place / "keys"
        self.process: subprocess.Popen[bytes] | None = None
        self.starts, self._said_before = 0, 0
        self.options: list[str] = []
        """Further ones of `roost up`."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    @property
    def said(self) -> str:
        """All it has logged, over all its starts."""
        return self.printed.read_text()

    @property
    def said_since_start(self) -> str:
        """What it has logged since it was started last."""
        return self.said[self._said_before :]

    def start(self) -> CloudProcess:
        """Start it, without waiting for it."""
        self.starts += 1
        self._said_before = len(self.said) if self.printed.exists() else 0
        command = ["up", "--no-host", "--name", NAME, "--home", str(self.home), "--keys", str(self._keys)]
        command += ["--database", str(self._database), "--address", f"127.0.0.1:{self.port}"]
        command += ["--link-address", f"127.0.0.1:{self.links}", *self.options]
        with self.printed.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "roost.program", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self.home.parent,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        return self

    def until_up(self) -> CloudProcess:
        """Wait until it serves."""
        deadline = time.monotonic() + READY_WITHIN
        while self.said.count('"cloud up"') < self.starts:
            assert self.process is not None and self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)
        return self

    def send(self, number: signal.Signals) -> None:
        """A signal to the process, which stays in its first process id."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As the death of its machine would."""
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        # What was killed while it started has not said that it is up.
        self.starts = self.said.count('"cloud up"')

    def stop(self) -> int:
        """End it in good order; its exit code."""
        self.send(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(60)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None


def start(place: Path, url: str, count: int, *options: str) -> list[CloudProcess]:
    """So many processes on the database at `url`, all serving, each told where all of them take links."""
    database = place / "database"
    database.touch(mode=0o600)
    database.write_text(url + "\n")
    made = [CloudProcess(place, number, database) for number in range(count)]
    for one in made:
        one.options += [part for other in made for part in ("--advertise", f"127.0.0.1:{other.links}")]
        one.options += options
    made[0].start().until_up()
    for other in made[1:]:
        share_authority(made[0], other)
        other.start()
    for other in made[1:]:
        other.until_up()
    return made


def share_authority(one: CloudProcess, other: CloudProcess) -> None:
    """Give another home the certificate authority of the first, as docs/operations.md says."""
    (other.home / "pki").mkdir(parents=True, mode=0o700, exist_ok=True)
    for name in ("ca.crt", "ca.key"):
        shutil.copy(one.home / "pki" / name, other.home / "pki" / name)


def context(process: CloudProcess) -> ssl.SSLContext:
    """The administrator's way in at every process: the authority is one."""
    config = yaml.safe_load(process.kubeconfig.read_text())
    authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    made = ssl.create_default_context(cadata=authority)
    user = config["users"][0]["user"]
    pair = process.home.parent / "client.pem"
    parts = [base64.b64decode(user[f"client-{part}-data"]) for part in ("key", "certificate")]
    pair.touch(mode=0o600)
    pair.write_bytes(b"\n".join(parts))
    made.load_cert_chain(pair)
    return made


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
