"""A relay between a client and a server that can be cut and mended: every connection through it ends."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Relay:
    """Listens on a port of its own and passes bytes to a local port."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[socket.socket] = []
        self._lock = threading.Lock()
        self._open = True
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection and take no new one."""
        with self._lock:
            self._open = False
            pairs, self._pairs = self._pairs, []
        for end in pairs:
            _close(end)

    def mend(self) -> None:
        """Take connections again."""
        with self._lock:
            self._open = True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._open:
                    _close(client)
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._to), timeout=30)
                except OSError:
                    # Who should be there is dead, or is being started.
                    _close(client)
                    continue
                server.settimeout(None)
                self._pairs += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pass, args=(source, target), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _close(source)
    _close(target)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
