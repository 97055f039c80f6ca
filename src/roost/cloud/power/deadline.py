"""A deadline for all that one look at a board controller does on the network, whatever drips.

`requests` bounds how long it waits for each byte, not for an answer: a header that comes one byte every few
seconds would hold its thread for ever, and a few such board controllers all threads. So every socket that is
opened is known here, and shut when the time is over; nothing is connected after that.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Any


class Deadline:
    """Bounds the sessions it is put on with `bound`, while it is entered."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._until

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for one in self._sockets:
                one.close()
            self._sockets.clear()

    def _shut(self) -> None:
        with self._lock:
            for one in self._sockets:
                # It may be gone already.
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _opened(self, made: socket.socket) -> None:
        with self._lock:
            # Another handle: TLS takes this one over, and a handshake may drip as well.
            self._sockets.append(made.dup())
        if self.is_over:
            made.close()
            raise TimeoutError("the time for this look is over")

    def bound(self, session: Any) -> None:
        """Have a session of `requests` open its connections over TLS under this deadline."""
        from requests.adapters import HTTPAdapter
        from urllib3.connection import HTTPSConnection
        from urllib3.connectionpool import HTTPSConnectionPool

        opened = self._opened

        class Connection(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                made = super()._new_conn()
                opened(made)
                return made

        class Pool(HTTPSConnectionPool):
            ConnectionCls = Connection

        adapter: Any = HTTPAdapter()
        adapter.poolmanager.pool_classes_by_scheme = {"https": Pool}
        session.mount("https://", adapter)
