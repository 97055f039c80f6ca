"""A cloud on a real PostgreSQL: alone, in several processes, and while its database is away."""

from __future__ import annotations

import signal
import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from roost.engine.leadership import ASK_EVERY, LEASE_SECONDS
from tests.acceptance.running import ROOST, Answer, run
from tests.acceptance.waiting import report, until
from tests.support import clouds, postgresql
from tests.support.clouds import CloudProcess

PASSWORD = "not-to-be-seen"
LOADED = 5
"""A loaded machine is so many times slower."""

USER = "apiVersion: roost.edge/v1\nkind: User\nmetadata: {{name: {name}}}\nspec: {{role: reader}}\n"
HOST = """
apiVersion: roost.edge/v1
kind: Host
metadata: {{name: {name}, namespace: central}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    """A server of this module's own, which is stopped and killed; its disk is written as in earnest."""
    own = postgresql.Server({})
    own.administer(f"ALTER USER roost PASSWORD '{PASSWORD}'")
    try:
        yield own
    finally:
        own.close()


@pytest.fixture(scope="module")
def processes(server: postgresql.Server, place: Path) -> Iterator[list[CloudProcess]]:
    url = server.url(server.new_database()).replace("roost@", f"roost:{PASSWORD}@")
    made = clouds.start(place, url, 3)
    try:
        larger = '{"spec": {"systemMode": "standard"}}'
        kubectl(made[0], "patch", "cloud", clouds.NAME, "--type=merge", "-p", larger).ok()
        yield made
    finally:
        for process in made:
            if process.runs:
                process.kill()


def kubectl(process: CloudProcess, *arguments: str, text: str | None = None) -> Answer:
    argv = ["kubectl", "--kubeconfig", str(process.kubeconfig), "--request-timeout=60s", *arguments]
    return run(argv, text=text)


def add_user(process: CloudProcess, name: str) -> Answer:
    return kubectl(process, "create", "-f", "-", text=USER.format(name=name))


def active(processes: list[CloudProcess]) -> CloudProcess:
    """The process that leads, as the log of each says last."""
    found = [p for p in processes if leads(p)]
    assert len(found) == 1, [p.home.name for p in found]
    return found[0]


def leads(process: CloudProcess) -> bool:
    """Whether it runs, and has begun to lead and not ended since."""
    told = ("leads no more", "another leads", "event=leads ")
    lines = [line for line in process.said_since_start.splitlines() if any(word in line for word in told)]
    return process.runs and bool(lines) and "event=leads " in lines[-1]


def controllers_work(process: CloudProcess, name: str) -> None:
    """A host that is declared gets the configuration that a controller compiles for it."""
    kubectl(process, "create", "-f", "-", text=HOST.format(name=name)).ok()

    def compiled() -> None:
        found = kubectl(process, "get", "hostconfigurations", name, "-n", "central", "-o", "name")
        assert found.code == 0, str(found)

    until(f"the configuration of {name} is compiled", compiled, 20 * LOADED)


def test_any_process_serves_and_one_is_active(processes: list[CloudProcess]) -> None:
    until("one is active", lambda: active(processes), 10 * LOADED)
    for number, process in enumerate(processes):
        add_user(process, f"user-{number}").ok()
        for other in processes:
            assert f"user/user-{number}" in kubectl(other, "get", "users", "-o", "name").ok().output.replace(
                ".roost.edge", ""
            )
    standby = next(p for p in processes if p is not active(processes))
    controllers_work(standby, "by-another")


def test_the_password_is_nowhere_to_be_seen(processes: list[CloudProcess], place: Path) -> None:
    for process in processes:
        assert process.process is not None
        of_process = Path(f"/proc/{process.process.pid}")
        for part in ("cmdline", "environ"):
            assert PASSWORD.encode() not in (of_process / part).read_bytes()
        assert PASSWORD not in process.said
    for path in place.rglob("*"):
        if path.is_file() and PASSWORD.encode() in path.read_bytes():
            assert path.name in ("settings.json", "database"), path
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    refused = run([str(ROOST), "up", "--database", f"postgresql+psycopg://roost:{PASSWORD}@x/y"])
    assert refused.code != 0 and PASSWORD not in refused.said, refused
    assert "takes a file" in refused.said, refused


def test_a_home_with_another_authority_or_name_is_refused(processes: list[CloudProcess], place: Path) -> None:
    argv = [str(ROOST), "up", "--no-host", "--database", str(place / "database"), "--address", "127.0.0.1:1"]
    stranger = run([*argv, "--home", str(place / "stranger"), "--name", clouds.NAME], within=20 * LOADED)
    assert stranger.code == 1 and "another certificate authority" in stranger.said, stranger
    assert "ca.key" in stranger.said and "Traceback" not in stranger.said, stranger
    named = run([*argv, "--home", str(place / "named"), "--name", "else"], within=20 * LOADED)
    assert named.code == 1 and f"holds cloud {clouds.NAME}" in named.said, named


