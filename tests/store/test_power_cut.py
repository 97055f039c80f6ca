"""A power cut at any instant: what was not synced is lost, in whole or in part; nothing acknowledged is.

A writer runs under strace, which tells each write to SQLite's files, each sync and each answer, in order.
From that the files are made as a disk would hold them that loses all that was not synced, and as one that
has taken some of the unsynced writes, in any order, some torn; then the store is opened on them.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.store.database import sqlite_url
from tests.store.test_history import replay
from tests.support.stores import history, opened

ROOT = Path(__file__).parents[2]
SECTOR = 512

WRITER = """
import asyncio, os, sys
from roost.store.store import Store
from tests.support.stores import raw

async def main(url):
    store = await Store.open(url)
    async def write(slot):
        for n in range(12):
            def work(tx):
                new = raw("Host", f"h-{slot}", spec={"location": f"{n} " + "x" * 700})
                return (tx.replace(new) if n else tx.create(new)).revision
            os.write(1, b"acknowledged %d\\n" % await store.transact(work))
    await asyncio.gather(*(write(slot) for slot in range(4)))
    os._exit(0)

asyncio.run(main(sys.argv[1]))
"""

CALL = re.compile(r"^\d+\s+(pwrite64|write|fsync|fdatasync|ftruncate)\((\d+)<([^>]*)>(.*)\)\s+= \d+")
GONE = re.compile(r'^\d+\s+unlink\("([^"]*)"\)\s+= 0')


class Disk:
    """Files as they are on disk, and the writes to them since their last sync.

    Names and lengths are kept in order by the file system's own journal: they change at once.
    """

    def __init__(self) -> None:
        self.synced: dict[str, bytearray] = {}
        self.unsynced: list[tuple[str, int, bytes]] = []

    def sync(self, file: str) -> None:
        for name, at, data in self.unsynced:
            if name == file:
                _put(self.synced.setdefault(name, bytearray()), at, data)
        self.unsynced = [w for w in self.unsynced if w[0] != file]

    def cut(self, file: str, length: int) -> None:
        """A file is made shorter."""
        self.sync(file)
        del self.synced.setdefault(file, bytearray())[length:]

    def remove(self, file: str) -> None:
        """A file is deleted."""
        self.synced.pop(file, None)
        self.unsynced = [w for w in self.unsynced if w[0] != file]

    def after_cut(self, source: random.Random | None) -> dict[str, bytes]:
        """What is found: what was synced; with a source of chance also some sectors of what was not."""
        files = {name: bytearray(data) for name, data in self.synced.items()}
        for name, at, data in self.unsynced:
            for first in range(0, len(data), SECTOR):
                if source is not None and source.random() < 0.5:
                    _put(files.setdefault(name, bytearray()), at + first, data[first : first + SECTOR])
        return {name: bytes(data) for name, data in files.items()}


def _put(file: bytearray, at: int, data: bytes) -> None:
    if len(file) < at:
        file.extend(bytes(at - len(file)))
    file[at : at + len(data)] = data


@pytest.mark.timeout(300)
@pytest.mark.skipif(
    shutil.which("strace") is None, reason="no strace on this machine: run scripts/prepare test"
)
async def test_nothing_acknowledged_is_lost_with_what_was_not_synced(tmp_path: Path) -> None:
    path, trace = tmp_path / "roost.db", tmp_path / "trace"
    calls = "trace=pwrite64,write,fsync,fdatasync,ftruncate,unlink"
    command = ["strace", "-f", "-y", "-xx", "-s", "200000", "-e", calls, "-o", str(trace)]
    command += [sys.executable, "-c", WRITER, sqlite_url(path)]
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs on this loop
        command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    if done.returncode and "PTRACE" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    source, seed = random.Random(5), 5
    disk, acknowledged, syncs, cuts = Disk(), 0, 0, 0
    for line in _whole(trace.read_text().splitlines()):
        if gone := GONE.match(line):
            disk.remove(Path(bytes.fromhex(gone[1].replace("\\x", "")).decode()).name)
        found = CALL.match(line)
        if found is None:
            continue
        call, descriptor, file, rest = found.groups()
        name = bytes.fromhex(file.replace("\\x", "")).decode() if file.startswith("\\x") else file
        if call == "write" and descriptor == "1":
            acknowledged = int(_data(rest).split()[1])
        elif not name.startswith(str(path)) or name.endswith("-shm"):
            continue
        elif call == "pwrite64":
            disk.unsynced.append((Path(name).name, int(rest.rsplit(", ", 1)[1]), _data(rest)))
            continue
        elif call in ("fsync", "fdatasync"):
            disk.sync(Path(name).name)
            syncs += 1
        else:
            disk.cut(Path(name).name, int(rest.rsplit(", ", 1)[1]))
            continue
        if acknowledged and source.random() < 0.5:
            cuts += 1
            for chance in (None, source):
                await _survives(
                    tmp_path / f"cut-{cuts}-{chance is None}", disk.after_cut(chance), acknowledged, seed
                )
    assert acknowledged == 48 and syncs > 10 and cuts > 10


def _whole(lines: list[str]) -> Iterator[str]:
    """Calls as they ended: strace cuts one in two when another thread calls meanwhile."""
    begun: dict[str, str] = {}
    for line in lines:
        thread = line.split(maxsplit=1)[0]
        if line.endswith(" <unfinished ...>"):
            begun[thread] = line.removesuffix(" <unfinished ...>")
        elif " resumed>" in line:
            yield begun.pop(thread, "") + line.split(" resumed>", 1)[1]
        else:
            yield line


def _data(rest: str) -> bytes:
    return bytes.fromhex(rest.split('"')[1].replace("\\x", ""))


async def _survives(directory: Path, files: dict[str, bytes], acknowledged: int, seed: int) -> None:
    directory.mkdir()  # noqa: ASYNC240 - nothing else runs on this loop
    for name, data in files.items():
        (directory / name).write_bytes(data)
    async with opened(sqlite_url(directory / "roost.db")) as store:
        assert store.revision >= acknowledged, f"seed {seed}, {directory.name}"
        changes = await history(store)
        assert [c.revision for c in changes] == list(range(1, store.revision + 1))
        rows = await store.read(lambda tx: tx.select("Host"))
        assert replay(changes) == {(s.kind, s.namespace, s.name): s.data for s in rows}
    shutil.rmtree(directory)
