"""Real receivers from Debian: rsyslogd, snmptrapd, Alertmanager. A test skips, and says so, without them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def program(name: str, package: str) -> str:
    """The path of a program; skips when it is not installed."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"there is no {name}: it is in Debian's package {package}")
    return found


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody listens on now."""
    with socket.socket(socket.AF_INET, kind) as asking:
        asking.bind(("127.0.0.1", 0))
        return int(asking.getsockname()[1])


class Process:
    """A process that can be killed and started again."""

    def __init__(self, command: Sequence[str], log: Path, **environment: str) -> None:
        self._command, self._log = command, log
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=log, stderr=log, env=self._environment
            )

    async def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def listens(self, port: int) -> None:
        """Wait until its TCP port answers."""
        for _ in range(1500):
            if self._process is None or self._process.returncode is not None:
                raise RuntimeError(f"{self._command[0]} ended:\n{self._log.read_text()[-2000:]}")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(f"{self._command[0]} does not listen:\n{self._log.read_text()[-2000:]}")


@contextlib.asynccontextmanager
async def running(command: Sequence[str], log: Path, **environment: str) -> AsyncIterator[Process]:
    """A process that is killed at the end."""
    made = Process(command, log, **environment)
    await made.start()
    try:
        yield made
    finally:
        await made.kill()
