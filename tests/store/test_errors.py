"""What a failure of the database is told as: one line, and of a write only where there was one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from roost.store import following
from roost.store.errors import Unavailable
from roost.store.store import Store
from roost.store.transaction import Transaction
from roost.store.writer import cause_of
from tests.support import postgresql
from tests.support.stores import opened, raw

TWO_LINES = "connection failed: refused\n\tIs the server running?"


def _fails(_tx: Transaction) -> None:
    raise OperationalError("select secret", {}, Exception(TWO_LINES))


def test_the_driver_s_words_are_one_line_without_the_statement() -> None:
    told = cause_of(OperationalError("select secret", {}, Exception(TWO_LINES)))
    assert told.startswith("connection failed: refused Is the server running?")
    assert told.isprintable() and "select" not in told


async def test_only_a_write_is_told_as_not_written(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path}/roost.db")
    try:
        with pytest.raises(Unavailable) as reading:
            await store.read(_fails)

        def write(tx: Transaction) -> None:
            tx.create(raw("Host", "one"))
            _fails(tx)

        with pytest.raises(Unavailable, match="nothing was written") as writing:
            await store.transact(write)
        assert "written" not in str(reading.value)
        assert "\n" not in str(reading.value) + str(writing.value)
    finally:
        await store.close()


async def test_a_database_that_can_not_be_opened_is_not_told_as_a_write() -> None:
    with pytest.raises(Unavailable) as opening:
        await Store.open("postgresql+psycopg://roost@127.0.0.1:1/roost")
    assert "written" not in str(opening.value)
    assert str(opening.value).isprintable()


async def test_that_the_database_is_away_and_back_is_logged_once_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connected, failures, listening = following._connected, [TWO_LINES, TWO_LINES], asyncio.Event()

    async def fails_twice(engine: Any) -> Any:
        if failures:
            raise psycopg.OperationalError(failures.pop())
        connection = await connected(engine)
        # Only now that it is connected will `follow` say so, at its next step.
        asyncio.get_running_loop().call_soon(listening.set)
        return connection

    monkeypatch.setattr(following, "_connected", fails_twice)
    with postgresql.database() as url:
        async with opened(url) as store, asyncio.timeout(60):
            await listening.wait()
            await store.transact(lambda tx: tx.create(raw("Host", "one")))
    said = capsys.readouterr().out
    assert said.count("the database is away") == 1 and said.count("the database is back") == 1
    assert "refused Is the server running?" in said
