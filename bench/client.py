"""A small HTTPS client on one kept-alive connection, so that the client costs as little as can be.

It reads what this API sends: answers with a Content-Length, and watches in chunks.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

MERGE_PATCH = "application/merge-patch+json"
ANSWER_WITHIN = 60.0


class Access(msgspec.Struct, frozen=True):
    """Where an API is and how to be let in."""

    host: str
    port: int
    context: ssl.SSLContext
    token: str = ""


def access(kubeconfig: Path) -> Access:
    """What a kubeconfig of ours says."""
    raw: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    cluster, user = raw["clusters"][0]["cluster"], raw["users"][0]["user"]
    host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
    ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=ca)
    handle, name = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(handle, "wb") as file:
            for part in ("client-key-data", "client-certificate-data"):
                file.write(base64.b64decode(user[part]))
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()
    return Access(host.strip("[]"), int(port), context)


class Client:
    """One connection: `async with Client(access) as client`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._authorization = f"authorization: Bearer {access.token}\r\n" if access.token else ""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Client:
        where = self._access
        self._reader, self._writer = await asyncio.open_connection(
            where.host, where.port, ssl=where.context, limit=64 * 1024 * 1024
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(
        self, method: str, path: str, body: bytes = b"", content: str = "application/json"
    ) -> tuple[int, bytes]:
        """One request and its whole answer."""
        async with asyncio.timeout(ANSWER_WITHIN):
            status, headers = await self._begin(method, path, body, content)
            length = headers.get(b"content-length")
            if length is not None:
                return status, await self._reader.readexactly(int(length))
            return status, b"".join([chunk async for chunk in self._chunks()])

    async def good(
        self, method: str, path: str, body: bytes = b"", content: str = "application/json"
    ) -> bytes:
        """The body of an answer that must be a success."""
        status, answer = await self.ask(method, path, body, content)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer[:500]!r}")
        return answer

    async def watch(self, path: str) -> AsyncIterator[bytes]:
        """The lines of a watch, as they come."""
        status, _ = await self._begin("GET", path, b"", "application/json")
        if status != 200:
            raise RuntimeError(f"{path}: {status}")
        rest = b""
        async for chunk in self._chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line

    async def _begin(
        self, method: str, path: str, body: bytes, content: str
    ) -> tuple[int, dict[bytes, bytes]]:
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._access.host}\r\naccept: application/json\r\n"
            f"{self._authorization}content-type: {content}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        pairs = (line.partition(b":") for line in lines if line)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            chunk = await self._reader.readexactly(size + 2)
            yield chunk[:-2]
        await self._reader.readexactly(2)


def is_ready(kubeconfig: Path) -> bool:
    """Whether the API of a kubeconfig says that it is ready."""

    async def ask() -> bool:
        async with asyncio.timeout(5), Client(access(kubeconfig)) as client:
            status, _ = await client.ask("GET", "/readyz")
            return status == 200

    try:
        return kubeconfig.exists() and asyncio.run(ask())
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
