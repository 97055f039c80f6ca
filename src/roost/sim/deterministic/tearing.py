"""What a loss of power leaves of a commit that was not synced yet.

SQLite appends a commit to the log beside the database and syncs that, and at times then carries the log over
into the database. Between two syncs any of the sectors that were written may be on the disk and any may not,
in whatever order, and a file that grew may have its new length or not. What was synced before stays: so while
the log is written the database is as it was, and while the database is written the log is whole.

SQLite itself has to find out what of it counts; the laws then ask what became of accepted writes.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec

SECTOR = 512
SHARES = (0.0, 0.5, 0.9, 0.99, 1.0)
"""Of the sectors that were written, how many are there."""


class Files(msgspec.Struct, frozen=True):
    """A database and its log, as bytes."""

    database: bytes
    log: bytes

    @classmethod
    def read(cls, path: Path) -> Files:
        """What is at a path now; both empty when there is nothing."""
        return cls(_content(path), _content(_log(path)))

    def write(self, path: Path) -> None:
        """Put them there as after a start: as new files, for SQLite knows the old ones as open here."""
        for part in ("", "-wal", "-shm"):
            path.with_name(path.name + part).unlink(missing_ok=True)
        path.write_bytes(self.database)
        _log(path).write_bytes(self.log)


def torn(before: Files, after: Files, chance: Random) -> Files:
    """What is left when power goes between the last sync before a commit and the next."""
    if before.database == after.database:
        return Files(before.database, _mixed(before.log, after.log, chance))
    return Files(_mixed(before.database, after.database, chance), after.log)


def _mixed(before: bytes, after: bytes, chance: Random) -> bytes:
    share = chance.choice(SHARES)
    length = len(after)
    if length > len(before):
        length = chance.choice((len(before), chance.randint(len(before), length), length))
    former = before.ljust(length, b"\0")
    pieces = []
    for at in range(0, length, SECTOR):
        new, old = after[at : at + SECTOR], former[at : at + SECTOR]
        pieces.append(new if new == old or chance.random() < share else old)
    return b"".join(pieces)[:length]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
