"""Examples with their output, run as they stand: a page's console blocks, in order, in one shell.

In a `console` block a line that begins with `$ ` is typed, lines that begin with `> ` go on with it, and
what follows is what it prints. A block of yaml, json, python or javascript whose first line is a comment
with a file name is that file, in the folder where the shell is. Varying parts match whatever they are
(`normal`); three dots stand for anything within a line, or alone on a line for any number of lines.

`python -m tests.docs.console docs/api.md` writes what was really printed where that does not match.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from tests.docs.pages import ROOT

PAGES = ("docs/api.md", "docs/clients.md")
"""Pages whose examples are run."""

API = "127.0.0.1:7443"
"""Where the pages say that the API listens."""

PATIENCE = 120.0
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:#|//) ([\w-]+\.(?:yaml|json|py|mjs))\n")
_DOTS = "..."
_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UID"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "TIME"),
    (re.compile(r"\b(\w{3}, )?\d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"), "TIME"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"([rR]esourceVersion\W{1,4}|\brevision\W{1,4})\d+"), r"\1REVISION"),
    (re.compile(r"\beyJ[\w.-]+"), "TOKEN"),
    (re.compile(r"\b[0-9a-f]{40,64}\b"), "DIGEST"),
    (re.compile(r"(?<=\s)\d+[smhd](\d+[smh])?(?= ago|\s|$)"), "AGE"),
    (re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}\b(?=[\" ]|$)"), "-RANDOM"),
    (re.compile(r"(?<=\S) {2,}"), "  "),
)


class Written(msgspec.Struct, frozen=True):
    """A file that a page shows."""

    name: str
    text: str


class Typed(msgspec.Struct, frozen=True):
    """A command with what it is said to print; `start` and `end` are where that stands in the page."""

    command: str
    expected: str
    start: int
    end: int


def steps(text: str) -> Iterator[Written | Typed]:
    """What a page writes and types, in order."""
    for fence in _FENCE.finditer(text):
        named = _FILE.match(fence[2])
        if fence[1] == "console":
            yield from _typed(fence[2], fence.start(2))
        elif named:
            yield Written(named[1], fence[2])


def _typed(block: str, base: int) -> Iterator[Typed]:
    """The commands of a block that stands at `base` of its page."""
    command, begun, at = list[str](), 0, 0
    for line in block.splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield Typed("".join(command).rstrip(), block[begun:at], base + begun, base + at)
            command, begun = [line[2:]], at + len(line)
        elif line.startswith("> ") and begun == at:
            command.append(line[2:])
            begun += len(line)
        at += len(line)
    if command:
        yield Typed("".join(command).rstrip(), block[begun:at], base + begun, base + at)


def normal(line: str) -> str:
    """A line of output without what differs from run to run."""
    line = line.rstrip()
    for pattern, name in _VARYING:
        line = pattern.sub(name, line)
    return line


def matches(expected: str, printed: str) -> bool:
    """Whether a command printed what the page says."""
    told = [normal(line) for line in expected.rstrip().splitlines()]
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == _DOTS else ".*".join(map(re.escape, line.split(_DOTS))) + r"\n"
        for line in told
    )
    seen = "".join(normal(line) + "\n" for line in printed.rstrip().splitlines())
    return re.fullmatch(pattern, seen) is not None


class Shell:
    """A bash that is told one command after the other."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, command: str) -> tuple[str, int]:
        """What it printed and its exit code; raises TimeoutError."""
        assert self._process.stdin is not None and self._process.stdout is not None
        mark = f"mark-{time.monotonic_ns()}"
        self._process.stdin.write(f"{command}\nprintf '\\n%s %d\\n' {mark} $?\n".encode())
        self._process.stdin.flush()
        printed, deadline = b"", time.monotonic() + PATIENCE
        end = re.compile(rb"\n%s (\d+)\n$" % mark.encode())
        while not (found := end.search(printed)):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError(f"{command}\n{printed.decode()[-2000:]}")
            part = os.read(self._process.stdout.fileno(), 65536)
            assert part, f"the shell has ended\n{printed.decode()[-2000:]}"
            printed += part
        return printed[: found.start()].decode(), int(found[1])


class Cloud:
    """A real `roost up --no-host` with a home of its own, as a person has it who reads the page."""

    def __init__(self, folder: Path, name: str, *more: str) -> None:
        self.home, self.log = folder / ".roost", folder / "log"
        self.home.mkdir(parents=True)
        self.port, self.link = _free(), _free()
        self._name, self._more = name, more
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "ROOST_HOME": str(self.home),
            "LANG": "C.UTF-8",
            "COLUMNS": "120",
        }

    def __enter__(self) -> Self:
        where = [f"--address=127.0.0.1:{self.port}", f"--link-address=127.0.0.1:{self.link}"]
        where.append(f"--advertise=127.0.0.1:{self.link}")
        command = ["roost", "up", "--no-host", "--name", self._name, *where, *self._more]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        try:
            while not self._answers():
                assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text()[
                    -3000:
                ]
                time.sleep(0.1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        if not (self.home / "kubeconfig").exists():
            return False
        asked = ["roost", "status", "--output", "json"]
        return subprocess.run(asked, env=self.environment, capture_output=True, check=False).returncode == 0

    def token(self, subcloud: str) -> Path:
        """Declare a subcloud; the file with its token."""
        made = subprocess.run(
            ["roost", "subcloud", "add", subcloud, "--managed", "--output", "json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        path = self.home / "token"
        path.write_text(msgspec.json.decode(made.stdout)["token"])
        return path


def _free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def clouds(folder: Path) -> Iterator[Cloud]:
    """A central cloud with one subcloud, harbor, below it."""
    with Cloud(folder / "central", "central") as central:
        token = central.token("harbor")
        with Cloud(folder / "harbor", "harbor", "--join", str(token)):
            yield central


def run(page: str, central: Cloud) -> Iterator[tuple[Typed, str, int]]:
    """Each command of a page with what it printed and its exit code."""
    folder = central.home.parent / Path(page).stem
    folder.mkdir()
    text = (ROOT / page).read_text()
    with Shell(folder, {**central.environment, "KUBECONFIG": str(central.home / "kubeconfig")}) as shell:
        for step in steps(text):
            if isinstance(step, Written):
                (folder / step.name).write_text(step.text.replace(API, f"127.0.0.1:{central.port}"))
                continue
            printed, code = shell.run(step.command.replace(API, f"127.0.0.1:{central.port}"))
            yield step, printed.replace(f"127.0.0.1:{central.port}", API), code


def as_it_should_be(step: Typed, printed: str, code: int) -> str:
    """Empty when a command did what the page says, else what was different."""
    if not matches(step.expected, printed):
        told, seen = step.expected.splitlines(), printed.rstrip().splitlines()
        difference = "\n".join(difflib.unified_diff(told, seen, "the page", "printed", lineterm="", n=1))
        return f"$ {step.command}\n{difference}"
    if code and not step.expected.strip():
        return f"$ {step.command}\nprinted nothing and ended with {code}"
    return ""


def rewrite(page: str) -> None:
    """Put what was printed into the page where it says something else."""
    path = ROOT / page
    text = path.read_text()
    with tempfile.TemporaryDirectory() as folder, clouds(Path(folder)) as central:
        found = [r for r in run(page, central) if as_it_should_be(*r)]
    for step, printed, _ in reversed(found):
        text = (
            text[: step.start]
            + "".join(f"{line.rstrip()}\n" for line in printed.rstrip().splitlines())
            + text[step.end :]
        )
    path.write_text(text)
    print(f"{len(found)} differ")


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        rewrite(asked)
