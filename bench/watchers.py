"""Many watchers of one server in a process of their own, and how late an event reaches each.

`watched` writes with one client and lets this module's process watch: a loop over epoll that reads TLS
sockets and notes when an event has arrived, without looking into it. Both clocks are the machine's
monotonic one. A write waits until every watcher has the event of the one before.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import ssl
import subprocess
import sys
import time
from array import array

import msgspec

from bench.client import MERGE_PATCH, Access, Client

CONNECT_WITHIN = 60.0
EVENT_WITHIN = 30.0
READ = 64 * 1024


def watched(where: Access, path: str, name: str, *, watchers: int, writes: int) -> list[float]:
    """Milliseconds from the answer to each write until its event was at each watcher; below 0: before it."""
    return asyncio.run(_watched(where, path, name, watchers, writes))


async def _watched(where: Access, path: str, name: str, watchers: int, writes: int) -> list[float]:
    async with Client(where) as client:
        listed = msgspec.json.decode(await client.good("GET", f"{path}?limit=1"))
        since = listed["metadata"]["resourceVersion"]
        target = f"{path}?watch=true&resourceVersion={since}&timeoutSeconds=3000"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.watchers",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=64 * 1024 * 1024,
        )
        assert process.stdin and process.stdout
        try:
            order = [where.host, where.port, where.token, target, watchers]
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            async with asyncio.timeout(CONNECT_WITHIN):
                await process.stdout.readline()
            delays: list[float] = []
            for n in range(writes):
                body = msgspec.json.encode({"spec": {"order": 1 + (time.monotonic_ns() // 1000 + n) % 9999}})
                await client.good("PATCH", f"{path}/{name}", body, MERGE_PATCH)
                answered = time.monotonic()
                async with asyncio.timeout(EVENT_WITHIN):
                    times = msgspec.json.decode(await process.stdout.readline(), type=list[float])
                delays += [(at - answered) * 1000 for at in times]
            return delays
        finally:
            process.kill()
            await process.wait()


def _watch(host: str, port: int, token: str, target: str, watchers: int) -> None:
    """Watch until killed: one line when all are connected, then one line of times for each event."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    selector = selectors.EpollSelector()
    request = (
        f"GET {target} HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\n"
        f"authorization: Bearer {token}\r\n\r\n"
    ).encode()
    for number in range(watchers):
        connection = context.wrap_socket(socket.create_connection((host, port), timeout=CONNECT_WITHIN))
        connection.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(READ)
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise SystemExit(f"watch: {head[:300]!r}")
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, number)
    _say(b"connected")
    last, missing, times = bytearray(watchers), watchers, array("d", bytes(8 * watchers))
    while True:
        for key, _ in selector.select():
            number = key.data
            if _events(key.fileobj, last, number):
                times[number] = time.monotonic()
                missing -= 1
        if not missing:
            _say(msgspec.json.encode(list(times)))
            missing = watchers


def _events(connection: object, last: bytearray, number: int) -> int:
    """Ends of events in what has come: line feeds that end no line of the chunked framing."""
    assert isinstance(connection, ssl.SSLSocket)
    found = 0
    while True:
        try:
            data = connection.recv(READ)
        except (ssl.SSLWantReadError, BlockingIOError):
            return found
        if not data:
            raise SystemExit("a watch ended")
        found += data.count(b"\n") - data.count(b"\r\n") - (last[number] == 13 and data[:1] == b"\n")
        last[number] = data[-1]


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    _watch(*msgspec.json.decode(sys.stdin.buffer.readline(), type=tuple[str, int, str, str, int]))
