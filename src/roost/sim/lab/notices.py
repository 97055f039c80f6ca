"""Readiness told by the processes themselves, in systemd's way (sd_notify).

One datagram socket for all: the kernel stamps each datagram with the sender's process number, so a
process can speak only for itself. Of the protocol READY, STOPPING and STATUS are understood. A
program made for a systemd unit of Type=notify needs nothing else to run here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path

_MAXIMUM_DATAGRAM = 4096
_DATAGRAMS_AT_ONCE = 64
_CREDENTIALS = struct.Struct("3i")
_MAXIMUM_STATUS = 160

Receiver = Callable[[int, dict[str, str]], None]


def parse(datagram: bytes) -> dict[str, str]:
    """The assignments of a datagram; what is none is left out."""
    lines = datagram.decode(errors="replace").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {name: value[:_MAXIMUM_STATUS] for name, value in pairs}


class NoticeSocket:
    """Listens on `path` and hands every notice to `receiver` with the process number of its sender."""

    def __init__(self, path: Path, receiver: Receiver) -> None:
        self.path = path
        self._receiver = receiver
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def _receive(self) -> None:
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    _MAXIMUM_DATAGRAM, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except BlockingIOError:
                return
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    self._receiver(_CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0], parse(data))

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
