"""A receiver of HTTP posts over a real socket, and a cloud whose outlets send to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from roost.cloud.outlets.outlets import Outlets
from roost.engine.faults import settle, write_log
from roost.engine.vault import Place, Vault
from roost.link.files import write_private
from roost.model.alarms import Fault
from roost.model.cloud import Cloud
from roost.model.meta import Metadata
from roost.model.outlet import SECRET_TYPE, AlarmOutlet, AlarmOutletSpec, AlarmOutletStatus
from roost.model.secret import Secret
from roost.store.store import Store

CLOUD = "harbor"
WITHIN = 30.0
Posted = tuple[dict[str, str], Any]


class Receiver:
    """Answers posts with what `answers` says, a status and headers for each; `always` when it is spent."""

    def __init__(self) -> None:
        self.posts: list[Posted] = []
        self.bodies: list[bytes] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.always: tuple[int, dict[str, str]] = (204, {})
        self.silent = False
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        """Listen, on the former port when there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be away: connections break."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._server = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages of webhooks that were accepted, in order."""
        return [m for _, body in self.posts for m in body["messages"]]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status, extra = self.answers.pop(0) if self.answers else self.always
                if 200 <= status < 300:
                    self.posts.append((headers, json.loads(body)))
                    self.bodies.append(body)
                if self.silent:
                    await asyncio.Event().wait()
                told = "".join(f"{k}: {v}\r\n" for k, v in extra.items())
                writer.write(f"HTTP/1.1 {status} X\r\n{told}Content-Length: 0\r\n\r\n".encode())
                await writer.drain()
        self._writers.discard(writer)
        writer.close()


class Site:
    """A store, its outlets at work, and what happens in it."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self.store, self.vault = store, vault
        self._task: asyncio.Task[None] | None = None

    def work(self) -> None:
        """Start the outlets."""
        outlets = Outlets(CLOUD, self.vault, lambda: datetime.now(UTC))
        self._task = asyncio.ensure_future(outlets.run(self.store))

    async def rest(self) -> None:
        """End them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def declare(self, type: str, endpoint: str, name: str = "noc", **spec: Any) -> AlarmOutlet:
        made = msgspec.convert({"type": type, "endpoint": endpoint, **spec}, AlarmOutletSpec)
        return await self.store.save(AlarmOutlet(metadata=Metadata(name=name, namespace=CLOUD), spec=made))

    async def secret(self, name: str = "noc", type: str = SECRET_TYPE, **values: str | bytes) -> None:
        """A Secret; `_` in keys stands for `-`, two of them for a dot."""
        data = {}
        for key, value in values.items():
            written = key.replace("__", ".").replace("_", "-")
            raw = value.encode() if isinstance(value, str) else value
            place = Place("Secret", CLOUD, name, f"data.{written}")
            data[written] = self.vault.seal(place, base64.b64encode(raw).decode())
        await self.store.save(Secret(metadata=Metadata(name=name, namespace=CLOUD), type=type, data=data))

    async def faults(self, host: str, *ids: str, severity: str = "major", cloud: str = CLOUD) -> None:
        """Let these alarms of a host stand, and no others."""
        wanted = [
            Fault(alarm_id=i, severity=severity, entity=f"host={host}", reason=f"{i} on {host}")  # type: ignore[arg-type]
            for i in ids
        ]
        await self.store.transact(lambda tx: settle(tx, cloud, f"host.{host}", wanted))

    async def log(self, text: str, event: str = "note", severity: str = "info") -> None:
        await self.store.transact(
            lambda tx: write_log(tx, CLOUD, event=event, text=text, severity=severity)  # type: ignore[arg-type]
        )

    async def status(self, name: str = "noc") -> AlarmOutletStatus:
        return (await self.store.load(AlarmOutlet, CLOUD, name)).status


@contextlib.asynccontextmanager
async def site(path: Path, **options: Any) -> AsyncIterator[Site]:
    """A cloud on real time whose outlets are at work."""
    vault = Vault.open(path / "keys", write_private, datetime.now(UTC))
    store = await Store.open(f"sqlite:///{path / 'store.db'}", **options)
    await store.save(Cloud(metadata=Metadata(name=CLOUD)))
    made = Site(store, vault)
    made.work()
    try:
        yield made
    finally:
        await made.rest()
        await store.close()


@contextlib.asynccontextmanager
async def receiver(context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver that listens."""
    made = Receiver()
    await made.start(context)
    try:
        yield made
    finally:
        await made.stop()


async def until(holds: Callable[[], Any], within: float = WITHIN) -> Any:
    """What `holds` says once it is true."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while True:
        found = holds()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert loop.time() < end, f"it did not hold within {within} seconds"
        await asyncio.sleep(0.02)
