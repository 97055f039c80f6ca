"""A first start that ends before it served leaves a home in which the next one may be another cloud's; real
processes, which fail, are interrupted or killed."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from roost.program import first_start
from roost.program.home import Home, Settings, StartError
from roost.program.listeners import check_addresses

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


def _begun(path: Path, settings: Settings) -> Home:
    """A home as `roost up` leaves it to the role at a first start."""
    home = Home(path)
    first_start.begin(home, settings)
    home.save_settings(settings)
    return home


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
    (tmp_path / "settings.json").unlink()
    first_start.begin(home, _settings("", ""))
    for name in ("settings.json", "kubeconfig", ".kubeconfig.half", "cloud.db", "cloud.db-wal"):
        (tmp_path / name).write_text("")
    first_start.take_back_unfinished(home)
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
    home = _begun(tmp_path, _settings("127.0.0.1:0", taken))
    done = _run("roost.program.role", "--home", str(tmp_path))
    assert done.returncode == 1 and f"links can't be taken at {taken}" in done.stderr
    assert "cloud up" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys", "lock"]
    # A later start is not a first one: what was served once is kept.
    home.save_settings(_settings("127.0.0.1:0", taken))
    assert _run("roost.program.role", "--home", str(tmp_path)).returncode == 1
    assert home.settings() is not None and (tmp_path / "cloud.db").exists()


@pytest.mark.parametrize("text", ["", "{", '{"names": 7}'])
def test_a_note_that_cannot_be_read_changes_nothing(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    home.save_settings(_settings("", ""))
    (tmp_path / first_start.NOTE).write_text(text)
    with pytest.raises(StartError, match=r"first-start\.json can't be read"):
        first_start.take_back_unfinished(home)
    assert home.settings() is not None


def test_only_what_a_start_makes_is_taken_back(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    home, theirs = Home(tmp_path / "home"), tmp_path / "theirs"
    theirs.write_text("")
    (home.path / first_start.NOTE).write_text('{"names": ["../theirs", "keys", "kubeconfig"]}')
    (home.path / "keys").mkdir()
    first_start.take_back_unfinished(home)
    assert theirs.exists() and [p.name for p in home.path.iterdir()] == ["keys"]


DYING = """
import importlib, os, signal, sys
from roost.program import role
module, _, name = sys.argv[1].partition(":")
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
importlib.import_module("roost.program.cloud")
setattr(importlib.import_module(module), name, die)
sys.exit(role.main(["--home", sys.argv[2]]))
"""


@pytest.mark.parametrize(
    "point",
    [
        "roost.program.cloud:sqlite_url",
        "roost.api.identity.shipped:declare",
        "roost.link.pki:write_private",
        "roost.link.pki:server_file",
        "roost.program.cloud:keep_kubeconfig",
        "roost.program.first_start:complete",
    ],
)
def test_after_a_kill_in_its_midst_another_cloud_comes_up(
    tmp_path: Path, free_tcp_port_factory: Callable[[], int], point: str
) -> None:
    home = _begun(tmp_path, _settings("127.0.0.1:0", ""))
    command = [sys.executable, "-c", DYING, point, str(tmp_path)]
    died = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert (tmp_path / first_start.NOTE).exists()
    with _up(tmp_path, free_tcp_port_factory, "--name", "other"):
        _is_usable(tmp_path, "other")
    settings = home.settings()
    assert settings is not None and settings.cloud == "other"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_same_start_again_after_one_that_was_cut_off(
    tmp_path: Path, free_tcp_port_factory: Callable[[], int], number: signal.Signals
) -> None:
    arguments = _up_arguments(tmp_path, free_tcp_port_factory, "--name", "same")
    process = subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.PIPE, text=True)
    with process:
        deadline = time.monotonic() + WITHIN
        while not (tmp_path / "pki" / "ca.key").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(number)
        _, said = process.communicate(timeout=WITHIN)
    assert process.returncode in ((-number,) if number == signal.SIGKILL else (0, 130))
    assert "Traceback" not in said
    with _up(tmp_path, free_tcp_port_factory, "--name", "same"):
        _is_usable(tmp_path, "same")
    # What has served once is not taken back: the next start has the same authority.
    kubeconfig = (tmp_path / "kubeconfig").read_bytes()
    assert not (tmp_path / first_start.NOTE).exists()
    again = Home(tmp_path)
    first_start.take_back_unfinished(again)
    assert (tmp_path / "kubeconfig").read_bytes() == kubeconfig


def _up_arguments(home: Path, port: Callable[[], int], *further: str) -> list[str]:
    api, links = (f"127.0.0.1:{port()}" for _ in range(2))
    at = ["--home", str(home), "--address", api, "--link-address", links]
    return ["roost.program", "up", "--no-host", "--contained", *at, *further]


@contextmanager
def _up(home: Path, port: Callable[[], int], *further: str) -> Iterator[None]:
    """A cloud that has come up, until the end of the block."""
    command = [sys.executable, "-m", *_up_arguments(home, port, *further)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if "cloud up" in line:
                break
        else:
            pytest.fail(said)
        yield
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WITHIN)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait(WITHIN)


def _is_usable(home: Path, cloud: str) -> None:
    """The kubeconfig opens the cloud, which is of this name alone."""
    done = _run("roost.program", "get", "clouds", "-o", "name", "--kubeconfig", str(home / "kubeconfig"))
    assert done.returncode == 0 and done.stdout.split() == [f"cloud/{cloud}"], done


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
