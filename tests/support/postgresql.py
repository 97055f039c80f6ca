"""A real PostgreSQL server for tests: its own data directory, a unix socket, no port.

`shared` is one server for the whole test session, made at first use; `Server` can also be had alone, to be
killed and started again. A small guardian process watches the session: it stops the server and removes
its files when the session ends, however it ends. The server also dies with the process that started it.

The databases compare text by the rules of English, so that nothing passes only because a server
happens to compare bytes.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

START_WITHIN = 120.0
_numbers = count(1)

_GUARDIAN = """
import os, pathlib, shutil, signal, sys, time
directory = pathlib.Path(sys.argv[1])
sys.stdin.read()
def server():
    try:
        pid = int((directory / "data/postmaster.pid").read_text().split()[0])
        mine = str(directory) in pathlib.Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, ValueError, IndexError):
        return None
    return pid if mine else None
deadline = time.monotonic() + 20
while (pid := server()) and time.monotonic() < deadline:
    os.kill(pid, signal.SIGQUIT)
    time.sleep(0.05)
if pid:
    os.kill(pid, signal.SIGKILL)
shutil.rmtree(directory, ignore_errors=True)
"""


@cache
def programs() -> Path | None:
    """Where the newest server's programs are; None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: float(p.parts[-3]))
    if found:
        return found[-1].parent
    there = shutil.which("postgres")
    return Path(there).resolve().parent if there else None


class Server:
    """One server with an empty data directory. `settings` are lines of its configuration."""

    def __init__(self, settings: dict[str, str]) -> None:
        bin = programs()
        if bin is None:
            pytest.skip("no PostgreSQL server on this machine: run scripts/prepare test")
        self._bin = bin
        self.user = _ordinary_user()
        self.directory = Path(tempfile.mkdtemp(prefix="roost-pg-"))
        self._guardian = subprocess.Popen(
            [sys.executable, "-c", _GUARDIAN, str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        atexit.register(self.close)
        if self.user != pwd.getpwuid(os.getuid()).pw_name:
            shutil.chown(self.directory, self.user)
        self._process: subprocess.Popen[bytes] | None = None
        command = ["--no-sync", "--auth=trust", "--username=roost", "--encoding=UTF8", "--locale=C.UTF-8"]
        self._run("initdb", f"--pgdata={self._data}", "--locale-provider=icu", "--icu-locale=en", *command)
        self._settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "max_connections": "200",
            "shared_buffers": "32MB",
            **settings,
        }
        self.start()

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                **self._as_user(),
            )
        deadline = time.monotonic() + START_WITHIN
        while True:
            try:
                psycopg.connect(self.conninfo("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    told = (self.directory / "log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"PostgreSQL did not start:\n{told}") from None
                time.sleep(0.05)

    def kill(self) -> None:
        """End the server and all its processes at once, as the death of its machine's processes would."""
        assert self._process is not None
        # Its backends notice the death of their parent and end; starting again waits for them.
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._wait_for_backends()

    def stop(self) -> None:
        """Stop the server in good order; connections are ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def close(self) -> None:
        """Stop, and leave nothing behind."""
        if self._guardian.stdin and not self._guardian.stdin.closed:
            self._guardian.stdin.close()
            self._guardian.wait(60)
            if self._process is not None:
                self._process.wait(60)

    def conninfo(self, database: str) -> str:
        """How libpq reaches a database."""
        return f"host={self.directory} dbname={database} user=roost"

    def new_database(self) -> str:
        """The name of a new, empty database."""
        name = f"roost_{os.getpid()}_{next(_numbers)}"
        self.administer(f'CREATE DATABASE "{name}"')
        return name

    def drop_database(self, name: str) -> None:
        """Take a database away, and the connections that are left on it."""
        self.administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def administer(self, command: str) -> None:
        """Run one command outside a transaction."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(command.encode())

    def url(self, database: str) -> str:
        """The database's URL for `Store.open`."""
        return f"postgresql+psycopg://roost@/{database}?host={self.directory}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.directory,
            **self._as_user(),
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")

    def _as_user(self) -> dict[str, Any]:
        if os.getuid() != 0:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _wait_for_backends(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and any(_processes_in(self._data)):
            time.sleep(0.02)


@cache
def shared() -> Server:
    """The server of this test session. Databases here are soon dropped: nothing waits for a disk."""
    return Server({"fsync": "off", "full_page_writes": "off"})


@contextlib.contextmanager
def database() -> Iterator[str]:
    """URL of a new, empty database on the shared server."""
    server = shared()
    name = server.new_database()
    try:
        yield server.url(name)
    finally:
        server.drop_database(name)


def _ordinary_user() -> str:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


def _processes_in(directory: Path) -> Iterator[int]:
    """Processes at work in a data directory."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == directory:
                    yield int(entry.name)
