"""One connection to the server that sends exactly the bytes it is told, be they HTTP or not."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

PATIENCE = 60.0
"""Seconds after which an answer counts as missing: generous, the machine may be loaded."""

Headers = Sequence[tuple[str, str]]


class Answer(NamedTuple):
    """What came back."""

    code: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def raw(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def is_json(self) -> bool:
        """Whether it says that it is JSON."""
        return (self.headers.get("content-type") or "").split(";")[0] == "application/json"


class Asked(NamedTuple):
    """One request, as it is put on the wire. `target` holds bytes as latin-1."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""

    @property
    def octets(self) -> bytes:
        """The request in HTTP/1.1."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost"]
        names = {name.lower() for name, _ in self.headers}
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body and not names & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + self.body


def trusting(authority: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """How to connect, with or without a client certificate."""
    context = ssl.create_default_context(cafile=str(authority))
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


class Line:
    """A connection, made anew when the server has closed it. `lines.ask(Asked("GET", "/livez"))`"""

    def __init__(self, port: int, context: ssl.SSLContext, headers: Headers = ()) -> None:
        self._port, self._context, self.headers = port, context, headers
        self._socket: ssl.SSLSocket | None = None
        self.asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> ssl.SSLSocket:
        """The socket, connected."""
        if self._socket is None:
            plain = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
            self._socket = self._context.wrap_socket(plain, server_hostname="localhost")
        return self._socket

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, asked: Asked, *, watching: bool = False) -> Answer:
        """Send a request and read its answer; of one that goes on, the first.

        Raises TimeoutError when nothing comes, and http.client.HTTPException when it is no HTTP.
        """
        self.asked += 1
        given = {name.lower() for name, _ in asked.headers}
        mine = [(name, value) for name, value in self.headers if name.lower() not in given]
        octets = asked._replace(headers=[*mine, *asked.headers]).octets
        for attempt in (1, 2):
            connected = self.open()
            try:
                connected.sendall(octets)
                return self.read(asked.method, watching=watching)
            except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected, ssl.SSLEOFError):
                # A connection kept from before may have been closed meanwhile; a new one may not.
                self.close()
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def read(self, method: str, *, watching: bool = False) -> Answer:
        """The answer to what was sent."""
        response = http.client.HTTPResponse(self.open(), method=method)
        response.begin()
        goes_on = watching and response.status == 200 and response.length is None
        body = response.read1(1) if goes_on else response.read()
        if response.will_close or goes_on:
            self.close()
        return Answer(response.status, response.headers, body)

    def get(self, target: str, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """GET."""
        return self.ask(Asked("GET", target, tuple(headers)))

    def send(self, method: str, target: str, body: object, media: str = "application/json") -> Answer:
        """A request with a body of JSON."""
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask(Asked(method, target, [("Content-Type", media)], encoded))
