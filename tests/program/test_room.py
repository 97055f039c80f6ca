"""A start on a disk that can't be used waits, and does what it can meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from pathlib import Path

import pytest

from roost.host.aspect import AspectFacts, MemoryFile, TrialRunner, version_of
from roost.host.trial import Current, Memory, Version, Wanted
from roost.link import identity, node, pki, token
from roost.program import room
from roost.program.commands import _has_enrolled
from roost.program.home import Home, StartError
from roost.program.room import is_of_the_disk, when_possible
from roost.store.errors import NewerSchema, ReadFailed, Unavailable
from tests.link.test_pki import DAY, NOW


def failed(code: int) -> Unavailable:
    cause = sqlite3.OperationalError("words")
    cause.sqlite_errorcode = code
    error = ReadFailed("words")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (failed(sqlite3.SQLITE_FULL), True),
        (failed(sqlite3.SQLITE_IOERR | 10 << 8), True),
        (failed(sqlite3.SQLITE_READONLY), True),
        (failed(sqlite3.SQLITE_CORRUPT), False),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        (OSError(errno.ECONNREFUSED, "refused"), False),
        (NewerSchema("2", "1"), False),
    ],
)
def test_what_a_disk_is_to_blame_for(error: Exception, *, expected: bool) -> None:
    assert is_of_the_disk(error) is expected


async def test_it_is_tried_again_until_the_disk_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "AGAIN", 0.01)
    tries, held = 0, 0

    async def work() -> str:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise failed(sqlite3.SQLITE_FULL)
        return "open"

    async def hold() -> None:
        nonlocal held
        held += 1

    assert await when_possible(work, asyncio.Event(), hold) == "open"
    assert (tries, held) == (4, 3)


async def test_what_is_not_the_disks_fault_ends_the_start() -> None:
    async def work() -> None:
        raise NewerSchema("2", "1")

    with pytest.raises(NewerSchema):
        await when_possible(work, asyncio.Event())


async def test_who_waits_for_a_disk_can_be_stopped() -> None:
    stop = asyncio.Event()

    async def work() -> None:
        stop.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StartError, match="No space left"):
        await when_possible(work, stop)


def test_a_home_on_a_full_disk_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    home = Home(tmp_path / "home")
    home.open()
    with pytest.raises(StartError, match="already runs"):
        Home(tmp_path / "home").open()
    home.close()


@pytest.mark.parametrize(("days", "used", "expected"), [(80, "a", True), (100, "a", True), (100, "b", False)])
def test_a_token_that_was_used_is_not_tried_again_when_the_certificate_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, used: str, *, expected: bool
) -> None:
    """A unit gives its token at each start: it must not stand in the way of the renewal."""
    authority, key = pki.Authority.create("central", NOW), pki.new_key()
    identity.save(
        tmp_path,
        node=node.subcloud("harbor"),
        upper="central",
        endpoints=["192.0.2.1:7444"],
        authority=authority.certificate_pem,
        key=key,
        certificate=authority.sign_node(pki.request(key), node.subcloud("harbor"), NOW, 90 * DAY),
        now=NOW,
        token=used,
    )
    given = token.Token(endpoints=["192.0.2.1:7444"], ca=authority.pin, secret=f"a.{'x' * 32}")
    monkeypatch.setattr("roost.program.start.now", lambda: NOW + days * DAY)
    assert _has_enrolled(tmp_path, token.encode(given)) is expected


class World:
    """A target that lost what was in force, as at a restart of the machine."""

    def __init__(self) -> None:
        self.current = Current(present=False)

    async def read(self) -> Current:
        return self.current

    async def check(self, version: Version) -> None:
        return

    async def install(self, version: Version) -> None:
        self.current = Current(True, version.digest, "seen", version.content)

    def lines(self, current: Current, version: Version) -> list[str]:
        return []


async def test_what_was_in_force_is_put_back_though_that_can_not_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, world = MemoryFile(tmp_path / "aspect.json"), World()
    baseline = version_of(3, "digest", ["rules"])
    first = TrialRunner("firewall", world, file)
    facts = AspectFacts.gather(link_up=False, link_proof=None)
    known = await first._recall()
    await first._remember(Memory(baseline=baseline))
    assert known.memory != Memory(baseline=baseline)
    monkeypatch.setattr("roost.host.aspect.write_private", _full)
    runner = TrialRunner("firewall", world, file)
    outcome = await runner.hold(facts, None, None)
    assert world.current.content == ["rules"] and outcome.status.state == "applied", outcome
    outcome = await runner.reconcile(Wanted(version_of(4, "other", ["more"]), 30), facts)
    assert outcome.status.state == "pending" and world.current.content == ["rules"]


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
