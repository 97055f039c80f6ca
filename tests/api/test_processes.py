"""Processes of one cloud on PostgreSQL, killed, frozen and cut off by chance while clients write and watch.

Writers send each write to any process, and again when the answer is lost. Watchers list once and then watch,
going on at any process from the last resourceVersion they saw. In the end each watcher's fold is the list,
event by event in order and none twice, and every write that was acknowledged was seen and is kept.

The seed is printed; ROOST_SEED repeats one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

from tests.support import clouds, postgresql
from tests.support.clouds import CloudProcess

SECONDS = 40.0
WRITERS, WATCHERS, NAMES = 5, 4, 4
WITHIN = 90.0
USERS = "/apis/roost.edge/v1/users"
MARK = "example.com/mark"
MERGE = {"content-type": "application/merge-patch+json"}
Raw = dict[str, Any]


class Clients:
    """Ways to every process; one is chosen at random for each request."""

    def __init__(self, processes: list[CloudProcess], source: random.Random) -> None:
        self.processes, self._source = processes, source
        verify = clouds.context(processes[0])
        self._clients = [
            httpx.AsyncClient(base_url=p.url, verify=verify, timeout=60.0, trust_env=False) for p in processes
        ]

    @property
    def any(self) -> httpx.AsyncClient:
        return self._source.choice(self._clients)

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


class Writer:
    """The only one who writes its objects. `known` is what stands by the last acknowledged write."""

    def __init__(self, clients: Clients, number: int, source: random.Random) -> None:
        self._clients, self._source = clients, source
        self._names = [f"w{number}-{n}" for n in range(NAMES)]
        self._count = 0
        self.known: dict[str, str] = {}
        self.acknowledged: list[tuple[str, str, int]] = []
        """Name, mark and revision of what was created and changed."""
        self.lost = 0

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._write(self._source.choice(self._names))

    async def _write(self, name: str) -> None:
        """One write, repeated until it is acknowledged."""
        self._count += 1
        mark = f"{name}.{self._count}"
        sure = True
        while True:
            there = name in self.known if sure else await self._is_there(name)
            deed = self._source.choice(["patch", "patch", "delete"]) if there else "create"
            try:
                answer = await self._send(deed, name, mark)
            except httpx.TransportError:
                sure, self.lost = False, self.lost + 1
                await asyncio.sleep(0.05)
                continue
            if answer.status_code in (200, 201):
                break
            message = answer.json()["message"]
            if answer.status_code in (429, 503):
                sure = sure and "not known" not in message
                await asyncio.sleep(0.05)
                continue
            # Where an answer was lost, the write may have been done already, or be done only now.
            assert not sure, (answer.status_code, message, name, deed)
            assert answer.status_code in (404, 409), message
        self.known.pop(name, None)
        if deed != "delete":
            self.known[name] = mark
            revision = int(answer.json()["metadata"]["resourceVersion"])
            self.acknowledged.append((name, mark, revision))

    async def _send(self, deed: str, name: str, mark: str) -> httpx.Response:
        client, path = self._clients.any, f"{USERS}/{name}"
        if deed == "delete":
            return await client.delete(path)
        body: Raw = {"metadata": {"annotations": {MARK: mark}}}
        if deed == "patch":
            return await client.patch(path, content=msgspec.json.encode(body), headers=MERGE)
        body |= {"apiVersion": "roost.edge/v1", "kind": "User", "spec": {"role": "reader"}}
        body["metadata"]["name"] = name
        return await client.post(USERS, json=body)

    async def _is_there(self, name: str) -> bool:
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await self._clients.any.get(f"{USERS}/{name}")
                if answer.status_code in (200, 404):
                    return answer.status_code == 200
            await asyncio.sleep(0.05)


class Watcher:
    """Lists once and then follows, over whichever process answers."""

    def __init__(self, clients: Clients, source: random.Random) -> None:
        self._clients, self._source = clients, source
        self.fold: dict[str, str] = {}
        self.revision = 0
        self.seen: set[tuple[str, str, int]] = set()
        self.watches = 0

    async def run(self) -> None:
        listed = await self.list()
        self.revision = int(listed["metadata"]["resourceVersion"])
        for item in listed["items"]:
            self._take("ADDED", item)
        while True:
            try:
                async for event in self._events():
                    self._event(event)
            except httpx.TransportError:
                await asyncio.sleep(0.05)

    async def list(self) -> Raw:
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await self._clients.any.get(USERS)
                if answer.status_code == 200:
                    found: Raw = answer.json()
                    return found
            await asyncio.sleep(0.05)

    async def _events(self) -> AsyncIterator[Raw]:
        self.watches += 1
        asked = {
            "watch": "1",
            "resourceVersion": str(self.revision),
            "timeoutSeconds": str(self._source.randrange(2, 8)),
            "allowWatchBookmarks": "1",
        }
        async with self._clients.any.stream("GET", USERS, params=asked, timeout=30.0) as answer:
            if answer.status_code != 200:
                assert answer.status_code in (429, 503), (await answer.aread(), asked)
                await asyncio.sleep(0.05)
                return
            buffered = b""
            async for chunk in answer.aiter_bytes():
                *lines, buffered = (buffered + chunk).split(b"\n")
                for line in lines:
                    yield msgspec.json.decode(line)

    def _event(self, event: Raw) -> None:
        revision = int(event["object"].get("metadata", {}).get("resourceVersion", 0))
        if event["type"] == "BOOKMARK":
            assert revision >= self.revision, event
        else:
            assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), event
            assert revision > self.revision, (self.revision, event)
            self._take(event["type"], event["object"])
        self.revision = revision

    def _take(self, type: str, item: Raw) -> None:
        metadata = item["metadata"]
        name, mark = metadata["name"], metadata.get("annotations", {}).get(MARK, "")
        assert (name in self.fold) == (type != "ADDED"), (type, name, self.fold.get(name))
        if type == "DELETED":
            del self.fold[name]
        else:
            self.fold[name] = mark
            self.seen.add((name, mark, int(metadata["resourceVersion"])))


async def _disturb(processes: list[CloudProcess], database: str, source: random.Random) -> dict[str, int]:
    """Kill and start again, freeze, cut off from the database. In the end all serve."""
    deadline, done = time.monotonic() + SECONDS, {"kill": 0, "freeze": 0, "cut": 0}
    while time.monotonic() < deadline:
        await asyncio.sleep(source.uniform(0.2, 2.0))
        deed = source.choice(["kill", "kill", "freeze", "cut"]) if done["kill"] else "kill"
        done[deed] += 1
        if deed == "cut":
            await asyncio.to_thread(_terminate, database)
            continue
        victims = source.sample(processes, source.choice([1, 1, 2]) if deed == "kill" else 1)
        for victim in victims:
            victim.kill() if deed == "kill" else victim.send(signal.SIGSTOP)
        await asyncio.sleep(source.uniform(0.1, 1.5))
        for victim in victims:
            victim.start() if deed == "kill" else victim.send(signal.SIGCONT)
        if source.random() < 0.7:
            for victim in victims:
                await asyncio.to_thread(victim.until_up)
    for process in processes:
        await asyncio.to_thread(process.until_up)
    return done


def _terminate(database: str) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(postgresql.shared().conninfo("postgres"), autocommit=True) as connection:
        connection.execute(end, [database])


@pytest.mark.timeout(300)
async def test_clients_of_processes_that_die_lose_nothing_and_see_nothing_twice(tmp_path: Path) -> None:
    seed = int(os.environ.get("ROOST_SEED", secrets.randbelow(1_000_000)))
    print(f"ROOST_SEED={seed}")
    source = random.Random(seed)
    with postgresql.database() as url:
        processes = await asyncio.to_thread(clouds.start, tmp_path, url, 3)
        clients = Clients(processes, source)
        over = asyncio.Event()
        try:
            writers = [Writer(clients, n, source) for n in range(WRITERS)]
            watchers = [Watcher(clients, source) for _ in range(WATCHERS)]
            watching = [asyncio.create_task(w.run()) for w in watchers]
            writing = [asyncio.create_task(w.run(over)) for w in writers]
            done = await _disturb(processes, url.rpartition("/")[2].partition("?")[0], source)
            over.set()
            await asyncio.gather(*writing)
            listed = await watchers[0].list()
            last = int(listed["metadata"]["resourceVersion"])
            deadline = time.monotonic() + WITHIN
            while any(w.revision < last for w in watchers):
                failed = [t for t in watching if t.done()]
                assert not failed, failed[0].exception()
                assert time.monotonic() < deadline, [w.revision for w in watchers]
                await asyncio.sleep(0.05)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        finally:
            await clients.close()
            for process in processes:
                process.kill()
    kept = {
        i["metadata"]["name"]: i["metadata"].get("annotations", {}).get(MARK, "") for i in listed["items"]
    }
    known = {name: mark for writer in writers for name, mark in writer.known.items()}
    assert kept == known
    acknowledged = {each for writer in writers for each in writer.acknowledged}
    for watcher in watchers:
        assert watcher.fold == kept
        assert acknowledged <= watcher.seen, acknowledged - watcher.seen
    told = {"acknowledged": len(acknowledged), "lost": sum(w.lost for w in writers), **done}
    print(told, "watches", [w.watches for w in watchers])
    assert done["kill"] and len(acknowledged) > 100 and all(w.watches > 3 for w in watchers), told
    for process in processes:
        assert "Traceback" not in process.said, process.said[-4000:]
