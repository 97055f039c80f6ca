"""A first start that fails leaves a home in which the next one may be another cloud's; real processes."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roost.program.home import Home, Settings, StartError, before_first_start
from roost.program.listeners import check_addresses
from roost.program.role import FIRST_START

WITHIN = 120.0


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def _settings(api: str, links: str) -> Settings:
    return Settings(role="cloud", cloud="vm", api_address=api, link_address=links, contained=True)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)


def test_addresses_that_are_taken_are_told_with_the_option(taken: str) -> None:
    with pytest.raises(StartError, match=f"can't listen at {taken}: Address already in use.*--address"):
        check_addresses(_settings(taken, ""))
    with pytest.raises(StartError, match=f"links can't be taken at {taken}.*--link-address"):
        check_addresses(_settings("127.0.0.1:0", taken))
    check_addresses(_settings("127.0.0.1:0", "127.0.0.1:0"))


def test_what_was_there_before_is_not_taken_back(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.pki.mkdir()
    (home.pki / "ca.key").write_text("the operator's")
    home.save_settings(_settings("", ""))
    take_back = before_first_start(home, _settings("", ""))
    for name in ("kubeconfig", "cloud.db", "cloud.db-wal"):
        (tmp_path / name).write_text("")
    take_back()
    assert [p.name for p in tmp_path.iterdir()] == ["pki"]
    assert (home.pki / "ca.key").exists()


def test_a_home_is_not_settled_while_its_port_is_taken(
    tmp_path: Path, taken: str, free_tcp_port: int
) -> None:
    up = ["roost.program", "up", "--no-host", "--contained", "--home", str(tmp_path)]
    done = _run(*up, "--address", taken, "--link-address", f"127.0.0.1:{free_tcp_port}")
    assert done.returncode == 1 and f"can't listen at {taken}" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_a_first_start_that_fails_later_takes_back_what_it_made(tmp_path: Path, taken: str) -> None:
    """The address was taken after the check: what `roost up` becomes is started as it does it."""
    home = Home(tmp_path)
    home.save_settings(_settings("127.0.0.1:0", taken))
    done = _run("roost.program.role", "--home", str(tmp_path), FIRST_START)
    assert done.returncode == 1 and f"links can't be taken at {taken}" in done.stderr
    assert "cloud up" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys", "lock"]
    # A later start is not a first one: what was served once is kept.
    home.save_settings(_settings("127.0.0.1:0", taken))
    assert _run("roost.program.role", "--home", str(tmp_path)).returncode == 1
    assert home.settings() is not None and (tmp_path / "cloud.db").exists()


def test_a_terminal_is_told_where_the_cloud_is_and_what_comes_next(
    tmp_path: Path, free_tcp_port_factory: Callable[[], int]
) -> None:
    api, links = (f"127.0.0.1:{free_tcp_port_factory()}" for _ in range(2))
    up = ["up", "--no-host", "--contained", "--name", "lab", "--home", str(tmp_path)]
    up += ["--address", api, "--link-address", links]
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "roost.program", *up], stdout=theirs, stderr=theirs)
    os.close(theirs)
    said, deadline = "", time.monotonic() + WITHIN
    try:
        while "roost status" not in said and time.monotonic() < deadline:
            said += os.read(ours, 4096).decode()
        process.send_signal(signal.SIGTERM)
        while True:
            try:
                said += os.read(ours, 4096).decode()
            except OSError:
                # The other end of a terminal is closed when its last process has ended.
                break
        assert process.wait(WITHIN) == 0
    finally:
        process.kill()
        os.close(ours)
    for part in (
        "cloud up",
        api,
        links,
        f"export KUBECONFIG={tmp_path}/kubeconfig",
        "cloud stopped",
    ):
        assert part in said, said
    assert Home(tmp_path).settings() is not None
