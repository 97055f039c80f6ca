"""Notice at once that ports or addresses changed, without looking again and again.

The kernel tells every change on a netlink socket. What changed is not read from there: whoever waits
looks at the whole again. So lost messages (ENOBUFS) do no harm; they too mean that something changed.
Changes are coalesced: the first is told at once, then at most one in every interval.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator

from roost.host.observe import netlink

INTERVAL = 0.5
_BUFFER = 1 << 16
_MAXIMUM_READS = 256


async def watch_ports(interval: float = INTERVAL) -> AsyncGenerator[None, None]:
    """Yields after links or addresses changed, at most once per `interval` seconds. Raises OSError when
    the kernel refuses the socket, or when it fails for good. Close it (`contextlib.aclosing`) when done."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    failure: list[OSError] = []
    listener = netlink.open_notifications()

    def readable() -> None:
        if error := drain(listener):
            failure.append(error)
            loop.remove_reader(listener)
        changed.set()

    try:
        loop.add_reader(listener, readable)
        while True:
            await changed.wait()
            if failure:
                raise failure[0]
            changed.clear()
            yield
            await asyncio.sleep(interval)
    finally:
        loop.remove_reader(listener)
        listener.close()


def drain(listener: socket.socket) -> OSError | None:
    """Throw away what is waiting on the socket; the error, if it cannot be used any more."""
    for _ in range(_MAXIMUM_READS):
        try:
            listener.recv(_BUFFER)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOBUFS, errno.EINTR):
                return error
    return None
