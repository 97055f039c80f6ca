"""Delay each packet of a link by a fixed time, whatever the rate: a tunnel whose far end holds packets.

What the router sends into the device is read here, kept until it is due, and written back: the router sees
it come in again and sends it on. Order is kept and nothing is dropped but what exceeds MOST_HELD. It runs on
the laboratory's own event loop, which has little else to do; a busy machine delays longer, never less.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
from collections import deque

from roost.sim.lab.errors import LabError

MOST_HELD = 20_000
_TUN = "/dev/net/tun"
_SET_NAME = 0x400454CA
_TUNNEL, _PLAIN = 0x0001, 0x1000
_LARGEST = 65_536
_AT_ONCE = 256


def open_tunnel(name: str) -> int:
    """A tunnel device of this thread's network namespace; it goes when the descriptor is closed."""
    try:
        descriptor = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise LabError(
            f"a link can't be delayed: {_TUN}: {error.strerror}",
            "run the demo as root, on a kernel with tunnel devices (`modprobe tun`)",
        ) from error
    try:
        fcntl.ioctl(descriptor, _SET_NAME, struct.pack("16sH22x", name.encode(), _TUNNEL | _PLAIN))
    except OSError as error:
        os.close(descriptor)
        raise LabError(f"no tunnel device can be made: {error.strerror}", "run the demo as root") from error
    return descriptor


class Delay:
    """Holds the packets of one tunnel device for so many seconds each. Owns the descriptor; `close` it."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self._descriptor, self._seconds = descriptor, seconds
        self._held: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._take)

    def _take(self) -> None:
        due = self._loop.time() + self._seconds
        with contextlib.suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                packet = os.read(self._descriptor, _LARGEST)
                if len(self._held) < MOST_HELD:
                    self._held.append((due, packet))
        self._wait()

    def _wait(self) -> None:
        if self._held and self._timer is None:
            self._timer = self._loop.call_at(self._held[0][0], self._pass_on)

    def _pass_on(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._held and self._held[0][0] <= now:
            # The kernel refuses what it does not take for a packet, and drops what it has no room for.
            with contextlib.suppress(OSError):
                os.write(self._descriptor, self._held.popleft()[1])
        self._wait()

    def close(self) -> None:
        """What is held is lost, as on a line that goes."""
        self._loop.remove_reader(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()
        self._held.clear()
        os.close(self._descriptor)
