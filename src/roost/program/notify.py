"""What a supervisor gives a process and is told by it: listening sockets and readiness (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket

_FIRST_DESCRIPTOR = 3


def inherited_sockets() -> dict[str, socket.socket]:
    """Listening sockets handed down, by name (sd_listen_fds(3)); none when not meant for this process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found = {}
    for number in range(count):
        name = names[number] if number < len(names) and names[number] else str(number)
        found[name] = socket.socket(fileno=_FIRST_DESCRIPTOR + number)
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    return found


def tell(state: str) -> None:
    """Tell the supervisor, if there is one; it is no matter when it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1)
        sender.connect(address)
        sender.sendall(state.encode())
