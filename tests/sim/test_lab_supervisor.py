"""The supervisor with small children: order, restarts, giving up, faults, the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio

from roost.sim.lab.errors import LabError, ProcessFailed
from roost.sim.lab.logs import Log
from roost.sim.lab.supervisor import Process, Supervisor

LONG = 20.0
READY = "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
READY += "s.connect(os.environ['NOTIFY_SOCKET']); s.send(b'STATUS=well\\nREADY=1')\n"
WAIT = "import signal; signal.pause()\n"


class Reports(list[str]):
    """Collects what the supervisor reports."""


def python(name: str, program: str, **more: object) -> Process:
    return Process(name=name, argv=(sys.executable, "-I", "-S", "-c", program), **more)  # type: ignore[arg-type]


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest_asyncio.fixture
async def supervisor(tmp_path: Path, reports: Reports) -> AsyncIterator[Supervisor]:
    made = Supervisor(tmp_path, lambda host: None, reports.append, {})
    try:
        yield made
    finally:
        await made.stop(within=LONG)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        # A zombie still has a number, until its parent asks for its end.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def gone(pid: int) -> bool:
    """Wait for the end of a process: SIGKILL is sent in no time and takes a little."""
    for _ in range(500):
        if not alive(pid):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_process_starts_after_those_it_needs(supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"
    note = f"open({str(order)!r}, 'a').write(__import__('os').environ['WHO'] + ' ')\n"
    supervisor.add(python("first", note + READY + WAIT, environment={"WHO": "first"}))
    supervisor.add(python("second", note + READY + WAIT, environment={"WHO": "second"}, after=("first",)))
    await supervisor.ready(within=LONG)
    assert order.read_text() == "first second "
    assert supervisor.process("second").message == "well"


async def test_a_process_that_needs_an_unknown_one_is_refused(supervisor: Supervisor) -> None:
    with pytest.raises(LabError, match="no process named nobody"):
        supervisor.add(python("lonely", WAIT, after=("nobody",)))


async def test_a_killed_process_is_started_again_and_counted(supervisor: Supervisor) -> None:
    supervisor.add(python("victim", READY + WAIT))
    await supervisor.ready("victim", within=LONG)
    first = supervisor.kill("victim")
    await supervisor.until(lambda: supervisor.process("victim").restarts == 1, within=LONG)
    await supervisor.ready("victim", within=LONG)
    now = supervisor.process("victim")
    assert now.pid != first
    assert now.last_end == "ended by SIGKILL"
    assert not alive(first)


async def test_what_a_process_started_ends_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    child = tmp_path / "child"
    start = "import subprocess; p = subprocess.Popen(['sleep', '1000'])\n"
    start += f"open({str(child)!r}, 'w').write(str(p.pid))\n"
    supervisor.add(python("parent", start + READY + WAIT))
    await supervisor.ready("parent", within=LONG)
    number = int(child.read_text())
    assert alive(number)
    os.kill(supervisor.process("parent").pid, signal.SIGKILL)
    await supervisor.until(lambda: supervisor.process("parent").restarts == 1, within=LONG)
    assert await gone(number)


async def test_exit_code_75_is_a_reboot(supervisor: Supervisor) -> None:
    reboots = "import signal; signal.signal(signal.SIGUSR1, lambda *_: os._exit(75))\n"
    supervisor.add(python("machine", "import os\n" + reboots + READY + WAIT))
    await supervisor.ready("machine", within=LONG)
    first = supervisor.process("machine").pid
    os.kill(first, signal.SIGUSR1)
    await supervisor.until(lambda: supervisor.process("machine").reboots == 1, within=LONG)
    await supervisor.ready("machine", within=LONG)
    assert supervisor.process("machine").restarts == 0
    assert supervisor.process("machine").pid != first


async def test_a_process_that_never_gets_ready_is_given_up_with_its_last_words(
    supervisor: Supervisor, reports: Reports
) -> None:
    supervisor.add(python("broken", "import sys; sys.exit('the certificate is missing')"))
    with pytest.raises(ProcessFailed, match="the certificate is missing") as caught:
        await supervisor.ready("broken", within=LONG)
    assert caught.value.tail == ["the certificate is missing"] * 5
    assert len(reports) == 1
    assert supervisor.process("broken").pid == 0
    # It is tried again when somebody asks.
    supervisor.resume("broken")
    await supervisor.until(lambda: supervisor.process("broken").state != "failed", within=LONG)


async def test_a_program_that_is_not_there_is_given_up_with_the_reason(supervisor: Supervisor) -> None:
    supervisor.add(Process(name="absent", argv=("roost-has-no-such-program",)))
    with pytest.raises(ProcessFailed, match="cannot run roost-has-no-such-program: No such file"):
        await supervisor.ready("absent", within=LONG)


async def test_a_process_that_does_not_become_ready_in_its_time_is_killed(supervisor: Supervisor) -> None:
    supervisor.add(python("slow", WAIT, ready_within=0.5))
    await supervisor.until(lambda: supervisor.process("slow").restarts >= 1, within=LONG)
    assert supervisor.process("slow").last_end == "ended by SIGKILL"


async def test_readiness_by_file_and_by_living(supervisor: Supervisor, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text("left by an earlier life")
    supervisor.add(python("writer", f"open({str(file)!r}, 'x')\n" + WAIT, ready=file))
    supervisor.add(python("liver", WAIT, ready="started"))
    await supervisor.ready(within=LONG)
    assert file.read_text() == ""


async def test_only_the_process_itself_can_say_it_is_ready(supervisor: Supervisor) -> None:
    other = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])\n"
    process = Process(name="claimed", argv=(sys.executable, "-c", other + WAIT, READY), ready_within=LONG)
    supervisor.add(process)
    supervisor.add(python("witness", READY + WAIT))
    await supervisor.ready("witness", within=LONG)
    with pytest.raises(LabError, match="readiness"):
        await supervisor.ready("claimed", within=1.0)


async def test_paused_and_resumed(supervisor: Supervisor) -> None:
    supervisor.add(python("sleeper", READY + WAIT))
    await supervisor.ready("sleeper", within=LONG)
    pid = supervisor.process("sleeper").pid
    supervisor.pause("sleeper")
    assert supervisor.process("sleeper").state == "paused"

    def letter() -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    async def until(wanted: Literal["stopped", "going"]) -> None:
        # A signal takes effect when the process next runs.
        for _ in range(500):
            if (letter() == "T") == (wanted == "stopped"):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"the process is in state {letter()}, not {wanted}")

    await until("stopped")
    supervisor.resume("sleeper")
    await until("going")
    assert supervisor.process("sleeper").state == "ready"
    assert supervisor.process("sleeper").pid == pid


async def test_one_that_ignores_the_wish_to_end_is_killed_and_a_paused_one_ends(tmp_path: Path) -> None:
    made = Supervisor(tmp_path, lambda host: None, print, {})
    made.add(
        python(
            "stubborn", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + WAIT * 2
        )
    )
    made.add(python("paused", READY + WAIT))
    made.add(python("third", READY + WAIT))
    await made.ready(within=LONG)
    made.pause("paused")
    pids = [status.pid for status in made.status()]
    await made.stop(within=1.0)
    assert [status.state for status in made.status()] == ["stopped"] * 3
    assert not any(alive(pid) for pid in pids)
    assert not (tmp_path / "notify.sock").exists()


async def test_asked_to_hurry_it_waits_for_nobody(tmp_path: Path) -> None:
    made = Supervisor(tmp_path, lambda host: None, print, {})
    made.add(
        python(
            "stubborn", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + WAIT * 2
        )
    )
    made.add(python("never", WAIT, ready_within=LONG * 2))
    made.add(python("waiting", READY + WAIT, after=("never",)))
    await made.ready("stubborn", within=LONG)
    pids = [status.pid for status in made.status() if status.pid]
    stopping = asyncio.create_task(made.stop(within=1000.0))
    await asyncio.sleep(0)
    made.hurry()
    async with asyncio.timeout(LONG):
        await stopping
    assert [status.state for status in made.status()] == ["stopped"] * 3
    assert not any(alive(pid) for pid in pids)


def test_a_log_is_bounded(tmp_path: Path) -> None:
    log = Log(tmp_path / "some.log", maximum=1000)
    for number in range(200):
        log.write(f"line {number}\n".encode())
    log.note("of the laboratory")
    assert log.tail(2) == ["line 198", "line 199"]
    log.close()
    assert (tmp_path / "some.log").stat().st_size <= 1000
    assert (tmp_path / "some.log.1").stat().st_size <= 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.log", "some.log.1"]


async def test_a_halted_process_stays_dead_until_it_is_resumed(supervisor: Supervisor) -> None:
    supervisor.add(python("victim", READY + WAIT))
    await supervisor.ready("victim", within=LONG)
    first = supervisor.halt("victim")
    await supervisor.until(lambda: supervisor.process("victim").state == "halted", within=LONG)
    assert await gone(first)
    assert supervisor.process("victim").pid == 0
    supervisor.resume("victim")
    await supervisor.ready("victim", within=LONG)
    assert supervisor.process("victim").pid not in (0, first)