def test_another_takes_over_when_the_active_one_is_killed_or_stopped(processes: list[CloudProcess]) -> None:
    for end in ("killed", "stopped", "frozen"):
        former = active(processes)
        others = [p for p in processes if p is not former]
        begun = time.monotonic()
        if end == "killed":
            former.kill()
        elif end == "stopped":
            assert former.stop() == 0
        else:
            former.send(signal.SIGSTOP)
        others_lead = until(f"another is active after one was {end}", partial(active, others), 20 * LOADED)
        took = time.monotonic() - begun
        report(f"{took:.1f} s")
        assert took < (ASK_EVERY if end == "stopped" else LEASE_SECONDS + ASK_EVERY) + 2 * LOADED
        controllers_work(others_lead, f"after-{end}")
        if end == "frozen":
            former.send(signal.SIGCONT)
            until("the frozen one has given up", lambda: active(processes), 10 * LOADED)
            assert active(processes) is others_lead
            assert former.runs, former.said[-2000:]
        else:
            former.start().until_up()
            assert active(processes) is others_lead, "who comes back waits"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_database_goes_and_comes_back(
    processes: list[CloudProcess], server: postgresql.Server, end: str
) -> None:
    add_user(processes[0], f"before-{end}").ok()
    pids = [p.process.pid for p in processes if p.process]
    getattr(server, end)()
    for process in processes:
        for refused in (kubectl(process, "get", "users"), add_user(process, f"never-{end}")):
            # kubectl has its own words when even discovery or the schema is refused.
            words = ("ServiceUnavailable", "unable to handle the request")
            assert refused.code != 0 and any(word in refused.said for word in words), refused
            assert PASSWORD not in refused.said
        unready = kubectl(process, "get", "--raw", "/readyz")
        assert unready.code != 0 and "not ready" in unready.said, unready
        assert kubectl(process, "get", "--raw", "/livez").ok().output == "ok"

    def nobody() -> None:
        assert not any(leads(p) for p in processes)

    until("nobody is active without a database", nobody, int(LEASE_SECONDS) * LOADED)
    server.start()
    begun = time.monotonic()

    def serves() -> None:
        for process in processes:
            assert kubectl(process, "get", "--raw", "/readyz").code == 0

    until("all are ready again", serves, 10 * LOADED)
    until("one is active again", lambda: active(processes), 20 * LOADED)
    report(f"{time.monotonic() - begun:.1f} s after the server started")
    for process in processes:
        users = kubectl(process, "get", "users", "-o", "name").ok().output
        assert f"before-{end}" in users and f"never-{end}" not in users
    controllers_work(processes[1], f"again-{end}")
    assert pids == [p.process.pid for p in processes if p.process and p.runs], "nobody had to be restarted"


def test_the_store_can_be_checked_and_copied_beside_it(processes: list[CloudProcess], place: Path) -> None:
    home = ["--home", str(processes[0].home)]
    checked = run([str(ROOST), "store", "check", *home]).ok().output
    assert "cloud: sound" in checked, checked
    run([str(ROOST), "store", "snapshot", str(place / "copy.roost"), *home]).ok()
    refused = run([str(ROOST), "store", "restore", str(place / "copy.roost"), "--replace", *home])
    assert refused.code == 1 and "runs on" in refused.said, refused


def test_a_restore_begins_anew_for_all(processes: list[CloudProcess], place: Path) -> None:
    kept = kubectl(processes[0], "get", "users,hosts", "-A", "-o", "name").ok().output
    processes[0].stop()
    home = ["--home", str(processes[0].home)]
    command = [str(ROOST), "store", "restore", str(place / "copy.roost"), "--replace", *home]
    refused = run(command)
    assert refused.code == 1 and PASSWORD not in refused.said, "other processes are connected"
    for process in processes[1:]:
        process.stop()
    restored = run(command).ok().output
    assert "as another store" in restored and PASSWORD not in restored, restored
    for process in processes:
        process.start()
    for process in processes:
        process.until_up()
    until("one is active", lambda: active(processes), 10 * LOADED)
    assert kubectl(processes[2], "get", "users,hosts", "-A", "-o", "name").ok().output == kept
    for process in processes:
        assert "Traceback" not in process.said, process.said[-3000:]
        assert PASSWORD not in process.said
