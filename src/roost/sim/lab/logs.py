"""The log of one process: a file of bounded size and the one before it."""

from __future__ import annotations

import os
from pathlib import Path

MAXIMUM_BYTES = 10_000_000
_TAIL_BYTES = 16_384


class Log:
    """Appends to a file; when that is full it becomes FILE.1, in the place of an older one."""

    def __init__(self, path: Path, maximum: int = MAXIMUM_BYTES) -> None:
        self.path = path
        self._maximum = maximum
        self._descriptor = self._open()
        self._size = os.fstat(self._descriptor).st_size

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Append. A full disk must not end the laboratory: what does not fit is lost."""
        if self._descriptor < 0:
            return
        if self._size + len(data) > self._maximum:
            os.close(self._descriptor)
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._descriptor = self._open()
            self._size = 0
        try:
            self._size += os.write(self._descriptor, data)
        except OSError:
            return

    def note(self, text: str) -> None:
        """Append a line of the laboratory's own."""
        self.write(f"-- roost: {text}\n".encode())

    def tail(self, lines: int = 10) -> list[str]:
        """The last lines the process wrote, the laboratory's own left out."""
        with self.path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        written = [line for line in text.splitlines() if line.strip() and not line.startswith("-- roost: ")]
        return written[-lines:]

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
