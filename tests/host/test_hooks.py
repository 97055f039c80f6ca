"""Executables of people, as real processes: that hang, flood, fork, are not executable, or no programs."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from roost.host.hooks import MOST_HOOKS, DirectoryHooks, Hook, last_line, list_hooks
from roost.model.health import LONGEST_LINE, CheckResult

LONG = 60.0
"""A deadline that nothing here is to reach."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "health.d").mkdir(mode=0o755)
    return tmp_path


def put(home: Path, name: str, text: str, mode: int = 0o755) -> Path:
    path = home / "health.d" / name
    path.write_text(text)
    path.chmod(mode)
    return path


async def run(home: Path, name: str, seconds: float = LONG) -> CheckResult:
    hooks = DirectoryHooks(home)
    hook = next(h for h in await hooks.listed("health") if h.name == name)
    return await hooks.run(hook, seconds, {"ROOST_HOST": "h"})


def there(pid: int) -> bool:
    """Whether a process lives; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> None:
    deadline = time.monotonic() + LONG
    while there(pid):
        assert time.monotonic() < deadline, f"process {pid} was left behind"
        time.sleep(0.05)


async def test_one_that_ends_well_says_its_last_line(home: Path) -> None:
    put(home, "10-ok", '#!/bin/sh\necho first; echo "$ROOST_HOST is well"; echo\n')
    found = await run(home, "10-ok")
    assert (found.name, found.state, found.message) == ("10-ok", "passed", "h is well")
    assert 0 < found.seconds < LONG


async def test_one_that_fails_says_how_and_its_last_line(home: Path) -> None:
    put(home, "raid", "#!/bin/sh\necho all lost >&2\nexit 3\n")
    put(home, "mute", "#!/bin/sh\nexit 1\n")
    put(home, "shot", "#!/bin/sh\nkill -TERM $$\n")
    found = await run(home, "raid")
    assert (found.state, found.message) == ("failed", "exit code 3; its last line: all lost")
    assert (await run(home, "mute")).message == "exit code 1; it wrote nothing"
    assert (await run(home, "shot")).state == "failed"


async def test_one_that_hangs_is_killed_with_all_its_children(home: Path, tmp_path: Path) -> None:
    told = tmp_path / "pids"
    put(
        home,
        "hang",
        f"#!/bin/sh\ntrap '' TERM HUP\nsleep 600 &\necho $$ $! > {told}\necho waiting for raid\nsleep 600\n",
    )
    started = time.monotonic()
    found = await run(home, "hang", 1.0)
    assert time.monotonic() - started < LONG
    assert found.state == "timed-out"
    assert "had not ended after 1 seconds and was killed; its last line: waiting for raid" in found.message
    for pid in told.read_text().split():
        gone(int(pid))


async def test_one_that_floods_is_read_and_forgotten(home: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    put(home, "flood", "#!/bin/sh\nhead -c 300000000 /dev/zero | tr '\\0' x\necho\necho the end\n")
    found = await run(home, "flood")
    assert (found.state, found.message) == ("passed", "the end")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50_000, f"{grown} KiB for what was to be forgotten"


async def test_one_long_line_is_cut(home: Path) -> None:
    put(home, "wide", "#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x\nexit 1\n")
    found = await run(home, "wide")
    assert len(found.message) == LONGEST_LINE and found.state == "failed"


async def test_one_that_leaves_a_child_with_its_output_holds_nobody_up(home: Path, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    put(home, "fork", f"#!/bin/sh\nsleep 600 &\necho $! > {told}\necho done\n")
    started = time.monotonic()
    found = await run(home, "fork")
    assert (found.state, found.message) == ("passed", "done")
    assert time.monotonic() - started < LONG / 2
    gone(int(told.read_text()))


@pytest.mark.parametrize("away", ["setsid sleep 600 &", "set -m; sleep 600 &"], ids=["session", "group"])
async def test_what_went_its_own_way_is_ended_too(home: Path, tmp_path: Path, away: str) -> None:
    told = tmp_path / "pid"
    put(home, "stray", f"#!/bin/bash\n{away}\necho $! > {told}\nsleep 0.2\necho done\n")
    found = await run(home, "stray")
    assert (found.state, found.message) == ("passed", "done")
    gone(int(told.read_text()))


async def test_a_name_that_can_not_be_shown_is_told_and_not_run(home: Path) -> None:
    ran = home / "ran"
    for name in (b"10-\xff\xfe", b"20-a\nb\x1b[2J", b"30-" + b"x" * 250):
        put(home, os.fsdecode(name), f"#!/bin/sh\ntouch {ran}\n")
    hooks = DirectoryHooks(home)
    for hook in await hooks.listed("health"):
        found = await hooks.run(hook, LONG, {})
        assert found.state == "failed" and "rename it" in found.message and found.name.isprintable()
        assert msgspec.json.decode(msgspec.json.encode(found), type=CheckResult) == found
    assert not ran.exists()


async def test_one_that_reads_gets_nothing(home: Path) -> None:
    put(home, "read", "#!/bin/sh\nread answer || echo nobody answers\n")
    assert (await run(home, "read")).message == "nobody answers"


async def test_what_is_no_program_is_told(home: Path) -> None:
    put(home, "empty", "")
    put(home, "lost", "#!/no/such/interpreter\n")
    for name in ("lost",):
        found = await run(home, name)
        assert found.state == "failed" and found.message
    # An empty file is a program of sh that does nothing, or no program: never one that hangs.
    assert (await run(home, "empty")).state in ("passed", "failed")


@pytest.mark.parametrize(
    ("mode", "said"), [(0o644, "chmod 0755"), (0o777, "chmod go-w"), (0o775, "chmod go-w")]
)
async def test_what_can_not_or_must_not_be_run_has_failed_and_says_why(
    home: Path, mode: int, said: str
) -> None:
    ran = home / "ran"
    path = put(home, "50-raid", f"#!/bin/sh\ntouch {ran}\n", mode)
    found = await run(home, "50-raid")
    assert found.state == "failed" and said in found.message and str(path) in found.message
    assert not ran.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_what_belongs_to_another_user_is_not_run(home: Path) -> None:
    os.chown(put(home, "theirs", "#!/bin/sh\n"), 12345, 12345)
    assert "belongs to another user" in (await run(home, "theirs")).message


def test_the_order_is_that_of_names_and_nothing_is_passed_over(home: Path) -> None:
    for name in ("90-last", "10-first", "50-middle", ".hidden", "README"):
        put(home, name, "#!/bin/sh\n", 0o644 if name == "README" else 0o755)
    (home / "health.d" / "lib").mkdir()
    (home / "health.d" / "broken").symlink_to("/no/such/file")
    found = list_hooks(home / "health.d")
    assert [h.name for h in found] == ["10-first", "50-middle", "90-last", "README", "broken"]
    assert [bool(h.problem) for h in found] == [False, False, False, True, True]
    assert list_hooks(home / "drain.d") == []


def test_too_many_and_a_directory_of_others_are_told(home: Path) -> None:
    for n in range(MOST_HOOKS + 5):
        put(home, f"{n:03}", "#!/bin/sh\n")
    found = list_hooks(home / "health.d")
    assert len(found) == MOST_HOOKS and "holds 69 files" in found[-1].problem
    (home / "health.d").chmod(0o777)
    (only,) = list_hooks(home / "health.d")
    assert "others may write" in only.problem


async def test_a_run_that_is_cancelled_leaves_nothing(home: Path, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    path = put(home, "slow", f"#!/bin/sh\necho $$ > {told}\nexec sleep 600\n")
    task = asyncio.create_task(DirectoryHooks(home).run(Hook("slow", path), LONG, {}))
    deadline = time.monotonic() + LONG
    while not told.exists() or not told.read_text().strip():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gone(int(told.read_text()))


def test_a_run_outlives_its_killed_agent_no_longer_than_its_deadline(home: Path, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    put(home, "slow", f"#!/bin/sh\necho $$ > {told}\nsleep 600\n")
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom roost.host.hooks import DirectoryHooks, Hook\n"
        "home = Path(sys.argv[1])\n"
        "asyncio.run(DirectoryHooks(home).run(Hook('slow', home / 'health.d' / 'slow'), 1.0, {}))\n"
    )
    # Stopped, as one whose machine is overloaded: it acts no more, and is killed then.
    with subprocess.Popen([sys.executable, "-c", code, str(home)]) as agent:
        deadline = time.monotonic() + LONG
        while not told.exists() or not told.read_text().strip():
            assert time.monotonic() < deadline and agent.poll() is None
            time.sleep(0.02)
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    gone(int(told.read_text()))


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (b"", ""),
        (b"\n \n", ""),
        (b"one\ntwo\n\n", "two"),
        (b"caf\xc3\xa9\n", "caf\u00e9"),
        (b"\xff\xfe\n", "\ufffd\ufffd"),
        (b"red \x1b[31malert\x07\n", "red  [31malert "),
        (b"100%\r", "100%"),
    ],
)
def test_the_last_line_can_be_shown(output: bytes, line: str) -> None:
    assert last_line(output) == line
